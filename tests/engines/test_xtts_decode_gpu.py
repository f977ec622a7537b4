"""What the decode engine does on a GPU: ready at the start, no waits, memory that runs out, a second GPU.

What only a simulated device can tell is asked of one.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support.simulated_cuda import SimulatedCuda
from support.xtts_requests import ask, assert_same, collect, engines, launches, wait_until

from mirrorchat.engines import Priority
from mirrorchat.errors import ConfigurationError, MirrorChatError
from mirrorchat.hardware.devices import SPEECH_PRIORITY
from mirrorchat.xtts.cuda_graph import LENGTH_STEP, StaticSteps
from mirrorchat.xtts.decode import DecodeEngine
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.step_kinds import make_cache_and_steps
from mirrorchat.xtts.steps import Restore, StepMode
from mirrorchat.xtts.utterance import Utterance
from mirrorchat.xtts.vocoder import StreamingVocoder

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
LAYERS, NODES_MOST = 30, 450  # layers of XTTS v2, and launches of one of its steps
MakeEngine = Callable[..., DecodeEngine]


@pytest.fixture
def network(xtts_checkpoint: Path) -> Network:
    torch.set_num_threads(1)
    return load_network(xtts_checkpoint)


@pytest.fixture
def make_engine(network: Network, simulated_cuda: SimulatedCuda) -> Iterator[MakeEngine]:
    """Give a function that makes engines in bfloat16 on a simulated device."""
    with engines(network) as make:

        def make_engine(device: torch.device = FIRST, **options: Any) -> DecodeEngine:
            network.hifigan_decoder.to(device)
            vocoder = StreamingVocoder(network.hifigan_decoder)
            return make(WeightMode.BF16, device=device, vocoder=vocoder, **{"max_batch": 2} | options)

        yield make_engine


def spoken(utterance: Utterance) -> str:
    """Return the name of the error of `utterance`, or "" if it was spoken."""
    try:
        return "" if sum(len(samples) for samples in utterance) else "silence"
    except MirrorChatError as error:
        return type(error).__name__


class TestStart:
    def test_all_is_captured_before_the_first_request(
        self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda
    ) -> None:
        engine = make_engine(SECOND)
        captured = len(simulated_cuda.graphs)
        assert captured == 2 * -(-(engine.cache.positions - 1) // LENGTH_STEP)  # for 1 and 2 slots
        assert engine.stats().tokens == 0  # those of the warm-up do not count
        with simulated_cuda.counting() as waits:
            utterances = [engine.submit(ask([7] * length, speaker=length)) for length in (1, 40, 390)]
            assert [spoken(each) for each in utterances] == ["", "", ""]
            wait_until(lambda: not engine._launched)
        assert len(simulated_cuda.graphs) == captured
        # It waits for the tokens of the last step, and for samples, never for all of its work.
        assert {kind for kind, _ in waits} == {"Event.synchronize"}

    def test_nothing_runs_for_the_first_time_in_the_first_answer(
        self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda
    ) -> None:
        engine = make_engine()
        known = set(simulated_cuda.launched)
        assert spoken(engine.submit(ask(sampling=Sampling(min_tokens=30)))) == ""
        assert set(simulated_cuda.launched) <= known

    def test_one_stream_and_one_pool_of_memory(self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda) -> None:
        """cuBLAS keeps a workspace for each stream: that of the captures, of the engine and of the vocoder."""
        make_engine()
        assert len({graph.pool_id for graph in simulated_cuda.graphs}) == 1
        assert len({graph.stream for graph in simulated_cuda.graphs}) == 1
        used = [stream for stream in simulated_cuda.streams.values() if stream.launched and stream.number]
        assert len(used) <= 3

    def test_speech_comes_before_other_work(self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda) -> None:
        engine = make_engine(SECOND)
        before = {key: stream.launched for key, stream in simulated_cuda.streams.items()}
        assert spoken(engine.submit(ask())) == ""
        busy = {key for key, stream in simulated_cuda.streams.items() if stream.launched > before.get(key, 0)}
        assert {(device, priority) for device, priority, _ in busy} == {(1, SPEECH_PRIORITY)}
        assert {graph.stream.priority for graph in simulated_cuda.graphs} == {SPEECH_PRIORITY}

    def test_an_engine_that_cannot_speak_does_not_start(
        self, make_engine: MakeEngine, network: Network, simulated_cuda: SimulatedCuda
    ) -> None:
        network.gpt.mel_head.bias.data[:] = torch.nan
        with pytest.raises(MirrorChatError, match="not finite"):
            make_engine()


class TestSlots:
    """Static steps compute all slots up to the highest one in use. On a CPU they are the same code."""

    def test_a_lone_caller_after_a_burst_has_the_lowest(self, network: Network) -> None:
        with engines(network, step_mode=StepMode.STATIC) as make, pytest.MonkeyPatch.context() as patch:
            engine = make(max_batch=8, queue_chunks=100)
            burst = [engine.submit(ask(seed=number, max_tokens=5 + 3 * number)) for number in range(8)]
            assert [spoken(each) for each in burst] == [""] * 8
            wait_until(lambda: not engine._launched)
            slots = launches(engine, patch)
            for _ in range(3):
                assert spoken(engine.submit(ask(max_tokens=6))) == ""
        assert slots
        assert all(each == [0] for each in slots)

    def test_the_last_of_a_burst_moves_down(self, network: Network) -> None:
        """And speaks as if it had been alone."""
        gate = threading.Lock()
        with (
            engines(network, step_mode=StepMode.STATIC, device_lock=gate) as make,
            pytest.MonkeyPatch.context() as patch,
        ):
            engine = make(max_batch=8, queue_chunks=100)
            last = ask(range(6, 17), speaker=1, seed=5, sampling=Sampling(min_tokens=37))
            alone = collect(engine.submit(last))
            slots = launches(engine, patch)
            with gate:
                short = [engine.submit(ask(seed=number, max_tokens=6)) for number in range(7)]
                found = engine.submit(last)
            assert_same(collect(found), alone)
            assert [spoken(each) for each in short] == [""] * 7
        assert slots.count([7]) <= 1  # a step is launched before the end of the others has been read
        assert slots[-1] == [0]
        assert max(len(each) for each in slots) == 8


class TestLaunches:
    def test_of_one_step_are_few(self, network: Network, simulated_cuda: SimulatedCuda) -> None:
        gpt = TorchGpt(network, WeightMode.BF16, FIRST)
        gpt.blocks, gpt.layers = gpt.blocks[:1] * LAYERS, LAYERS
        steps = StaticSteps(gpt, Cache(1, LENGTH_STEP, gpt), capture=True)
        (graph,) = simulated_cuda.graphs
        assert len(graph.nodes) <= NODES_MOST, graph.kernels
        assert len(steps._steps) == 1

    def test_need_no_conversion_of_the_mask(self, network: Network, simulated_cuda: SimulatedCuda) -> None:
        gpt = TorchGpt(network, WeightMode.BF16, FIRST)
        StaticSteps(gpt, Cache(1, LENGTH_STEP, gpt), capture=True)
        assert "logical_not" not in simulated_cuda.graphs[0].kernels


class TestMemory:
    @pytest.mark.parametrize("after", [0, 20, 200])
    def test_that_does_not_suffice_ends_the_start(
        self, network: Network, simulated_cuda: SimulatedCuda, after: int
    ) -> None:
        """In the cache, in the states of the slots, or in a capture."""
        gpt = TorchGpt(network, WeightMode.BF16, FIRST)
        simulated_cuda.fail_allocation(after)
        with pytest.raises(
            ConfigurationError, match="too little free memory for XTTS's decode steps; set xtts_batch below 2"
        ):
            make_cache_and_steps(gpt, StepMode.GRAPH, positions=200, max_slots=2, cache_bytes=10**9)

    def test_that_runs_out_is_one_sequence_s(self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda) -> None:
        """At whichever allocation of the engine; the slot of the later sentence is lent to the first one, too."""
        engine = make_engine(max_batch=1)
        for after in (*range(12), 16, 25, 40, 60, 80):
            later = engine.submit(ask(priority=Priority.LATER, sampling=Sampling(min_tokens=37)))
            wait_until(lambda waiting=later: len(waiting.tokens) > 2)  # type: ignore[misc]
            simulated_cuda.fail_allocation(after, thread="xtts-decode")
            first = engine.submit(ask(speaker=1, max_tokens=20))
            assert sorted([spoken(first), spoken(later)]) in (["", ""], ["", "SynthesisFailed"]), after
            assert engine.healthy

    def test_for_a_slot_that_is_to_be_lent_costs_nobody_a_sentence(
        self, make_engine: MakeEngine, simulated_cuda: SimulatedCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make_engine(max_batch=1)
        save, asked = engine._steps.save, []

        def saved_without_memory(slot: int) -> Restore:
            asked.append(slot)
            simulated_cuda.fail_allocation(thread="xtts-decode")
            return save(slot)

        monkeypatch.setattr(engine._steps, "save", saved_without_memory)
        later = engine.submit(ask(priority=Priority.LATER, sampling=Sampling(min_tokens=37)))
        wait_until(lambda: engine.running == 1)
        first = engine.submit(ask(speaker=1, max_tokens=20))
        assert [spoken(later), spoken(first)] == ["", ""]
        assert asked == [0]  # it is not tried at each step
        assert engine.healthy
