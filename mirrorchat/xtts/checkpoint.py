"""The files of XTTS v2: the weights, as safetensors or as the released pickle, and the studio speakers.

This module needs torch and safetensors, but not coqui-tts. It reads other objects in a pickle as inert ones, so it
never runs code that a pickle names.
"""

import re
from collections.abc import Iterable, Mapping
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
SPEAKER_FIELDS = ("gpt_cond_latent", "speaker_embedding")
SPEAKERS_LIMIT = 256  # XTTS v2 has 58
SPEAKER_NUMBERS_LIMIT = 1 << 16  # of one tensor; XTTS v2 has 32 x 1024
SPEAKER_NAME_LIMIT_CHARS = 64

# Pickles hold more than weights: the released one coqui-tts's configuration, those of its trainer also the losses, as
# numbers of NumPy, and the state of the training. None of it is used here, so all of it becomes Inert.
INERT_PACKAGES = ("TTS", "coqpit", "datetime", "numpy", "pathlib", "trainer")
TRAINING_ONLY = ("torch_mel_spectrogram_style_encoder", "torch_mel_spectrogram_dvae", "dvae")
# Aliases of tensors in `gpt.gpt` and `gpt.mel_embedding`, and causal masks that older versions stored.
ALIASES = re.compile(r"gpt\.gpt_inference\.|gpt\.gpt\.wte\.|gpt\.gpt\.h\.\d+\.attn\.(masked_)?bias$")
OLD_WEIGHT_NORM = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Speaker:
    """The conditioning on a speaker: `gpt_cond_latent` (1, 32, 1024), `speaker_embedding` (1, 512, 1), float32."""

    gpt_cond_latent: torch.Tensor
    speaker_embedding: torch.Tensor


def read_weights(folder: Path) -> Weights:
    """Return the weights in `folder`, memory-mapped, with the parameter names of coqui-tts's XTTS.

    Writes nothing. Raises ModelNotInstalled if a file is missing, ConfigurationError if the weights are damaged or are
    not a checkpoint.
    """
    check_files(folder)
    path = weights_path(folder)
    weights = read_safetensors(path) if path.suffix == ".safetensors" else weights_in_pickle(path)
    return canonical(weights)


def check_files(folder: Path) -> None:
    """Raise ModelNotInstalled, which names the missing files, if the folder is incomplete."""
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE) if not (folder / name).is_file()]
    if not weights_path(folder).is_file():
        missing.append(f"{WEIGHTS_FILE} (or {PICKLE_FILE})")
    if missing:
        raise ModelNotInstalled(f"XTTS is not installed: {folder} lacks {', '.join(missing)}")


def weights_path(folder: Path) -> Path:
    """Return the file of the weights: the converted one if the folder has it, otherwise the released one."""
    converted = folder / WEIGHTS_FILE
    return converted if converted.is_file() else folder / PICKLE_FILE


def canonical(weights: Mapping[str, torch.Tensor]) -> Weights:
    """Return `weights` without the prefix of a trainer, training-only parts, aliases and old weight-norm names."""
    renamed = {name.removeprefix("xtts."): tensor for name, tensor in weights.items()}
    kept = {
        name: tensor
        for name, tensor in renamed.items()
        if name.split(".")[0] not in TRAINING_ONLY and not ALIASES.match(name)
    }
    return {_weight_norm_name(name): tensor for name, tensor in kept.items()}


def read_safetensors(path: Path) -> Weights:
    """Return the tensors of a safetensors file, memory-mapped. Raises ConfigurationError if it is damaged."""
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path} is damaged or cannot be read: {error}") from error


def weights_in_pickle(path: Path) -> Weights:
    """Return the weights in the released checkpoint at `path`. Raises ConfigurationError if it has none."""
    checkpoint = read_pickle(path)
    weights = checkpoint.get("model", checkpoint) if isinstance(checkpoint, Mapping) else None
    if not isinstance(weights, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ConfigurationError(f"{path} is not an XTTS checkpoint: it holds no table of weights called 'model'")
    return dict(weights)


class Inert:
    """Takes the place of an object in a pickle that is no weight. What the pickle says about it is dropped."""

    def __init__(self, *_arguments: object) -> None:
        """Drop what the pickle would make the object from."""

    def __setstate__(self, _state: object) -> None:
        """Drop the state that the pickle gives it."""


def read_pickle(path: Path) -> Any:
    """Return the content of a torch checkpoint: tensors memory-mapped, objects of INERT_PACKAGES as Inert.

    Raises ConfigurationError, before anything of it has run, if the file is damaged, or names anything but tensors,
    plain values and objects of INERT_PACKAGES.
    """
    try:
        named = get_unsafe_globals_in_checkpoint(str(path))
        refused = sorted(name for name in named if name.partition(".")[0] not in INERT_PACKAGES)
        if not refused:
            inert: list[Any] = [(Inert, name) for name in named]
            with safe_globals(inert):
                return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # a damaged pickle may raise any exception
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"
        raise ConfigurationError(f"{path} is damaged or is not a torch checkpoint: {reason}") from error
    raise ConfigurationError(f"{path} was not opened: it names code that no checkpoint needs ({refused[0][:80]})")


def speakers_path(folder: Path) -> Path:
    """Return the file of the studio speakers: the converted one if the folder has it, otherwise the released one."""
    converted = folder / SPEAKERS_FILE
    return converted if converted.is_file() else folder / SPEAKERS_PICKLE_FILE


def read_speakers(folder: Path) -> dict[str, Speaker]:
    """Return the studio speakers of the model by name; none if `folder` does not have their file.

    A speaker whose name cannot be asked for is left out. Raises ConfigurationError if the file is damaged.
    """
    path = speakers_path(folder)
    if not path.is_file():
        return {}
    tensors = read_safetensors(path) if path.suffix == ".safetensors" else speakers_in_pickle(path)
    names = sorted({key.rpartition("/")[0] for key in tensors})
    _check_speakers(path, len(names), tensors.values())
    try:
        found = {name: Speaker(*(tensors[f"{name}/{field}"].float() for field in SPEAKER_FIELDS)) for name in names}
    except KeyError:
        raise ConfigurationError(f"{path} does not hold XTTS speakers") from None
    return {name: speaker for name, speaker in found.items() if _is_usable_name(name)}


def speakers_in_pickle(path: Path) -> Weights:
    """Return the released speakers at `path` (name -> field -> tensor) as one float32 tensor for each `name/field`."""
    speakers = read_pickle(path)
    try:
        found = {f"{name}/{field}": speaker[field] for name, speaker in speakers.items() for field in SPEAKER_FIELDS}
        _check_speakers(path, len(speakers), found.values())
        return {name: tensor.float().clone(memory_format=torch.contiguous_format) for name, tensor in found.items()}
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} does not hold XTTS speakers") from error


def _check_speakers(path: Path, count: int, tensors: Iterable[torch.Tensor]) -> None:
    """Raise ConfigurationError for more than a model has, before they are copied: a pickle can hold a huge view."""
    if count > SPEAKERS_LIMIT or any(tensor.numel() > SPEAKER_NUMBERS_LIMIT for tensor in tensors):
        raise ConfigurationError(f"{path} does not hold XTTS speakers: there are too many, or they are too large")


def _is_usable_name(name: str) -> bool:
    return 0 < len(name) <= SPEAKER_NAME_LIMIT_CHARS and name == name.strip() and name.isprintable() and "/" not in name


def _weight_norm_name(name: str) -> str:
    stem, _, last = name.rpartition(".")
    return f"{stem}.{OLD_WEIGHT_NORM[last]}" if last in OLD_WEIGHT_NORM else name
