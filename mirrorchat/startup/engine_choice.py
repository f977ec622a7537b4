"""The engine of each stage that the settings choose, and why. Nothing is loaded, and no heavy package is imported."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.engines import Language
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.settings import Settings

WENET_FILES = ("final.pt or final.safetensors or final.zip", "units.txt")
WENET_PACKAGES = ("torch", "kaldi_native_fbank")
OWN_PACKAGE = "wenet:"  # the prefix of a model of WeNet's own package
XTTS_FILES = ("config.json", "vocab.json", "model.safetensors")
XTTS_PACKAGES = ("torch", "torchaudio", "TTS", "transformers")
WHISPER_FILES = ("config.json", "model.bin", "vocabulary.txt")
WHISPER_PACKAGES = ("ctranslate2", "opencc")
KOKORO_FILES = ("kokoro-v1.0.int8.onnx", "voices-v1.0.bin or voices_ja.npz")
KOKORO_PACKAGES = ("hibari", "onnxruntime", "pypinyin", "jieba")
NAMED = "named in the settings"
FULL_HINT = "{} is not installed: run scripts/environment full"
SMALL_HINT = "{} is not installed: run scripts/environment small"
INSTALL_HINT = "run .venv/bin/mirrorchat models install {}"


@dataclass(frozen=True)
class Chosen:
    """The name of an engine, the reason of the choice, and the folder of its weights, whether or not they exist."""

    name: str
    reason: str
    folder: Path


@dataclass(frozen=True)
class Candidate:
    """An engine that `auto` may choose: its name, the folder of its weights, and what it lacks, "" if nothing."""

    name: str
    folder: Path
    lacks: str


def chosen_recognizer(settings: Settings, language: Language) -> Chosen:
    """Return the recognizer for `language`: `wenet`, `wenet:NAME`, `small` or `embedded`."""
    folder, small = settings.models_dir / f"wenet-{language.code}", settings.models_dir / "whisper-base"
    real = Candidate("wenet", folder, missing(folder, WENET_FILES, WENET_PACKAGES))
    return _choose(settings.recognizer[language.value], real, Candidate("small", small, missing_whisper(small)))


def chosen_synthesizer(settings: Settings, language: Language) -> Chosen:
    """Return the synthesizer for `language`: `xtts`, `small` or `embedded`."""
    folder, small = settings.models_dir / "xtts-v2", settings.models_dir / "kokoro"
    real = Candidate("xtts", folder, missing(folder, XTTS_FILES, XTTS_PACKAGES))
    return _choose(settings.synthesizer[language.value], real, Candidate("small", small, missing_kokoro(small)))


def missing_whisper(folder: Path) -> str:
    """Return what the small recognizer lacks; "" if nothing."""
    return missing(folder, WHISPER_FILES, WHISPER_PACKAGES, hint=SMALL_HINT)


def missing_kokoro(folder: Path) -> str:
    """Return what the small synthesizer lacks; "" if nothing."""
    return missing(folder, KOKORO_FILES, KOKORO_PACKAGES, hint=SMALL_HINT)


def missing(folder: Path, files: Sequence[str], packages: Sequence[str], *, hint: str = FULL_HINT) -> str:
    """Return what an engine lacks, weights before packages; "" if nothing."""
    if absent := absent_files(folder, files):
        return f"no {', '.join(absent)} in {folder}: {INSTALL_HINT.format(folder.name)}"
    absent = absent_packages(packages)
    return f"{folder} is there, but {hint.format(', '.join(absent))}" if absent else ""


def absent_files(folder: Path, files: Sequence[str]) -> list[str]:
    """Return the `files` that are not in `folder`."""
    return [name for name in files if not _is_present(folder, name)]


def absent_packages(packages: Sequence[str]) -> list[str]:
    """Return the `packages` that are not installed."""
    return [name for name in packages if not importlib.util.find_spec(name)]


def require_packages(engine: str, packages: Sequence[str]) -> None:
    """Raise ConfigurationError if some of `packages` are not installed; the message names them."""
    if absent := absent_packages(packages):
        hint = SMALL_HINT if engine == "small" else FULL_HINT
        raise ConfigurationError(f"engine {engine}: {hint.format(', '.join(absent))}")


def require_small(folder: Path, files: Sequence[str], packages: Sequence[str]) -> None:
    """Raise ConfigurationError or ModelNotInstalled if a small model lacks packages or files, with their names."""
    require_packages("small", packages)
    if absent := absent_files(folder, files):
        raise ModelNotInstalled(f"there is no {', '.join(absent)} in {folder}: {INSTALL_HINT.format('small')}")


def _choose(choice: str, *candidates: Candidate) -> Chosen:
    """Return what the setting `choice` means: by name, else the first of `candidates` that lacks nothing."""
    folder = candidates[0].folder
    if choice != "auto":
        named = [candidate.folder for candidate in candidates if candidate.name == choice]
        return Chosen(choice, NAMED, *named or [folder])
    better = ""  # what a better engine lacks
    for candidate in candidates:
        if not candidate.lacks:
            reasons = (better, f"its weights are in {candidate.folder}")
            return Chosen(candidate.name, "; ".join(filter(None, reasons)), candidate.folder)
        better = better or candidate.lacks
    return Chosen("embedded", better, folder)


def _is_present(folder: Path, name: str) -> bool:
    """Return whether `folder` has the file `name`, or one of several (`a or b`).

    XTTS's pickle stands in for weights that were not converted to safetensors.
    """
    choices = (*name.split(" or "), *(["model.pth"] if name == "model.safetensors" else []))
    return any((folder / choice).is_file() for choice in choices)
