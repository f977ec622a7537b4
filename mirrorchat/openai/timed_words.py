"""Segments and subtitles of a transcript, from the times of its words."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech
from mirrorchat.engines import SpokenToken, TimedWord, Transcript

PAUSE_S = 0.6  # of silence; after it a new segment starts
SEGMENT_LIMIT_S = 7.0  # of a subtitle

_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True)
class Segment:
    """Words without a long pause between them. `confidence` is in [0, 1], or None if it is unknown."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None


def segments_of(transcript: Transcript, audio: Audio) -> list[Segment]:
    """Return the segments of a transcript of `audio`.

    A segment ends at a pause of PAUSE_S, or before it is longer than SEGMENT_LIMIT_S. A transcript without times has
    one segment, from the first to the last speech in `audio`.
    """
    if not transcript.text:
        return []
    if not transcript.words:
        span = find_speech(audio)
        return [Segment(transcript.text, span.start_s, span.end_s or audio.duration_s, transcript.confidence)]
    parts: list[list[TimedWord]] = [[]]
    for word in transcript.words:
        part = parts[-1]
        if part and (word.start_s - part[-1].end_s >= PAUSE_S or word.end_s - part[0].start_s > SEGMENT_LIMIT_S):
            parts.append([])
        parts[-1].append(word)
    return [_segment(part, transcript.tokens) for part in parts]


def _segment(words: Sequence[TimedWord], tokens: Sequence[SpokenToken]) -> Segment:
    start_s, end_s = words[0].start_s, words[-1].end_s
    logs = [math.log(max(token.confidence, 1e-30)) for token in tokens if start_s <= token.start_s < end_s]
    return Segment(joined([word.text for word in words]), start_s, end_s, math.exp(math.fsum(logs) / len(logs)))


def joined(words: Sequence[str]) -> str:
    """Return words, or longer texts, as one text, with spaces except between two Chinese characters."""
    text = ""
    for word in words:
        tight = not text or (_CJK.match(word) and _CJK.match(text[-1]))
        text += word if tight else f" {word}"
    return text


def as_srt(segments: Sequence[Segment]) -> str:
    """Return SubRip subtitles."""
    return "".join(
        f"{number}\n{_clock(each.start_s, ',')} --> {_clock(each.end_s, ',')}\n{each.text}\n\n"
        for number, each in enumerate(segments, 1)
    )


def as_vtt(segments: Sequence[Segment]) -> str:
    """Return WebVTT subtitles."""
    cues = (f"{_clock(each.start_s, '.')} --> {_clock(each.end_s, '.')}\n{each.text}\n\n" for each in segments)
    return "WEBVTT\n\n" + "".join(cues)


def _clock(seconds: float, point: str) -> str:
    ms = round(1000 * seconds)
    return f"{ms // 3_600_000:02}:{ms // 60_000 % 60:02}:{ms // 1000 % 60:02}{point}{ms % 1000:03}"
