"""What the decode engine promises its callers, with plain steps and with those that run a step ahead."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.xtts_requests import (
    EXACT_MODES,
    SLOT_BYTES,
    TOKEN_LIMIT,
    ask,
    assert_same,
    collect,
    engines,
    launches,
    recording,
    wait_until,
)

from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Priority
from mirrorchat.errors import (
    ClientGone,
    ConfigurationError,
    DeadlineExceeded,
    NotReady,
    ServerBusy,
    ShuttingDown,
    SynthesisFailed,
)
from mirrorchat.hardware import native
from mirrorchat.xtts.decode import DecodeEngine
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import LOOP_TOKENS, Sampling
from mirrorchat.xtts.steps import Launched, Sampled, StepMode
from mirrorchat.xtts.utterance import FinishReason, Utterance
from mirrorchat.xtts.vocoder import StreamingVocoder


@pytest.fixture(scope="module")
def network(xtts_checkpoint: Path) -> Network:
    torch.set_num_threads(1)
    return load_network(xtts_checkpoint)


@pytest.fixture(params=[StepMode.EAGER, StepMode.STATIC])
def step_mode(request: pytest.FixtureRequest) -> StepMode:
    return StepMode(request.param)


@pytest.fixture
def make_engine(network: Network, step_mode: StepMode) -> Iterator[Callable[..., DecodeEngine]]:
    """Give a function that makes engines; static steps are torch's, and so in fp32 whatever is asked for."""

    def make_engine(mode: WeightMode = WeightMode.FP32, **options: Any) -> DecodeEngine:
        return make(mode if step_mode is StepMode.EAGER or mode not in EXACT_MODES else WeightMode.FP32, **options)

    with engines(network, step_mode=step_mode) as make:
        yield make_engine


class TestOrder:
    def test_a_step_is_launched_before_the_one_before_is_read(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch, step_mode: StepMode
    ) -> None:
        gate = threading.Lock()
        engine = make_engine(device_lock=gate)
        events: list[str] = []

        def followed(function: Callable[..., Launched]) -> Callable[..., Launched]:
            def called(*arguments: Any, **options: Any) -> Launched:
                step = _Followed(function(*arguments, **options), events)
                events.append("launched")
                return step

            return called

        for name in ("start", "launch"):
            monkeypatch.setattr(engine._steps, name, followed(getattr(engine._steps, name)))
        collect(engine.submit(ask(max_tokens=4, sampling=Sampling(min_tokens=4))))
        expected = {
            StepMode.EAGER: ["launched", "read"] * 4,
            StepMode.STATIC: ["launched", *["launched", "read"] * 3, "read"],
        }
        assert events == expected[step_mode]

    @pytest.mark.parametrize("ends", [Sampling(), Sampling(min_tokens=TOKEN_LIMIT)], ids=["stop", "length"])
    def test_at_most_one_step_is_wasted(
        self,
        make_engine: Callable[..., DecodeEngine],
        monkeypatch: pytest.MonkeyPatch,
        step_mode: StepMode,
        ends: Sampling,
    ) -> None:
        """When the model stops, a step has been launched already; at the limit none is."""
        engine = make_engine()
        steps = launches(engine, monkeypatch)
        spoken = collect(engine.submit(ask(seed=2, sampling=ends)))
        wait_until(lambda: not engine._launched)
        assert spoken.reason is (FinishReason.LENGTH if ends.min_tokens else FinishReason.STOP)
        wasted = step_mode is StepMode.STATIC and spoken.reason is FinishReason.STOP
        assert len(steps) == len(spoken.tokens) - 1 + wasted


class _Followed:
    """A launched step that tells when it is read."""

    def __init__(self, step: Launched, events: list[str]) -> None:
        self._step, self._events = step, events

    def collect(self) -> list[Sampled]:
        self._events.append("read")
        return self._step.collect()


class TestListeners:
    @pytest.mark.parametrize("slots", [1, 2])
    def test_a_slow_one_stalls_nobody(self, make_engine: Callable[..., DecodeEngine], slots: int) -> None:
        engine = make_engine(WeightMode.FP16W, max_batch=slots, queue_chunks=1)
        expected = collect(engine.submit(ask()))
        slow = [engine.submit(ask()) for _ in range(3)]  # more than there are slots: they are preempted
        wait_until(lambda: all(each.utterance.full and each.settled for each in engine._schedule.everyone()))
        held = [len(utterance.tokens) for utterance in slow]
        assert max(held) < len(expected.tokens)
        wait_until(lambda: engine.stuck_s == 0.0)  # to wait for listeners is not to be stuck
        assert_same(collect(engine.submit(ask())), expected)
        assert [len(utterance.tokens) for utterance in slow] == held
        for utterance in slow:
            assert_same(collect(utterance), expected)

    def test_samples_come_while_decoding_goes_on(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine(queue_chunks=1)
        utterance = engine.submit(ask(sampling=Sampling(min_tokens=TOKEN_LIMIT)))
        chunks = iter(utterance)
        assert len(next(chunks)) > 0
        assert utterance.finish_reason is None
        assert sum(1 for _ in chunks) >= 1

    def test_the_most_urgent_joins_first(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=1, device_lock=gate)
        joined: list[torch.Tensor] = []
        monkeypatch.setattr(engine.gpt, "text_prefix", recording(engine.gpt.text_prefix, joined))
        with gate:
            utterances = [engine.submit(ask(range(6, 16)))]
            wait_until(lambda: engine.running == 1)
            for length, priority in ((11, Priority.LATER), (12, Priority.FIRST), (13, Priority.LATER)):
                utterances.append(engine.submit(ask(range(6, 6 + length), priority=priority)))
        for utterance in utterances:
            collect(utterance)
        assert [len(prefix) - 3 for prefix in joined] == [10, 12, 11, 13]

    def test_a_later_sentence_is_preempted_by_a_first_one(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And goes on afterwards as if nothing had been; another later one waits for it."""
        gate = threading.Lock()
        engine = make_engine(WeightMode.FP16W, max_batch=1, device_lock=gate)
        expected = [collect(engine.submit(ask(seed=seed))) for seed in range(3)]
        wait_until(lambda: engine._idle)  # steps launched too many have been read
        finished: list[int] = []
        finish = Utterance.finish

        def recorded(utterance: Utterance, reason: FinishReason) -> None:
            finished.append(utterance.request.seed)
            finish(utterance, reason)

        monkeypatch.setattr(Utterance, "finish", recorded)
        with gate:
            utterances = [engine.submit(ask(seed=0, priority=Priority.LATER))]
            wait_until(lambda: engine.running == 1)
            utterances.append(engine.submit(ask(seed=1, priority=Priority.FIRST)))
            utterances.append(engine.submit(ask(seed=2, priority=Priority.LATER)))
        with ThreadPoolExecutor(3) as listeners:
            for found, alone in zip(listeners.map(collect, utterances), expected, strict=True):
                assert_same(found, alone)
        assert finished == [1, 0, 2]

    def test_no_more_states_are_saved_than_there_is_memory_for(self, make_engine: Callable[..., DecodeEngine]) -> None:
        """With memory for one state, a third caller waits while the other two are behind."""
        engine = make_engine(max_batch=1, queue_chunks=1)
        engine._saved_most = 1
        utterances = [engine.submit(ask(seed=seed)) for seed in range(3)]
        wait_until(lambda: utterances[0].full and utterances[1].full and engine._idle)
        assert not utterances[2].tokens
        with ThreadPoolExecutor(3) as listeners:
            assert all(found.tokens for found in listeners.map(collect, utterances))


class TestEnding:
    def test_cancel_takes_effect_within_one_step(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make_engine()
        cancel = Context()
        steps: list[int] = []
        launch = engine._steps.launch

        def counting(slots: Sequence[int]) -> Launched:
            steps.append(1)
            if len(steps) == 5:
                cancel.cancel(ClientGone("gone"))
            return launch(slots)

        monkeypatch.setattr(engine._steps, "launch", counting)
        with pytest.raises(ClientGone, match="gone"):
            collect(engine.submit(ask(context=cancel)))
        wait_until(lambda: engine.running == 0)
        assert len(steps) == 5

    def test_cancel_or_deadline_while_waiting(self, make_engine: Callable[..., DecodeEngine]) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=1, device_lock=gate)
        cancel = Context()
        with gate:
            blocker = engine.submit(ask())
            late = engine.submit(ask(context=Context.after(0.05)))
            gone = engine.submit(ask(context=cancel))
            cancel.cancel(ClientGone("gone"))
            with pytest.raises(DeadlineExceeded):
                collect(late)
            with pytest.raises(ClientGone):
                collect(gone)
        assert collect(blocker).tokens
        wait_until(lambda: not engine._schedule.everyone())

    def test_closing_the_iterator_frees_the_slot(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine(queue_chunks=1)
        chunks = iter(engine.submit(ask(sampling=Sampling(min_tokens=TOKEN_LIMIT))))
        next(chunks)
        assert engine.running == 1
        chunks.close()  # type: ignore[attr-defined]  # it is a generator
        wait_until(lambda: engine.running == 0)

    def test_close_with_work_under_way(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine(max_batch=2, queue_chunks=1)
        utterances = [engine.submit(ask(sampling=Sampling(min_tokens=TOKEN_LIMIT))) for _ in range(4)]
        wait_until(lambda: all(utterance._chunks for utterance in utterances))
        engine.close()
        assert not engine._thread.is_alive()
        for utterance in utterances:
            with pytest.raises(ShuttingDown):
                collect(utterance)
        with pytest.raises(ShuttingDown):
            engine.submit(ask())


class TestLimits:
    def test_text(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine()
        longest = collect(engine.submit(ask([7] * 401, sampling=Sampling(min_tokens=TOKEN_LIMIT))))
        assert (len(longest.tokens), longest.reason) == (TOKEN_LIMIT, FinishReason.LENGTH)
        with pytest.raises(SynthesisFailed, match="402 tokens; XTTS reads at most 401"):
            engine.submit(ask([7] * 402))

    @pytest.mark.parametrize(("asked", "spoken"), [(1, 1), (12, 12), (600, TOKEN_LIMIT)])
    def test_audio_is_cut_cleanly(self, make_engine: Callable[..., DecodeEngine], asked: int, spoken: int) -> None:
        engine = make_engine(WeightMode.FP16W)
        whole = collect(engine.submit(ask(sampling=Sampling(min_tokens=TOKEN_LIMIT))))
        cut = collect(engine.submit(ask(sampling=Sampling(min_tokens=TOKEN_LIMIT), max_tokens=asked)))
        assert (len(cut.tokens), cut.reason) == (spoken, FinishReason.LENGTH)
        assert cut.tokens == whole.tokens[:spoken]
        assert len(cut.samples) == pytest.approx(spoken * 1024 * 24_000 / 22_050, abs=600)

    def test_memory_budget(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch, step_mode: StepMode
    ) -> None:
        slot_bytes = SLOT_BYTES[step_mode]
        engine = make_engine(cache_bytes=3 * slot_bytes - 1)
        assert engine.cache.slots == 2 and engine.cache.data.nbytes == 2 * slot_bytes
        steps = launches(engine, monkeypatch)
        utterances = [engine.submit(ask(speaker=number)) for number in range(5)]
        assert all(collect(utterance).tokens for utterance in utterances)
        assert max(len(slots) for slots in steps) == 2
        with pytest.raises(ConfigurationError, match=f"give it {slot_bytes} or more"):
            make_engine(cache_bytes=slot_bytes - 1)

    @pytest.mark.parametrize("mode", [WeightMode.FP16W, WeightMode.INT8])
    def test_twice_as_many_fit_in_int8(self, network: Network, mode: WeightMode) -> None:
        if mode is WeightMode.INT8 and native.library() is None:
            pytest.skip("no compiled library: torch has no int8 weights for XTTS")
        budget = 2 * SLOT_BYTES[StepMode.EAGER]
        with engines(network) as make:
            engine = make(mode, cache_bytes=budget)
            assert engine.cache.slots == (4 if mode is WeightMode.INT8 else 2)
            assert engine.cache.data.nbytes == budget
            utterances = [engine.submit(ask(speaker=number)) for number in range(5)]
            assert all(collect(utterance).tokens for utterance in utterances)

    def test_admission(self, make_engine: Callable[..., DecodeEngine]) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=1, max_waiting=2, device_lock=gate)
        with gate:
            accepted = [engine.submit(ask())]
            wait_until(lambda: engine.running == 1)
            accepted += [engine.submit(ask()) for _ in range(2)]
            with pytest.raises(ServerBusy) as caught:
                engine.submit(ask())
        assert caught.value.retry_after_s
        assert all(collect(utterance).tokens for utterance in accepted)

    @pytest.mark.parametrize(
        "wrong",
        [{"max_tokens": 0}, {"text_ids": [100_000]}, {"text_ids": [-1]}, {"conditioning": torch.zeros(1, 31, 64)}],
    )
    def test_requests_that_make_no_sense(self, make_engine: Callable[..., DecodeEngine], wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"max_tokens|vocabulary|conditioning"):
            make_engine().submit(replace(ask(), **wrong))

    @pytest.mark.parametrize("mode", [WeightMode.BF16, WeightMode.FP16])
    def test_modes_of_another_device(self, make_engine: Callable[..., DecodeEngine], mode: WeightMode) -> None:
        with pytest.raises(ConfigurationError, match="choose fp32, fp16w or int8"):
            make_engine(mode)

    def test_graphs_are_a_gpu_s(self, network: Network) -> None:
        with engines(network) as make, pytest.raises(ConfigurationError, match="steps of the kind graph"):
            make(step_mode=StepMode.GRAPH)


class TestFailures:
    @pytest.mark.parametrize("mode", [WeightMode.FP32, *EXACT_MODES])
    def test_numbers_that_are_not_finite_are_one_sequence_s(
        self, make_engine: Callable[..., DecodeEngine], mode: WeightMode
    ) -> None:
        engine = make_engine(mode, max_batch=2)
        expected = collect(engine.submit(ask()))
        for _ in range(2):  # the second time its slot of the cache has held them
            broken = replace(ask(), conditioning=torch.full((1, 32, 64), torch.nan))
            utterances = [engine.submit(request) for request in (ask(), broken, ask())]
            with pytest.raises(SynthesisFailed, match="not finite"):
                collect(utterances[1])
            for utterance in (utterances[0], utterances[2]):
                np.testing.assert_allclose(collect(utterance).samples, expected.samples, atol=1e-5)
        assert engine.healthy

    def test_a_slot_that_held_such_numbers_can_be_given_away_unread(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its sequence is cancelled before anybody has seen them."""
        engine = make_engine(max_batch=1)
        expected = collect(engine.submit(ask()))
        cancel = Context()
        start = engine._steps.start

        def cancelling(*arguments: Any, **options: Any) -> Launched:
            monkeypatch.undo()
            engine.cache.data[0] = torch.nan  # as deep into the slot as any sequence may have come
            cancel.cancel(ClientGone("gone"))
            return start(*arguments, **options)

        monkeypatch.setattr(engine._steps, "start", cancelling)
        with pytest.raises(ClientGone):
            collect(engine.submit(ask(speaker=1, context=cancel)))
        assert_same(collect(engine.submit(ask())), expected)

    def test_samples_that_are_not_finite(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine()
        broken = replace(ask(), speaker_embedding=torch.full((1, 512, 1), torch.nan))
        utterances = [engine.submit(broken), engine.submit(ask())]
        with pytest.raises(SynthesisFailed, match="not finite"):
            collect(utterances[0])
        assert collect(utterances[1]).tokens

    @pytest.mark.parametrize("error", [torch.OutOfMemoryError("out of memory"), MemoryError("out of memory")])
    @pytest.mark.parametrize("part", ["text", "step", "vocoder"])
    def test_out_of_memory_is_one_sequence_s(
        self,
        make_engine: Callable[..., DecodeEngine],
        network: Network,
        monkeypatch: pytest.MonkeyPatch,
        part: str,
        error: Exception,
    ) -> None:
        """Fails whatever works on the sequence whose text has 13 tokens."""
        gate = threading.Lock()
        vocoder = StreamingVocoder(network.hifigan_decoder)
        engine = make_engine(WeightMode.FP16W, device_lock=gate, vocoder=vocoder)
        expected = collect(engine.submit(ask()))
        target: Any = {"text": engine.gpt, "step": engine._steps, "vocoder": vocoder}[part]
        method = "text_prefix" if part == "text" else "launch"
        original = getattr(target, method)

        def failing(*arguments: Any) -> Any:
            victim = next((s for s in engine._schedule.running if len(s.utterance.request.text_ids) == 13), None)
            concerned = {
                "text": lambda: len(arguments[0]) == 13,
                "step": lambda: victim is not None and victim.slot in arguments[0],
                "vocoder": lambda: victim is not None and any(item[0] is victim.stream for item in arguments[0]),
            }
            if concerned[part]():
                raise error
            return original(*arguments)

        monkeypatch.setattr(target, method, failing)
        with gate:
            utterances = [engine.submit(ask(ids)) for ids in (range(6, 30), range(6, 19), range(6, 30))]
        with pytest.raises(SynthesisFailed, match=type(error).__name__):
            collect(utterances[1])
        for utterance in (utterances[0], utterances[2]):
            assert_same(collect(utterance), expected)
        assert engine.healthy

    @pytest.mark.parametrize("error", [torch.AcceleratorError("CUDA error"), KeyError("a mistake")])
    @pytest.mark.parametrize("method", ["prefill", "start", "launch", "collect"])
    def test_what_is_not_one_sequence_s_fails_the_engine(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch, error: Exception, method: str
    ) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=2, device_lock=gate)

        def failing(*_: Any, **__: Any) -> Any:
            raise error

        if method == "prefill":
            monkeypatch.setattr(engine.gpt, method, failing)
        elif method == "collect":  # where the errors of a GPU come out
            monkeypatch.setattr(engine._steps, "launch", lambda _: SimpleNamespace(collect=failing))
        else:
            monkeypatch.setattr(engine._steps, method, failing)
        with gate:
            utterances = [engine.submit(ask()) for _ in range(4)]
        for utterance in utterances:
            with pytest.raises(SynthesisFailed, match="engine has failed"):
                collect(utterance)
        assert not engine.healthy
        with pytest.raises(NotReady):
            engine.submit(ask())

    def test_a_loop_is_ended(self, xtts_checkpoint: Path, make_engine: Callable[..., DecodeEngine]) -> None:
        stuck = load_network(xtts_checkpoint)
        stuck.gpt.mel_head.weight = torch.nn.Parameter(torch.zeros(66, 64), requires_grad=False)
        stuck.gpt.mel_head.bias = torch.nn.Parameter(F.one_hot(torch.tensor(3), 66).float(), requires_grad=False)
        spoken = collect(
            make_engine(weights=stuck).submit(ask(sampling=Sampling(do_sample=False, repetition_penalty=1.0)))
        )
        assert spoken.reason is FinishReason.LOOP
        assert spoken.tokens == [3] * LOOP_TOKENS
