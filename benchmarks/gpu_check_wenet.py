"""WeNet's part of benchmarks/gpu_check.py: scores and hypotheses on the device against those of the CPU."""

from pathlib import Path

import torch

from benchmarks.gpu_check_models import decibels, recording, repeated
from benchmarks.gpu_check_report import Report
from mirrorchat.asr import WenetRecognizer, choose_weights
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.features import SAMPLE_RATE, fbank

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SPEECH_S = 5.0
RECOGNITION_S = 60.0


def check_hypotheses(folder: Path, device: torch.device, report: Report, *, threads: int) -> None:
    """Compare the log probabilities of networks of real size, and what the tests' trained networks recognize."""
    weights = ["fp32"]
    if device.type == "cuda":
        weights = list(dict.fromkeys(["fp32", str(choose_weights("auto", device))]))
    report.note("wenet_weights", weights[-1])
    for language in Language:
        _compare_scores(folder / f"wenet-{language.code}", language, weights, device, report)
    exact = _recognize(folder, "cpu", "fp32", threads)
    report.note("hypotheses", exact)
    for kept_as in weights:
        found = _recognize(folder, str(device), kept_as, threads)
        report.note(f"hypotheses_differ_{kept_as}", sum(found[code] != text for code, text in exact.items()))


@torch.inference_mode()
def _compare_scores(folder: Path, language: Language, weights: list[str], device: torch.device, report: Report) -> None:
    speech = repeated(recording(language), SPEECH_S)
    features = torch.from_numpy(fbank(speech.resample(SAMPLE_RATE).samples))[None]
    exact = _scores(folder, features, torch.device("cpu"), torch.float32)
    for kept_as in weights:
        found = _scores(folder, features, device, TYPES.get(kept_as, torch.float32))
        report.note(f"wenet_db_{language.code}_{kept_as}", decibels(exact, found))


def _scores(folder: Path, features: torch.Tensor, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return the log probabilities (S, V) of `features` (1, T, 80)."""
    model = read_checkpoint(folder).model.to(device=device, dtype=dtype)
    output, _ = model.encoder(features.to(device), torch.tensor([features.shape[1]], device=device))
    return model.ctc_activation(output)[0].float().cpu()


def _recognize(folder: Path, device: str, weights: str, threads: int) -> dict[str, str]:
    """Return what the trained networks recognize, by language."""
    found = {}
    for language in Language:
        trained = folder / f"trained-{language.code}"
        recognizer = WenetRecognizer(trained, language, threads=threads, device=device, weights=weights)
        context = Context.after(RECOGNITION_S)
        found[language.code] = recognizer.recognize(recording(language), language, context=context).text
        recognizer.close()
    return found
