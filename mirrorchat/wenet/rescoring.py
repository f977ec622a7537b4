"""The last step of WeNet's recognition: the attention decoders choose among the readings that CTC has found."""

from collections.abc import Sequence

import torch

from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.model import U2Model

CTC_WEIGHT = 0.5
REVERSE_WEIGHT = 0.3


def attention_rescoring(
    model: torch.jit.ScriptModule | U2Model, hypotheses: Sequence[Hypothesis], encoded: torch.Tensor
) -> Hypothesis:
    """Return the hypothesis that CTC and the attention decoders together like best (U2, arXiv 2012.05481).

    `encoded` is the encoder's output (1, S, D). Scores are WeNet's: the decoders' log probabilities, 0.7 forwards and
    0.3 backwards where the model has both, and 0.5 times CTC's. Of equals the first wins.
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
    """Return the log probability of `tokens` by one decoder's (U, V)."""
    wanted = torch.tensor(tokens, device=log_probs.device).unsqueeze(1)
    return float(log_probs[: len(tokens)].gather(1, wanted).sum(dtype=torch.float64))
