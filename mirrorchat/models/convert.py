"""Model files: conversion of the released pickles, XTTS's and WeNet's, to safetensors."""

import os
import shutil
import tempfile
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.wenet import checkpoint as wenet_checkpoint
from mirrorchat.xtts.checkpoint import (
    CONFIG_FILE,
    PICKLE_FILE,
    SPEAKERS_FILE,
    SPEAKERS_PICKLE_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Weights,
    canonical,
    speakers_in_pickle,
    weights_in_pickle,
)


def convert_checkpoint(source: Path, destination: Path) -> None:
    """Write the released XTTS in folder `source` to folder `destination` in the formats that load without a pickle.

    `model.pth` and, where it is there, `speakers_xtts.pth` become safetensors; `config.json` and `vocab.json` are
    copied. `destination` may be `source`. Everything is written aside first and moved into place when it is whole,
    the weights last, so that a folder with `model.safetensors` is complete; `source`'s own files are never changed.

    Raises ModelNotInstalled when a file is missing from `source`, and ConfigurationError when a pickle is damaged or
    names anything but tensors and coqui-tts's configuration classes (nothing of it is run), or when `destination`
    has no room or cannot be written; then `destination` is as it was.
    """
    _check_source(source)
    weights = canonical(weights_in_pickle(source / PICKLE_FILE))
    speakers_path = source / SPEAKERS_PICKLE_FILE
    speakers = speakers_in_pickle(speakers_path) if speakers_path.is_file() else {}
    try:
        destination.mkdir(parents=True, exist_ok=True)
        _check_room(destination, weights, speakers)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=destination) as aside:
            _write_files(source, Path(aside), weights, speakers)
            _move_into_place(Path(aside), destination)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigurationError(f"{destination} could not be written: {error}") from error


def convert_wenet_checkpoint(source: Path, destination: Path) -> None:
    """Write the released WeNet checkpoint in folder `source` to the folder `destination`, which loads without a pickle.

    `final.pt` becomes `final.safetensors`, with the CMVN of `global_cmvn` in it; `train.yaml`, `units.txt` and
    `global_cmvn` are copied, and a `final.safetensors` is taken as `final.pt` is. The whole model is read first, so
    that what does not load is not written. `destination` is another folder; its file of weights is written last.

    Raises ModelNotInstalled when a file is missing from `source`, and ConfigurationError when one is damaged, they do
    not belong together, or `destination` cannot be written.
    """
    weights = wenet_checkpoint.read_checkpoint(source).model.state_dict()
    kept = (wenet_checkpoint.TRAIN_FILE, wenet_checkpoint.UNITS_FILE, wenet_checkpoint.CMVN_FILE)
    try:
        destination.mkdir(parents=True, exist_ok=True)
        _check_room(destination, weights)
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=destination) as aside:
            for name in kept:
                if (source / name).is_file():
                    shutil.copyfile(source / name, Path(aside) / name)
            path = Path(aside) / wenet_checkpoint.WEIGHTS_FILE
            safetensors.torch.save_file(_writable(weights), path)
            path.chmod(0o644)  # safetensors writes files that only their owner can read
            for file in sorted(Path(aside).iterdir(), key=lambda file: file == path):
                _to_disk(file)
                file.replace(destination / file.name)
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigurationError(f"{destination} could not be written: {error}") from error


def _check_source(source: Path) -> None:
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE, PICKLE_FILE) if not (source / name).is_file()]
    if missing:
        raise ModelNotInstalled(f"there is no released XTTS to convert: {source} lacks {', '.join(missing)}")


def _check_room(destination: Path, *tables: Weights) -> None:
    needed = sum(tensor.nbytes for table in tables for tensor in table.values())
    free = shutil.disk_usage(destination).free
    if needed > free:
        raise ConfigurationError(f"{destination} has {free / 1e9:.1f} GB free; the model needs {needed / 1e9:.1f} GB")


def _write_files(source: Path, aside: Path, weights: Weights, speakers: Weights) -> None:
    for name in (CONFIG_FILE, VOCABULARY_FILE):
        shutil.copyfile(source / name, aside / name)
    if speakers:
        safetensors.torch.save_file(speakers, aside / SPEAKERS_FILE)
    safetensors.torch.save_file(_writable(weights), aside / WEIGHTS_FILE)
    for path in aside.iterdir():
        shutil.copymode(source / PICKLE_FILE, path)  # safetensors writes files that only their owner can read
        _to_disk(path)


def _writable(weights: Weights) -> Weights:
    """Return `weights` as safetensors takes them: contiguous, none a view into another's memory."""
    seen: set[int] = set()
    separate: Weights = {}
    for name, tensor in weights.items():
        storage = tensor.untyped_storage().data_ptr()
        whole = tensor.is_contiguous() and storage not in seen
        separate[name] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
    return separate


def _to_disk(path: Path) -> None:
    """Wait until the file is on the disk: after a power cut, a renamed file could otherwise be empty."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _move_into_place(aside: Path, destination: Path) -> None:
    """Rename every file, the weights last. Files that `destination` already has in equal form stay untouched."""
    for path in sorted(aside.iterdir(), key=lambda path: path.name == WEIGHTS_FILE):
        target = destination / path.name
        if path.name in (CONFIG_FILE, VOCABULARY_FILE) and _same(path, target):
            continue
        path.replace(target)


def _same(first: Path, second: Path) -> bool:
    return second.is_file() and first.read_bytes() == second.read_bytes()
