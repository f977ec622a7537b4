"""The similarity of an answer's voice to the asker's, between a ceiling and a floor.

The ceiling is the asker's similarity to himself or herself, the floor that to other speakers. All are mean cosines of
speaker embeddings between recordings of one language.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.speaker_encoder import Embedding, SpeakerEncoder

MOST_SAME, MOST_OTHERS = 10, 20  # recordings for a comparison


@dataclass(frozen=True)
class Similarity:
    """Cosines in [0, 1], or None if unknown, between the asker's recording and other speech.

    `answer` compares it with the answer, `ceiling` with other recordings of the same speaker, `floor` with those of
    other speakers. With `by_halves` the speaker has no other recording, and the ceiling compares its two halves.
    """

    answer: float | None
    ceiling: float | None
    floor: float | None
    by_halves: bool = False


class SpeakerSimilarity:
    """Compares answers with `clips`. Each recording is embedded once, when it is first needed."""

    def __init__(self, encoder: SpeakerEncoder, clips: Sequence[Clip]) -> None:
        self._encoder = encoder
        self._clips = clips
        self._embeddings: dict[str, Embedding | None] = {}

    def compare(self, answer: Audio, asker: Clip) -> Similarity:
        """Return the similarity of the speech `answer` (any rate) to `asker`, with ceiling and floor."""
        mine = self._embedding(asker)
        if mine is None:
            return Similarity(None, None, None)
        peers = [clip for clip in self._clips if clip.language is asker.language and clip.name != asker.name]
        same = [clip for clip in peers if asker.speaker and clip.speaker == asker.speaker]
        others = [clip for clip in peers if not asker.speaker or clip.speaker != asker.speaker]
        ceiling, floor = self._mean(mine, same, MOST_SAME), self._mean(mine, others, MOST_OTHERS)
        spoken = self._encoder.embed(answer)
        close = None if spoken is None else cosine(mine, spoken)
        if ceiling is not None:
            return Similarity(close, ceiling, floor)
        halves = self._of_halves(asker)
        return Similarity(close, halves, floor, by_halves=halves is not None)

    def _embedding(self, clip: Clip) -> Embedding | None:
        if clip.name not in self._embeddings:
            self._embeddings[clip.name] = self._encoder.embed(clip.load())
        return self._embeddings[clip.name]

    def _mean(self, mine: Embedding, clips: Sequence[Clip], most: int) -> float | None:
        count = min(most, len(clips))
        spread = [clips[index * len(clips) // count] for index in range(count)]
        found = [self._embedding(clip) for clip in spread]
        cosines = [cosine(mine, embedding) for embedding in found if embedding is not None]
        return float(np.mean(cosines)) if cosines else None

    def _of_halves(self, clip: Clip) -> float | None:
        """Return the cosine of the two halves of the recording's speech."""
        audio = clip.load()
        span = find_speech(audio)
        begin, middle, end = (
            int(moment_s * audio.sample_rate)
            for moment_s in (span.start_s, (span.start_s + span.end_s) / 2.0, span.end_s)
        )
        halves = [Audio(audio.samples[one:other], audio.sample_rate) for one, other in ((begin, middle), (middle, end))]
        first, second = (self._encoder.embed(half) for half in halves)
        return None if first is None or second is None else cosine(first, second)


def cosine(one: Embedding, other: Embedding) -> float:
    """Return the cosine of two embeddings of norm 1."""
    return float(np.dot(one, other))
