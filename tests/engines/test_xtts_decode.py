"""The batched decode engine against stock coqui-tts, a plain recomputation, and itself alone; on a tiny checkpoint."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support import tiny_xtts
from support.xtts_requests import (
    CPU,
    EXACT_MODES,
    GREEDY,
    SAMPLED,
    TIE,
    Spoken,
    ask,
    assert_same,
    collect,
    engines,
    recording,
    text_ids,
    wait_until,
)
from support.xtts_texts import CHINESE, ENGLISH, SHORT

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Language
from mirrorchat.xtts.decode import PREFIXES_KEPT, DecodeEngine
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.steps import StepMode
from mirrorchat.xtts.utterance import FinishReason, Request
from mirrorchat.xtts.vocoder import StreamingVocoder

KINDS = [*((mode, StepMode.EAGER) for mode in (WeightMode.FP32, *EXACT_MODES)), (WeightMode.FP32, StepMode.STATIC)]


@pytest.fixture(scope="module")
def network(xtts_checkpoint: Path) -> Network:
    torch.set_num_threads(1)
    return load_network(xtts_checkpoint)


@pytest.fixture
def make_engine(network: Network) -> Iterator[Callable[..., DecodeEngine]]:
    with engines(network) as make:
        yield make


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def engine(request: pytest.FixtureRequest, network: Network) -> Iterator[DecodeEngine]:
    """An engine shared by tests that leave it as it was."""
    mode, step_mode = request.param
    with engines(network, step_mode=step_mode) as make:
        yield make(mode)


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
def stock(xtts_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path_factory.mktemp("stock") / "xtts-v2")
    with tiny_xtts.stock_model(folder, Audio(np.zeros(22_050, np.float32), 22_050)) as model:
        yield model


class TestEqualToStock:
    @pytest.mark.filterwarnings("ignore:.*generation flags")
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    @pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
    @pytest.mark.parametrize(
        ("mode", "latent_error", "sample_error"), [(WeightMode.FP32, 1e-4, 1e-5), (WeightMode.FP16W, 3e-3, 1e-3)]
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
        np.testing.assert_allclose(found.samples, expected.samples, atol=1e-5)
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


class TestStepModes:
    """Steps that sample on the device give the tokens of eager ones."""

    def check(
        self, network: Network, device: torch.device, step_mode: StepMode, cases: Sequence[tuple[int, bool]]
    ) -> None:
        vocoder = StreamingVocoder(network.hifigan_decoder)
        spoken = []
        for steps in (StepMode.EAGER, step_mode):
            gate = threading.Lock()
            with engines(network, device=device, vocoder=vocoder, step_mode=steps, device_lock=gate) as make:
                engine = make(max_batch=5, queue_chunks=100)
                with gate:  # so that batches are the same in each run
                    utterances = [engine.submit(numbered(*case)) for case in cases]
                spoken.append([collect(utterance) for utterance in utterances])
        for found, expected in zip(*spoken, strict=True):
            assert_same(found, expected)

    def test_static(self, network: Network) -> None:
        cases = [(number, greedy) for number in range(len(REQUESTS)) for greedy in (True, False)]
        self.check(network, CPU, StepMode.STATIC, cases)

    @pytest.mark.parametrize("step_mode", [StepMode.STATIC, StepMode.GRAPH])
    def test_on_a_gpu(self, xtts_checkpoint: Path, step_mode: StepMode, cuda_device: torch.device) -> None:
        network = load_network(xtts_checkpoint)
        network.hifigan_decoder.to(cuda_device)
        self.check(network, cuda_device, step_mode, [(number, number % 2 == 0) for number in range(len(REQUESTS))])


class TestVoices:
    def test_computed_once(self, make_engine: Callable[..., DecodeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
        engine = make_engine(WeightMode.FP16W)
        starts: list[int] = []
        prefill = engine.gpt.prefill

        def counting(x: torch.Tensor, cache: Any, slot: int, past: int) -> torch.Tensor:
            starts.append(past)
            return prefill(x, cache, slot, past)

        monkeypatch.setattr(engine.gpt, "prefill", counting)
        first = collect(engine.submit(ask()))
        other = collect(engine.submit(ask(speaker=1)))
        again = collect(engine.submit(ask()))
        assert starts == [0, 32, 0, 32, 32]
        assert again == first != other

    def test_few_are_kept(self, make_engine: Callable[..., DecodeEngine]) -> None:
        engine = make_engine()
        first = collect(engine.submit(ask(max_tokens=5)))
        for speaker in range(1, PREFIXES_KEPT + 3):
            collect(engine.submit(ask(speaker=speaker, max_tokens=2)))
        assert len(engine._prefixes) == PREFIXES_KEPT
        assert collect(engine.submit(ask(max_tokens=5))) == first
