"""How near the voice of an answer is to the asker's: a cosine of speaker embeddings, and its place on a scale.

The scale runs from 0, what strangers have in common, to 1, what recordings of the same speaker have in common.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.speaker_encoder import Embedding, SpeakerEncoder
from mirrorchat.engines import Language


@dataclass(frozen=True)
class Scale:
    """The mean cosines of two recordings of the same speaker, and of two of different speakers; None without a pair."""

    same_speaker: float | None
    strangers: float | None

    def score(self, similarity: float | None) -> float | None:
        """Return `similarity` as a share of the way from strangers to the same speaker; None if the scale lacks one."""
        if similarity is None or self.same_speaker is None or self.strangers is None or self.lack:
            return None
        return (similarity - self.strangers) / (self.same_speaker - self.strangers)

    @property
    def lack(self) -> str:
        """Return what the recordings lack for a score, or an empty text."""
        if self.same_speaker is None:
            return "no speaker has two recordings (the column speaker names them)"
        if self.strangers is None:
            return "there is only one speaker"
        return "" if self.same_speaker > self.strangers else "one speaker's recordings are no nearer than strangers'"


class Speakers:
    """Compares answers with `clips`. Each recording is embedded once, when it is first needed."""

    def __init__(self, encoder: SpeakerEncoder, clips: Sequence[Clip]) -> None:
        self._encoder = encoder
        self._clips = clips
        self._embeddings: dict[str, Embedding | None] = {}

    def similarity(self, answer: Audio, asker: Clip) -> float | None:
        """Return the cosine of the speech `answer` (any rate) and `asker`; None if one has too little speech."""
        mine, spoken = self._embedding(asker), self._encoder.embed(answer)
        return None if mine is None or spoken is None else cosine(mine, spoken)

    def scale(self, language: Language) -> Scale:
        """Return the scale of the recordings in `language`. One without a speaker's name is of another speaker."""
        speakers: dict[object, list[Embedding]] = {}
        for clip in self._clips:
            embedding = self._embedding(clip) if clip.language is language else None
            if embedding is not None:
                speakers.setdefault(clip.speaker or (clip.name,), []).append(embedding)
        return _scale(list(speakers.values()))

    def _embedding(self, clip: Clip) -> Embedding | None:
        if clip.name not in self._embeddings:
            self._embeddings[clip.name] = self._encoder.embed(clip.load())
        return self._embeddings[clip.name]


def cosine(one: Embedding, other: Embedding) -> float:
    """Return the cosine of two embeddings of norm 1."""
    return float(np.dot(one, other))


def _scale(speakers: Sequence[Sequence[Embedding]]) -> Scale:
    """Return the scale of the embeddings of each speaker.

    The cosines of all pairs among n vectors of norm 1 add up to the squared norm of their sum, less n.
    """
    sums = [np.sum(mine, axis=0, dtype=np.float64) for mine in speakers]
    counts = [len(mine) for mine in speakers]
    count, square = sum(counts), sum(each**2 for each in counts)
    of_one_speaker = sum(float(np.dot(each, each)) for each in sums)
    of_all = float(np.dot(np.sum(sums, axis=0), np.sum(sums, axis=0)))
    return Scale(
        same_speaker=(of_one_speaker - count) / (square - count) if square > count else None,
        strangers=(of_all - of_one_speaker) / (count**2 - square) if count**2 > square else None,
    )
