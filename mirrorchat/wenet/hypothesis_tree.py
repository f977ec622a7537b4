"""The last step of WeNet's recognition for our own network: readings rescored as a tree of their shared beginnings.

The readings of a beam differ in few tokens, and what a decoder says after a prefix does not depend on what follows it.
So each distinct prefix is one row of the decoder, which sees itself and the prefixes it begins with, and the reversed
readings are a second tree. Same choice as `rescoring.attention_rescoring`, which computes every reading on its
own; scores differ by float32's rounding.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.layers import length_mask
from mirrorchat.wenet.model import BiTransformerDecoder, TransformerDecoder, U2Model
from mirrorchat.wenet.rescoring import CTC_WEIGHT, REVERSE_WEIGHT

ROWS = 512  # of one tree, unless a single reading is longer: its attention has a weight for every two of them
LOGITS = 256  # rows of logits at once: 6 MB where there are 5,500 tokens
Tokens = tuple[int, ...]


@dataclass(frozen=True)
class HypothesisTree:
    """The distinct prefixes of some readings, a row for each, parents first.

    `tokens` are their last tokens (`sos` for the empty prefix, row 0), `parents` the rows of the prefixes without them
    (0 for row 0), `depths` their lengths, `ends` the row of each whole reading.
    """

    tokens: list[int]
    parents: list[int]
    depths: list[int]
    ends: list[int]

    def ancestors(self) -> npt.NDArray[np.bool_]:
        """Return (rows, rows): whether the row's prefix begins with the column's."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for row, parent in enumerate(self.parents[1:], 1):
            seen[row] |= seen[parent]
        return seen

    def scores(self, entered: Sequence[float], ended: Sequence[float]) -> list[float]:
        """Return each reading's sum of `entered`, for the rows on its way, and its own of `ended`."""
        sums = [0.0]
        for parent, value in zip(self.parents[1:], entered[1:], strict=True):
            sums.append(sums[parent] + value)
        return [sums[row] + value for row, value in zip(self.ends, ended, strict=True)]


def hypothesis_tree(readings: Sequence[Tokens], sos: int) -> HypothesisTree:
    """Return the tree of `readings`."""
    rows: dict[tuple[int, int], int] = {}  # (parent, token) to row
    tree = HypothesisTree([sos], [0], [0], [])
    for reading in readings:
        row = 0
        for token in reading:
            parent, row = row, rows.setdefault((row, token), len(tree.tokens))
            if row == len(tree.tokens):
                tree.tokens.append(token)
                tree.parents.append(parent)
                tree.depths.append(tree.depths[parent] + 1)
        tree.ends.append(row)
    return tree


@dataclass(frozen=True)
class _Job:
    """Readings of utterance `utterance`, numbered from `first`, as a tree."""

    utterance: int
    first: int
    tree: HypothesisTree


def rescore(
    model: U2Model, hypotheses: Sequence[Sequence[Hypothesis]], encoded: Tensor, sizes: Sequence[int]
) -> list[Hypothesis]:
    """Return the hypothesis of each utterance that CTC and the attention decoders together like best.

    `hypotheses` are those of each utterance, at least one; `encoded` is (B, S, D), of which `sizes` frames count. What
    is scored, and who wins among equals, is as in `attention_rescoring`.
    """
    readings = [[each.tokens for each in those] for those in hypotheses]
    totals = [[CTC_WEIGHT * each.score for each in those] for those in hypotheses]
    for decoder, weight, backwards in _directions(model.decoder):
        those = [[tokens[::-1] if backwards else tokens for tokens in each] for each in readings]
        found = tree_scores(decoder, those, encoded, sizes, model.sos, model.eos)
        for total, scores in zip(totals, found, strict=True):
            total[:] = [one + weight * other for one, other in zip(total, scores, strict=True)]
    return [those[total.index(max(total))] for those, total in zip(hypotheses, totals, strict=True)]


def _directions(decoder: BiTransformerDecoder | TransformerDecoder) -> list[tuple[TransformerDecoder, float, bool]]:
    """Return each decoder with its weight, and whether it reads backwards."""
    if isinstance(decoder, BiTransformerDecoder):
        return [
            (decoder.left_decoder, 1.0 - REVERSE_WEIGHT, False),
            (decoder.right_decoder, REVERSE_WEIGHT, True),
        ]
    return [(decoder, 1.0, False)]


def tree_scores(
    decoder: TransformerDecoder,
    readings: Sequence[Sequence[Tokens]],
    encoded: Tensor,
    sizes: Sequence[int],
    sos: int,
    eos: int,
) -> list[list[float]]:
    """Return the log probability of each reading, with `eos` after it, of each utterance of a batch.

    `encoded` is (B, S, D), of which `sizes` frames count.
    """
    found = [[0.0] * len(those) for those in readings]
    jobs = [job for index, those in enumerate(readings) for job in _jobs(those, index, 0, sos)]
    for group in _groups(jobs):
        for job, scores in zip(group, _scores(decoder, group, encoded, sizes, eos), strict=True):
            found[job.utterance][job.first : job.first + len(scores)] = scores
    return found


def _jobs(readings: Sequence[Tokens], utterance: int, first: int, sos: int) -> Iterator[_Job]:
    """Yield trees of at most ROWS, or of one reading."""
    tree = hypothesis_tree(readings, sos)
    if len(tree.tokens) <= ROWS or len(readings) == 1:
        yield _Job(utterance, first, tree)
        return
    middle = len(readings) // 2
    yield from _jobs(readings[:middle], utterance, first, sos)
    yield from _jobs(readings[middle:], utterance, first + middle, sos)


def _groups(jobs: Sequence[_Job]) -> Iterator[list[_Job]]:
    """Yield what is computed together: with its padding, as much attention as one tree of ROWS; the like together."""
    group: list[_Job] = []
    for job in sorted(jobs, key=lambda job: len(job.tree.tokens)):
        if group and (len(group) + 1) * len(job.tree.tokens) ** 2 > ROWS**2:
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _scores(
    decoder: TransformerDecoder, jobs: Sequence[_Job], encoded: Tensor, sizes: Sequence[int], eos: int
) -> list[list[float]]:
    """Return the log probability of each reading of each tree."""
    device, trees = encoded.device, [job.tree for job in jobs]
    longest = max(len(tree.tokens) for tree in trees)
    tokens = torch.full((len(jobs), longest), eos)
    depths = torch.zeros((len(jobs), longest), dtype=torch.int64)
    mask = torch.zeros((len(jobs), longest, longest), dtype=torch.bool)
    for index, tree in enumerate(trees):
        rows = len(tree.tokens)
        tokens[index, :rows], depths[index, :rows] = torch.tensor(tree.tokens), torch.tensor(tree.depths)
        mask[index, :rows, :rows] = torch.from_numpy(tree.ancestors())
    utterances = [job.utterance for job in jobs]
    frames = torch.tensor([sizes[index] for index in utterances])
    last = int(frames.max())
    memory = encoded[utterances, :last] if len(encoded) > 1 else encoded[:, :last]
    memory_mask = length_mask(frames, last).unsqueeze(1)
    hidden = decoder.hidden_at(
        memory, memory_mask.to(device), tokens.to(device), depths.to(device), mask.to(device)
    )  # (jobs, longest, D)
    real = torch.cat([hidden[index, : len(tree.tokens)] for index, tree in enumerate(trees)])
    return list(_tree_by_tree(trees, *_log_probs(decoder, real, trees, eos)))


def _log_probs(
    decoder: TransformerDecoder, hidden: Tensor, trees: Sequence[HypothesisTree], eos: int
) -> tuple[list[float], list[float]]:
    """Return the log probability of each row's token after its parent, and of `eos` after each reading.

    Of `hidden` (rows of all trees, D) the logits are worked out some rows at a time.
    """
    starts = np.cumsum([0, *(len(tree.tokens) for tree in trees)])
    before = [start + row for start, tree in zip(starts, trees, strict=False) for row in tree.parents]
    before += [start + row for start, tree in zip(starts, trees, strict=False) for row in tree.ends]
    wanted = [token for tree in trees for token in tree.tokens] + [eos for tree in trees for _ in tree.ends]
    rows, columns = torch.tensor(before), torch.tensor(wanted)
    order = torch.argsort(rows, stable=True)
    borders = torch.searchsorted(rows[order], torch.arange(0, len(hidden) + LOGITS, LOGITS))
    found = torch.empty(len(rows))
    for part, block in enumerate(torch.split(hidden, LOGITS)):
        logits = decoder.output_layer(block).float()
        chosen = order[borders[part] : borders[part + 1]]
        row, column = (rows[chosen] - part * LOGITS).to(logits.device), columns[chosen].to(logits.device)
        found[chosen] = (logits[row, column] - torch.logsumexp(logits, dim=-1)[row]).cpu()
    values: list[float] = found.tolist()
    return values[: len(hidden)], values[len(hidden) :]


def _tree_by_tree(
    trees: Sequence[HypothesisTree], entered: Sequence[float], ended: Sequence[float]
) -> Iterator[list[float]]:
    row = reading = 0
    for tree in trees:
        after, last = row + len(tree.tokens), reading + len(tree.ends)
        yield tree.scores(entered[row:after], ended[reading:last])
        row, reading = after, last
