"""Loading the engines that the settings choose."""

import copy
import importlib.util
import logging
import os
from collections.abc import Callable, Collection, Mapping, MutableMapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mirrorchat.concurrency.device_lock import DeviceLock
from mirrorchat.engines import (
    Batched,
    ChatModel,
    DetectsLanguage,
    EngineInfo,
    Engines,
    Language,
    Recognizer,
    Synthesizer,
)
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import (
    HIBARI_PACKAGES,
    KOKORO_FILES,
    KOKORO_PACKAGES,
    NAMED,
    OWN_PACKAGE,
    WENET_PACKAGES,
    WHISPER_FILES,
    WHISPER_PACKAGES,
    XTTS_PACKAGES,
    Chosen,
    chosen_recognizer,
    chosen_synthesizer,
    detector_folder,
    missing_kokoro,
    require_packages,
    require_small,
)
from mirrorchat.startup.memory_plan import MemoryPlan, plan_memory

if TYPE_CHECKING:  # it imports the packages of the small models
    from mirrorchat.small.whisper import WhisperRecognizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SharedGpu:
    """What the recognizers share with the synthesizers: the lock of the GPU, and whether somebody hears them speak."""

    lock: DeviceLock
    speaks: Callable[[], bool]


def build_engines(
    settings: Settings,
    *,
    hearing: Collection[Language] = tuple(Language),
    speaking: Collection[Language] = tuple(Language),
) -> Engines:
    """Load a recognizer for each language of `hearing`, a synthesizer for each of `speaking`, and the chat.

    An engine that the settings name must start; `auto` takes the real engine if its weights are installed. The memory
    of the models is planned and logged first. Heavy packages are imported only by the branch that needs them. Engines
    on the same GPU share a lock.

    Raises ConfigurationError or ModelNotInstalled if an engine cannot start, and ConfigurationError if the models do
    not fit into memory.
    """
    _let_segments_grow(os.environ)
    plan = plan_memory(_reduced(settings, hearing, speaking))
    for line in plan.lines():
        _log.info("%s", line)
    if plan.trouble:
        _log.warning("%s", plan.trouble)
    plan.require_fit()
    lock = DeviceLock()
    with ThreadPoolExecutor(1, "load-synthesizers") as loader:
        synthesizers = loader.submit(_build_synthesizers, plan, speaking, lock)
        if not _may_load_together(plan, hearing, speaking):
            synthesizers.result()
        gpu = SharedGpu(lock, partial(_someone_speaks, synthesizers))
        recognizers = _build_recognizers(plan, hearing, gpu)
    chat, detector = _build_chat(settings), _build_detector(plan, recognizers)
    return Engines(recognizers, chat, synthesizers.result(), detector)


def _let_segments_grow(environ: MutableMapping[str, str]) -> None:
    """Let torch's memory on a GPU grow in place, before torch reads this: requests of many sizes then leave few gaps.

    What a person has set stays.
    """
    if "PYTORCH_CUDA_ALLOC_CONF" not in environ:  # the older name
        environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def _may_load_together(plan: MemoryPlan, hearing: Collection[Language], speaking: Collection[Language]) -> bool:
    """Return whether no engine needs torch: those load one after the other, as the memory plan counts them."""
    names = {chosen_recognizer(plan.settings, language).name for language in hearing}
    names |= {chosen_synthesizer(plan.settings, language).name for language in speaking}
    return names <= {"small", "embedded"}


def _reduced(settings: Settings, hearing: Collection[Language], speaking: Collection[Language]) -> Settings:
    """Return `settings` without models for other languages, so that the memory plan leaves them out."""
    recognizer = {one.value: settings.recognizer[one.value] if one in hearing else "embedded" for one in Language}
    synthesizer = {one.value: settings.synthesizer[one.value] if one in speaking else "embedded" for one in Language}
    return replace(settings, recognizer=recognizer, synthesizer=synthesizer)


def _build_chat(settings: Settings) -> ChatModel:
    if settings.chatgpt_apis:
        from mirrorchat.llm import ChatClient

        client = ChatClient(settings.chatgpt_apis, cooldown_s=settings.chat_cooldown_s)
        client.info = replace(client.info, reason=f"{settings.chat_source or 'chatgpt_apis'} is set")
        return client
    from mirrorchat.embedded.engines import ParrotChat

    return ParrotChat(f"{settings.chat_source} is empty" if settings.chat_source else "")


def _someone_speaks(synthesizers: "Future[dict[Language, Synthesizer]]") -> bool:
    """Return whether a listener waits for a synthesizer that decodes batches."""
    loaded = synthesizers.result().values() if synthesizers.done() else ()
    return any(isinstance(each, Batched) and each.stats().running > 0 for each in loaded)


def _nobody_speaks() -> bool:
    return False


def _build_recognizers(plan: MemoryPlan, languages: Collection[Language], gpu: SharedGpu) -> dict[Language, Recognizer]:
    """Return a recognizer for each of `languages`. The small ones share a model, and each tells why it was chosen."""
    recognizers: dict[Language, Recognizer] = {}
    small: WhisperRecognizer | None = None
    for language in languages:
        chosen = chosen_recognizer(plan.settings, language)
        if chosen.name == "small":
            small = copy.copy(small or _build_small_recognizer(chosen.folder, plan.settings.threads))
            small.info = _with_reasons(replace(small.info, reason=""), chosen, plan)
            recognizers[language] = small
        else:
            recognizers[language] = _build_recognizer(plan, language, gpu)
    return recognizers


def _build_detector(plan: MemoryPlan, recognizers: Mapping[Language, Recognizer]) -> DetectsLanguage | None:
    """Return what detects the language: one of `recognizers`, or else Whisper beside them if it is installed."""
    folder = detector_folder(plan.settings)
    if folder is None:
        return None
    own = next((each for each in recognizers.values() if isinstance(each, DetectsLanguage)), None)
    detector = copy.copy(own or _build_small_recognizer(folder, plan.settings.threads))
    # What the recognizer lacks to go up a tier says nothing of the detector, which has no better one.
    detector.info = replace(detector.info, reason=f"its weights are in {folder}", upgrade="")
    return detector


def _build_recognizer(plan: MemoryPlan, language: Language, gpu: SharedGpu) -> Recognizer:
    settings, chosen = plan.settings, chosen_recognizer(plan.settings, language)
    engine: Recognizer
    if chosen.name.startswith(OWN_PACKAGE):
        engine = _build_package_recognizer(chosen.name, settings, language, gpu.lock)
    elif chosen.name == "wenet":
        require_packages("wenet", WENET_PACKAGES)
        from mirrorchat.asr import WenetRecognizer
        from mirrorchat.hardware.devices import is_gpu

        engine = WenetRecognizer(
            chosen.folder,
            language,
            threads=settings.threads,
            device=plan.wenet_device,
            weights=settings.wenet_weights,
            device_lock=_if_shared(gpu.lock, plan.wenet_device),
            speaks=gpu.speaks if is_gpu(plan.wenet_device) else _nobody_speaks,
        )
    else:
        engine = _build_embedded_recognizer(language, chosen.folder, required=chosen.reason == NAMED)
    engine.info = _with_reasons(engine.info, chosen, plan)
    return engine


def _build_small_recognizer(folder: Path, threads: int) -> "WhisperRecognizer":
    require_small(folder, WHISPER_FILES, WHISPER_PACKAGES)
    from mirrorchat.small.whisper import WhisperRecognizer

    return WhisperRecognizer(folder, threads=threads)


def _build_package_recognizer(name: str, settings: Settings, language: Language, lock: DeviceLock) -> Recognizer:
    require_packages(name, (*WENET_PACKAGES, "yaml"))
    from mirrorchat.wenet.package import WenetPackageRecognizer

    return WenetPackageRecognizer(
        name.removeprefix(OWN_PACKAGE),
        settings.models_dir,
        language,
        threads=settings.threads,
        device=settings.device,
        device_lock=_if_shared(lock, settings.device),
    )


def _build_embedded_recognizer(language: Language, folder: Path, *, required: bool) -> Recognizer:
    """Return the embedded recognizer, or one that tells callers how to install a recognizer."""
    from mirrorchat.embedded.engines import EmbeddedRecognizer, MissingRecognizer

    if language is Language.ENGLISH and (required or importlib.util.find_spec("pocketsphinx")):
        return EmbeddedRecognizer()
    return MissingRecognizer(language, folder)


def _build_synthesizers(
    plan: MemoryPlan, languages: Collection[Language], lock: DeviceLock
) -> dict[Language, Synthesizer]:
    """Return a synthesizer for each of `languages`. Languages with the same engine share it."""
    chosen = {language: chosen_synthesizer(plan.settings, language) for language in languages}
    built: dict[str, Synthesizer] = {}
    for choice in chosen.values():
        if choice.name not in built:
            spoken = [one for one, other in chosen.items() if other.name == choice.name]
            engine = _build_synthesizer(choice, spoken, plan.settings, lock)
            engine.info = _with_reasons(engine.info, choice, plan)
            built[choice.name] = engine
    return {language: built[choice.name] for language, choice in chosen.items()}


def _build_synthesizer(
    chosen: Chosen, languages: Collection[Language], settings: Settings, lock: DeviceLock
) -> Synthesizer:
    if chosen.name == "xtts":
        require_packages("xtts", XTTS_PACKAGES)
        from mirrorchat.synth import XttsSynthesizer
        from mirrorchat.xtts.decode import DecodeLimits

        limits = DecodeLimits(max_batch=settings.xtts_batch, cache_bytes=settings.xtts_cache_mb * 1_000_000)
        return XttsSynthesizer(
            chosen.folder,
            device=settings.device,
            threads=settings.threads,
            weights=settings.xtts_weights,
            limits=limits,
            device_lock=_if_shared(lock, settings.device),
        )
    if chosen.name == "small":
        return _build_small_synthesizer(chosen.folder, languages, settings.threads)
    from mirrorchat.embedded.engines import EmbeddedSynthesizer

    return EmbeddedSynthesizer()


def _build_small_synthesizer(folder: Path, languages: Collection[Language], threads: int) -> Synthesizer:
    """Return hibari with Kokoro where it is installed; without Kokoro it speaks English only."""
    if Language.CHINESE in languages:
        require_small(folder, KOKORO_FILES, KOKORO_PACKAGES)
    require_packages("small", HIBARI_PACKAGES)
    from mirrorchat.small.synthesizer import SmallSynthesizer

    return SmallSynthesizer(None if missing_kokoro(folder) else folder, threads=threads)


def _if_shared(lock: DeviceLock, device: str) -> DeviceLock | None:
    """Return `lock` if `device` is a GPU, else None: the operating system schedules the cores of a CPU."""
    from mirrorchat.hardware.devices import is_gpu

    return lock if is_gpu(device) else None


def _with_reasons(info: EngineInfo, chosen: Chosen, plan: MemoryPlan) -> EngineInfo:
    """Return `info` with the reason of the choice, its own reason, the steps to fit into memory, and GPU trouble."""
    made = [*plan.steps_of(info.name), plan.trouble] if info.name in ("xtts", "wenet") else []
    reason = "; ".join(each for each in (chosen.reason, info.reason, *made) if each)
    return replace(info, reason=reason, upgrade=chosen.upgrade)
