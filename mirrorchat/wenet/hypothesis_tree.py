"""Attention rescoring of the n-best hypotheses as a prefix tree: each shared prefix is decoded once.

The hypotheses of a beam differ in few tokens, and the decoder's output after a prefix does not depend on later tokens.
So every distinct prefix is one node of a tree and one position of the decoder's input, and it attends to itself and its
ancestors. The backward decoder has a tree of the reversed hypotheses. The choice is that of
`rescoring.attention_rescoring`, which decodes each hypothesis on its own; scores differ by float32's rounding.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mirrorchat.hardware.devices import uploaded
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.layers import length_mask
from mirrorchat.wenet.model import BiTransformerDecoder, TransformerDecoder, U2Model
from mirrorchat.wenet.rescoring import CTC_WEIGHT, REVERSE_WEIGHT

NODES = 512  # of one tree, unless a single hypothesis is longer: attention has a weight for every pair of nodes
LOGITS = 256  # nodes whose logits are computed at once: 6 MB for 5,500 tokens
NO_LOCK: AbstractContextManager[object] = nullcontext()
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class HypothesisTree:
    """The distinct prefixes of some hypotheses, a node for each, parents first. Node 0 is the empty prefix.

    For each node, `tokens` has the last token (`sos` for node 0), `parents` the node of the prefix without it (0 for
    node 0) and `depths` the length. `ends` has the node of each whole hypothesis.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    ends: list[int]

    def ancestors(self) -> npt.NDArray[np.bool_]:
        """Return (nodes, nodes): whether the prefix of the row begins with the prefix of the column."""
        begins = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents[1:], 1):
            begins[node] |= begins[parent]
        return begins

    def scores(self, entered: Sequence[float], ended: Sequence[float]) -> list[float]:
        """Return the score of each hypothesis: the sum of `entered` over its nodes, plus its own value of `ended`."""
        sums = [0.0]
        for parent, value in zip(self.parents[1:], entered[1:], strict=True):
            sums.append(sums[parent] + value)
        return [sums[node] + value for node, value in zip(self.ends, ended, strict=True)]


def hypothesis_tree(texts: Sequence[Tokens], sos: int) -> HypothesisTree:
    """Return the tree of the hypotheses with the tokens `texts`."""
    nodes: dict[tuple[int, int], int] = {}  # (parent, token) to node
    tree = HypothesisTree([sos], [0], [0], [])
    for text in texts:
        node = 0
        for token in text:
            parent, node = node, nodes.setdefault((node, token), len(tree.tokens))
            if node == len(tree.tokens):
                tree.tokens.append(token)
                tree.parents.append(parent)
                tree.depths.append(tree.depths[parent] + 1)
        tree.ends.append(node)
    return tree


@dataclass(frozen=True)
class _Job:
    """The tree of some hypotheses of the utterance `utterance`, the first of which has the number `first`."""

    utterance: int
    first: int
    tree: HypothesisTree


def rescore(
    model: U2Model,
    hypotheses: Sequence[Sequence[Hypothesis]],
    encoded: Tensor,
    sizes: Sequence[int],
    *,
    device_lock: AbstractContextManager[object] = NO_LOCK,
) -> list[Hypothesis]:
    """Return for each utterance the hypothesis with the highest score from CTC and the attention decoders together.

    `hypotheses` has at least one hypothesis for each utterance; `encoded` is (B, S, D), of which `sizes` frames count.
    Scores and ties are as in `attention_rescoring`. `device_lock` is held while the decoders compute.
    """
    totals = [[CTC_WEIGHT * each.score for each in n_best] for n_best in hypotheses]
    for decoder, weight, backwards in _directions(model.decoder):
        step = -1 if backwards else 1
        texts = [[each.tokens[::step] for each in n_best] for n_best in hypotheses]
        found = tree_scores(decoder, texts, encoded, sizes, model.sos, model.eos, device_lock)
        for total, scores in zip(totals, found, strict=True):
            total[:] = [one + weight * other for one, other in zip(total, scores, strict=True)]
    return [n_best[total.index(max(total))] for n_best, total in zip(hypotheses, totals, strict=True)]


def _directions(decoder: BiTransformerDecoder | TransformerDecoder) -> list[tuple[TransformerDecoder, float, bool]]:
    """Return each decoder with its weight, and whether it reads the text backwards."""
    if isinstance(decoder, BiTransformerDecoder):
        return [(decoder.left_decoder, 1.0 - REVERSE_WEIGHT, False), (decoder.right_decoder, REVERSE_WEIGHT, True)]
    return [(decoder, 1.0, False)]


def tree_scores(
    decoder: TransformerDecoder,
    texts: Sequence[Sequence[Tokens]],
    encoded: Tensor,
    sizes: Sequence[int],
    sos: int,
    eos: int,
    device_lock: AbstractContextManager[object] = NO_LOCK,
) -> list[list[float]]:
    """Return the log probability of every text, with `eos` after it, for each utterance of a batch.

    `texts` has the tokens of each utterance's hypotheses; `encoded` is (B, S, D), of which `sizes` frames count.
    """
    found = [[0.0] * len(each) for each in texts]
    jobs = [job for index, each in enumerate(texts) for job in _jobs(each, index, 0, sos)]
    for group in _groups(jobs):
        trees, inputs = [job.tree for job in group], _Inputs.of(group, sizes, eos)
        with device_lock:
            values = _log_probs(decoder, encoded, inputs)
        for job, scores in zip(group, _tree_by_tree(trees, inputs.in_order(values)), strict=True):
            found[job.utterance][job.first : job.first + len(scores)] = scores
    return found


def _jobs(texts: Sequence[Tokens], utterance: int, first: int, sos: int) -> Iterator[_Job]:
    """Yield trees of at most NODES nodes, or of one hypothesis."""
    tree = hypothesis_tree(texts, sos)
    if len(tree.tokens) <= NODES or len(texts) == 1:
        yield _Job(utterance, first, tree)
        return
    middle = len(texts) // 2
    yield from _jobs(texts[:middle], utterance, first, sos)
    yield from _jobs(texts[middle:], utterance, first + middle, sos)


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield jobs of similar size to compute together: padded, they need the attention of one tree of NODES at most."""
    group: list[_Job] = []
    for job in sorted(jobs, key=lambda job: len(job.tree.tokens)):
        if group and (len(group) + 1) * len(job.tree.tokens) ** 2 > NODES**2:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


@dataclass(frozen=True)
class _Inputs:
    """What the decoder needs for the trees of some jobs, on the CPU, so that a GPU is occupied no longer than it works.

    `tokens` and `depths` are (jobs, longest), `mask` (jobs, longest, longest), `memory_mask` (jobs, 1, last); the
    encoder's output of `utterances` counts up to frame `last`. `lengths` has the number of nodes of each tree. A value
    is the log probability of the token in `columns` after the node in `rows`, among the nodes of all trees; they are
    sorted by the node, of which `borders` separate blocks of LOGITS. `order` has their places before the sorting: the
    token of each node after its parent, then `eos` after each hypothesis.
    """

    tokens: Tensor
    depths: Tensor
    mask: Tensor
    memory_mask: Tensor
    utterances: Tensor
    last: int
    lengths: list[int]
    rows: Tensor
    columns: Tensor
    order: Tensor
    borders: list[int]

    @classmethod
    def of(cls, jobs: Sequence[_Job], sizes: Sequence[int], eos: int) -> "_Inputs":
        """Return the inputs for `jobs`, whose encoder output has `sizes` frames for each utterance."""
        trees = [job.tree for job in jobs]
        longest = max(len(tree.tokens) for tree in trees)
        tokens = torch.full((len(jobs), longest), eos)
        depths = torch.zeros((len(jobs), longest), dtype=torch.int64)
        mask = torch.zeros((len(jobs), longest, longest), dtype=torch.bool)
        for index, tree in enumerate(trees):
            size = len(tree.tokens)
            tokens[index, :size], depths[index, :size] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
            mask[index, :size, :size] = torch.from_numpy(tree.ancestors())
        frames = torch.tensor([sizes[job.utterance] for job in jobs])
        last, lengths = int(frames.max()), [len(tree.tokens) for tree in trees]
        memory_mask, utterances = length_mask(frames, last).unsqueeze(1), torch.tensor([job.utterance for job in jobs])
        rows, columns = _values(trees, eos)
        order = torch.argsort(rows, stable=True)
        borders = torch.searchsorted(rows[order], torch.arange(0, sum(lengths) + LOGITS, LOGITS)).tolist()
        sorted_values = rows[order], columns[order], order, borders
        return cls(tokens, depths, mask, memory_mask, utterances, last, lengths, *sorted_values)

    def in_order(self, values: Tensor) -> tuple[list[float], list[float]]:
        """Return the value of each node's token after its parent, and of `eos` after each hypothesis."""
        found = torch.empty(len(values)).index_copy_(0, self.order, values).tolist()
        nodes = sum(self.lengths)
        return found[:nodes], found[nodes:]


def _values(trees: Sequence[HypothesisTree], eos: int) -> tuple[Tensor, Tensor]:
    """Return the node and the token of each value, as in `_Inputs`, in the order before the sorting."""
    starts = np.cumsum([0, *(len(tree.tokens) for tree in trees)])
    before = [start + node for start, tree in zip(starts, trees, strict=False) for node in tree.parents]
    before += [start + node for start, tree in zip(starts, trees, strict=False) for node in tree.ends]
    following = [token for tree in trees for token in tree.tokens] + [eos for tree in trees for _ in tree.ends]
    return torch.tensor(before), torch.tensor(following)


def _log_probs(decoder: TransformerDecoder, encoded: Tensor, inputs: _Inputs) -> Tensor:
    """Return the values of `inputs`, float32 on the CPU. Logits are computed for LOGITS nodes at a time."""
    device = encoded.device
    memory = encoded[:, : inputs.last]
    if len(encoded) > 1:
        memory = memory[uploaded(inputs.utterances, device)]
    tokens, depths, mask, memory_mask, rows, columns = (
        uploaded(each, device)
        for each in (inputs.tokens, inputs.depths, inputs.mask, inputs.memory_mask, inputs.rows, inputs.columns)
    )
    hidden = decoder.hidden_at(memory, memory_mask, tokens, depths, mask)  # (jobs, longest, D)
    real = torch.cat([hidden[index, :length] for index, length in enumerate(inputs.lengths)])
    found = []
    for part, block in enumerate(torch.split(real, LOGITS)):
        logits = decoder.output_layer(block).float()
        chosen = slice(inputs.borders[part], inputs.borders[part + 1])
        row = rows[chosen] - part * LOGITS
        found.append(logits[row, columns[chosen]] - torch.logsumexp(logits, dim=-1)[row])
    return torch.cat(found).cpu()


def _tree_by_tree(
    trees: Sequence[HypothesisTree], values: tuple[Sequence[float], Sequence[float]]
) -> Iterator[list[float]]:
    entered, ended = values
    node = text = 0
    for tree in trees:
        nodes_end, texts_end = node + len(tree.tokens), text + len(tree.ends)
        yield tree.scores(entered[node:nodes_end], ended[text:texts_end])
        node, text = nodes_end, texts_end
