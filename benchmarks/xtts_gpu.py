"""The comparison on a GPU: stock, stock with DeepSpeed if it is installed, and our engine within an 8 GB card."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.side_process import Side, SideFailed
from benchmarks.xtts_compare import Work, best, compare_first_chunk, compare_sentences
from benchmarks.xtts_sides import Own, Stock
from mirrorchat.asr import WenetRecognizer
from mirrorchat.concurrency.device_lock import DeviceLock
from mirrorchat.engines import Language
from mirrorchat.hardware.devices import gpu_weights
from mirrorchat.synth import weight_mode

BATCHES = (1, 4, 8, 16)
LIMIT_BYTES = 7e9  # of an 8 GB card, CUDA's context and libraries take the rest
TOKENS_A_SECOND = 21.5  # of speech in real time
WARM_UP_STEPS = 5
DEVICE = "cuda:0"

Figures = dict[str, Any]


class Limited(Own):
    """Our engine in a process with LIMIT_BYTES of the GPU, where also the recognizers in the folders `wenet` run."""

    def __init__(self, folder: Path, wenet: Sequence[Path]) -> None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, LIMIT_BYTES / total))
        lock = DeviceLock()
        self.recognizers = [
            WenetRecognizer(each, Language.ENGLISH, threads=torch.get_num_threads(), device=DEVICE, device_lock=lock)
            for each in wenet
        ]
        device = torch.device(DEVICE)
        dtype = torch.float32 if gpu_weights(device) == "fp16w" else torch.float16
        mode = weight_mode("auto", device)
        super().__init__(folder, mode, dtype, max_batch=max(BATCHES), device=DEVICE, device_lock=lock)

    def close(self) -> None:
        super().close()
        for recognizer in self.recognizers:
            recognizer.close()


def measure_gpu(folder: Path, threads: int, work: Work, wenet: Sequence[Path]) -> Figures:
    """Return all figures of the GPU. Their names begin with `gpu_`."""
    if not wenet:
        print("GPU: memory is measured without the WeNet models (no --wenet FOLDER)")
    mode = gpu_weights(torch.device(DEVICE))
    with Side(f"{mode} on the GPU", threads, Limited, folder, wenet) as own:
        sides: dict[str, Side[Own]] = {mode: own}  # type: ignore[dict-item]  # which asks no less of it
        figures = _steps(own, work) | _callers(own, work)
        with Side("stock on the GPU", threads, Stock, folder, device=DEVICE) as stock:
            figures |= compare_sentences(stock, sides, work)
            figures |= compare_first_chunk(stock, sides, work)
        allocated, reserved = own.ask(Own.gpu_gb)
    limit_gb = LIMIT_BYTES / 1e9
    print(f"GPU memory: {allocated:.2f} GB of tensors, {reserved:.2f} GB with torch's reserve, limit {limit_gb:.0f} GB")
    figures |= {"peak_gb": allocated, "reserved_gb": reserved, "wenet_models": len(wenet)}
    figures |= _deepspeed(folder, threads, work)
    return {f"gpu_{name}": value for name, value in figures.items()}


def _steps(own: Side[Limited], work: Work) -> Figures:
    """Time decode steps, and the time to read the weights once."""
    floor_s = own.ask(Own.floor_s, own.ask(Own.bandwidth))
    tokens = {}
    for batch in BATCHES:
        step_s = median(own.ask(Own.step_seconds, batch, work.tokens + WARM_UP_STEPS)[WARM_UP_STEPS:])
        tokens[batch] = batch / step_s
        print(f"GPU steps, {batch} at once: {tokens[batch]:.0f} tokens/s, {step_s / floor_s:.2f} x the floor")
    return {"step_tokens_s": tokens, "floor_ms": floor_s * 1e3}


def _callers(own: Side[Limited], work: Work) -> Figures:
    """Increase the number of parallel callers, and return the largest that all get speech in real time."""
    tokens, callers = {}, 0
    for batch in BATCHES:
        own.ask(Own.speak_all, range(batch), work.tokens, sample=True)  # warms up
        spoken = own.ask(Own.speak_all, range(batch), work.tokens, sample=True)
        tokens[batch] = batch * work.tokens / max(each.seconds for each in spoken)
        if tokens[batch] / batch > TOKENS_A_SECOND:
            callers = batch
        print(f"GPU, {batch} callers: {tokens[batch]:.0f} tokens/s, {tokens[batch] / batch:.1f} each", flush=True)
    first_s = [own.ask(Own.speak, 0, work.tokens, sample=True).first_s for _ in range(work.rounds + 1)]
    print(f"GPU first chunk: {best(first_s)}; {callers} callers in real time")
    real_time = tokens.get(callers, 0.0)
    return {
        "tokens_s": tokens,
        "callers": callers,
        "real_time_tokens_s": real_time,
        "first_chunk_ms": min(first_s) * 1e3,
    }


def _deepspeed(folder: Path, threads: int, work: Work) -> Figures:
    """Time stock with `use_deepspeed`, if DeepSpeed is installed and works."""
    if importlib.util.find_spec("deepspeed") is None:
        print("GPU: DeepSpeed is not installed")
        return {}
    try:
        with Side("stock with DeepSpeed", threads, Stock, folder, device=DEVICE, deepspeed=True) as stock:
            times = [stock.ask(Stock.speak, 0, work.tokens, sample=False).seconds for _ in range(work.rounds + 1)][1:]
    except SideFailed as error:  # it builds its kernels at run time, with a compiler
        print(f"GPU: DeepSpeed does not work here: {error}")
        return {}
    print(f"GPU, stock with DeepSpeed: {best(times)}")
    return {"deepspeed_s": min(times)}
