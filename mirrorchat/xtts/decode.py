"""Continuous batching for XTTS: one engine thread decodes the sentences of all callers together.

A sequence may join or leave the running batch at any step (Orca, Yu et al., OSDI 2022; vLLM, Kwon et al., arXiv
2309.06180). Every sequence has its own voice, text, sampling settings, random generator, KV-cache slot and output
queue. On a CPU its result does not depend on the rest of the batch. A GPU has other kernels for other sizes of a batch,
and they round differently: beside other sequences the scores differ by about 1e-3 in 16 bits, and a token that was
almost tied may lose. The decode step itself gives the latents for the vocoder; stock XTTS runs the GPT again for them.

If a consumer falls behind, its queue fills, and its sequence is paused. A waiting sequence may then preempt it: the
engine saves the contents of its KV-cache slot and restores them later. A FIRST sentence may preempt a LATER one, too.
Where there is no memory to save a slot, its sequence keeps it until another one ends.

On a GPU the engine is one step ahead (see xtts/cuda_graph.py): it launches a step before it reads the results of the
last one. It drops the result of a step for a sequence that has ended in the meantime.

All CPU work of torch runs on the engine's thread. A thread that has run a parallel operation keeps OpenMP workers as
long as it lives. With more workers than cores, GNU's OpenMP lets them sleep between operations, and a step takes 1.7
times as long. So other code that needs torch beside this engine should run on a thread that ends.
"""

import hashlib
import itertools
import math
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from mirrorchat.audio.samples import Samples
from mirrorchat.engines import BatchStats
from mirrorchat.errors import EngineFailed, MirrorChatError, ServerBusy, ShuttingDown, SynthesisFailed, log_unexpected
from mirrorchat.hardware.devices import current_device, uploaded, urgent_stream
from mirrorchat.hardware.lost_gpu import raise_if_gpu_lost
from mirrorchat.xtts.cuda_graph import StaticSteps
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network
from mirrorchat.xtts.native_gpt import fastest_gpt
from mirrorchat.xtts.sampling import is_loop
from mirrorchat.xtts.schedule import DecodeSequence, Schedule
from mirrorchat.xtts.step_kinds import make_cache_and_steps
from mirrorchat.xtts.steps import Launched, Sampled, StepMode
from mirrorchat.xtts.utterance import FinishReason, Request, Utterance
from mirrorchat.xtts.vocoder import LaunchedSamples, VocoderStream, Work
from mirrorchat.xtts.warm_up import speak_first_sentences

CONDITIONING_POSITIONS = 32  # of a voice's conditioning prefix, the output of the perceiver
FAULTS = (RuntimeError, MemoryError)  # torch and the C++ library raise these if one computation fails
PREFIXES_KEPT = 8  # conditioning prefixes whose keys and values are cached: 8 MB each in float32


class Vocoder(Protocol):
    """Turns latents into samples: `StreamingVocoder`."""

    def open(self, speaker_embedding: Tensor, speed: float) -> VocoderStream: ...

    def latents_needed(self, stream: VocoderStream) -> int: ...

    def launch(self, work: Work) -> LaunchedSamples: ...

    def warm_up(self, batch: int) -> None: ...


@dataclass(frozen=True)
class DecodeLimits:
    """The limits of the engine.

    `cache_bytes` is the memory for the KV cache, which has as many slots as fit, at most `max_batch`. `max_waiting`
    requests may be queued. A sequence is paused when `queue_chunks` chunks of the vocoder wait for its consumer; one
    more chunk may follow if the engine is a step ahead.
    """

    max_batch: int = 8
    cache_bytes: int = 2_200_000_000  # 8 sequences of full length with a float32 cache
    max_waiting: int = 64
    queue_chunks: int = 4


class DecodeEngine:
    """Speaks requests in batches, on a thread of its own. Thread-safe.

    Arguments:
        network: the XTTS network. The engine copies or shares its weights; `network.gpt.gpt` may be dropped afterwards.
        mode: the type of the GPT's weights.
        vocoder: turns latents into samples.
        device: the device of the GPT and the KV cache.
        limits: the sizes of the batch, the cache and the queues.
        device_lock: held during each step, for engines that share a GPU.
        step_mode: the kind of decode steps; by default GRAPH on a GPU and EAGER elsewhere.

    On a GPU the constructor captures all steps and speaks, so that the first request takes no longer than later ones.

    Raises:
        ConfigurationError: `device` cannot compute in `mode` or with `step_mode`, or no sequence fits into the cache.

    `healthy` is False after a lost GPU or a defect; every request then fails.

    Example:
        engine = DecodeEngine(network, mode=WeightMode.FP16W, vocoder=vocoder, device=torch.device("cpu"))
        for samples in engine.submit(request):  # float32 at the rate of the vocoder
            play(samples)
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
        self._device = device
        with ThreadPoolExecutor(1) as short_lived:  # see the docstring of the module
            self.gpt = short_lived.submit(fastest_gpt, network, mode, device).result()
        usual_mode = StepMode.GRAPH if device.type == "cuda" else StepMode.EAGER
        with current_device(device):
            self.cache, self._steps = make_cache_and_steps(
                self.gpt,
                step_mode or usual_mode,
                positions=CONDITIONING_POSITIONS + self.gpt.text_limit + 2 + self.gpt.token_limit,
                max_slots=self.limits.max_batch,
                cache_bytes=self.limits.cache_bytes,
            )
        self.healthy = True
        self._vocoder = vocoder
        self._device_lock = device_lock or nullcontext()
        self._on_cpu = device.type == "cpu"
        self._saved_most = self.limits.max_waiting if self._on_cpu else self.cache.slots  # in the GPU's memory
        self._launched: list[tuple[Sequence[DecodeSequence], Launched]] = []  # not read yet, the oldest first
        self._vocoding: list[tuple[Sequence[DecodeSequence], LaunchedSamples]] = []  # not delivered yet
        self._prefixes: OrderedDict[bytes, Tensor] = OrderedDict()
        self._changed = threading.Condition()
        self._schedule = Schedule(list(range(self.cache.slots)))
        self._tickets = itertools.count()
        self._tokens = 0
        self._turned_at = time.monotonic()
        self._idle = False  # whether the thread waits for a consumer or a request
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="xtts-decode", daemon=True)
        self._thread.start()
        if device.type == "cuda":
            self._warm_up()

    def submit(self, request: Request) -> Utterance:
        """Queue a request.

        Arguments:
            request: the text as tokens, the voice as tensors, and the settings.

        Returns the utterance. Iterating over it gives the samples, 1-D float32 in [-1, 1], while they are decoded.

        Raises:
            SynthesisFailed: the text is too long for the model.
            ServerBusy: `limits.max_waiting` requests are queued already.
            EngineFailed, ShuttingDown: the engine has failed or is closing.
            ValueError: tokens are not in the vocabulary, or a tensor has the wrong shape.
        """
        self._check(request)
        with self._changed:
            self._check_admission()
            if self._idle or not self._schedule.everyone():
                self._turned_at, self._idle = time.monotonic(), False  # from now on there is something to do
            utterance = Utterance(request, self.limits.queue_chunks, self._changed)
            limit = min(request.max_tokens, self.gpt.token_limit)
            self._schedule.waiting.append(DecodeSequence(utterance, next(self._tickets), limit))
            self._changed.notify_all()
        return utterance

    @property
    def running(self) -> int:
        """Return the number of sequences that have a KV-cache slot."""
        with self._changed:
            return len(self._schedule.running)

    @property
    def stuck_s(self) -> float:
        """Return the seconds since the thread began its current turn; 0 if there is no request."""
        with self._changed:
            at_work = self._schedule.everyone() and not self._idle
            return time.monotonic() - self._turned_at if at_work else 0.0

    def stats(self) -> BatchStats:
        """Return the load of the engine, and the number of tokens sampled since the start."""
        with self._changed:
            schedule = self._schedule
            return BatchStats(len(schedule.running), self.cache.slots, len(schedule.waiting), self._tokens)

    def close(self) -> None:
        """End every utterance with ShuttingDown and join the thread. Later requests are rejected."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _warm_up(self) -> None:
        try:
            speak_first_sentences(self.submit, self.gpt, CONDITIONING_POSITIONS)
        except MirrorChatError:
            self.close()
            raise
        self._tokens = 0

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
            raise EngineFailed("speech")
        if len(self._schedule.waiting) >= self.limits.max_waiting:
            raise ServerBusy(f"{self.limits.max_waiting} sentences wait already; try again shortly", retry_after_s=2)

    # The following methods run on the engine's thread.

    def _run(self) -> None:
        try:
            with torch.inference_mode(), urgent_stream(self._device):
                self._vocoder.warm_up(self.cache.slots)
                while self._turn():
                    self._turned_at = time.monotonic()
        except Exception as error:  # after any error, no consumer may wait for ever
            log_unexpected(error)
            with self._changed:
                self.healthy = False
                self._end_everyone(SynthesisFailed("the speech engine has failed"))

    def _turn(self) -> bool:
        """Launch the next token of every sequence that may go on, read the due results, and vocode them.

        Wait if there is nothing to do. Return False when the engine closes.
        """
        with self._changed:
            if self._closing:
                self._end_everyone(ShuttingDown("the speech engine is shutting down"))
                return False
            self._drop_unwanted()
            joining = self._schedule_waiting()
            ready = [s for s in self._schedule.running if s.may_go_on and s not in joining]
            if not (joining or ready or self._launched or self._vocoding or self._due()):
                self._idle = True
                self._changed.wait(self._first_deadline_s())
                self._idle = False
                return True
        with self._device_lock:
            self._close_gaps()
            before = len(self._launched)
            for sequence in joining:
                self._join(sequence)
            if ready:
                self._step(ready)
            self._read(before if self._steps.late else len(self._launched))
            self._vocode()
            self._deliver_ready(wait=not joining and not ready)
        return True

    def _first_deadline_s(self) -> float | None:
        """Return the seconds until the first deadline of all sequences; None if there is no deadline."""
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

    def _end(self, sequence: DecodeSequence, error: MirrorChatError) -> None:
        with self._changed:
            self._schedule.remove(sequence)
            sequence.utterance.fail(error)

    def _schedule_waiting(self) -> list[DecodeSequence]:
        """Give KV-cache slots to waiting sequences, the most urgent first, and preempt running ones for them."""
        scheduled: list[DecodeSequence] = []
        schedule = self._schedule
        for running in schedule.running:
            running.pausing = False
        while (sequence := schedule.next_to_join()) is not None:
            if not schedule.free_slots:
                preempted = schedule.preempted_by(sequence)
                if preempted is None or schedule.saved_beside(sequence) >= self._saved_most:
                    break
                if not preempted.settled:
                    preempted.pausing = True  # it is settled when its last step has been read
                    break
                if not self._preempt(preempted):
                    continue
            schedule.waiting.remove(sequence)
            schedule.running.append(sequence)
            sequence.slot = schedule.take_slot()
            scheduled.append(sequence)
        return scheduled

    def _preempt(self, sequence: DecodeSequence) -> bool:
        """Save the state of `sequence` and free its slot. Return False if there is no memory for the state."""
        assert sequence.slot is not None
        try:
            sequence.restore = self._steps.save(sequence.slot)
        except FAULTS as error:
            raise_if_gpu_lost(error)
            log_unexpected(error)
            sequence.savable = False
            return False
        self._schedule.remove(sequence)
        self._schedule.waiting.append(sequence)
        return True

    def _close_gaps(self) -> None:
        """Move sequences into lower slots where steps over fewer slots are then enough, as after a burst of callers."""
        while isinstance(self._steps, StaticSteps):
            with self._changed:
                move = self._schedule.move_down()
            if move is None:
                return
            self._steps.move(*move)

    def _join(self, sequence: DecodeSequence) -> None:
        """Prefill the slot of `sequence` and sample its first token, or restore its state after preemption."""
        assert sequence.slot is not None
        request = sequence.utterance.request
        try:
            if sequence.restore is not None:
                sequence.restore(sequence.slot)
                sequence.restore = None
                return
            sequence.stream = self._vocoder.open(request.speaker_embedding, request.speed)
            sequence.latents_needed = self._vocoder.latents_needed(sequence.stream)
            last = self._prefill(request, sequence.slot)
            positions = CONDITIONING_POSITIONS + len(request.text_ids) + 3
            launched = self._steps.start(
                sequence.slot, last, positions=positions, sampling=request.sampling, seed=request.seed
            )
        except FAULTS as error:
            self._fail(sequence, error)
            return
        self._note([sequence], launched)

    def _prefill(self, request: Request, slot: int) -> Tensor:
        """Run the conditioning prefix (once for each voice) and the text; return the last output (1, D)."""
        key = hashlib.sha256(request.conditioning.contiguous().numpy().tobytes()).digest()
        prefix = self._prefixes.get(key)
        if prefix is None:
            # The conditioning prefix attends only to itself, so its keys and values serve for any text.
            self.gpt.prefill(uploaded(request.conditioning[0], self._device), self.cache, slot, 0)
            self._prefixes[key] = self.cache.save(slot, CONDITIONING_POSITIONS)
            if len(self._prefixes) > PREFIXES_KEPT:
                self._prefixes.popitem(last=False)
        else:
            self._prefixes.move_to_end(key)
            self.cache.load(slot, prefix)
        return self.gpt.prefill(self.gpt.text_prefix(request.text_ids), self.cache, slot, CONDITIONING_POSITIONS)[-1:]

    def _step(self, ready: Sequence[DecodeSequence]) -> None:
        """Launch one token of each sequence; after a failure one by one, so that only the faulty sequence fails."""
        try:
            launched = self._steps.launch([sequence.slot for sequence in ready if sequence.slot is not None])
        except FAULTS as error:
            if len(ready) == 1:
                self._fail(ready[0], error)
                return
            raise_if_gpu_lost(error)
            for sequence in ready:
                self._step([sequence])
            return
        self._note(ready, launched)

    def _note(self, sequences: Sequence[DecodeSequence], launched: Launched) -> None:
        for sequence in sequences:
            sequence.launched += 1
        self._launched.append((sequences, launched))

    def _read(self, count: int) -> None:
        """Read the oldest `count` steps, without the results of sequences that have ended in the meantime."""
        due = [self._launched.pop(0) for _ in range(count)]
        for sequences, launched in due:
            for sequence, sampled in zip(sequences, launched.collect(), strict=True):
                if sequence in self._schedule.running and sequence.reason is None:
                    self._accept(sequence, sampled)

    def _accept(self, sequence: DecodeSequence, sampled: Sampled) -> None:
        if sampled.token is None:
            self._fail(sequence, None)
            return
        utterance = sequence.utterance
        utterance.latents.append(sampled.latent)
        utterance.tokens.append(sampled.token)
        self._tokens += 1
        sequence.reason = self._reason(utterance.tokens, sequence.max_tokens)

    def _reason(self, tokens: Sequence[int], limit: int) -> FinishReason | None:
        if tokens[-1] == self.gpt.stop_token:
            return FinishReason.STOP
        if is_loop(tokens):
            return FinishReason.LOOP
        return FinishReason.LENGTH if len(tokens) >= limit else None

    def _fail(self, sequence: DecodeSequence, error: RuntimeError | MemoryError | None) -> None:
        """Fail `sequence`, or the whole engine for an error of the GPU. None stands for numbers that are not finite."""
        if error is None:
            self._end(sequence, SynthesisFailed("XTTS could not speak the sentence (numbers that are not finite)"))
            return
        raise_if_gpu_lost(error)
        log_unexpected(error)
        self._end(sequence, SynthesisFailed(f"XTTS could not speak the sentence ({type(error).__name__})"))

    def _due(self) -> list[DecodeSequence]:
        """Return the sequences that have latents enough for the vocoder, which has finished their earlier ones."""
        return [s for s in self._schedule.running if s.vocoding_due and not s.in_vocoder]

    def _vocode(self) -> None:
        """Launch the vocoder for the due latents."""
        due = self._due()
        # A batch is faster on a GPU only. On a CPU each sequence is vocoded alone, so a failure affects no other one.
        for group in [[sequence] for sequence in due] if self._on_cpu else [due] if due else []:
            self._launch_vocoder(group)

    def _launch_vocoder(self, group: Sequence[DecodeSequence], *, again: bool = False) -> None:
        """Launch the vocoder for `group`; after a failure for each half, so that only the faulty sequence fails."""
        try:
            launched = self._vocoder.launch([_work(sequence) for sequence in group])
        except FAULTS as error:
            raise_if_gpu_lost(error)
            no_memory = isinstance(error, torch.OutOfMemoryError)
            if len(group) == 1 and (again or not no_memory):
                self._fail(group[0], error)
                return
            if no_memory:
                traceback.clear_frames(error.__traceback__)  # they hold the tensors of the failed attempt
                torch.cuda.empty_cache()
        else:
            self._vocoding.append((group, launched))
            for sequence in group:
                self._note_vocoded(sequence)
            return
        middle = (len(group) + 1) // 2
        for part in (group[:middle], group[middle:]):
            if part:
                self._launch_vocoder(part, again=True)

    def _note_vocoded(self, sequence: DecodeSequence) -> None:
        assert sequence.stream is not None  # it has joined
        sequence.vocoded, sequence.in_vocoder = len(sequence.utterance.latents), True
        if sequence.reason is None:
            sequence.latents_needed = self._vocoder.latents_needed(sequence.stream)
            return
        with self._changed:
            self._schedule.finish(sequence)

    def _deliver_ready(self, *, wait: bool) -> None:
        """Deliver the samples that are there. If `wait`, there is nothing else to do: wait for the oldest ones."""
        while self._vocoding and (wait or self._vocoding[0][1].ready):
            wait = False
            group, launched = self._vocoding.pop(0)
            for sequence, samples in zip(group, launched.collect(), strict=True):
                sequence.in_vocoder = False
                if sequence in self._schedule.everyone():
                    self._deliver(sequence, samples)

    def _deliver(self, sequence: DecodeSequence, samples: Samples) -> None:
        if not np.isfinite(samples).all():
            self._fail(sequence, None)
            return
        with self._changed:
            sequence.utterance.put(samples)
            if sequence in self._schedule.finishing:
                assert sequence.reason is not None
                self._schedule.remove(sequence)
                sequence.utterance.finish(sequence.reason)


def _work(sequence: DecodeSequence) -> tuple[VocoderStream, Sequence[Tensor], bool]:
    assert sequence.stream is not None  # it has joined
    return sequence.stream, sequence.utterance.latents[sequence.vocoded :], sequence.reason is not None
