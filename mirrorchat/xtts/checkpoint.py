"""XTTS v2's files on disk: the weights as tensors (safetensors, or the released pickle), and the studio speakers.

Needs torch and safetensors, not coqui-tts: the configuration objects inside the released pickle are read as inert
records, so nothing of what a pickle names is ever run.
"""

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mirrorchat.errors import ConfigurationError, ModelNotInstalled

CONFIG_FILE = "config.json"
VOCABULARY_FILE = "vocab.json"
WEIGHTS_FILE = "model.safetensors"
PICKLE_FILE = "model.pth"  # as released
SPEAKERS_FILE = "speakers_xtts.safetensors"
SPEAKERS_PICKLE_FILE = "speakers_xtts.pth"  # as released

# What the released pickle holds beside tensors: its training configuration, under the names of two coqui-tts versions.
CONFIGURATION_CLASSES = (
    "TTS.config.shared_configs.BaseDatasetConfig",
    "TTS.tts.configs.xtts_config.XttsArgs",
    "TTS.tts.configs.xtts_config.XttsAudioConfig",
    "TTS.tts.configs.xtts_config.XttsConfig",
    "TTS.tts.models.xtts.XttsArgs",
    "TTS.tts.models.xtts.XttsAudioConfig",
)
TRAINING_ONLY = ("torch_mel_spectrogram_style_encoder", "torch_mel_spectrogram_dvae", "dvae")
# Second names of tensors that `gpt.gpt` and `gpt.mel_embedding` hold, and causal masks that older versions stored.
ALIASES = re.compile(r"gpt\.gpt_inference\.|gpt\.gpt\.wte\.|gpt\.gpt\.h\.\d+\.attn\.(masked_)?bias$")
OLD_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Speaker:
    """A speaker's conditioning: `gpt_cond_latent` (1, 32, 1024) and `speaker_embedding` (1, 512, 1), both float32."""

    gpt_cond_latent: torch.Tensor
    speaker_embedding: torch.Tensor


def read_weights(folder: Path) -> Weights:
    """Return the weights in `folder` under the names that coqui-tts's XTTS gives its parameters, memory-mapped.

    Nothing in the folder is written. Raises ModelNotInstalled when a file is missing, ConfigurationError when the
    weights are damaged or are not a checkpoint.
    """
    check_files(folder)
    path = weights_path(folder)
    weights = read_safetensors(path) if path.suffix == ".safetensors" else weights_in_pickle(path)
    return canonical(weights)


def check_files(folder: Path) -> None:
    """Raise ModelNotInstalled, naming the folder and what is missing from it."""
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE) if not (folder / name).is_file()]
    if not weights_path(folder).is_file():
        missing.append(f"{WEIGHTS_FILE} (or {PICKLE_FILE})")
    if missing:
        raise ModelNotInstalled(f"XTTS is not installed: {folder} lacks {', '.join(missing)}")


def weights_path(folder: Path) -> Path:
    """Return the file that the weights are read from: the converted one where there is one."""
    converted = folder / WEIGHTS_FILE
    return converted if converted.is_file() else folder / PICKLE_FILE


def canonical(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Return `weights` without a trainer's prefix, training-only parts, second names and old weight-norm names."""
    renamed = {name.removeprefix("xtts."): tensor for name, tensor in weights.items()}
    kept = {
        name: tensor
        for name, tensor in renamed.items()
        if name.split(".")[0] not in TRAINING_ONLY and not ALIASES.match(name)
    }
    return {_weight_norm_name(name): tensor for name, tensor in kept.items()}


def read_safetensors(path: Path) -> Weights:
    """Return the tensors of a safetensors file, memory-mapped. Raises ConfigurationError when it is damaged."""
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path} is damaged or cannot be read: {error}") from error


def weights_in_pickle(path: Path) -> Weights:
    """Return the table of weights in the released checkpoint at `path`. Raises ConfigurationError when it has none."""
    checkpoint = read_pickle(path)
    weights = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ConfigurationError(f"{path} is not an XTTS checkpoint: it holds no table of weights called 'model'")
    return dict(weights)


def read_pickle(path: Path) -> Any:
    """Return what a torch checkpoint holds, tensors memory-mapped, its configuration objects as inert records.

    Raises ConfigurationError when the file is damaged, or names anything but tensors, plain values and
    CONFIGURATION_CLASSES; then nothing of it has been run.
    """
    inert: list[Any] = [(type(name, (), {"__module__": __name__}), name) for name in CONFIGURATION_CLASSES]
    try:
        with safe_globals(inert):
            refused = sorted(get_unsafe_globals_in_checkpoint(str(path)))
            if refused:
                raise ConfigurationError(
                    f"{path} was not opened: it names code that no checkpoint needs ({refused[0]})"
                )
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, OSError) as error:
        raise ConfigurationError(f"{path} is damaged or is not a torch checkpoint: {error}") from error


def read_speakers(folder: Path) -> dict[str, Speaker]:
    """Return the studio speakers that come with the model, by name; empty when their file is not in `folder`."""
    if (folder / SPEAKERS_FILE).is_file():
        return _speakers_from(read_safetensors(folder / SPEAKERS_FILE))
    path = folder / SPEAKERS_PICKLE_FILE
    return _speakers_from(speakers_in_pickle(path)) if path.is_file() else {}


def speakers_in_pickle(path: Path) -> Weights:
    """Return the released speakers at `path` (name -> field -> tensor) as one float32 tensor for each `name/field`."""
    speakers = read_pickle(path)
    fields = ("gpt_cond_latent", "speaker_embedding")
    try:
        return {
            f"{name}/{field}": speaker[field].float().clone(memory_format=torch.contiguous_format)
            for name, speaker in speakers.items()
            for field in fields
        }
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} does not hold XTTS speakers") from error


def _speakers_from(tensors: Weights) -> dict[str, Speaker]:
    names = sorted({key.rpartition("/")[0] for key in tensors})
    return {name: Speaker(tensors[f"{name}/gpt_cond_latent"], tensors[f"{name}/speaker_embedding"]) for name in names}


def _weight_norm_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{OLD_WEIGHT_NORM[last]}" if last in OLD_WEIGHT_NORM else name
