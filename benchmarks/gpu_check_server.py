"""The server's part of benchmarks/gpu_check.py: both recognizers and XTTS on one card, loaded as the server loads them.

Callers are threads, each with a voice of its own. A listener plays from the first sound on; a gap is the time during
which there is nothing left to play.
"""

import json
import threading
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_check_models import recording, repeated
from benchmarks.gpu_check_report import Report
from benchmarks.xtts_sides import Voice as RandomVoice
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Batched, Engines, Language, Priority, Synthesizer, Voice, VoiceKind
from mirrorchat.hardware.devices import usable_device
from mirrorchat.settings import Settings
from mirrorchat.startup.loading import build_engines
from mirrorchat.startup.memory_plan import plan_memory
from mirrorchat.xtts.checkpoint import CONFIG_FILE
from mirrorchat.xtts.voice import XttsVoice

TEXT = "The quick brown fox jumps over the lazy dog near the river."
BESIDE = 4  # callers who listen while somebody is recognized
ANSWERS = 10
QUESTION_S = 10.0
DEADLINE_S = 60.0
WAITS_SHOWN = 10
WAITING = "called a synchronizing CUDA operation"  # how torch's warning of a wait begins


@dataclass(frozen=True)
class Heard:
    """What a listener had of a sentence: seconds to the first and the last sound, of speech, and of the worst gap."""

    first_s: float
    whole_s: float
    speech_s: float
    gap_s: float


class Captures:
    """Counts the captures of CUDA graphs in this process from now on."""

    def __init__(self) -> None:
        self.count = 0
        begin = torch.cuda.CUDAGraph.capture_begin

        def counted(graph: torch.cuda.CUDAGraph, *arguments: Any, **settings: Any) -> None:
            self.count += 1
            begin(graph, *arguments, **settings)

        torch.cuda.CUDAGraph.capture_begin = counted  # type: ignore[method-assign, assignment]


@dataclass(frozen=True)
class Load:
    """CPU threads of an operation, the memory of the card that torch may take, how often callers ask, and how many."""

    threads: int
    limit_gb: float
    rounds: int
    callers: Sequence[int]


def check_server(folder: Path, device: torch.device, report: Report, load: Load) -> None:
    """Load the server's engines within the limit of memory, and be their callers."""
    gpu, captures = device.type == "cuda", Captures()
    if gpu:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, load.limit_gb * 1e9 / total), device)
    settings = Settings(
        models_dir=folder,
        device=str(device),
        threads=load.threads,
        recognizer={language.value: "wenet" for language in Language},
        synthesizer={language.value: "xtts" for language in Language},
    )
    planned = plan_memory(settings).needed_bytes(str(usable_device(str(device))))
    report.note("planned_gb", planned / 1e9)
    start = time.perf_counter()
    engines = build_engines(settings)
    report.note("load_s", time.perf_counter() - start)
    report.note("engines", {stage: f"{info.name} {info.model} on {info.device}" for stage, info in _infos(engines)})
    at_ready = captures.count
    report.note("captures_at_start", at_ready)
    try:
        voices = _voices(folder, max(load.callers))
        _check_answers(engines.synthesizers[Language.ENGLISH], voices[0], report)
        _check_voice(engines, report, gpu=gpu)
        for callers in load.callers:
            _check_callers(engines, voices[:callers], load.rounds, report)
        _check_together(engines, voices[:BESIDE], report, load.rounds)
        report.note("captures_after_ready", captures.count - at_ready)
        if gpu:
            _check_memory(device, planned, report)
    finally:
        engines.close()


def _infos(engines: Engines) -> list[tuple[str, Any]]:
    return [(stage, info) for stage, info in engines.infos().items() if stage != "chat"]


def _check_voice(engines: Engines, report: Report, *, gpu: bool) -> None:
    """Compute a voice as a caller has it, and speak with it."""
    synthesizer = engines.synthesizers[Language.ENGLISH]
    start = time.perf_counter()
    voice = synthesizer.voice([repeated(recording(Language.ENGLISH), QUESTION_S)])
    report.note("voice_ms", 1e3 * (time.perf_counter() - start))
    report.note("voice", voice.kind.value)
    if gpu:
        with _waits() as waits:
            _speak(synthesizer, voice, 0)
        report.note("waits_of_a_sentence", len(waits))
        report.note("waits_by_line", dict(Counter(waits).most_common(WAITS_SHOWN)))


def _check_answers(synthesizer: Synthesizer, voice: Voice, report: Report) -> None:
    """Ask for answers one after the other: the first one must cost what later ones do."""
    firsts = [1e3 * _speak(synthesizer, voice, seed).first_s for seed in range(ANSWERS)]
    report.note("first_sound_ms_each", [round(ms, 1) for ms in firsts])
    report.note("first_sound_ms_cold", firsts[0])
    report.note("first_sound_ms_warm", median(firsts[1:]))
    report.note("first_over_later", firsts[0] / median(firsts[1:]))


@contextmanager
def _waits() -> Iterator[list[str]]:
    """Collect a line for each wait of any thread for the device, as torch sees them."""
    lines: list[str] = []

    def collect(message: Warning | str, _kind: type[Warning], file: str, line: int, *_: object) -> None:
        if str(message).startswith(WAITING):
            lines.append(f"{Path(file).name}:{line}")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = collect  # type: ignore[assignment]
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield lines
        finally:
            torch.cuda.set_sync_debug_mode("default")


def _check_callers(engines: Engines, voices: Sequence[Voice], rounds: int, report: Report) -> None:
    synthesizer, callers = engines.synthesizers[Language.ENGLISH], len(voices)
    heard: list[Heard] = []
    tokens, seconds = _tokens(synthesizer), 0.0
    for number in range(rounds):
        begun = time.perf_counter()
        heard += _speak_all(synthesizer, voices, number)
        seconds += time.perf_counter() - begun
    tokens_s = (_tokens(synthesizer) - tokens) / seconds
    _note_heard(heard, str(callers), report)
    report.note(f"tokens_s_{callers}", tokens_s)
    report.note(f"real_time_factor_{callers}", max(each.whole_s / each.speech_s for each in heard))
    _note_floor(callers, tokens_s, report)


def _note_heard(heard: Sequence[Heard], name: str, report: Report) -> None:
    firsts = [1e3 * each.first_s for each in heard]
    report.note(f"first_sound_ms_{name}", median(firsts))
    report.note(f"first_sound_p95_ms_{name}", float(np.percentile(firsts, 95)))
    report.note(f"longest_gap_ms_{name}", 1e3 * max(each.gap_s for each in heard))


def _note_floor(callers: int, tokens_s: float, report: Report) -> None:
    """Note the tokens a second that the bandwidth of the memory allows, if the steps were measured before."""
    floor_ms = report.read().get(f"floor_ms_{min(callers, 8)}")
    if floor_ms is not None:
        most = 1e3 * min(callers, 8) / floor_ms
        report.note(f"tokens_s_floor_{callers}", most)
        report.note(f"tokens_s_of_floor_{callers}", tokens_s / most)


def _check_together(engines: Engines, voices: Sequence[Voice], report: Report, rounds: int) -> None:
    """Recognize while callers listen: what it costs the one and the others."""
    question = repeated(recording(Language.CHINESE), QUESTION_S)
    recognizer, synthesizer = engines.recognizers[Language.CHINESE], engines.synthesizers[Language.CHINESE]

    def recognize() -> float:
        start = time.perf_counter()
        recognizer.recognize(question, Language.CHINESE, context=Context.after(DEADLINE_S))
        return 1e3 * (time.perf_counter() - start)

    report.note("recognition_ms_alone", median(recognize() for _ in range(rounds)))
    times, heard = [], []
    for number in range(rounds):
        with ThreadPoolExecutor(1) as pool:
            speech: Future[list[Heard]] = pool.submit(_speak_all, synthesizer, voices, number)
            while not speech.done():
                times.append(recognize())
            heard += speech.result()
    report.note("recognitions_beside_speech", len(times))
    report.note("recognition_ms_beside_speech", median(times))
    _note_heard(heard, f"{len(voices)}_beside_recognition", report)


def _check_memory(device: torch.device, planned: float, report: Report) -> None:
    """Note what torch's allocator took at most, and what the card lost beyond it (context, libraries, graphs)."""
    free, total = torch.cuda.mem_get_info(device)
    reserved = torch.cuda.max_memory_reserved(device)
    beyond = total - free - torch.cuda.memory_reserved(device)
    report.note("allocated_gb", torch.cuda.max_memory_allocated(device) / 1e9)
    report.note("reserved_gb", reserved / 1e9)
    report.note("beyond_torch_gb", beyond / 1e9)
    report.note("card_gb", (reserved + beyond) / 1e9)
    report.note("card_over_plan", (reserved + beyond) / planned)


def _voices(folder: Path, count: int) -> list[Voice]:
    """Return voices of random numbers, with the sizes of the model's own."""
    width = json.loads((folder / "xtts-v2" / CONFIG_FILE).read_text())["model_args"]["gpt_n_model_channels"]
    random = [RandomVoice.random(seed, width) for seed in range(count)]
    return [XttsVoice(VoiceKind.CLONE, "", each.conditioning, each.embedding) for each in random]


def _speak_all(synthesizer: Synthesizer, voices: Sequence[Voice], seed: int) -> list[Heard]:
    """Let a caller for each of `voices` ask for a sentence at the same moment; return what each heard."""
    start = threading.Barrier(len(voices))

    def ask(number: int) -> Heard:
        start.wait(DEADLINE_S)
        return _speak(synthesizer, voices[number], 100 * seed + number)

    with ThreadPoolExecutor(len(voices)) as pool:
        return list(pool.map(ask, range(len(voices))))


def _speak(synthesizer: Synthesizer, voice: Voice, seed: int) -> Heard:
    start, times, lengths = time.perf_counter(), [], []
    context = Context.after(DEADLINE_S)
    spoken = synthesizer.speak(TEXT, voice, Language.ENGLISH, seed=seed, priority=Priority.FIRST, context=context)
    for audio in spoken:
        times.append(time.perf_counter() - start)
        lengths.append(audio.duration_s)
    return Heard(times[0], times[-1], sum(lengths), worst_gap(times, lengths))


def worst_gap(times: Sequence[float], lengths: Sequence[float]) -> float:
    """Return the longest time with nothing to play, for sounds of `lengths` seconds that came at `times`."""
    played_until, worst = times[0], 0.0
    for arrived, length in zip(times, lengths, strict=True):
        worst = max(worst, arrived - played_until)
        played_until = max(played_until, arrived) + length
    return worst


def _tokens(synthesizer: Synthesizer) -> int:
    assert isinstance(synthesizer, Batched)
    return synthesizer.stats().tokens
