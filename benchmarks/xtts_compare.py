"""The comparisons of benchmarks/xtts.py, with alternating sides: sentences, first chunks, decode steps, vocoders."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.side_process import Side
from benchmarks.xtts_sides import STREAM_TOKENS, Own, Spoken, Stock

BATCHES = (1, 4, 8)
SHORT_LATENTS, LONG_LATENTS = 150, 600  # 7 and 28 s
WHOLE_LATENTS = 80

Figures = dict[str, Any]
Sides = Mapping[str, Side[Own]]  # by weight mode, the most precise first


@dataclass(frozen=True)
class Work:
    """The amount of the measurements."""

    tokens: int
    rounds: int


def best(times: list[float]) -> str:
    return f"min {min(times):.3f} s, median {median(times):.3f} s"


def compare_sentences(stock: Side[Stock], sides: Sides, work: Work) -> Figures:
    """Time whole sentences, greedy and sampled, with alternating sides. Compare tokens and samples with stock."""
    times: dict[str, list[float]] = defaultdict(list)
    equal, errors, audio_s = dict.fromkeys(sides, True), dict.fromkeys(sides, 0.0), 0.0
    for index in range(work.rounds + 1):
        for sample in (False, True):
            spoken = {"stock": stock.ask(Stock.speak, 0, work.tokens, sample=sample)}
            spoken |= {mode: side.ask(Own.speak, 0, work.tokens, sample=sample) for mode, side in sides.items()}
            audio_s = len(spoken["stock"].samples) / 24_000
            for mode in sides:
                same, error = _differences(spoken["stock"], spoken[mode])
                equal[mode] &= same
                errors[mode] = max(errors[mode], error)
                how = f"round {index}, {'sampled' if sample else 'greedy'}, {mode}"
                print(f"{how}: ids {f'equal, samples within {error:.1e}' if same else 'differ'}", flush=True)
            if index > 0:  # the first warms up
                for name, sentence in spoken.items():
                    times[name].append(sentence.seconds)
    return _sentence_figures(times, sides, work, audio_s) | _equality(sides, equal, errors)


def _differences(expected: Spoken, found: Spoken) -> tuple[bool, float]:
    """Return whether the tokens are equal, and the largest difference of samples (0 for unequal tokens)."""
    if found.tokens != expected.tokens or len(found.samples) != len(expected.samples):
        return False, 0.0
    return True, float(np.abs(found.samples - expected.samples).max())


def _equality(sides: Sides, equal: dict[str, bool], errors: dict[str, float]) -> Figures:
    exact = next(iter(sides))
    return {
        "ids_equal": equal[exact],
        "wav_max_error": errors[exact],
        "ids_equal_by_mode": equal,
        "wav_max_error_by_mode": {mode: error if equal[mode] else None for mode, error in errors.items()},
    }


def _sentence_figures(times: dict[str, list[float]], sides: Sides, work: Work, audio_s: float) -> Figures:
    for name, each in times.items():
        ratio = min(times["stock"]) / min(each)
        print(
            f"{work.tokens} tokens, {audio_s:.2f} s of speech, {sides[name].name if name in sides else name}: "
            f"{best(each)}, {ratio:.2f}x, RTF {min(each) / audio_s:.3f}"
        )
    fastest = min(sides, key=lambda mode: min(times[mode]))
    figures = {f"{mode}_vs_stock": min(times["stock"]) / min(times[mode]) for mode in sides}
    return figures | {
        "fastest_vs_stock": figures[f"{fastest}_vs_stock"],
        "fastest_mode": sides[fastest].name,
        "rtf_fastest": min(times[fastest]) / audio_s,
        "rtf_stock": min(times["stock"]) / audio_s,
        "sentence_s": {name: {"min": min(each), "median": median(each)} for name, each in times.items()},
    }


def compare_first_chunk(stock: Side[Stock], sides: Sides, work: Work) -> Figures:
    """Time the first samples. Stock uses the smallest chunk with as many samples, and also its default chunk."""
    samples = {mode: side.ask(Own.speak, 0, work.tokens, sample=False).first_samples for mode, side in sides.items()}
    chunk = chunk_with(max(samples.values()))
    times: dict[str, list[float]] = defaultdict(list)
    for _ in range(work.rounds):
        for mode, side in sides.items():
            times[mode].append(side.ask(Own.speak, 0, work.tokens, sample=False).first_s)
        for name, size in (("same", chunk), ("default", STREAM_TOKENS)):
            times[name].append(stock.ask(Stock.first_chunk, 0, work.tokens, size)[0])
    for mode, side in sides.items():
        print(f"first chunk, {samples[mode]} samples, {side.name}: {best(times[mode])}")
    print(f"  stock, {chunk} tokens: {best(times['same'])}; its default, {STREAM_TOKENS}: {best(times['default'])}")
    fastest = min(sides, key=lambda mode: min(times[mode]))
    first_s = min(times[fastest])
    return {
        "first_chunk_vs_stock": min(times["same"]) / first_s,
        "first_chunk_vs_stock_default": min(times["default"]) / first_s,
        "first_chunk_s": first_s,
        "first_chunk_samples": samples[fastest],
        "first_chunk_s_by_mode": {mode: min(times[mode]) for mode in sides},
    }


def chunk_with(samples: int) -> int:
    """Return the tokens of the stock chunk that yields so many samples. Stock keeps 1024 samples for the next chunk."""
    return next(n for n in range(2, 1000) if int(n * 4 * 24_000 / 22_050) * 256 - 1024 >= samples)


def compare_steps(sides: Sides, work: Work, batches: tuple[int, ...] = BATCHES) -> Figures:
    """Time decode steps of several batches, and the lower bound by the memory bandwidth between them."""
    times: dict[tuple[str, int], list[float]] = defaultdict(list)
    bandwidth = 0.0
    for _ in range(work.rounds):
        for mode, side in sides.items():
            bandwidth = max(bandwidth, side.ask(Own.bandwidth))
            for batch in batches:
                times[mode, batch] += side.ask(Own.step_seconds, batch, work.tokens)
    floors = {mode: side.ask(Own.floor_s, bandwidth) for mode, side in sides.items()}
    for mode, batch in times:
        step_s, floor_s = times[mode, batch], floors[mode]
        print(
            f"step {mode}, {batch} at once: {min(step_s) * 1e3:.1f} ms (median {median(step_s) * 1e3:.1f}), "
            f"{min(step_s) / floor_s:.2f} x the floor of {floor_s * 1e3:.1f} ms at {bandwidth / 1e9:.1f} GB/s; "
            f"{batch / min(step_s):.0f} tokens/s"
        )
    gains = {mode: 8 * min(times[mode, 1]) / min(times[mode, 8]) for mode in sides}
    return {
        "step_vs_floor": {mode: min(times[mode, 1]) / floors[mode] for mode in sides},
        "step_ms": {mode: {str(b): min(times[mode, b]) * 1e3 for b in batches} for mode in sides},
        "floor_ms": {mode: floor_s * 1e3 for mode, floor_s in floors.items()},
        "bandwidth_gb_s": bandwidth / 1e9,
        "batch8_vs_1": next(iter(gains.values())),
        "batch8_vs_1_by_mode": gains,
    }


def compare_vocoders(stock: Side[Stock], sides: Sides, work: Work) -> Figures:
    """Time vocoding in chunks with 4 times the audio, and in one piece of equal length on both sides."""
    short: dict[str, list[float]] = defaultdict(list)
    long: dict[str, list[float]] = defaultdict(list)
    whole: dict[str, list[float]] = defaultdict(list)
    for side in sides.values():
        side.ask(Own.vocode_seconds, 40, 8)  # warms up
    for _ in range(max(2, work.rounds)):
        for mode, side in sides.items():
            short[mode].append(side.ask(Own.vocode_seconds, SHORT_LATENTS, 8))
            long[mode].append(side.ask(Own.vocode_seconds, LONG_LATENTS, 8))
            whole[mode].append(side.ask(Own.vocode_seconds, WHOLE_LATENTS, WHOLE_LATENTS))
        whole["stock"].append(stock.ask(Stock.vocode_seconds, WHOLE_LATENTS, WHOLE_LATENTS))
    # A quarter of our length: its time grows with the square of the length.
    short["stock"].append(stock.ask(Stock.vocode_seconds, 40, STREAM_TOKENS))
    long["stock"].append(stock.ask(Stock.vocode_seconds, 160, STREAM_TOKENS))
    ratios = {name: min(long[name]) / min(short[name]) for name in long}
    streamed = {name: min(long[name]) / seconds_of(160 if name == "stock" else LONG_LATENTS) for name in long}
    faster = {mode: min(whole["stock"]) / min(whole[mode]) for mode in sides}
    for name, ratio in ratios.items():
        print(
            f"vocoder of {sides[name].name if name in sides else name}: streamed {streamed[name]:.3f} s a second, "
            f"4 times the audio {ratio:.2f}x; {WHOLE_LATENTS} tokens in one piece {best(whole[name])}"
        )
    return {
        "vocoder_4x": ratios[next(iter(sides))],
        "vocoder_4x_stock": ratios["stock"],
        "vocoder_streamed_rtf": streamed,
        "vocoder_whole_vs_stock": faster,
        "vocoder_whole_s": {name: min(each) for name, each in whole.items()},
    }


def seconds_of(latents: int) -> float:
    return latents * 1024 / 22_050
