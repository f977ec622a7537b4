"""The choice of engines at startup: which one answers at each stage, and why."""

import importlib.util
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from mirrorchat.device_lock import DeviceLock
from mirrorchat.engines import ChatModel, Engines, Language, Recognizer, Synthesizer
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


def build_engines(
    settings: Settings,
    *,
    hearing: Collection[Language] = tuple(Language),
    speaking: Collection[Language] = tuple(Language),
) -> Engines:
    """Load what `settings` choose: a named engine must start, `auto` takes the real one when its weights are here.

    There is a recogniser for each language of `hearing`, and a synthesiser for each of `speaking`.

    Raises ConfigurationError or ModelNotInstalled when a chosen engine cannot start. Heavy packages are imported here,
    in the branch that needs them. Engines that compute on the same GPU get one lock for it.
    """
    lock = DeviceLock()
    synthesizers = _build_synthesizers(settings, speaking, lock)
    recognizers = {language: _build_recognizer(settings, language, lock) for language in hearing}
    return Engines(recognizers, _build_chat(settings), synthesizers)


def _build_chat(settings: Settings) -> ChatModel:
    if settings.chatgpt_apis:
        from mirrorchat.llm import ChatClient

        return ChatClient(settings.chatgpt_apis, cooldown_s=settings.chat_cooldown_s)
    from mirrorchat.embedded import ParrotChat

    return ParrotChat()


def _build_recognizer(settings: Settings, language: Language, lock: DeviceLock) -> Recognizer:
    folder = settings.models_dir / f"wenet-{language.code}"
    name, reason = _choose(
        settings.recognizer[language.value], "wenet", _missing(folder, WENET_FILES, WENET_PACKAGES), folder
    )
    engine: Recognizer
    if name.startswith(OWN_PACKAGE):
        engine = _build_package_recognizer(name, settings, language)
    elif name == "wenet":
        _require_packages("wenet", WENET_PACKAGES)
        from mirrorchat.asr import WenetRecognizer

        engine = WenetRecognizer(
            folder,
            language,
            threads=settings.threads,
            device=settings.device,
            weights=settings.wenet_weights,
            device_lock=_if_shared(lock, settings.device),
        )
    else:
        engine = _build_embedded_recognizer(language, folder, required=reason == NAMED)
    engine.info = replace(engine.info, reason=_join(reason, engine.info.reason))
    return engine


def _build_package_recognizer(name: str, settings: Settings, language: Language) -> Recognizer:
    _require_packages(name, (*WENET_PACKAGES, "yaml"))
    from mirrorchat.wenet_package import WenetPackageRecognizer

    return WenetPackageRecognizer(
        name.removeprefix(OWN_PACKAGE), settings.models_dir, language, threads=settings.threads, device=settings.device
    )


def _build_embedded_recognizer(language: Language, folder: Path, *, required: bool) -> Recognizer:
    """Return the embedded recogniser, or what tells callers how to install one where there is none."""
    from mirrorchat.embedded import EmbeddedRecognizer, MissingRecognizer

    if language is Language.ENGLISH and (required or importlib.util.find_spec("pocketsphinx")):
        return EmbeddedRecognizer()
    return MissingRecognizer(language, folder)


def _build_synthesizers(
    settings: Settings, languages: Collection[Language], lock: DeviceLock
) -> dict[Language, Synthesizer]:
    """Return a synthesiser for each of `languages`; those that use the same engine share it."""
    folder = settings.models_dir / "xtts-v2"
    missing = _missing(folder, XTTS_FILES, XTTS_PACKAGES)
    built: dict[str, Synthesizer] = {}
    chosen: dict[Language, Synthesizer] = {}
    for language in languages:
        name, reason = _choose(settings.synthesizer[language.value], "xtts", missing, folder)
        if name not in built:
            engine = _build_synthesizer(name, settings, folder, lock)
            engine.info = replace(engine.info, reason=_join(reason, engine.info.reason))
            built[name] = engine
        chosen[language] = built[name]
    return chosen


def _build_synthesizer(name: str, settings: Settings, folder: Path, lock: DeviceLock) -> Synthesizer:
    if name == "xtts":
        _require_packages("xtts", XTTS_PACKAGES)
        from mirrorchat.synth import XttsSynthesizer
        from mirrorchat.xtts_decode import DecodeLimits

        limits = DecodeLimits(max_batch=settings.xtts_batch, cache_bytes=settings.xtts_cache_mb * 1_000_000)
        return XttsSynthesizer(
            folder,
            device=settings.device,
            threads=settings.threads,
            weights=settings.xtts_weights,
            limits=limits,
            device_lock=_if_shared(lock, settings.device),
        )
    from mirrorchat.embedded import EmbeddedSynthesizer

    return EmbeddedSynthesizer()


def _if_shared(lock: DeviceLock, device: str) -> DeviceLock | None:
    """Return `lock` where `device` is a GPU. On a CPU, the system shares out its cores."""
    from mirrorchat.devices import is_gpu

    return lock if is_gpu(device) else None


def _choose(choice: str, real: str, missing: str, folder: Path) -> tuple[str, str]:
    """Return the engine's name and why it was chosen. `missing` says what keeps the real one from starting, if any."""
    if choice != "auto":
        return choice, NAMED
    return ("embedded", missing) if missing else (real, f"its weights are in {folder}")


def _missing(folder: Path, files: Sequence[str], packages: Sequence[str]) -> str:
    """Return what an engine lacks, weights first, or an empty text."""
    absent = [name for name in files if not _is_present(folder, name)]
    if absent:
        return f"no {', '.join(absent)} in {folder}: {INSTALL_HINT.format(folder.name)}"
    packages = [name for name in packages if not importlib.util.find_spec(name)]
    return f"{folder} is there, but {FULL_HINT.format(', '.join(packages))}" if packages else ""


def _is_present(folder: Path, name: str) -> bool:
    """Tell whether a weight file, or one of several, is there.

    XTTS's pickle does when it has not been converted to safetensors.
    """
    choices = (*name.split(" or "), *(["model.pth"] if name == "model.safetensors" else []))
    return any((folder / choice).is_file() for choice in choices)


def _require_packages(engine: str, packages: Sequence[str]) -> None:
    absent = [name for name in packages if not importlib.util.find_spec(name)]
    if absent:
        raise ConfigurationError(f"engine {engine}: {FULL_HINT.format(', '.join(absent))}")


def _join(*reasons: str) -> str:
    return "; ".join(reason for reason in reasons if reason)
