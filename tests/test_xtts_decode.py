"""The batched decode engine against stock coqui-tts, a plain recomputation, and itself alone; on a tiny checkpoint."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

pytest.importorskip(
    "mirrorchat.xtts_model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
import tiny_xtts
from xtts_texts import CHINESE, ENGLISH, SHORT

from mirrorchat import native
from mirrorchat.audio import Audio, Samples
from mirrorchat.engines import Cancel, Deadline, Language, Priority
from mirrorchat.errors import (
    ClientGone,
    ConfigurationError,
    DeadlineExceeded,
    NotReady,
    ServerBusy,
    ShuttingDown,
    SynthesisFailed,
)
from mirrorchat.xtts_decode import VOICES_KEPT, DecodeEngine, DecodeLimits
from mirrorchat.xtts_linear import WeightMode
from mirrorchat.xtts_model import Network, load_network
from mirrorchat.xtts_sampling import LOOP_TOKENS, Sampling
from mirrorchat.xtts_utterance import FinishReason, Request, Utterance
from mirrorchat.xtts_vocoder import StreamingVocoder

CPU = torch.device("cpu")
GREEDY = Sampling(do_sample=False)
SAMPLED = Sampling()
TOKEN_LIMIT = 37  # of the tiny checkpoint
POSITIONS = 32 + 401 + 2 + TOKEN_LIMIT
ROW_BYTES = 2 * 2 * 64 * POSITIONS * 4  # layers, keys and values, width, positions, float32
EXACT_MODES = [WeightMode.FP16W, WeightMode.INT8] if native.library() else []  # the same to the last bit
TIE = 1e-4


@dataclass(frozen=True)
class Spoken:
    """What came of a request."""

    tokens: list[int]
    latents: torch.Tensor
    samples: Samples
    reason: FinishReason | None

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Spoken)
            and self.tokens == other.tokens
            and torch.equal(self.latents, other.latents)
            and np.array_equal(self.samples, other.samples)
            and self.reason == other.reason
        )


def collect(utterance: Utterance) -> Spoken:
    chunks = list(utterance)
    return Spoken(utterance.tokens, torch.cat(utterance.latents), np.concatenate(chunks), utterance.finish_reason)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_tiny_xtts.make_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def network(checkpoint: Path) -> Network:
    torch.set_num_threads(1)
    return load_network(checkpoint)


@pytest.fixture
def make_engine(network: Network) -> Iterator[Callable[..., DecodeEngine]]:
    engines: list[DecodeEngine] = []

    def make(mode: WeightMode = WeightMode.FP32, weights: Network = network, **options: Any) -> DecodeEngine:
        lock = options.pop("device_lock", None)
        vocoder = options.pop("vocoder", None) or StreamingVocoder(weights.hifigan_decoder)
        limits = DecodeLimits(**options)
        engine = DecodeEngine(weights, mode=mode, vocoder=vocoder, device=CPU, limits=limits, device_lock=lock)
        engines.append(engine)
        return engine

    yield make
    for engine in engines:
        engine.close()


@pytest.fixture(scope="module", params=[WeightMode.FP32, *EXACT_MODES])
def engine(request: pytest.FixtureRequest, network: Network) -> Iterator[DecodeEngine]:
    """An engine shared by tests that leave it as it was."""
    vocoder = StreamingVocoder(network.hifigan_decoder)
    engine = DecodeEngine(network, mode=request.param, vocoder=vocoder, device=CPU)
    yield engine
    engine.close()


def voice(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(1, 32, 64, generator=generator), torch.randn(1, 512, 1, generator=generator)


def text_ids(network: Network, text: str, language: Language = ENGLISH) -> list[int]:
    return list(network.tokenizer.encode(text.strip().lower(), lang=language.code))


def ask(ids: Sequence[int] = range(6, 30), speaker: int = 0, seed: int = 0, **changes: Any) -> Request:
    conditioning, embedding = voice(speaker)
    options: dict[str, Any] = {"max_tokens": 600, "deadline": Deadline.after(120.0), "cancel": Cancel()} | changes
    return Request(list(ids), conditioning, embedding, seed, **options)


def recomputed(network: Network, request: Request, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents (n, D) and scores of each of `tokens`: the whole sequence through the layers, without a cache."""
    gpt = network.gpt
    text = torch.tensor([gpt.start_text_token, *request.text_ids, gpt.stop_text_token])
    audio = torch.tensor([gpt.start_audio_token, *tokens[:-1]])
    x = torch.cat(
        [
            request.conditioning[0],
            gpt.text_embedding.weight[text] + gpt.text_pos_embedding.emb.weight[: len(text)],
            gpt.mel_embedding.weight[audio] + gpt.mel_pos_embedding.emb.weight[: len(audio)],
        ]
    )
    ahead = torch.ones(len(x), len(x), dtype=torch.bool).triu(1)
    for layer in gpt.gpt.h:
        qkv = layer.ln_1(x) @ layer.attn.c_attn.weight + layer.attn.c_attn.bias
        query, key, value = qkv.view(len(x), 3, gpt.heads, -1).permute(1, 2, 0, 3)
        weights = (query @ key.transpose(1, 2) * key.shape[-1] ** -0.5).masked_fill(ahead, -torch.inf).softmax(-1)
        found = (weights @ value).transpose(0, 1).reshape(x.shape)
        x = x + found @ layer.attn.c_proj.weight + layer.attn.c_proj.bias
        hidden = F.gelu(layer.ln_2(x) @ layer.mlp.c_fc.weight + layer.mlp.c_fc.bias, approximate="tanh")
        x = x + hidden @ layer.mlp.c_proj.weight + layer.mlp.c_proj.bias
    latents = gpt.final_norm(gpt.gpt.ln_f(x))[-len(tokens) :]
    return latents, gpt.mel_head(latents)


@pytest.fixture(scope="module")
def stock(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tiny_xtts.pickled_copy(checkpoint, tmp_path_factory.mktemp("stock") / "xtts-v2")
    with tiny_xtts.stock_model(folder, Audio(np.zeros(22_050, np.float32), 22_050)) as model:
        yield model


def recording(function: Callable[..., Any], results: list[Any]) -> Callable[..., Any]:
    """Return `function`, which puts what it returns into `results` as well."""

    def called(*arguments: Any, **settings: Any) -> Any:
        results.append(function(*arguments, **settings))
        return results[-1]

    return called


class TestEqualToStock:
    @pytest.mark.filterwarnings("ignore:.*generation flags")
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    @pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
    @pytest.mark.parametrize(
        ("mode", "latent_error", "sample_error"), [(WeightMode.FP32, 1e-4, 5e-5), (WeightMode.FP16W, 3e-3, 1e-3)]
    )
    def test_same_ids_latents_and_samples(
        self,
        make_engine: Callable[..., DecodeEngine],
        network: Network,
        stock: Any,
        language: Language,
        sampling: Sampling,
        mode: WeightMode,
        latent_error: float,
        sample_error: float,
    ) -> None:
        engine = make_engine(mode)
        ends = set()
        for seed in range(4):
            request = ask(text_ids(network, SHORT[language], language), speaker=seed, seed=seed, sampling=sampling)
            codes: list[torch.Tensor] = []
            with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
                patch.setattr(stock.gpt, "generate", recording(stock.gpt.generate, codes))
                torch.manual_seed(seed)
                expected = stock.inference(
                    SHORT[language],
                    language.code,
                    request.conditioning,
                    request.speaker_embedding,
                    do_sample=sampling.do_sample,
                    temperature=sampling.temperature,
                    top_k=sampling.top_k,
                    top_p=sampling.top_p,
                    repetition_penalty=sampling.repetition_penalty,
                )
            spoken = collect(engine.submit(request))
            assert spoken.tokens == codes[0][0].tolist()
            np.testing.assert_allclose(spoken.latents, expected["gpt_latents"][0], atol=latent_error)
            np.testing.assert_allclose(spoken.samples, expected["wav"], atol=sample_error)
            ends.add(spoken.reason)
        assert ends <= {FinishReason.STOP, FinishReason.LENGTH}


@pytest.mark.parametrize("speaker", range(3))
def test_same_as_recomputing_everything(engine: DecodeEngine, network: Network, speaker: int) -> None:
    request = ask(speaker=speaker, sampling=GREEDY)
    spoken = collect(engine.submit(request))
    latents, scores = recomputed(network, request, spoken.tokens)
    error = (spoken.latents - latents).norm() / latents.norm()
    assert float(error) < {WeightMode.FP32: 1e-5, WeightMode.FP16W: 1e-3, WeightMode.INT8: 5e-2}[engine.gpt.mode]
    found = engine.gpt.latents_and_scores(spoken.latents)[1]
    assert float((found - scores).norm() / scores.norm()) < float(error) + 2e-2


REQUESTS = tuple((speaker, ids) for speaker in range(4) for ids in (range(6, 12), range(6, 50), range(20, 33)))


def numbered(number: int, greedy: bool) -> Request:
    speaker, ids = REQUESTS[number]
    return ask(ids, speaker, seed=number, sampling=GREEDY if greedy else SAMPLED)


@pytest.fixture(scope="module")
def alone(engine: DecodeEngine) -> dict[tuple[int, bool], Spoken]:
    """What each request gives when nothing else runs."""
    cases = [(number, greedy) for number in range(len(REQUESTS)) for greedy in (True, False)]
    return {case: collect(engine.submit(numbered(*case))) for case in cases}


class TestBatch:
    """Tokens, latents and samples are the same alone, in a batch, and in any order of arrival."""

    def check(self, engine: DecodeEngine, found: Spoken, expected: Spoken) -> int:
        """Return 1 for a tie that was decided the other way, which only float32 products may do."""
        if engine.gpt.mode in EXACT_MODES:
            assert found == expected
            return 0
        same = [a == b for a, b in zip(found.tokens, expected.tokens, strict=False)]
        until = same.index(False) + 1 if False in same else len(same)
        torch.testing.assert_close(found.latents[:until], expected.latents[:until], atol=TIE, rtol=0)
        if False in same:
            return 1
        assert found.tokens == expected.tokens and found.reason == expected.reason
        np.testing.assert_allclose(found.samples, expected.samples, atol=5e-5)
        return 0

    def test_voices_and_texts_differ(self, alone: dict[tuple[int, bool], Spoken]) -> None:
        assert len({tuple(spoken.tokens) for spoken in alone.values()}) > len(REQUESTS)

    @settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        plan=st.lists(
            st.tuples(
                st.integers(0, len(REQUESTS) - 1),
                st.booleans(),
                st.floats(0, 0.02),
                st.sampled_from([None, None, 0, 1]),
            ),
            min_size=2,
            max_size=12,
        )
    )
    def test_random_arrival_and_cancellation(
        self,
        engine: DecodeEngine,
        alone: dict[tuple[int, bool], Spoken],
        plan: list[tuple[int, bool, float, int | None]],
    ) -> None:
        """Some listeners leave before the first piece or after it; the others hear what each hears alone."""

        def listen(item: tuple[int, bool, float, int | None]) -> int:
            number, greedy, delay_s, leaves_after = item
            time.sleep(delay_s)
            utterance = engine.submit(numbered(number, greedy))
            if leaves_after is None:
                return self.check(engine, collect(utterance), alone[number, greedy])
            chunks = iter(utterance)
            expected = alone[number, greedy].samples
            for chunk in (next(chunks) for _ in range(leaves_after)):
                np.testing.assert_allclose(chunk, expected[: len(chunk)], atol=1e-5)
            utterance.close()
            return 0

        with ThreadPoolExecutor(len(plan)) as pool:
            ties = sum(pool.map(listen, plan))
        assert ties <= 1
        wait_until(lambda: engine.running == 0)

    def test_sequences_share_steps(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=4, device_lock=gate)
        steps: list[torch.Tensor] = []
        monkeypatch.setattr(engine.gpt, "step", recording(engine.gpt.step, steps))
        with gate:
            utterances = [engine.submit(ask(speaker=number, max_tokens=20)) for number in range(5)]
        for spoken in [collect(utterance) for utterance in utterances]:
            assert len(spoken.tokens) <= 20
        assert max(len(outputs) for outputs in steps) == 4
        assert len(steps) <= 2 * 20 + 1  # not 5 * 20


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


class TestVoices:
    def test_computed_once(self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make_engine(WeightMode.FP16W)
        starts: list[int] = []
        prefill = engine.gpt.prefill

        def counting(x: torch.Tensor, cache: Any, row: int, past: int) -> torch.Tensor:
            starts.append(past)
            return prefill(x, cache, row, past)

        monkeypatch.setattr(engine.gpt, "prefill", counting)
        first = collect(engine.submit(ask()))
        other = collect(engine.submit(ask(speaker=1)))
        again = collect(engine.submit(ask()))
        assert starts == [0, 32, 0, 32, 32]
        assert again == first != other

    def test_few_are_kept(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine()
        first = collect(engine.submit(ask(max_tokens=5)))
        for speaker in range(1, VOICES_KEPT + 3):
            collect(engine.submit(ask(speaker=speaker, max_tokens=2)))
        assert len(engine._voices) == VOICES_KEPT
        assert collect(engine.submit(ask(max_tokens=5))) == first


class TestListeners:
    @pytest.mark.parametrize("rows", [1, 2])
    def test_a_slow_one_stalls_nobody(self, make_engine: Callable[..., DecodeEngine], rows: int) -> None:
        engine = make_engine(WeightMode.FP16W, max_batch=rows, queue_chunks=1)
        expected = collect(engine.submit(ask()))
        slow = [engine.submit(ask()) for _ in range(3)]  # more than there are rows: they lend theirs
        wait_until(lambda: all(utterance._chunks for utterance in slow))
        held = [len(utterance.tokens) for utterance in slow]
        assert max(held) < len(expected.tokens)
        assert collect(engine.submit(ask())) == expected
        assert [len(utterance.tokens) for utterance in slow] == held
        assert [collect(utterance) for utterance in slow] == [expected] * 3

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


class TestEnding:
    def test_cancel_takes_effect_within_one_step(
        self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        engine = make_engine()
        cancel = Cancel()
        steps: list[int] = []
        step = engine.gpt.step

        def counting(*arguments: Any) -> torch.Tensor:
            steps.append(1)
            if len(steps) == 5:
                cancel.set(ClientGone("gone"))
            return step(*arguments)

        monkeypatch.setattr(engine.gpt, "step", counting)
        with pytest.raises(ClientGone, match="gone"):
            collect(engine.submit(ask(cancel=cancel)))
        wait_until(lambda: engine.running == 0)
        assert len(steps) == 5

    def test_cancel_or_deadline_while_waiting(self, make_engine: Callable[..., DecodeEngine]) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=1, device_lock=gate)
        cancel = Cancel()
        with gate:
            blocker = engine.submit(ask())
            late = engine.submit(ask(deadline=Deadline.after(0.05)))
            gone = engine.submit(ask(cancel=cancel))
            cancel.set(ClientGone("gone"))
            with pytest.raises(DeadlineExceeded):
                collect(late)
            with pytest.raises(ClientGone):
                collect(gone)
        assert collect(blocker).tokens
        wait_until(lambda: not engine._schedule.everyone())

    def test_closing_the_iterator_frees_the_row(self, make_engine: Callable[..., DecodeEngine]) -> None:
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

    def test_memory_budget(self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make_engine(cache_bytes=3 * ROW_BYTES - 1)
        assert engine.cache.rows == 2 and engine.cache.data.nbytes == 2 * ROW_BYTES
        steps: list[torch.Tensor] = []
        monkeypatch.setattr(engine.gpt, "step", recording(engine.gpt.step, steps))
        utterances = [engine.submit(ask(speaker=number)) for number in range(5)]
        assert all(collect(utterance).tokens for utterance in utterances)
        assert max(len(outputs) for outputs in steps) == 2
        with pytest.raises(ConfigurationError, match=f"give it {ROW_BYTES} or more"):
            make_engine(cache_bytes=ROW_BYTES - 1)

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


class TestFailures:
    @pytest.mark.parametrize("mode", [WeightMode.FP32, *EXACT_MODES])
    def test_numbers_that_are_not_finite_are_one_sequence_s(
        self, make_engine: Callable[..., DecodeEngine], mode: WeightMode
    ) -> None:
        engine = make_engine(mode, max_batch=2)
        expected = collect(engine.submit(ask()))
        for _ in range(2):  # the second time its row of the cache has held them
            broken = replace(ask(), conditioning=torch.full((1, 32, 64), torch.nan))
            utterances = [engine.submit(request) for request in (ask(), broken, ask())]
            with pytest.raises(SynthesisFailed, match="not finite"):
                collect(utterances[1])
            for utterance in (utterances[0], utterances[2]):
                np.testing.assert_allclose(collect(utterance).samples, expected.samples, atol=5e-5)
        assert engine.healthy

    def test_samples_that_are_not_finite(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine()
        broken = replace(ask(), speaker_embedding=torch.full((1, 512, 1), torch.nan))
        utterances = [engine.submit(broken), engine.submit(ask())]
        with pytest.raises(SynthesisFailed, match="not finite"):
            collect(utterances[0])
        assert collect(utterances[1]).tokens

    @pytest.mark.parametrize("method", ["text_prefix", "step", "advance"])
    def test_out_of_memory_is_one_sequence_s(
        self, make_engine: Callable[..., DecodeEngine], network: Network, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        """Fails whatever works on the sequence whose text has 13 tokens."""
        gate = threading.Lock()
        vocoder = StreamingVocoder(network.hifigan_decoder)
        engine = make_engine(WeightMode.FP16W, device_lock=gate, vocoder=vocoder)
        expected = collect(engine.submit(ask()))
        target: Any = vocoder if method == "advance" else engine.gpt
        original = getattr(target, method)

        def failing(*arguments: Any) -> Any:
            victim = next((s for s in engine._schedule.running if len(s.utterance.request.text_ids) == 13), None)
            concerned = {
                "text_prefix": lambda: len(arguments[0]) == 13,
                "step": lambda: victim is not None and victim.row in arguments[2],
                "advance": lambda: victim is not None and any(item[0] is victim.stream for item in arguments[0]),
            }
            if concerned[method]():
                raise torch.OutOfMemoryError("out of memory")
            return original(*arguments)

        monkeypatch.setattr(target, method, failing)
        with gate:
            utterances = [engine.submit(ask(ids)) for ids in (range(6, 30), range(6, 19), range(6, 30))]
        with pytest.raises(SynthesisFailed, match="OutOfMemoryError"):
            collect(utterances[1])
        assert collect(utterances[0]) == collect(utterances[2]) == expected
        assert engine.healthy

    @pytest.mark.parametrize("error", [torch.AcceleratorError("CUDA error"), KeyError("a mistake")])
    @pytest.mark.parametrize("method", ["prefill", "step"])
    def test_what_is_not_one_sequence_s_fails_the_engine(
        self,
        make_engine: Callable[..., DecodeEngine],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        method: str,
    ) -> None:
        gate = threading.Lock()
        engine = make_engine(max_batch=2, device_lock=gate)

        def failing(*_: Any) -> torch.Tensor:
            raise error

        monkeypatch.setattr(engine.gpt, method, failing)
        with gate:
            utterances = [engine.submit(ask()) for _ in range(4)]
        for utterance in utterances:
            with pytest.raises(SynthesisFailed, match="engine has failed"):
                collect(utterance)
        assert not engine.healthy
        with pytest.raises(NotReady):
            engine.submit(ask())

    def test_a_loop_is_ended(self, checkpoint: Path, make_engine: Callable[..., DecodeEngine]) -> None:
        stuck = load_network(checkpoint)
        stuck.gpt.mel_head.weight = torch.nn.Parameter(torch.zeros(66, 64), requires_grad=False)
        stuck.gpt.mel_head.bias = torch.nn.Parameter(F.one_hot(torch.tensor(3), 66).float(), requires_grad=False)
        spoken = collect(
            make_engine(weights=stuck).submit(ask(sampling=Sampling(do_sample=False, repetition_penalty=1.0)))
        )
        assert spoken.reason is FinishReason.LOOP
        assert spoken.tokens == [3] * LOOP_TOKENS
