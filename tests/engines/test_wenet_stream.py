"""Chunks, features and texts of speech that goes on: WeNet's own outputs, and what is stable stays."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import QUESTION
from support.wenet_reference import ATOL, DATA, STREAMING, VARIANTS, sound, unpadded

from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Language
from mirrorchat.wenet.batch import load_script
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.ctc.search import FloatArray
from mirrorchat.wenet.features import BINS, SAMPLE_RATE, FeatureStream, fbank
from mirrorchat.wenet.stream import ALL, CHUNK, ChunkReader, reads_chunks
from mirrorchat.wenet.text import settled, written

MODELS = DATA.parent / "wenet-tiny"


@pytest.fixture(scope="module")
def inputs() -> dict[str, FloatArray]:
    with np.load(DATA / "noise.npz") as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files} | {"question": sound(QUESTION)}


def read_all(reader: ChunkReader, features: FloatArray) -> list[tuple[int, ...]]:
    """Read `features` to the end; return what was stable after each chunk."""
    stable = []
    for start in range(0, len(features) - reader.shortest + 1, reader.stride):
        reader.read(features[start : start + reader.window])
        stable.append(reader.stable_prefix())
        assert all(each.tokens[: len(stable[-1])] == stable[-1] for each in reader.hypotheses())
    return stable


@torch.inference_mode()
@pytest.mark.parametrize(
    ("name", "scripted"),
    # One of each kind is enough of what takes seconds to compile.
    [*((name, False) for name in STREAMING), *((name, True) for name in ("aishell", "gigaspeech", "transformer"))],
)
def test_chunks_are_wenets(inputs: dict[str, FloatArray], name: str, scripted: bool) -> None:
    checkpoint = read_checkpoint(DATA / name)
    model = script(checkpoint.model) if scripted else checkpoint.model
    assert reads_chunks(model)
    with np.load(DATA / name / "expected.npz") as expected:
        keys = [key for key in expected.files if key.startswith("stream/") and key.count("/") == 3]
        assert f"stream/question/{CHUNK}/{ALL}" in keys
        for key in keys:
            _, source, chunk, left_chunks = key.split("/")
            reader = ChunkReader(model, chunk=int(chunk), left_chunks=int(left_chunks))
            stable = read_all(reader, inputs[source])
            torch.testing.assert_close(reader.encoded()[0], torch.from_numpy(expected[key]), rtol=0.0, atol=ATOL)
            rescored = reader.rescored().tokens
            assert rescored == unpadded(expected[f"{key}/rescored"])
            assert all(rescored[: len(each)] == each for each in stable)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_caches_lie_where_the_model_does_and_in_its_type(
    inputs: dict[str, FloatArray], any_device: torch.device, dtype: torch.dtype
) -> None:
    model = read_checkpoint(DATA / "aishell").model
    exact = ChunkReader(model)
    read_all(exact, inputs["question"])
    encoded = exact.encoded()
    reader = ChunkReader(model.to(device=any_device, dtype=dtype))
    read_all(reader, inputs["question"])
    found = reader.encoded()
    assert (found.dtype, found.device.type) == (dtype, any_device.type)
    torch.testing.assert_close(found.float().cpu(), encoded, rtol=0.0, atol=1e-3 if dtype == torch.float32 else 0.2)
    assert reader.rescored().tokens


def script(model: torch.nn.Module) -> torch.jit.ScriptModule:
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.script"):
        scripted = torch.jit.script(model.eval())
    assert isinstance(scripted, torch.jit.ScriptModule)
    return scripted


def test_which_networks_can_be_read_in_chunks() -> None:
    found = {name for name in VARIANTS if reads_chunks(read_checkpoint(DATA / name).model)}
    assert found == set(STREAMING)
    assert reads_chunks(load_script(MODELS / "en" / "final.zip"))
    assert not reads_chunks(script(read_checkpoint(DATA / "batch_norm").model))


class Attributes(torch.nn.Module):
    """A module with WeNet's attributes, `encoder` or `conv_module` in it."""

    def __init__(self, **attributes: object) -> None:
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


@pytest.mark.parametrize(
    ("dynamic", "static", "lorder", "streams"),
    [(True, 0, 7, True), (False, 16, 7, True), (False, 0, 7, False), (True, 0, 0, False), (True, 0, None, True)],
)
def test_wenets_own_runtime_format_tells_by_its_attributes(
    dynamic: bool, static: int, lorder: int | None, streams: bool
) -> None:
    convolution = {} if lorder is None else {"conv_module": Attributes(lorder=lorder)}
    layers = torch.nn.ModuleList([Attributes(**convolution)])
    encoder = Attributes(use_dynamic_chunk=dynamic, static_chunk_size=static, encoders=layers)
    assert reads_chunks(Attributes(encoder=encoder)) is streams  # type: ignore[arg-type]


# Features


@given(
    sizes=st.lists(st.integers(0, 6_000), min_size=1, max_size=30),
    rate=st.sampled_from([8_000, 11_025, SAMPLE_RATE, 22_050, 44_100, 48_000]),
    taken=st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_features_in_pieces_are_those_of_the_whole(sizes: list[int], rate: int, taken: int) -> None:
    samples = 0.3 * np.random.default_rng(1).standard_normal(sum(sizes), dtype=np.float32)
    stream, kept, start = FeatureStream(rate), [np.zeros((0, BINS), np.float32)], 0
    for size in sizes:
        stream.accept(Audio(samples[start : start + size], rate))
        start += size
        while stream.waiting >= taken:
            kept.append(stream.ahead(taken))
            stream.take(taken)
    for _ in range(2):
        stream.finish()
    kept.append(stream.ahead(stream.waiting))
    whole = fbank(Audio(samples, rate).resample(SAMPLE_RATE).samples)
    np.testing.assert_array_equal(np.concatenate(kept), whole)


# Text

PIECES = st.sampled_from(
    ["▁", "▁i", "i", "'m", "▁I", "n", "▁what", "'s", "-", "▁3", "2", "点", "今", "天", "▁jazz", "A", "P", "<unk>",
     "▁今", "<sos/eos>", "Σ", "▁ΑΣ", "é", "ß", "▁ß", "_", " ", "月"]
)  # fmt: skip


@given(tokens=st.lists(PIECES, max_size=14), language=st.sampled_from(list(Language)))
@settings(max_examples=1500, deadline=None)
def test_what_is_settled_begins_every_later_text(tokens: list[str], language: Language) -> None:
    texts = [written(tokens[:size], language) for size in range(len(tokens) + 1)]
    whole = [settled(tokens[:size], language) for size in range(len(tokens) + 1)]
    for early, late in itertools.combinations(range(len(tokens) + 1), 2):
        assert texts[late].startswith(whole[early])
        assert whole[late].startswith(whole[early])
    assert all(text.startswith(each) for text, each in zip(texts, whole, strict=True))


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["▁what", "'s", "▁the", "▁ti"], "What's the"),
        (["▁what"], ""),
        (["▁what", "▁"], "What"),
        (["▁so", "▁i"], "So"),
        (["▁so", "▁i", "▁a"], "So I"),
        (["今", "天"], "今天"),
        (["三", "月", "3"], "三月"),
        (["三", "月", "3", "号"], "三月3号"),
        (["我", "▁jazz", "你"], "我 jazz 你"),
        ([], ""),
    ],
)
def test_a_word_is_settled_when_the_next_has_begun(tokens: list[str], expected: str) -> None:
    assert settled(tokens, Language.CHINESE if expected > "z" else Language.ENGLISH) == expected
