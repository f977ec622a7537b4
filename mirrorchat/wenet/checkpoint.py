"""WeNet's released checkpoints, read into the network: `train.yaml`, `final.pt`, `units.txt` and `global_cmvn`.

The weights come from `final.safetensors` where there is one, else from the released `final.pt`; nothing that a pickle
names is ever run. Names and shapes are compared with the network before any memory is taken for it. CMVN, whose silent
loss is the classic way to load a WeNet model wrongly, must be in the weights or in `global_cmvn`, and where it is in
both they must agree.
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
from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model
from mirrorchat.wenet.train_yaml import REINSTALL, read_text, read_train_yaml

TRAIN_FILE = "train.yaml"
UNITS_FILE = "units.txt"
CMVN_FILE = "global_cmvn"
WEIGHTS_FILE = "final.safetensors"
PICKLE_FILE = "final.pt"  # as released

VARIANCE_FLOOR = 1e-20  # WeNet's
_MEAN, _ISTD = "encoder.global_cmvn.mean", "encoder.global_cmvn.istd"
# In a checkpoint and in no computation: tables of positions (stored since 2024), and layers that WeNet once made for an
# option that no recipe turned on (in the releases up to 2022).
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
    """A model as it was trained: float32, on the CPU, for inference. `tokens` are indexed by their numbers."""

    config: U2Config
    model: U2Model
    tokens: list[str]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Return the model in `folder`, which may change afterwards: nothing of it stays open, and nothing is written.

    Raises ModelNotInstalled when a file is missing, and ConfigurationError, naming the file and what in it, when the
    files are damaged, do not belong together, or describe a network that is not of this family.
    """
    _check_files(folder)
    tokens = read_tokens(folder / UNITS_FILE)
    train = read_train_yaml(folder / TRAIN_FILE, tokens)
    path = weights_path(folder)
    weights = read_weights(path)
    cmvn = _choose_cmvn(folder, weights, train.config.bins, train.wants_cmvn)
    if cmvn is not None:
        weights[_MEAN], weights[_ISTD] = cmvn
    config = _settle_attention(train.config, weights)
    return Checkpoint(config, _build(path, config, weights), tokens)


def read_tokens(path: Path) -> list[str]:
    """Return the tokens of a `units.txt` (one `token number` a line), indexed by their numbers.

    Raises ConfigurationError, naming the line, when a line is not of that form or a number is missing or doubled.
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
    """Return the file that the weights are read from: the converted one where there is one."""
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
    """Return the tensors in `path` by name, memory-mapped, without those that nothing computes with.

    Raises ConfigurationError when the file is damaged or is no table of weights.
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
        raise ConfigurationError(f"{path} is damaged or cannot be read: {_brief(error)}; {REINSTALL}") from error


def _read_pickle(path: Path) -> object:
    try:
        # PyTorch stores everything as it is; what is compressed could unpack to any size.
        with zipfile.ZipFile(path) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed")
        return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # what a spoilt pickle raises depends on where it is spoilt
        raise ConfigurationError(f"{path} is damaged or no torch checkpoint: {_brief(error)}; {REINSTALL}") from error


def _settle_attention(config: U2Config, weights: Weights) -> U2Config:
    """Return `config` with the attention that the weights are of.

    WeNet once chose it by the positions and ignored `selfattention_layer_type`, so a conformer without positions may
    have either.
    """
    if config.encoder != "conformer" or config.positions != "no_pos":
        return config
    relative = "encoder.encoders.0.self_attn.linear_pos.weight" in weights
    return replace(config, attention="rel_selfattn" if relative else "selfattn")


def _build(path: Path, config: U2Config, weights: Weights) -> U2Model:
    """Return the network with `weights`, which must be exactly its own."""
    cmvn = GlobalCMVN(torch.zeros(config.bins), torch.ones(config.bins)) if _MEAN in weights else None
    with torch.device("meta"):  # no memory is taken before names and shapes are known to be right
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
    """Return a copy of `weight`, away from its file, in the type of the network's own, `like`.

    Averaged checkpoints hold batch norm's counters as floats.
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


def _choose_cmvn(folder: Path, weights: Weights, bins: int, wanted: bool) -> tuple[Tensor, Tensor] | None:
    """Return the mean and inverse standard deviation (bins,) that the model was trained with, or None for none."""
    stored = _stored_cmvn(weights_path(folder), weights, bins)
    path = folder / CMVN_FILE
    if not path.is_file():
        if wanted and stored is None:
            raise ConfigurationError(
                f"{folder}: {TRAIN_FILE} asks for CMVN, and neither {CMVN_FILE} nor the weights hold any; {REINSTALL}"
            )
        return stored
    filed = read_cmvn(path, bins)
    if stored is None and not wanted:
        raise ConfigurationError(f"{path} is there, but {TRAIN_FILE} asks for no CMVN; {REINSTALL}")
    if stored is not None and not all(
        torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5) for ours, theirs in zip(stored, filed, strict=True)
    ):
        raise ConfigurationError(f"{path} disagrees with the CMVN in {weights_path(folder).name}; {REINSTALL}")
    return stored or filed


def _stored_cmvn(path: Path, weights: Weights, bins: int) -> tuple[Tensor, Tensor] | None:
    """Return the CMVN in the weights, if they hold one."""
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

    The file is JSON (`mean_stat`, `var_stat`, `frame_num`) or Kaldi's text (`[ sums count squares 0 ]`): sums over the
    training set, whose arithmetic and floor are those of WeNet's `cmvn.py`. Raises ConfigurationError for any other.
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
    """Read a matrix of two rows: the sums and the count of frames, and the sums of squares and a 0."""
    words = text.split()
    if len(words) < 6 or len(words) % 2 or (words[0], words[-2:]) != ("[", ["0", "]"]):
        raise ValueError("not a Kaldi matrix of two rows")
    row = (len(words) - 2) // 2
    sums, squares = _numbers(words[1 : 1 + row]), _numbers(words[1 + row : 1 + 2 * row])
    return sums[:-1], squares[:-1], float(sums[-1])


def _numbers(values: Sequence[object]) -> npt.NDArray[np.float64]:
    return np.array(values, dtype=np.float64)


def _brief(error: Exception) -> str:
    """Return the first line of a PyTorch error, which goes on at length."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
