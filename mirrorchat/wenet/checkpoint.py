"""Loading of WeNet's released checkpoints: `train.yaml`, `final.pt`, `units.txt` and `global_cmvn`.

The weights come from `final.safetensors` if the folder has it, otherwise from the released `final.pt`; loading a pickle
never runs code that the pickle names. Names and shapes are compared with the network before memory is allocated for it.
A WeNet model without its CMVN loads without an error and recognizes badly. So CMVN must be in the weights or in
`global_cmvn`, and if both have it, they must agree.
"""

import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.wenet.batch import brief
from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model
from mirrorchat.wenet.train_yaml import REINSTALL, read_text, read_train_yaml

TRAIN_FILE = "train.yaml"
UNITS_FILE = "units.txt"
CMVN_FILE = "global_cmvn"
WEIGHTS_FILE = "final.safetensors"
PICKLE_FILE = "final.pt"  # as released

VARIANCE_FLOOR = 1e-20  # WeNet's
_MEAN, _ISTD = "encoder.global_cmvn.mean", "encoder.global_cmvn.istd"
# Checkpoints hold these, and nothing uses them: tables of positions (stored since 2024), and layers for an option that
# no recipe turned on (in the releases up to 2022).
_UNUSED = re.compile(
    r"encoder\.embed\.pos_enc\.pe"
    r"|decoder\.(?:left_decoder\.|right_decoder\.)?embed\.1\.pe"
    r"|encoder\.encoders\.\d+\.concat_linear\.(?:weight|bias)"
    r"|decoder\.(?:left_decoder\.|right_decoder\.)?decoders\.\d+\.concat_linear[12]\.(?:weight|bias)"
)

Weights = dict[str, Tensor]
_Stats = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]


@dataclass(frozen=True)
class Checkpoint:
    """A trained model for inference, float32 on the CPU. `tokens` are indexed by their numbers."""

    config: U2Config
    model: U2Model
    tokens: list[str]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the model in `folder`. No file stays open and none is written, so the folder may change later.

    Raises ModelNotInstalled if a file is missing. Raises ConfigurationError, which names the file and the fault, if the
    files are damaged, do not belong together, or describe a network of another family.
    """
    _check_files(folder)
    tokens = read_tokens(folder / UNITS_FILE)
    train = read_train_yaml(folder / TRAIN_FILE, tokens)
    path = weights_path(folder)
    weights = read_weights(path)
    cmvn = _choose_cmvn(folder, weights, train.config.bins, train.uses_cmvn)
    if cmvn is not None:
        weights[_MEAN], weights[_ISTD] = cmvn
    config = _settle_attention(train.config, weights)
    return Checkpoint(config, _build(path, config, weights), tokens)


def read_tokens(path: Path) -> list[str]:
    """Return the tokens of a `units.txt` (a token and its number on each line), indexed by their numbers.

    Raises ConfigurationError, naming the line, if a line has another format or a number is missing or repeated.
    """
    numbered: dict[int, str] = {}
    for position, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        token, _, number = line.rstrip("\r").replace("\t", " ").rpartition(" ")
        if not token or not number.isdecimal() or len(number) > 9 or int(number) in numbered:
            raise ConfigurationError(f"{path}, line {position}: not a token and its own number; {REINSTALL}")
        numbered[int(number)] = token
    if not numbered or sorted(numbered) != list(range(len(numbered))):
        raise ConfigurationError(f"{path}: numbers are missing; {REINSTALL}")
    return [numbered[number] for number in range(len(numbered))]


def weights_path(folder: Path) -> Path:
    """Return the file of the weights: the converted one if the folder has it, otherwise the released one."""
    converted = folder / WEIGHTS_FILE
    return converted if converted.is_file() else folder / PICKLE_FILE


def _check_files(folder: Path) -> None:
    missing = [name for name in (TRAIN_FILE, UNITS_FILE) if not (folder / name).is_file()]
    if not weights_path(folder).is_file():
        missing.append(f"{PICKLE_FILE} (or {WEIGHTS_FILE})")
    if missing:
        raise ModelNotInstalled(f"the WeNet model is not installed: {folder} lacks {' and '.join(missing)}")


# Weights


def read_weights(path: Path) -> Weights:
    """Return the tensors in `path` by name, memory-mapped, without those that the network does not use.

    Raises ConfigurationError if the file is damaged or is not a table of weights.
    """
    table = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    if not isinstance(table, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in table.items()
    ):
        raise ConfigurationError(f"{path} is not a WeNet checkpoint: it is not a table of weights; {REINSTALL}")
    return {name: tensor for name, tensor in table.items() if not _UNUSED.fullmatch(name)}


def _read_safetensors(path: Path) -> object:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError) as error:
        raise ConfigurationError(f"{path} is damaged or cannot be read: {brief(error)}; {REINSTALL}") from error


def _read_pickle(path: Path) -> object:
    try:
        # PyTorch stores everything uncompressed; a compressed file could unpack to any size.
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # a damaged pickle may raise any exception
        raise ConfigurationError(f"{path} is damaged or no torch checkpoint: {brief(error)}; {REINSTALL}") from error


def _settle_attention(config: U2Config, weights: Weights) -> U2Config:
    """Return `config` with the kind of attention that the weights have.

    Older versions of WeNet ignored `selfattention_layer_type` and chose the kind by the positions, so a conformer
    without positions may have either kind.
    """
    if config.encoder != "conformer" or config.positions != "no_pos":
        return config
    relative = "encoder.encoders.0.self_attn.linear_pos.weight" in weights
    return replace(config, attention="rel_selfattn" if relative else "selfattn")


def _build(path: Path, config: U2Config, weights: Weights) -> U2Model:
    """Return the network with `weights`. Raises ConfigurationError unless their names and shapes are all its own."""
    cmvn = GlobalCMVN(torch.zeros(config.bins), torch.ones(config.bins)) if _MEAN in weights else None
    with torch.device("meta"):  # no memory is allocated before names and shapes are checked
        model = U2Model(config, cmvn)
    expected = model.state_dict()
    _check_names(path, set(expected), set(weights))
    fitted = {name: _fit(path, name, weights[name], like) for name, like in expected.items()}
    model.load_state_dict(fitted, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _check_names(path: Path, expected: set[str], found: set[str]) -> None:
    for names, fault in ((expected - found, "lacks"), (found - expected, "holds what the network does not have:")):
        if names:
            some = ", ".join(name[:80] for name in sorted(names)[:3])
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise ConfigurationError(f"{path} {fault} {some}{more}; it is not the model of {TRAIN_FILE}; {REINSTALL}")


def _fit(path: Path, name: str, weight: Tensor, like: Tensor) -> Tensor:
    """Return a copy of `weight` in memory, converted to the type of `like`, the network's own tensor.

    Averaged checkpoints store the counters of batch norms as floats.
    """
    if weight.shape != like.shape:
        raise ConfigurationError(
            f"{path}: {name} is of shape {tuple(weight.shape)}, not {tuple(like.shape)}; "
            f"it is not the model of {TRAIN_FILE}; {REINSTALL}"
        )
    plain = weight.layout == torch.strided and weight.is_contiguous() and not weight.is_quantized
    if not plain or (like.is_floating_point() and not weight.is_floating_point()):
        raise ConfigurationError(f"{path}: {name} holds no plain floating-point numbers; {REINSTALL}")
    return weight.detach().to(like.dtype, copy=True)


# CMVN


def _choose_cmvn(folder: Path, weights: Weights, bins: int, expected: bool) -> tuple[Tensor, Tensor] | None:
    """Return the mean and inverse standard deviation (bins,) of the model's training set; None if it uses no CMVN."""
    stored = _stored_cmvn(weights_path(folder), weights, bins)
    path = folder / CMVN_FILE
    if not path.is_file():
        if expected and stored is None:
            raise ConfigurationError(
                f"{folder}: {TRAIN_FILE} asks for CMVN, and neither {CMVN_FILE} nor the weights hold any; {REINSTALL}"
            )
        return stored
    filed = read_cmvn(path, bins)
    if stored is None and not expected:
        raise ConfigurationError(f"{path} is there, but {TRAIN_FILE} asks for no CMVN; {REINSTALL}")
    if stored is not None and not all(
        torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in zip(stored, filed, strict=True)
    ):
        raise ConfigurationError(f"{path} disagrees with the CMVN in {weights_path(folder).name}; {REINSTALL}")
    return stored or filed


def _stored_cmvn(path: Path, weights: Weights, bins: int) -> tuple[Tensor, Tensor] | None:
    """Return the CMVN in the weights, or None."""
    if _MEAN not in weights and _ISTD not in weights:
        return None
    if _MEAN not in weights or _ISTD not in weights:
        raise ConfigurationError(f"{path} holds half of a CMVN; {REINSTALL}")
    mean, istd = (_fit(path, name, weights[name], torch.empty(bins)) for name in (_MEAN, _ISTD))
    if not bool((mean.isfinite() & istd.isfinite() & (istd > 0)).all()):
        raise ConfigurationError(f"{path}: its CMVN holds numbers that are not of any speech; {REINSTALL}")
    return mean, istd


def read_cmvn(path: Path, bins: int) -> tuple[Tensor, Tensor]:
    """Return the mean and inverse standard deviation (bins,) float32 of a `global_cmvn`.

    The file has sums over the training set, as JSON (`mean_stat`, `var_stat`, `frame_num`) or in Kaldi's text format
    (`[ sums count squares 0 ]`). The arithmetic and the floor are those of WeNet's `cmvn.py`. Raises ConfigurationError
    for any other content.
    """
    text = read_text(path)
    try:
        sums, squares, frames = _json_stats(text) if text.lstrip().startswith("{") else _kaldi_stats(text)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is neither WeNet's JSON nor Kaldi's text of CMVN statistics; {REINSTALL}"
        ) from error
    finite = bool(np.isfinite(sums).all() and np.isfinite(squares).all() and np.isfinite(frames))
    if sums.shape != (bins,) or squares.shape != (bins,) or not finite or frames <= 0:
        raise ConfigurationError(f"{path} does not hold sums for {bins} mel bins over some frames; {REINSTALL}")
    mean = sums / frames
    variance = np.maximum(squares / frames - mean * mean, VARIANCE_FLOOR)
    return torch.from_numpy(mean).float(), torch.from_numpy(1.0 / np.sqrt(variance)).float()


def _json_stats(text: str) -> _Stats:
    stats = json.loads(text)
    return _numbers(stats["mean_stat"]), _numbers(stats["var_stat"]), float(stats["frame_num"])


def _kaldi_stats(text: str) -> _Stats:
    """Read a matrix of two rows: sums and the number of frames, then sums of squares and a 0."""
    words = text.split()
    if len(words) < 6 or len(words) % 2 or (words[0], words[-2:]) != ("[", ["0", "]"]):
        raise ValueError("not a Kaldi matrix of two rows")
    row = (len(words) - 2) // 2
    sums, squares = _numbers(words[1 : 1 + row]), _numbers(words[1 + row : 1 + 2 * row])
    return sums[:-1], squares[:-1], float(sums[-1])


def _numbers(values: Sequence[object]) -> npt.NDArray[np.float64]:
    return np.array(values, dtype=np.float64)
