"""The engine of each stage that the settings choose, and why. Nothing is loaded, and no heavy package is imported."""

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirrorchat.engines import EngineInfo, Language, Tier
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
HIBARI_PACKAGES = ("hibari", "onnxruntime")  # hibari's weights are in its package
NAMED = "named in the settings"
FULL, SMALL = "scripts/environment full", "scripts/environment small"
INSTALL = ".venv/bin/mirrorchat models install "


@dataclass(frozen=True)
class Lack:
    """What an engine lacks, and the command that installs it."""

    what: str
    command: str


@dataclass(frozen=True)
class Chosen:
    """The name of an engine, the reason of the choice, and the folder of its weights, whether or not they exist.

    `upgrade` is the command that installs the next better engine, "" where there is none.
    """

    name: str
    reason: str
    folder: Path
    upgrade: str = ""


@dataclass(frozen=True)
class Candidate:
    """An engine that `auto` may choose: its name, the folder of its weights, and what it lacks, None if nothing."""

    name: str
    folder: Path
    lacks: Lack | None


def chosen_recognizer(settings: Settings, language: Language) -> Chosen:
    """Return the recognizer for `language`: `wenet`, `wenet:NAME`, `small` or `embedded`."""
    folder, small = settings.models_dir / f"wenet-{language.code}", settings.models_dir / "whisper-base"
    real = Candidate("wenet", folder, missing(folder, WENET_FILES, WENET_PACKAGES))
    return _choose(settings.recognizer[language.value], real, Candidate("small", small, missing_whisper(small)))


def detector_folder(settings: Settings) -> Path | None:
    """Return the folder of the Whisper that detects the language, where models hear both; None if there is none."""
    folder = settings.models_dir / "whisper-base"
    names = [chosen_recognizer(settings, language).name for language in Language]
    return None if "embedded" in names or missing_whisper(folder) else folder


def chosen_synthesizer(settings: Settings, language: Language) -> Chosen:
    """Return the synthesizer for `language`: `xtts`, `small` or `embedded`."""
    folder, small = settings.models_dir / "xtts-v2", settings.models_dir / "kokoro"
    real = Candidate("xtts", folder, missing(folder, XTTS_FILES, XTTS_PACKAGES))
    return _choose(
        settings.synthesizer[language.value], real, Candidate("small", small, missing_small_voice(small, language))
    )


def missing_whisper(folder: Path) -> Lack | None:
    """Return what the small recognizer lacks, if anything."""
    return missing(folder, WHISPER_FILES, WHISPER_PACKAGES, hint=SMALL)


def missing_small_voice(folder: Path, language: Language) -> Lack | None:
    """Return what the small synthesizer lacks to speak `language`, if anything. English needs hibari's package only."""
    if language is Language.ENGLISH:
        absent = absent_packages(HIBARI_PACKAGES)
        return Lack(f"{', '.join(absent)} is not installed", SMALL) if absent else None
    return missing_kokoro(folder)


def missing_kokoro(folder: Path) -> Lack | None:
    """Return what Kokoro lacks, if anything."""
    return missing(folder, KOKORO_FILES, KOKORO_PACKAGES, hint=SMALL)


def missing(folder: Path, files: Sequence[str], packages: Sequence[str], *, hint: str = FULL) -> Lack | None:
    """Return what an engine lacks, weights before packages. The command `hint` installs packages."""
    if absent := absent_files(folder, files):
        name = "small" if hint == SMALL else folder.name
        return Lack(f"no {', '.join(absent)} in {folder}", INSTALL + name)
    absent = absent_packages(packages)
    return Lack(f"{folder} is there, but {', '.join(absent)} is not installed", hint) if absent else None


def upgrade_command(infos: Iterable[EngineInfo]) -> str:
    """Return one command that takes the engines of the lowest tier up a tier; "" where none can go up."""
    open_to_more = [info for info in infos if info.upgrade]
    lowest = Tier.FLOOR if any(info.tier is Tier.FLOOR for info in open_to_more) else Tier.SMALL
    commands = [info.upgrade for info in open_to_more if info.tier is lowest]
    names = [each.removeprefix(INSTALL) for each in commands if each.startswith(INSTALL)]
    return INSTALL + " ".join(dict.fromkeys(names)) if names else next(iter(commands), "")


def absent_files(folder: Path, files: Sequence[str]) -> list[str]:
    """Return the `files` that are not in `folder`."""
    return [name for name in files if not _is_present(folder, name)]


def absent_packages(packages: Sequence[str]) -> list[str]:
    """Return the `packages` that are not installed."""
    return [name for name in packages if not importlib.util.find_spec(name)]


def require_packages(engine: str, packages: Sequence[str]) -> None:
    """Raise ConfigurationError if some of `packages` are not installed; the message names them."""
    if absent := absent_packages(packages):
        hint = SMALL if engine == "small" else FULL
        raise ConfigurationError(f"engine {engine}: {', '.join(absent)} is not installed: run {hint}")


def require_small(folder: Path, files: Sequence[str], packages: Sequence[str]) -> None:
    """Raise ConfigurationError or ModelNotInstalled if a small model lacks packages or files, with their names."""
    require_packages("small", packages)
    if absent := absent_files(folder, files):
        raise ModelNotInstalled(f"there is no {', '.join(absent)} in {folder}: run {INSTALL}small")


def _choose(choice: str, *candidates: Candidate) -> Chosen:
    """Return what the setting `choice` means: by name, else the first of `candidates` that lacks nothing."""
    folder = candidates[0].folder
    if choice != "auto":
        return Chosen(choice, NAMED, next((each.folder for each in candidates if each.name == choice), folder))
    better: Lack | None = None  # what the next better engine lacks
    for candidate in candidates:
        if candidate.lacks is None:
            reasons = (better.what if better else "", _found(candidate))
            upgrade = better.command if better else ""
            return Chosen(candidate.name, "; ".join(filter(None, reasons)), candidate.folder, upgrade)
        better = candidate.lacks
    return Chosen("embedded", better.what if better else "", folder, better.command if better else "")


def _found(candidate: Candidate) -> str:
    return f"its weights are in {candidate.folder if candidate.folder.is_dir() else 'its package'}"


def _is_present(folder: Path, name: str) -> bool:
    """Return whether `folder` has the file `name`, or one of several (`a or b`).

    XTTS's pickle stands in for weights that were not converted to safetensors.
    """
    choices = (*name.split(" or "), *(["model.pth"] if name == "model.safetensors" else []))
    return any((folder / choice).is_file() for choice in choices)
