"""A tiny XTTS checkpoint made by scripts/make_tiny_xtts.py, and coqui-tts's own loader for it, to compare with."""

import functools
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import safetensors.torch
import torch
import TTS.tts.layers.xtts.hifigan_decoder as coqui_vocoder
import TTS.tts.models.xtts as coqui_xtts
from make_tiny_xtts import TINY_SIZES

from mirrorchat.audio.samples import Audio
from mirrorchat.xtts.checkpoint import PICKLE_FILE, WEIGHTS_FILE, read_safetensors
from mirrorchat.xtts.model import quiet_gpt_config


def pickled_copy(folder: Path, destination: Path, **beside_model: Any) -> Path:
    """Copy a converted checkpoint to `destination` with its weights as model.pth, as a release has them."""
    shutil.copytree(folder, destination)
    weights = read_safetensors(destination / WEIGHTS_FILE)
    torch.save({"model": weights, **beside_model}, destination / PICKLE_FILE)
    (destination / WEIGHTS_FILE).unlink()
    return destination


def replace_weights(folder: Path, changes: Mapping[str, torch.Tensor | None]) -> None:
    """Put other tensors into a converted checkpoint, or take out those that are None."""
    weights: dict[str, Any] = {**safetensors.torch.load((folder / WEIGHTS_FILE).read_bytes()), **changes}
    kept = {name: tensor for name, tensor in weights.items() if tensor is not None}
    safetensors.torch.save_file(kept, folder / WEIGHTS_FILE)


@contextmanager
def stock_model(folder: Path, reference: Audio) -> Iterator[coqui_xtts.Xtts]:
    """Load `folder` (with model.pth) through coqui-tts's own code, for which every audio file is `reference`.

    coqui-tts fixes the widths of its vocoder and speaker encoder in code, so they are narrowed here.
    """
    sizes = TINY_SIZES
    narrow_encoder = functools.partial(
        coqui_vocoder.ResNetSpeakerEncoder, layers=list(sizes.blocks), num_filters=list(sizes.filters)
    )
    narrow_vocoder = functools.partial(coqui_vocoder.HifiDecoder, upsample_initial_channel_decoder=sizes.channels)
    wave = torch.from_numpy(reference.resample(22_050).samples.copy())[None]
    config = coqui_xtts.XttsConfig()
    config.load_json(str(folder / "config.json"))
    with (
        mock.patch.object(coqui_vocoder, "ResNetSpeakerEncoder", narrow_encoder),
        mock.patch.object(coqui_xtts, "HifiDecoder", narrow_vocoder),
        mock.patch.object(coqui_xtts, "load_audio", lambda _path, _rate: wave.clone()),
        quiet_gpt_config(),
    ):
        model = coqui_xtts.Xtts(config)
        model.load_checkpoint(config, checkpoint_dir=folder, eval=True)
        yield model
