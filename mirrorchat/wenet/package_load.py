"""Loading of models with WeNet's own package, and the workarounds that the package needs.

Tested with the package at COMMIT, of 2025-12-19, which stays unchanged. During its import, names that PyTorch has
removed exist again. During the loading of a model, the package reads a folder of links with a completed `train.yaml`.
"""

import importlib
import importlib.util
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import yaml

from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.hardware.torchaudio_import import import_torchaudio
from mirrorchat.wenet.batch import brief
from mirrorchat.wenet.ctc.search import FloatArray
from mirrorchat.wenet.features import SAMPLE_RATE
from mirrorchat.wenet.train_yaml import read_text

COMMIT = "015469960db73eb19c49a48c020d5ac9db69bae5"
INSTALL = f"install it: .venv/bin/pip install git+https://github.com/wenet-e2e/wenet@{COMMIT}"
FILES = ("train.yaml", "final.pt", "units.txt")
CMVN_FILE = "global_cmvn"

Config = dict[str, Any]
Features = Callable[[FloatArray], FloatArray]  # samples at 16 kHz in [-1, 1] to features (T, D) float32


@dataclass(frozen=True)
class PackageFiles:
    """A model that the package has loaded: the network, on its device and with its `tokenizer`, ready to `decode`."""

    folder: Path
    network: Any
    features: Features
    tokenizer: str  # its kind in train.yaml


def load(name: str, models_dir: Path, device: torch.device) -> PackageFiles:
    """Return the model `name`: a folder (absolute, from `~`, or in `models_dir`), or a name that the package knows.

    The package downloads a model that it knows and does not find into `~/.wenet`. Raises ConfigurationError if the
    package or one of its dependencies is not installed, does not know `name`, or cannot load the model;
    ModelNotInstalled if a file is missing or cannot be downloaded.
    """
    package = _import_package()
    folder = _find(name, models_dir)
    if missing := [file for file in FILES if not (folder / file).is_file()]:
        raise ModelNotInstalled(f"wenet:{name} is not installed: {folder} lacks {' and '.join(missing)}")
    config = _completed(folder)
    network = _load(package, folder, config, device)
    _check_cmvn(folder, network)
    _check_weights(folder, network)
    return PackageFiles(folder, network.eval().requires_grad_(False), _features(config), str(config["tokenizer"]))


# The package


def _import_package() -> Any:
    if not importlib.util.find_spec("wenet"):
        raise ConfigurationError(f"WeNet's package is not installed; {INSTALL}")
    try:
        with _dropped_names(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its dependencies warn about each other
            import_torchaudio()
            return importlib.import_module("wenet.cli.model")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise ConfigurationError(f"WeNet's package does not import: {brief(error)}; {INSTALL}") from error


@contextmanager
def _dropped_names() -> Iterator[None]:
    """Put names back into `torch.nn.modules.conv` that PyTorch has removed and the package still imports."""
    names = vars(torch.nn.modules.conv)
    dropped = {"Union": typing.Union, "Optional": typing.Optional, "Tensor": torch.Tensor}
    added = {name: value for name, value in dropped.items() if name not in names}
    names.update(added)
    try:
        yield
    finally:
        for name in added:
            del names[name]


def _find(name: str, models_dir: Path) -> Path:
    folder = models_dir / Path(name).expanduser()  # an absolute path replaces `models_dir`
    if folder.is_dir():
        return folder
    hub = importlib.import_module("wenet.cli.hub").Hub
    # Models are known by the name of their archive, too: some names of the package are misspelt (`whiper-tiny`).
    keys = {archive.removesuffix(".tar.gz"): key for key, archive in hub.assets.items()} | {k: k for k in hub.assets}
    keys.pop("punc", None)  # adds punctuation to text and recognizes nothing
    if name not in keys:
        known = ", ".join(sorted(keys))
        raise ConfigurationError(f"wenet:{name} is no folder ({folder}), and WeNet's package knows only {known}")
    return _download(hub, keys[name])


def _download(hub: Any, key: str) -> Path:
    try:
        return Path(hub.download_model(key))
    except Exception as error:  # of requests or urllib, or any other after an unexpected answer
        raise ModelNotInstalled(
            f"wenet:{key} is not on this machine, and WeNet's package could not download it:"
            f" {type(error).__name__}: {brief(error)}"
        ) from error


# A model's folder


def _completed(folder: Path) -> Config:
    """Return the content of `train.yaml`, completed for the package: new keys, files in this folder, and no dither.

    Before December 2023 there was no section for the tokenizer, and CMVN stood at the top level.
    """
    try:
        config = yaml.safe_load(read_text(folder / "train.yaml"))
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"{folder / 'train.yaml'} is not YAML") from error
    if not isinstance(config, dict):
        raise ConfigurationError(f"{folder / 'train.yaml'} has no settings")
    _complete_tokenizer(folder, config)
    if not (folder / CMVN_FILE).is_file():
        if config.get("cmvn") == "global_cmvn" or config.get("cmvn_file"):
            raise ModelNotInstalled(f"{folder} lacks {CMVN_FILE}, which its train.yaml asks for")
    else:
        config.setdefault("cmvn", "global_cmvn")
        config["cmvn_conf"] = {"is_json_cmvn": read_text(folder / CMVN_FILE).lstrip().startswith("{")}
    config.setdefault("model_conf", {})
    data = _section(config, "dataset_conf")
    for kind in ("fbank_conf", "mfcc_conf"):
        if kind in data:
            _section(data, kind)["dither"] = 0.0
    return config


def _complete_tokenizer(folder: Path, config: Config) -> None:
    config.setdefault("tokenizer", "char")
    tokenizer = _section(config, "tokenizer_conf")
    for key in ("symbol_table_path", "non_lang_syms_path", "bpe_path", "seg_dict_path"):
        named = tokenizer.get(key)
        here = isinstance(named, str) and (folder / Path(named).name).is_file()
        tokenizer[key] = named if here else None  # a file that is missing here serves to read text only
    tokenizer["symbol_table_path"] = tokenizer["symbol_table_path"] or "units.txt"


def _section(config: Config, name: str) -> Config:
    section = config.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigurationError(f"train.yaml: {name} is not a section")
    return cast(Config, section)


def _load(package: Any, folder: Path, config: Config, device: torch.device) -> Any:
    """Let the package load the model from a folder of links to its files, with `config` as `train.yaml`."""
    with tempfile.TemporaryDirectory(prefix="mirrorchat-wenet-") as links:
        for path in folder.iterdir():
            (Path(links) / path.name).symlink_to(path.resolve())
        (Path(links) / "train.yaml").unlink()
        (Path(links) / "train.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = package.load_model(links, device=str(device))
                _ = network.tokenizer.symbol_table  # a tokenizer may read its files only at first use
        except Exception as error:  # an unexpected file may raise any exception
            raise ConfigurationError(
                f"WeNet's package cannot load {folder}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
    return network


def _check_cmvn(folder: Path, network: Any) -> None:
    """Raise ConfigurationError if the folder has CMVN statistics that the package silently ignored."""
    has = any(name.endswith("global_cmvn.mean") for name, _ in network.named_buffers())
    if (folder / CMVN_FILE).is_file() and not has:
        raise ConfigurationError(f"{folder / CMVN_FILE} is there, but train.yaml does not say cmvn: global_cmvn")


def _check_weights(folder: Path, network: Any) -> None:
    """Raise ConfigurationError if `final.pt` lacks weights of the encoder, which the package leaves random."""
    stored = torch.load(folder / "final.pt", map_location="cpu", mmap=True, weights_only=True)
    lost = [name for name, _ in network.named_parameters() if name.startswith("encoder.") and name not in stored]
    if lost:
        raise ConfigurationError(
            f"{folder / 'final.pt'} does not belong to train.yaml: it lacks {len(lost)} weights, {lost[0]} the first"
        )


def _features(config: Config) -> Features:
    """Return the package's feature extraction, for samples instead of files."""
    processor = importlib.import_module("wenet.dataset.processor")
    data = config["dataset_conf"]
    kind = data.get("feats_type", "fbank")
    settings = data.get(f"{kind}_conf", {})
    compute_of = getattr(processor, f"compute_{kind}")

    def compute(samples: FloatArray) -> FloatArray:
        sample = {"key": "", "wav": torch.tensor(samples).unsqueeze(0), "sample_rate": SAMPLE_RATE}
        return cast(FloatArray, compute_of(sample, **settings)["feat"].numpy())

    return compute
