"""Rescoring by prefix trees gives the choice and the scores of rescoring every hypothesis on its own."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.wenet_networks import VARIANTS, VOCABULARY, make_model
from support.wenet_reference import DATA
from torch import Tensor

from mirrorchat.wenet import hypothesis_tree as wenet_hypothesis_tree
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.hypothesis_tree import hypothesis_tree, rescore, tree_scores
from mirrorchat.wenet.model import BiTransformerDecoder, U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

CHECKPOINTS = ("aishell", "gigaspeech", "transformer")
BOUND = 1e-3  # of a hypothesis' log probability: float32's rounding, about 1e-6 for each of its tokens
Tokens = tuple[int, ...]

tokens = st.lists(st.integers(0, VOCABULARY - 1), max_size=9).map(tuple)
n_best = st.lists(tokens, min_size=1, max_size=10)


@st.composite
def beams(draw: st.DrawFn) -> list[Tokens]:
    """Return the tokens of a beam's hypotheses: one, and others that differ from it in some places."""
    first = draw(tokens)
    places = st.integers(0, len(first))
    changed = [
        (*first[: draw(places)], *draw(st.lists(st.integers(0, VOCABULARY - 1), max_size=2)), *first[draw(places) :])
        for _ in range(draw(st.integers(0, 9)))
    ]
    return [first, *changed]


@pytest.fixture(scope="module", params=["u2++", "no_pos", *CHECKPOINTS])
def model(request: pytest.FixtureRequest) -> U2Model:
    if request.param in VARIANTS:
        return make_model(**VARIANTS[request.param])
    return read_checkpoint(DATA / request.param).model.requires_grad_(False)


def memory(model: U2Model, frames: int, seed: int = 0) -> Tensor:
    width = model.ctc.ctc_lo.in_features
    return torch.randn(1, frames, width, generator=torch.Generator().manual_seed(seed))


def plain_scores(model: U2Model, texts: Sequence[Tokens], encoded: Tensor, *, backwards: bool) -> list[float]:
    """Return the log probability of each of `texts`, computed one by one with WeNet's method."""
    found = []
    for text in texts:
        given = text[::-1] if backwards else text
        batch = torch.tensor([[model.sos, *text]])
        both = model.forward_attention_decoder(
            batch, torch.tensor([batch.shape[1]]), encoded, 0.3 if backwards else 0.0
        )
        rows = both[int(backwards)][0]
        found.append(float(rows.gather(1, torch.tensor([*given, model.eos]).unsqueeze(1)).double().sum()))
    return found


@settings(deadline=None, max_examples=20)
@given(texts=n_best | beams())
@torch.inference_mode()
def test_scores_are_those_of_each_hypothesis_alone(model: U2Model, texts: list[Tokens]) -> None:
    encoded = memory(model, 11)
    decoder = model.decoder
    left = decoder.left_decoder if isinstance(decoder, BiTransformerDecoder) else decoder
    found = tree_scores(left, [texts], encoded, [11], model.sos, model.eos)[0]
    assert found == pytest.approx(plain_scores(model, texts, encoded, backwards=False), abs=BOUND)
    if isinstance(decoder, BiTransformerDecoder):
        reversed_ = [each[::-1] for each in texts]
        found = tree_scores(decoder.right_decoder, [reversed_], encoded, [11], model.sos, model.eos)[0]
        assert found == pytest.approx(plain_scores(model, texts, encoded, backwards=True), abs=BOUND)


@settings(deadline=None, max_examples=20)
@given(batch=st.lists(n_best | beams(), min_size=1, max_size=4))
@torch.inference_mode()
def test_a_batch_chooses_what_each_utterance_chooses_alone(model: U2Model, batch: list[list[Tokens]]) -> None:
    sizes = [7 + 3 * index for index in range(len(batch))]
    memories = [memory(model, size, seed) for seed, size in enumerate(sizes)]
    padded = torch.full((len(batch), max(sizes), memories[0].shape[2]), 1e3)  # the padding must have no effect
    for row, each in zip(padded, memories, strict=True):
        row[: each.shape[1]] = each[0]
    hypotheses = [[Hypothesis(each, -0.37 * index, (), ()) for index, each in enumerate(texts)] for texts in batch]
    expected = [attention_rescoring(model, *each) for each in zip(hypotheses, memories, strict=True)]
    assert [each.tokens for each in rescore(model, hypotheses, padded, sizes)] == [each.tokens for each in expected]


@settings(deadline=None, max_examples=10)
@given(texts=n_best)
@torch.inference_mode()
def test_trees_that_grow_too_large_are_cut(texts: list[Tokens]) -> None:
    model = make_model()
    decoder = model.decoder
    assert isinstance(decoder, BiTransformerDecoder)
    whole = tree_scores(decoder.left_decoder, [texts] * 2, memory(model, 5), [5, 5], model.sos, model.eos)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wenet_hypothesis_tree, "NODES", 6)
        patch.setattr(wenet_hypothesis_tree, "LOGITS", 4)
        cut = tree_scores(decoder.left_decoder, [texts] * 2, memory(model, 5), [5, 5], model.sos, model.eos)
    for one, other in zip(whole, cut, strict=True):
        assert one == pytest.approx(other, abs=BOUND)


@given(texts=n_best)
def test_every_distinct_prefix_is_one_node(texts: list[Tokens]) -> None:
    tree = hypothesis_tree(texts, 99)
    prefixes = {each[:length] for each in texts for length in range(len(each) + 1)}
    assert len(tree.tokens) == len(prefixes)
    seen = tree.ancestors()
    for text, end in zip(texts, tree.ends, strict=True):
        assert [tree.tokens[node] for node in seen[end].nonzero()[0]] == [99, *text]
        assert tree.depths[end] == len(text)
