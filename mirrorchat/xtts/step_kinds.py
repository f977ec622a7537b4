"""The KV cache of the decode engine, as large as its limits allow, and the steps over it."""

import math

import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.xtts.cuda_graph import StaticSteps
from mirrorchat.xtts.gpt import Cache, GptInputs, TorchGpt
from mirrorchat.xtts.native_gpt import NativeGpt
from mirrorchat.xtts.steps import EagerSteps, StepMode, Steps


def make_cache_and_steps(
    gpt: TorchGpt | NativeGpt, mode: StepMode, *, positions: int, max_slots: int, cache_bytes: int
) -> tuple[Cache, Steps]:
    """Return a KV cache for as many sequences of `positions` as fit, and the steps over it.

    Raises ConfigurationError if none fits, if the steps of `mode` cannot run with `gpt`, or without memory for them.
    """
    on_gpu = gpt.mel_embedding.device.type == "cuda"
    if mode is not StepMode.EAGER and (not isinstance(gpt, TorchGpt) or (mode is StepMode.GRAPH and not on_gpu)):
        raise ConfigurationError(f"there are no steps of the kind {mode} on {gpt.mel_embedding.device} in {gpt.mode}")
    positions += 0 if mode is StepMode.EAGER else 1  # for the writes of idle slots
    slots = _slots(gpt, positions, max_slots, cache_bytes)
    try:
        cache = Cache(slots, positions, gpt)
        if mode is StepMode.EAGER or not isinstance(gpt, TorchGpt):
            return cache, EagerSteps(gpt, cache)
        return cache, StaticSteps(gpt, cache, capture=mode is StepMode.GRAPH)
    except torch.OutOfMemoryError as error:
        advice = f"set xtts_batch below {slots}" if slots > 1 else "set device = 'cpu'"
        raise ConfigurationError(f"the GPU has too little free memory for XTTS's decode steps; {advice}") from error


def _slots(gpt: GptInputs, positions: int, max_slots: int, cache_bytes: int) -> int:
    """Return how many slots of `positions` fit. Raises ConfigurationError if none does."""
    slot_bytes = math.prod(gpt.cache_shape(positions)) * gpt.cache_dtype.itemsize
    slots = min(max_slots, cache_bytes // slot_bytes)
    if slots < 1:
        few = f"{cache_bytes} bytes of cache are too few for one sentence"
        raise ConfigurationError(f"{few}: give it {slot_bytes} or more")
    return slots
