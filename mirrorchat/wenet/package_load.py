"""WeNet's own package, imported and made to load a model; what stands in its way is moved aside from here.

Tried with the package at COMMIT, of 2025-12-19. Nothing in it is changed: names that PyTorch has dropped are there
while it is imported, and a model's `train.yaml` is completed in a folder of links that it reads instead.
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
from mirrorchat.wenet.train_yaml import read_text

COMMIT = "015469960db73eb19c49a48c020d5ac9db69bae5"
INSTALL = f"install it: .venv/bin/pip install git+https://github.com/wenet-e2e/wenet@{COMMIT}"
FILES = ("train.yaml", "final.pt", "units.txt")
CMVN_FILE = "global_cmvn"
SAMPLE_RATE = 16000

Config = dict[str, Any]
Features = Callable[[FloatArray], FloatArray]  # samples at 16 kHz in [-1, 1] to features (T, D) float32


@dataclass(frozen=True)
class PackageFiles:
    """A model as the package has loaded it: its network with its `tokenizer`, on its device, ready to `decode`."""

    folder: Path
    network: Any
    features: Features
    tokenizer: str  # its kind, as train.yaml has it


def load(name: str, models_dir: Path, device: torch.device) -> PackageFiles:
    """Return the model `name`: a folder (absolute, from `~`, or in `models_dir`), or one of the package's own names.

    One of its own names that is not on this machine is downloaded by the package, into `~/.wenet`. Raises
    ConfigurationError when the package or one of its dependencies is not installed, does not know `name`, or cannot
    load the model; ModelNotInstalled when a file is missing or cannot be downloaded.
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
            warnings.simplefilter("ignore")  # what its dependencies say of each other
            import_torchaudio()
            return importlib.import_module("wenet.cli.model")
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        raise ConfigurationError(f"WeNet's package does not import: {brief(error)}; {INSTALL}") from error


@contextmanager
def _dropped_names() -> Iterator[None]:
    """Have names in `torch.nn.modules.conv` that PyTorch has dropped from it and the package still takes from there."""
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
    folder = models_dir / Path(name).expanduser()  # an absolute one stays as it is
    if folder.is_dir():
        return folder
    hub = importlib.import_module("wenet.cli.hub").Hub
    # Each has the name of its archive, too: some of the package's own are misspelt (`whiper-tiny`).
    keys = {archive.removesuffix(".tar.gz"): key for key, archive in hub.assets.items()} | {k: k for k in hub.assets}
    keys.pop("punc", None)  # writes punctuation, hears nothing
    if name not in keys:
        known = ", ".join(sorted(keys))
        raise ConfigurationError(f"wenet:{name} is no folder ({folder}), and WeNet's package knows only {known}")
    return _download(hub, keys[name])


def _download(hub: Any, key: str) -> Path:
    try:
        return Path(hub.download_model(key))
    except Exception as error:  # requests', urllib's, and whatever an answer that it does not expect leads to
        raise ModelNotInstalled(
            f"wenet:{key} is not on this machine, and WeNet's package could not download it:"
            f" {type(error).__name__}: {brief(error)}"
        ) from error


# A model's folder


def _completed(folder: Path) -> Config:
    """Return `train.yaml` with what the package needs of it and old ones lack, without dither, and with its files here.

    Before December 2023 it had no section for the tokenizer, and named CMVN at the top level.
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
        tokenizer[key] = named if here else None  # what is not here serves to read text, not to write it
    tokenizer["symbol_table_path"] = tokenizer["symbol_table_path"] or "units.txt"


def _section(config: Config, name: str) -> Config:
    section = config.setdefault(name, {})
    if not isinstance(section, dict):
        raise ConfigurationError(f"train.yaml: {name} is not a section")
    return cast(Config, section)


def _load(package: Any, folder: Path, config: Config, device: torch.device) -> Any:
    """Let the package load the model from a folder of links in which `train.yaml` is `config`."""
    with tempfile.TemporaryDirectory(prefix="mirrorchat-wenet-") as links:
        for path in folder.iterdir():
            (Path(links) / path.name).symlink_to(path.resolve())
        (Path(links) / "train.yaml").unlink()
        (Path(links) / "train.yaml").write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                network = package.load_model(links, device=str(device))
                _ = network.tokenizer.symbol_table  # some are read when first used, and the links go
        except Exception as error:  # what a file that it does not expect leads to
            raise ConfigurationError(
                f"WeNet's package cannot load {folder}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            ) from error
    return network


def _check_cmvn(folder: Path, network: Any) -> None:
    """Raise ConfigurationError where the folder has statistics that the package, which does not say so, left out."""
    has = any(name.endswith("global_cmvn.mean") for name, _ in network.named_buffers())
    if (folder / CMVN_FILE).is_file() and not has:
        raise ConfigurationError(f"{folder / CMVN_FILE} is there, but train.yaml does not say cmvn: global_cmvn")


def _check_weights(folder: Path, network: Any) -> None:
    """Raise ConfigurationError where the encoder has weights that `final.pt` lacks: the package draws random ones."""
    stored = torch.load(folder / "final.pt", map_location="cpu", mmap=True, weights_only=True)
    drawn = [name for name, _ in network.named_parameters() if name.startswith("encoder.") and name not in stored]
    if drawn:
        raise ConfigurationError(
            f"{folder / 'final.pt'} does not belong to train.yaml: it lacks {len(drawn)} weights, {drawn[0]} the first"
        )


def _features(config: Config) -> Features:
    """Return what the package computes from a file before it recognizes, but from samples."""
    processor = importlib.import_module("wenet.dataset.processor")
    data = config["dataset_conf"]
    kind = data.get("feats_type", "fbank")
    settings = data.get(f"{kind}_conf", {})
    compute_of = getattr(processor, f"compute_{kind}")

    def compute(samples: FloatArray) -> FloatArray:
        sample = {"key": "", "wav": torch.tensor(samples).unsqueeze(0), "sample_rate": SAMPLE_RATE}
        return cast(FloatArray, compute_of(sample, **settings)["feat"].numpy())

    return compute
