"""One engine thread that decodes every sentence of every caller together: continuous batching for XTTS.

Sequences join and leave the running batch at any step (Orca, Yu et al., OSDI 2022; vLLM). Each has its own voice, text,
sampling settings, random generator, rows of the cache and queue to its listener, and its result does not depend on its
neighbours. Latents for the vocoder are taken from the decode step itself; stock XTTS runs the GPT a second time.

A listener who does not take samples fills its queue: its sequence then skips its turn, and gives its cache row to
another sequence that waits for one (what the row held is kept aside). A later sentence gives its own to a first one.

On a GPU the engine is one step ahead (see xtts/cuda_graph.py): it launches a step, and only then reads what the one
before gave. What a step gives for a sequence that has ended meanwhile is dropped.

All of torch's work on the CPU is done on the engine's thread. Each thread that has run a parallel operation keeps
OpenMP workers of its own as long as it lives, and once there are more of those than cores, GNU's OpenMP lets them sleep
between operations: a step then takes 1.7 times as long. What else needs torch beside this engine should run on a
thread that ends.
"""

import hashlib
import itertools
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mirrorchat.audio.samples import Samples
from mirrorchat.engines import BatchStats
from mirrorchat.errors import (
    ConfigurationError,
    MirrorChatError,
    NotReady,
    ServerBusy,
    ShuttingDown,
    SynthesisFailed,
    log_unexpected,
)
from mirrorchat.hardware import native
from mirrorchat.xtts.cuda_graph import StaticSteps
from mirrorchat.xtts.gpt import Cache, GptInputs, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network
from mirrorchat.xtts.native_gpt import NativeGpt
from mirrorchat.xtts.sampling import is_loop
from mirrorchat.xtts.steps import Drawn, EagerSteps, Launched, Restore, StepMode, Steps
from mirrorchat.xtts.utterance import FinishReason, Request, Utterance
from mirrorchat.xtts.vocoder import VocoderStream

CONDITIONING_POSITIONS = 32  # of a voice, made by the perceiver
FAULTS = (RuntimeError, MemoryError)  # of one computation: what torch and the C++ library raise
VOICES_KEPT = 8  # voices whose keys and values are kept: 8 MB each in float32


class Vocoder(Protocol):
    """Turns latents into samples: `StreamingVocoder`."""

    def open(self, speaker_embedding: Tensor) -> VocoderStream: ...

    def latents_wanted(self, stream: VocoderStream) -> int: ...

    def advance(self, work: Sequence[tuple[VocoderStream, Tensor, bool]]) -> list[Samples]: ...


@dataclass(frozen=True)
class DecodeLimits:
    """How much runs and waits at once.

    `cache_bytes` is the budget for keys and values: it holds as many sequences as fit, at most `max_batch`.
    `queue_chunks` pieces of samples, of the vocoder's sizes, wait for a listener before its sequence pauses; where the
    engine is a step ahead, one more may come.
    """

    max_batch: int = 8
    cache_bytes: int = 2_200_000_000  # 8 sequences of full length with a float32 cache
    max_waiting: int = 64
    queue_chunks: int = 4


@dataclass(eq=False)
class _Sequence:
    """An utterance on the engine's side. `asked` of its tokens have been launched, those that are known included."""

    utterance: Utterance
    ticket: int
    max_tokens: int
    stream: VocoderStream | None = None  # once it has joined
    row: int | None = None
    asked: int = 0
    restore: Restore | None = None  # while it has lent its row to another
    wanted: int = 1  # latents that the vocoder waits for before it gives more samples
    vocoded: int = 0  # latents given to it
    reason: FinishReason | None = None
    pausing: bool = False  # it will lend its row as soon as nothing of it is under way

    @property
    def order(self) -> tuple[int, int]:
        return (self.utterance.request.priority, self.ticket)

    @property
    def may_go_on(self) -> bool:
        """Tell whether its next token may be launched."""
        return not (self.utterance.full or self.pausing) and self.asked < self.max_tokens

    @property
    def settled(self) -> bool:
        """Tell whether nothing of it is under way."""
        return self.asked == len(self.utterance.tokens)

    def yields_to(self, other: "_Sequence") -> bool:
        """Tell whether it gives way to `other`: its listener has fallen behind, or `other` is more urgent."""
        return self.utterance.full or self.utterance.request.priority > other.utterance.request.priority


@dataclass
class _Schedule:
    """Who waits and who has a row. Guarded by the engine's condition."""

    free_rows: list[int]
    waiting: list[_Sequence] = field(default_factory=list)
    running: list[_Sequence] = field(default_factory=list)

    def everyone(self) -> list[_Sequence]:
        return [*self.waiting, *self.running]

    def remove(self, sequence: _Sequence) -> None:
        """Forget `sequence` and free its row."""
        for group in (self.waiting, self.running):
            if sequence in group:
                group.remove(sequence)
        if sequence.row is not None:
            self.free_rows.append(sequence.row)
            sequence.row = None

    def next_to_join(self) -> _Sequence | None:
        """Return the most urgent sequence whose listener has room."""
        return min((s for s in self.waiting if not s.utterance.full), key=lambda s: s.order, default=None)

    def lender(self, to: _Sequence) -> _Sequence | None:
        """Return a sequence that may lend its row: the least urgent one, of those who have fallen behind first."""
        lenders = (s for s in self.running if s.yields_to(to))
        return max(lenders, key=lambda s: (s.utterance.full, s.order), default=None)


class DecodeEngine:
    """Speaks requests in batches on a thread of its own. Thread-safe.

    Raises ConfigurationError when `device` cannot compute in `mode` or the budget holds no sequence. `device_lock` is
    held during each step, for engines that share a device. `step_mode` is GRAPH on a GPU and EAGER elsewhere unless
    given; a GRAPH elsewhere is a ConfigurationError too. After a failure that is the whole engine's (an error of the
    GPU), `healthy` is False and every request fails.
    """

    def __init__(
        self,
        network: Network,
        *,
        mode: WeightMode,
        vocoder: Vocoder,
        device: torch.device,
        limits: DecodeLimits | None = None,
        device_lock: AbstractContextManager[object] | None = None,
        step_mode: StepMode | None = None,
    ) -> None:
        self.limits = limits or DecodeLimits()
        with ThreadPoolExecutor(1) as passing:  # see the top of the module
            self.gpt = passing.submit(_gpt, network, mode, device).result()
        usual_mode = StepMode.GRAPH if device.type == "cuda" else StepMode.EAGER
        self.cache, self._steps = _cache_and_steps(self.limits, self.gpt, step_mode or usual_mode)
        self.healthy = True
        self._vocoder = vocoder
        self._device_lock = device_lock or nullcontext()
        self._on_cpu = device.type == "cpu"
        self._launched: list[tuple[Sequence[_Sequence], Launched]] = []  # steps that have not been read yet
        self._voices: OrderedDict[bytes, Tensor] = OrderedDict()
        self._changed = threading.Condition()
        self._schedule = _Schedule(list(reversed(range(self.cache.rows))))
        self._tickets = itertools.count()
        self._tokens = 0
        self._turned_at = time.monotonic()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="xtts-decode", daemon=True)
        self._thread.start()

    def submit(self, request: Request) -> Utterance:
        """Queue `request` and return its utterance, to be iterated over.

        Raises SynthesisFailed when the text is too long for the model, ServerBusy when too many wait already,
        ShuttingDown, NotReady when the engine has failed, ValueError for tensors or tokens that are not this model's.
        """
        self._check(request)
        with self._changed:
            self._check_admission()
            if not self._schedule.everyone():
                self._turned_at = time.monotonic()  # until now there was nothing to make progress with
            utterance = Utterance(request, self.limits.queue_chunks, self._changed)
            limit = min(request.max_tokens, self.gpt.token_limit)
            self._schedule.waiting.append(_Sequence(utterance, next(self._tickets), limit))
            self._changed.notify_all()
        return utterance

    @property
    def running(self) -> int:
        """Return how many sequences hold rows of the cache."""
        with self._changed:
            return len(self._schedule.running)

    @property
    def stuck_s(self) -> float:
        """Return how many seconds the thread has been in its present turn; 0 while nobody waits for speech."""
        with self._changed:
            return time.monotonic() - self._turned_at if self._schedule.everyone() else 0.0

    def stats(self) -> BatchStats:
        """Return how full the batch is, and the tokens drawn since the start."""
        with self._changed:
            schedule = self._schedule
            return BatchStats(len(schedule.running), self.cache.rows, len(schedule.waiting), self._tokens)

    def close(self) -> None:
        """End every utterance with ShuttingDown and join the thread. Later requests are refused."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _check(self, request: Request) -> None:
        gpt = self.gpt
        if len(request.text_ids) > gpt.text_limit:
            raise SynthesisFailed(f"the text has {len(request.text_ids)} tokens; XTTS reads at most {gpt.text_limit}")
        if not all(0 <= token < gpt.text_tokens for token in request.text_ids):
            raise ValueError("text tokens that are not in the vocabulary")
        if request.conditioning.shape != (1, CONDITIONING_POSITIONS, gpt.width):
            raise ValueError(f"conditioning of shape {tuple(request.conditioning.shape)}")
        if request.max_tokens < 1:
            raise ValueError("max_tokens below 1")

    def _check_admission(self) -> None:
        if self._closing:
            raise ShuttingDown("the speech engine is shutting down")
        if not self.healthy:
            raise NotReady("the speech engine has failed")
        if len(self._schedule.waiting) >= self.limits.max_waiting:
            raise ServerBusy(f"{self.limits.max_waiting} sentences wait already; try again shortly", retry_after_s=2)

    # What follows runs on the engine's thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._turn():
                    self._turned_at = time.monotonic()
        except Exception as error:  # whatever it is, nobody may wait for ever
            log_unexpected(error)
            with self._changed:
                self.healthy = False
                self._end_everyone(SynthesisFailed("the speech engine has failed"))

    def _turn(self) -> bool:
        """Launch the next token of every sequence that may go on, read what is due, and speak it.

        Wait when there is nothing to do. Return False at the end.
        """
        with self._changed:
            if self._closing:
                self._end_everyone(ShuttingDown("the speech engine is shutting down"))
                return False
            self._drop_unwanted()
            joining = self._seat()
            ready = [s for s in self._schedule.running if s.may_go_on and s not in joining]
            if not joining and not ready and not self._launched:
                self._changed.wait(self._first_deadline_s())
                return True
        with self._device_lock:
            before = len(self._launched)
            for sequence in joining:
                self._join(sequence)
            if ready:
                self._step(ready)
            self._read(before if self._steps.late else len(self._launched))
            self._speak()
        return True

    def _first_deadline_s(self) -> float | None:
        """Return the seconds until the first deadline of those who wait; None where there is none."""
        left_s = min((s.utterance.request.context.remaining_s() for s in self._schedule.everyone()), default=math.inf)
        return None if left_s == math.inf else left_s

    def _end_everyone(self, error: MirrorChatError) -> None:
        for sequence in self._schedule.everyone():
            self._end(sequence, error)

    def _drop_unwanted(self) -> None:
        for sequence in self._schedule.everyone():
            error = sequence.utterance.unwanted()
            if error is not None:
                self._end(sequence, error)

    def _end(self, sequence: _Sequence, error: MirrorChatError) -> None:
        with self._changed:
            self._schedule.remove(sequence)
            sequence.utterance.fail(error)

    def _seat(self) -> list[_Sequence]:
        """Give rows to those who wait, the most urgent first, also rows of those who give way to them."""
        seated: list[_Sequence] = []
        schedule = self._schedule
        for running in schedule.running:
            running.pausing = False
        while (sequence := schedule.next_to_join()) is not None:
            if not schedule.free_rows:
                lender = schedule.lender(sequence)
                if lender is None:
                    break
                if not lender.settled:
                    lender.pausing = True  # it is settled when the step before has been read
                    break
                self._unseat(lender)
            schedule.waiting.remove(sequence)
            schedule.running.append(sequence)
            sequence.row = schedule.free_rows.pop()
            seated.append(sequence)
        return seated

    def _unseat(self, sequence: _Sequence) -> None:
        assert sequence.row is not None
        sequence.restore = self._steps.save(sequence.row)
        self._schedule.remove(sequence)
        self._schedule.waiting.append(sequence)

    def _join(self, sequence: _Sequence) -> None:
        """Fill the row of `sequence` and draw its first token, or put back what it held before."""
        assert sequence.row is not None
        request = sequence.utterance.request
        try:
            if sequence.restore is not None:
                sequence.restore(sequence.row)
                sequence.restore = None
                return
            sequence.stream = self._vocoder.open(request.speaker_embedding)
            sequence.wanted = self._vocoder.latents_wanted(sequence.stream)
            last = self._prefill(request, sequence.row)
            positions = CONDITIONING_POSITIONS + len(request.text_ids) + 3
            launched = self._steps.start(
                sequence.row, last, positions=positions, sampling=request.sampling, seed=request.seed
            )
        except FAULTS as error:
            self._fail(sequence, error)
            return
        self._note([sequence], launched)

    def _prefill(self, request: Request, row: int) -> Tensor:
        """Run the voice (once for all of its sentences) and the text; return the last output (1, D)."""
        key = hashlib.sha256(request.conditioning.contiguous().numpy().tobytes()).digest()
        voice = self._voices.get(key)
        if voice is None:
            # A voice's positions come first and attend only to each other: their keys and values hold for any text.
            self.gpt.prefill(request.conditioning[0].to(self.cache.data.device), self.cache, row, 0)
            self._voices[key] = self.cache.save(row, CONDITIONING_POSITIONS)
            if len(self._voices) > VOICES_KEPT:
                self._voices.popitem(last=False)
        else:
            self._voices.move_to_end(key)
            self.cache.load(row, voice)
        return self.gpt.prefill(self.gpt.text_prefix(request.text_ids), self.cache, row, CONDITIONING_POSITIONS)[-1:]

    def _step(self, ready: Sequence[_Sequence]) -> None:
        """Launch one token of each; where that fails together, each alone, so that only the one at fault fails."""
        try:
            launched = self._steps.launch([sequence.row for sequence in ready if sequence.row is not None])
        except FAULTS as error:
            if len(ready) == 1:
                self._fail(ready[0], error)
                return
            _raise_if_engine_wide(error)
            for sequence in ready:
                self._step([sequence])
            return
        self._note(ready, launched)

    def _note(self, sequences: Sequence[_Sequence], launched: Launched) -> None:
        for sequence in sequences:
            sequence.asked += 1
        self._launched.append((sequences, launched))

    def _read(self, count: int) -> None:
        """Take what the oldest `count` steps gave to their sequences, except to those that have ended meanwhile."""
        due = [self._launched.pop(0) for _ in range(count)]
        for sequences, launched in due:
            for sequence, drawn in zip(sequences, launched.collect(), strict=True):
                if sequence in self._schedule.running:
                    self._accept(sequence, drawn)

    def _accept(self, sequence: _Sequence, drawn: Drawn) -> None:
        if drawn.token is None:
            self._fail(sequence, None)
            return
        utterance = sequence.utterance
        utterance.latents.append(drawn.latent)
        utterance.tokens.append(drawn.token)
        self._tokens += 1
        sequence.reason = self._reason(utterance.tokens, sequence.max_tokens)

    def _reason(self, tokens: Sequence[int], limit: int) -> FinishReason | None:
        if tokens[-1] == self.gpt.stop_token:
            return FinishReason.STOP
        if is_loop(tokens):
            return FinishReason.LOOP
        return FinishReason.LENGTH if len(tokens) >= limit else None

    def _fail(self, sequence: _Sequence, error: RuntimeError | MemoryError | None) -> None:
        """Fail `sequence` alone, unless `error` is the whole engine's. None stands for numbers that are not finite."""
        if error is None:
            self._end(sequence, SynthesisFailed("XTTS could not speak the sentence (numbers that are not finite)"))
            return
        _raise_if_engine_wide(error)
        log_unexpected(error)
        self._end(sequence, SynthesisFailed(f"XTTS could not speak the sentence ({type(error).__name__})"))

    def _speak(self) -> None:
        """Give the vocoder what has come together, and the samples to the listeners."""
        due = [sequence for sequence in self._schedule.running if _is_due(sequence)]
        if not due:
            return
        # A GPU computes them as one batch. A CPU gains nothing by it, and a failure is one sequence's alone.
        for group in [[sequence] for sequence in due] if self._on_cpu else [due]:
            try:
                spoken = self._vocoder.advance([_work(sequence) for sequence in group])
            except FAULTS as error:
                for sequence in group:
                    self._fail(sequence, error)
                continue
            for sequence, samples in zip(group, spoken, strict=True):
                self._deliver(sequence, samples)

    def _deliver(self, sequence: _Sequence, samples: Samples) -> None:
        if not np.isfinite(samples).all():
            self._fail(sequence, None)
            return
        if sequence.stream is not None and sequence.reason is None:
            sequence.wanted = self._vocoder.latents_wanted(sequence.stream)
        with self._changed:
            sequence.vocoded = len(sequence.utterance.latents)
            sequence.utterance.put(samples)
            if sequence.reason is not None:
                self._schedule.remove(sequence)
                sequence.utterance.finish(sequence.reason)


def _is_due(sequence: _Sequence) -> bool:
    new = len(sequence.utterance.latents) - sequence.vocoded
    return sequence.reason is not None or (new > 0 and new >= sequence.wanted)


def _work(sequence: _Sequence) -> tuple[VocoderStream, Tensor, bool]:
    assert sequence.stream is not None  # it has joined
    latents = torch.cat(sequence.utterance.latents[sequence.vocoded :])
    return sequence.stream, latents, sequence.reason is not None


def _gpt(network: Network, mode: WeightMode, device: torch.device) -> TorchGpt | NativeGpt:
    """Return the fastest GPT for `mode` on `device`. Raises ConfigurationError where there is none."""
    library = native.library()
    if library is not None and device.type == "cpu" and mode in (WeightMode.FP16W, WeightMode.INT8):
        return NativeGpt(network, mode, library, threads=torch.get_num_threads())
    return TorchGpt(network, mode, device)


def _cache_and_steps(limits: DecodeLimits, gpt: TorchGpt | NativeGpt, mode: StepMode) -> tuple[Cache, Steps]:
    """Return a cache for as many sequences of full length as fit, and what decodes its rows.

    Raises ConfigurationError when none fits, or steps of `mode` cannot run where `gpt` is.
    """
    positions = CONDITIONING_POSITIONS + gpt.text_limit + 2 + gpt.token_limit
    if mode is StepMode.EAGER:
        cache = _cache_within(limits, gpt, positions)
        return cache, EagerSteps(gpt, cache)
    cache = _cache_within(limits, gpt, positions + 1)  # one more, which idle rows write to
    if not isinstance(gpt, TorchGpt) or (mode is StepMode.GRAPH and cache.data.device.type != "cuda"):
        raise ConfigurationError(f"there are no steps of the kind {mode} on {cache.data.device} in {gpt.mode}")
    return cache, StaticSteps(gpt, cache, capture=mode is StepMode.GRAPH)


def _cache_within(limits: DecodeLimits, gpt: GptInputs, positions: int) -> Cache:
    """Return a cache for as many sequences of `positions` as fit. Raises ConfigurationError when none does."""
    row_bytes = int(np.prod(gpt.cache_shape(positions))) * gpt.cache_dtype.itemsize
    rows = min(limits.max_batch, limits.cache_bytes // row_bytes)
    if rows < 1:
        raise ConfigurationError(
            f"{limits.cache_bytes} bytes of cache are too few for one sentence: give it {row_bytes} or more"
        )
    return Cache(rows, positions, gpt)


def _raise_if_engine_wide(error: RuntimeError | MemoryError) -> None:
    """Raise `error` again when it is the GPU's: after it nothing more can be computed in this process."""
    if isinstance(error, torch.AcceleratorError):
        raise error
