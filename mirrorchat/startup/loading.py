"""The choice of engines at startup: which one answers at each stage, and why."""

import importlib.util
import logging
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mirrorchat.engines import ChatModel, EngineInfo, Engines, Language, Recognizer, Synthesizer
from mirrorchat.hardware.device_lock import DeviceLock
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import (
    NAMED,
    OWN_PACKAGE,
    WENET_PACKAGES,
    XTTS_PACKAGES,
    chosen_recognizer,
    chosen_synthesizer,
    require_packages,
)
from mirrorchat.startup.memory_plan import MemoryPlan, plan_memory

_log = logging.getLogger(__name__)


def build_engines(
    settings: Settings,
    *,
    hearing: Collection[Language] = tuple(Language),
    speaking: Collection[Language] = tuple(Language),
) -> Engines:
    """Load what `settings` choose: a named engine must start, `auto` takes the real one when its weights are here.

    There is a recognizer for each language of `hearing`, and a synthesizer for each of `speaking`.

    Raises ConfigurationError or ModelNotInstalled when a chosen engine cannot start. Heavy packages are imported here,
    in the branch that needs them. Engines that compute on the same GPU get one lock for it.

    What the models take of the memory is planned and logged first; ConfigurationError, too, when they do not fit.
    """
    plan = plan_memory(_reduced(settings, hearing, speaking))
    for line in plan.lines():
        _log.info("%s", line)
    if plan.trouble:
        _log.warning("%s", plan.trouble)
    plan.require_fit()
    lock = DeviceLock()
    synthesizers = _build_synthesizers(plan, speaking, lock)
    recognizers = {language: _build_recognizer(plan, language, lock) for language in hearing}
    return Engines(recognizers, _build_chat(settings), synthesizers)


def _reduced(settings: Settings, hearing: Collection[Language], speaking: Collection[Language]) -> Settings:
    """Return `settings` without models for languages that are not heard or spoken, so that none is planned for."""
    recognizer = {one.value: settings.recognizer[one.value] if one in hearing else "embedded" for one in Language}
    synthesizer = {one.value: settings.synthesizer[one.value] if one in speaking else "embedded" for one in Language}
    return replace(settings, recognizer=recognizer, synthesizer=synthesizer)


def _build_chat(settings: Settings) -> ChatModel:
    if settings.chatgpt_apis:
        from mirrorchat.llm import ChatClient

        return ChatClient(settings.chatgpt_apis, cooldown_s=settings.chat_cooldown_s)
    from mirrorchat.embedded.engines import ParrotChat

    return ParrotChat()


def _build_recognizer(plan: MemoryPlan, language: Language, lock: DeviceLock) -> Recognizer:
    settings, chosen = plan.settings, chosen_recognizer(plan.settings, language)
    engine: Recognizer
    if chosen.name.startswith(OWN_PACKAGE):
        engine = _build_package_recognizer(chosen.name, settings, language)
    elif chosen.name == "wenet":
        require_packages("wenet", WENET_PACKAGES)
        from mirrorchat.asr import WenetRecognizer

        engine = WenetRecognizer(
            chosen.folder,
            language,
            threads=settings.threads,
            device=plan.wenet_device,
            weights=settings.wenet_weights,
            device_lock=_if_shared(lock, plan.wenet_device),
        )
    else:
        engine = _build_embedded_recognizer(language, chosen.folder, required=chosen.reason == NAMED)
    engine.info = _with_reasons(engine.info, chosen.reason, plan)
    return engine


def _build_package_recognizer(name: str, settings: Settings, language: Language) -> Recognizer:
    require_packages(name, (*WENET_PACKAGES, "yaml"))
    from mirrorchat.wenet.package import WenetPackageRecognizer

    return WenetPackageRecognizer(
        name.removeprefix(OWN_PACKAGE), settings.models_dir, language, threads=settings.threads, device=settings.device
    )


def _build_embedded_recognizer(language: Language, folder: Path, *, required: bool) -> Recognizer:
    """Return the embedded recognizer, or what tells callers how to install one where there is none."""
    from mirrorchat.embedded.engines import EmbeddedRecognizer, MissingRecognizer

    if language is Language.ENGLISH and (required or importlib.util.find_spec("pocketsphinx")):
        return EmbeddedRecognizer()
    return MissingRecognizer(language, folder)


def _build_synthesizers(
    plan: MemoryPlan, languages: Collection[Language], lock: DeviceLock
) -> dict[Language, Synthesizer]:
    """Return a synthesizer for each of `languages`; those that use the same engine share it."""
    built: dict[str, Synthesizer] = {}
    synthesizers: dict[Language, Synthesizer] = {}
    for language in languages:
        chosen = chosen_synthesizer(plan.settings, language)
        if chosen.name not in built:
            engine = _build_synthesizer(chosen.name, plan.settings, chosen.folder, lock)
            engine.info = _with_reasons(engine.info, chosen.reason, plan)
            built[chosen.name] = engine
        synthesizers[language] = built[chosen.name]
    return synthesizers


def _build_synthesizer(name: str, settings: Settings, folder: Path, lock: DeviceLock) -> Synthesizer:
    if name == "xtts":
        require_packages("xtts", XTTS_PACKAGES)
        from mirrorchat.synth import XttsSynthesizer
        from mirrorchat.xtts.decode import DecodeLimits

        limits = DecodeLimits(max_batch=settings.xtts_batch, cache_bytes=settings.xtts_cache_mb * 1_000_000)
        return XttsSynthesizer(
            folder,
            device=settings.device,
            threads=settings.threads,
            weights=settings.xtts_weights,
            limits=limits,
            device_lock=_if_shared(lock, settings.device),
        )
    from mirrorchat.embedded.engines import EmbeddedSynthesizer

    return EmbeddedSynthesizer()


def _if_shared(lock: DeviceLock, device: str) -> DeviceLock | None:
    """Return `lock` where `device` is a GPU. On a CPU, the system shares out its cores."""
    from mirrorchat.hardware.devices import is_gpu

    return lock if is_gpu(device) else None


def _with_reasons(info: EngineInfo, reason: str, plan: MemoryPlan) -> EngineInfo:
    """Return `info` with why the engine was chosen, its own reason, and what the memory and the GPU made of it."""
    made = [*plan.steps_of(info.name), plan.trouble] if info.name in ("xtts", "wenet") else []
    return replace(info, reason="; ".join(each for each in (reason, info.reason, *made) if each))
