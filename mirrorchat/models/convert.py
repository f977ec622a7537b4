"""The conversion of the released checkpoints of XTTS and WeNet from pickles to safetensors."""

import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.models.store import sync_to_disk
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
    """Write the released XTTS in folder `source` to folder `destination` in formats that load without a pickle.

    `model.pth` and the optional `speakers_xtts.pth` become safetensors; `config.json` and `vocab.json` are copied.
    `destination` may be `source`, whose own files never change. All files are written to a temporary folder first and
    moved into place when they are complete, the weights last: a folder with `model.safetensors` is complete.

    Raises ModelNotInstalled when a file is missing from `source`. Raises ConfigurationError when a pickle is damaged
    or names anything but tensors and coqui-tts's configuration classes (none of its code runs), or when `destination`
    is full or cannot be written; `destination` then stays as it was.
    """
    missing = [name for name in (CONFIG_FILE, VOCABULARY_FILE, PICKLE_FILE) if not (source / name).is_file()]
    if missing:
        raise ModelNotInstalled(f"there is no released XTTS to convert: {source} lacks {', '.join(missing)}")
    tables = {WEIGHTS_FILE: canonical(weights_in_pickle(source / PICKLE_FILE))}
    speakers_path = source / SPEAKERS_PICKLE_FILE
    if speakers_path.is_file() and (speakers := speakers_in_pickle(speakers_path)):
        tables[SPEAKERS_FILE] = speakers
    mode = stat.S_IMODE((source / PICKLE_FILE).stat().st_mode)
    _write(source, destination, (CONFIG_FILE, VOCABULARY_FILE), tables, mode)


def convert_wenet_checkpoint(source: Path, destination: Path) -> None:
    """Write the released WeNet checkpoint in folder `source` to another folder, which then loads without a pickle.

    `final.pt` (or an earlier `final.safetensors`) becomes `final.safetensors`, which includes the CMVN of
    `global_cmvn`; `train.yaml`, `units.txt` and `global_cmvn` are copied. The whole model is loaded first, so that a
    model that does not load is not written. The weights are moved into place last.

    Raises ModelNotInstalled when a file is missing from `source`, and ConfigurationError when a file is damaged, the
    files do not belong together, or `destination` cannot be written.
    """
    weights = wenet_checkpoint.read_checkpoint(source).model.state_dict()
    copied = (wenet_checkpoint.TRAIN_FILE, wenet_checkpoint.UNITS_FILE, wenet_checkpoint.CMVN_FILE)
    _write(source, destination, copied, {wenet_checkpoint.WEIGHTS_FILE: weights}, mode=0o644)


def _write(source: Path, destination: Path, copied: Sequence[str], tables: Mapping[str, Weights], mode: int) -> None:
    """Copy the files `copied`, write each of `tables`, and move all into place, the first table last."""
    try:
        destination.mkdir(parents=True, exist_ok=True)
        _check_room(destination, tables.values())
        with tempfile.TemporaryDirectory(prefix=".converting-", dir=destination) as temporary:
            folder = Path(temporary)
            for name in copied:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
            for name, weights in tables.items():
                safetensors.torch.save_file(_writable(weights), folder / name)
            for path in folder.iterdir():
                path.chmod(mode)  # safetensors writes files that only their owner can read
                sync_to_disk(path)
            _move_into_place(folder, destination, last=next(iter(tables)))
    except (OSError, safetensors.SafetensorError) as error:
        raise ConfigurationError(f"{destination} could not be written: {error}") from error


def _check_room(destination: Path, tables: Iterable[Weights]) -> None:
    needed = sum(tensor.nbytes for table in tables for tensor in table.values())
    free = shutil.disk_usage(destination).free
    if needed > free:
        raise ConfigurationError(f"{destination} has {free / 1e9:.1f} GB free; the model needs {needed / 1e9:.1f} GB")


def _writable(weights: Weights) -> Weights:
    """Return `weights` as safetensors accepts them: contiguous tensors that share no memory."""
    seen: set[int] = set()
    separate: Weights = {}
    for name, tensor in weights.items():
        storage = tensor.untyped_storage().data_ptr()
        whole = tensor.is_contiguous() and storage not in seen
        separate[name] = tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
        seen.add(storage)
    return separate


def _move_into_place(folder: Path, destination: Path, *, last: str) -> None:
    """Move every file, `last` as the last one. A file that `destination` has with the same text is not touched."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        target = destination / path.name
        if path.suffix == ".safetensors" or not target.is_file() or path.read_bytes() != target.read_bytes():
            path.replace(target)
