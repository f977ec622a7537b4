"""Our network and searches against WeNet's own outputs, for every kind of checkpoint that WeNet has released.

`data/wenet-reference` holds tiny checkpoints with random weights, written as the releases are, and what WeNet itself
gave for them; its README describes the format.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.places import CLIPS, QUESTION
from support.wenet_reference import ATOL, DATA, STREAMING, VARIANTS, FloatArray, sound, unpadded
from torch import Tensor

from mirrorchat.wenet.batch import encode
from mirrorchat.wenet.checkpoint import Checkpoint, read_checkpoint
from mirrorchat.wenet.ctc.search import prefix_beam_search
from mirrorchat.wenet.rescoring import attention_rescoring


@dataclass(frozen=True)
class Reference:
    """A checkpoint as we read it, and WeNet's outputs by name, whose rows follow `inputs`."""

    name: str
    checkpoint: Checkpoint
    expected: dict[str, npt.NDArray[np.generic]]

    @property
    def inputs(self) -> list[str]:
        return [str(name) for name in self.expected["inputs"]]


@pytest.fixture(scope="module", params=VARIANTS)
def reference(request: pytest.FixtureRequest) -> Reference:
    folder = DATA / request.param
    with np.load(folder / "expected.npz") as arrays:
        return Reference(request.param, read_checkpoint(folder), {name: arrays[name] for name in arrays.files})


@pytest.fixture(scope="module")
def noise() -> dict[str, FloatArray]:
    with np.load(DATA / "noise.npz") as arrays:
        return {name: arrays[name].astype(np.float32) for name in arrays.files}


@pytest.fixture(scope="module")
def features(noise: dict[str, FloatArray]) -> dict[str, FloatArray]:
    """Every input that is here: the noise and the question always, the real clips where they are."""
    return noise | {"question": sound(QUESTION)} | {path.stem: sound(path) for path in sorted(CLIPS.glob("*.wav"))}


def need_clips(names: list[str]) -> list[str]:
    """Return those inputs that are real clips, or skip the test."""
    clips = [name for name in names if (CLIPS / f"{name}.wav").is_file()]
    if not clips:
        pytest.skip(f"clips absent: {CLIPS}")
    return clips


def kept(names: list[str]) -> list[str]:
    """Return those inputs that lie in this repository."""
    return [name for name in names if name == "question" or name.startswith("noise-")]


def greedy(log_probs: FloatArray) -> tuple[int, ...]:
    """Return the best token of each frame, without repeats and blanks."""
    best = log_probs.argmax(axis=1)
    changes = np.flatnonzero(np.diff(best, prepend=-1))
    return tuple(int(token) for token in best[changes] if token != 0)


def assert_near(found: Tensor, expected: npt.NDArray[np.generic]) -> None:
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0.0, atol=ATOL)


def check_encoder(reference: Reference, name: str, matrix: FloatArray) -> None:
    encoded, _ = reference.checkpoint.model.encoder(torch.from_numpy(matrix)[None], torch.tensor([len(matrix)]))
    row = reference.inputs.index(name)
    exact = encoded[0].double()
    assert len(matrix) == reference.expected["frames"][row]
    assert len(exact) == reference.expected["encoded_frames"][row]
    # The sum over n values that are each within ATOL; the norm moves by no more than the root of their squares.
    assert float(exact.sum()) == pytest.approx(float(reference.expected["encoded_sums"][row]), abs=ATOL * exact.numel())
    assert float(exact.norm()) == pytest.approx(
        float(reference.expected["encoded_norms"][row]), abs=ATOL * exact.numel() ** 0.5
    )
    if f"encoded/{name}" in reference.expected:
        assert_near(encoded[0], reference.expected[f"encoded/{name}"])
        whole, _ = encode(reference.checkpoint.model, matrix)
        if not reference.checkpoint.model.encoder.fixed_chunk:
            assert_near(whole[0], reference.expected[f"encoded/{name}"])


def check_searches(reference: Reference, name: str, matrix: FloatArray) -> None:
    expected, row = reference.expected, reference.inputs.index(name)
    encoded, log_probs = encode(reference.checkpoint.model, matrix)
    assert greedy(log_probs) == unpadded(expected["greedy"][row])
    hypotheses = prefix_beam_search(log_probs, 10)
    assert [hypothesis.tokens for hypothesis in hypotheses] == [unpadded(tokens) for tokens in expected["beam"][row]]
    found = [hypothesis.score for hypothesis in hypotheses]
    assert found == pytest.approx(expected["beam_scores"][row].tolist(), abs=1e-3)
    assert attention_rescoring(reference.checkpoint.model, hypotheses, encoded).tokens == unpadded(
        expected["rescored"][row]
    )


def test_every_variant_is_tested() -> None:
    assert sorted(path.name for path in DATA.iterdir() if path.is_dir()) == sorted(VARIANTS)


def test_the_encoder_is_wenets(reference: Reference, features: dict[str, FloatArray]) -> None:
    names = kept(reference.inputs)
    assert {"question", "noise-203"} <= set(names) and all(f"encoded/{name}" in reference.expected for name in names)
    for name in names:
        check_encoder(reference, name, features[name])


def test_the_encoder_is_wenets_on_real_speech(reference: Reference, features: dict[str, FloatArray]) -> None:
    for name in need_clips(reference.inputs):
        check_encoder(reference, name, features[name])


def test_the_texts_are_wenets(reference: Reference, features: dict[str, FloatArray]) -> None:
    for name in kept(reference.inputs):
        check_searches(reference, name, features[name])


def test_the_texts_are_wenets_on_real_speech(reference: Reference, features: dict[str, FloatArray]) -> None:
    for name in need_clips(reference.inputs):
        check_searches(reference, name, features[name])


def test_the_special_tokens_are_wenets(reference: Reference) -> None:
    model = reference.checkpoint.model
    assert [model.sos_symbol(), model.eos_symbol()] == reference.expected["sos_eos"].tolist()
    assert reference.checkpoint.tokens[model.sos_symbol()] == "<sos/eos>"
    assert reference.checkpoint.tokens[reference.checkpoint.config.blank] == "<blank>"


def stream(checkpoint: Checkpoint, matrix: FloatArray, chunk: int, left_chunks: int) -> Tensor:
    """Return the encoder's output (1, S, D), read chunk by chunk as WeNet's simulation of streaming does."""
    model = checkpoint.model
    whole = torch.from_numpy(matrix)[None]
    stride, context = chunk * model.subsampling_rate(), model.right_context()
    window = stride - model.subsampling_rate() + context + 1
    outputs: list[Tensor] = []
    attention = convolution = torch.zeros(0, 0, 0, 0)
    offset = 0
    for start in range(0, len(matrix) - context, stride):
        output, attention, convolution = model.forward_encoder_chunk(
            whole[:, start : start + window], offset, chunk * left_chunks, attention, convolution
        )
        offset += output.shape[1]
        outputs.append(output)
    return torch.cat(outputs, dim=1)


def test_streaming_is_wenets(reference: Reference, features: dict[str, FloatArray]) -> None:
    keys = [key for key in reference.expected if key.startswith("stream/") and key.count("/") == 3]
    assert bool(keys) == reference.checkpoint.config.streams == (reference.name in STREAMING)
    for key in keys:
        _, name, chunk, left_chunks = key.split("/")
        encoded = stream(reference.checkpoint, features[name], int(chunk), int(left_chunks))
        assert_near(encoded[0], reference.expected[key])
        log_probs = reference.checkpoint.model.ctc_activation(encoded)[0].numpy()
        assert greedy(log_probs) == unpadded(reference.expected[f"{key}/greedy"])
        rescored = attention_rescoring(reference.checkpoint.model, prefix_beam_search(log_probs, 10), encoded)
        assert rescored.tokens == unpadded(reference.expected[f"{key}/rescored"])


def test_batches_are_wenets(reference: Reference, features: dict[str, FloatArray]) -> None:
    names = [str(name) for name in reference.expected["batch_inputs"]]
    lengths = torch.tensor([len(features[name]) for name in names])
    batch = torch.zeros(len(names), int(lengths.max()), 80)
    for row, name in zip(batch, names, strict=True):
        row[: len(features[name])] = torch.from_numpy(features[name])
    # Where a convolution hears what comes later, WeNet's hears its own padding; ours hears what it hears alone, and so
    # agrees with WeNet's only on the longest.
    config = reference.checkpoint.config
    first = int(lengths.argmax()) if config.uses_convolution and not config.causal else 0
    for key, chunk in (("batch", (-1, -1)), ("batch_masked", (4, 2))):
        if key in reference.expected:
            encoded, mask = reference.checkpoint.model.encoder(batch, lengths, *chunk)
            frames = mask[:, 0].sum(dim=1)
            assert frames.tolist() == reference.expected["batch_frames"].tolist()
            for row in range(first, len(names)):
                assert_near(encoded[row, : frames[row]], reference.expected[key][row, : frames[row]])
    assert ("batch_masked" in reference.expected) == config.knows_chunks
