"""Which engine `settings` mean at each stage, and why; nothing is loaded, and no heavy package is imported."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError
from mirrorchat.settings import Settings

WENET_FILES = ("final.pt or final.safetensors or final.zip", "units.txt")
WENET_PACKAGES = ("torch", "kaldi_native_fbank")
OWN_PACKAGE = "wenet:"  # what follows is a model of WeNet's own package
XTTS_FILES = ("config.json", "vocab.json", "model.safetensors")
XTTS_PACKAGES = ("torch", "torchaudio", "TTS", "transformers")
NAMED = "named in the settings"
FULL_HINT = "{} is not installed: run scripts/serve --full"
INSTALL_HINT = "run .venv/bin/mirrorchat models install {}"


@dataclass(frozen=True)
class Chosen:
    """An engine's name, why it was chosen, and the folder of its weights, be they there or not."""

    name: str
    reason: str
    folder: Path


def chosen_recognizer(settings: Settings, language: Language) -> Chosen:
    """Return which recognizer hears `language`: `wenet`, `wenet:NAME` or `embedded`."""
    folder = settings.models_dir / f"wenet-{language.code}"
    return _choose(settings.recognizer[language.value], "wenet", missing(folder, WENET_FILES, WENET_PACKAGES), folder)


def chosen_synthesizer(settings: Settings, language: Language) -> Chosen:
    """Return which synthesizer speaks `language`: `xtts` or `embedded`."""
    folder = settings.models_dir / "xtts-v2"
    return _choose(settings.synthesizer[language.value], "xtts", missing(folder, XTTS_FILES, XTTS_PACKAGES), folder)


def missing(folder: Path, files: Sequence[str], packages: Sequence[str]) -> str:
    """Return what an engine lacks, weights first, or an empty text."""
    if absent := absent_files(folder, files):
        return f"no {', '.join(absent)} in {folder}: {INSTALL_HINT.format(folder.name)}"
    absent = absent_packages(packages)
    return f"{folder} is there, but {FULL_HINT.format(', '.join(absent))}" if absent else ""


def absent_files(folder: Path, files: Sequence[str]) -> list[str]:
    """Return those of `files` that are not in `folder`."""
    return [name for name in files if not _is_present(folder, name)]


def absent_packages(packages: Sequence[str]) -> list[str]:
    """Return those of `packages` that are not installed."""
    return [name for name in packages if not importlib.util.find_spec(name)]


def require_packages(engine: str, packages: Sequence[str]) -> None:
    """Raise ConfigurationError, naming those of `packages` that are not installed."""
    if absent := absent_packages(packages):
        raise ConfigurationError(f"engine {engine}: {FULL_HINT.format(', '.join(absent))}")


def _choose(choice: str, real: str, lacking: str, folder: Path) -> Chosen:
    """Return what `choice` means. `lacking` says what keeps the real engine from starting, if any."""
    if choice != "auto":
        return Chosen(choice, NAMED, folder)
    if lacking:
        return Chosen("embedded", lacking, folder)
    return Chosen(real, f"its weights are in {folder}", folder)


def _is_present(folder: Path, name: str) -> bool:
    """Tell whether a weight file, or one of several, is there.

    XTTS's pickle does when it has not been converted to safetensors.
    """
    choices = (*name.split(" or "), *(["model.pth"] if name == "model.safetensors" else []))
    return any((folder / choice).is_file() for choice in choices)
