"""Attention rescoring, the last step of WeNet's recognition: the decoders choose one of the n-best hypotheses.

Every hypothesis is decoded on its own, so this serves WeNet's runtime format, too. `hypothesis_tree` makes the same
choice faster. The method is that of U2++ (Wu et al., arXiv 2106.05642).
"""

from collections.abc import Sequence

import torch

from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.model import U2Model

CTC_WEIGHT = 0.5
REVERSE_WEIGHT = 0.3


def attention_rescoring(
    model: torch.jit.ScriptModule | U2Model, hypotheses: Sequence[Hypothesis], encoded: torch.Tensor
) -> Hypothesis:
    """Return the hypothesis with the highest score from CTC and the attention decoders together.

    `encoded` is the encoder's output (1, S, D). The score is that of WeNet: the decoders' log probability of the text
    (0.7 of the forward one and 0.3 of the backward one, if the model has both) plus 0.5 times the score of CTC. Of
    equal scores the first wins.
    """
    sos, eos = int(model.sos_symbol()), int(model.eos_symbol())
    weight = REVERSE_WEIGHT if model.is_bidirectional_decoder() else 0.0
    lengths = torch.tensor([len(hypothesis.tokens) + 1 for hypothesis in hypotheses])
    padded = torch.full((len(hypotheses), int(lengths.max())), eos)
    for row, hypothesis in zip(padded, hypotheses, strict=True):
        row[: len(hypothesis.tokens) + 1] = torch.tensor((sos, *hypothesis.tokens))
    forwards, backwards = model.forward_attention_decoder(
        padded.to(encoded.device), lengths.to(encoded.device), encoded, weight
    )
    scores = []
    for i, hypothesis in enumerate(hypotheses):
        score = (1.0 - weight) * _text_score(forwards[i], (*hypothesis.tokens, eos)) + CTC_WEIGHT * hypothesis.score
        if weight > 0.0:
            score += weight * _text_score(backwards[i], (*reversed(hypothesis.tokens), eos))
        scores.append(score)
    return hypotheses[scores.index(max(scores))]


def _text_score(log_probs: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """Return the log probability of `tokens`, given one decoder's log probabilities (U, V)."""
    columns = torch.tensor(tokens, device=log_probs.device).unsqueeze(1)
    return float(log_probs[: len(tokens)].gather(1, columns).sum(dtype=torch.float64))
