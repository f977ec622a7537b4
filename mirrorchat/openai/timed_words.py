"""What was heard, word by word: a recognizer's units put together to words and to segments, and subtitles of these."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech
from mirrorchat.engines import SpokenToken, Transcript
from mirrorchat.wenet.text import SPECIAL

PAUSE_S = 0.6  # of silence, from which a new segment begins
SEGMENT_LIMIT_S = 7.0  # what subtitles show at once

_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\s{_CJK}]+")
_WIDE = re.compile(rf"[{_CJK}]")


@dataclass(frozen=True)
class TimedWord:
    """A word, or a Chinese character, in seconds from the start of the recording."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Segment:
    """Some words without a long pause between them. `confidence` in [0, 1], None where it is not known."""

    text: str
    start_s: float
    end_s: float
    confidence: float | None


def words_of(transcript: Transcript) -> list[TimedWord]:
    """Return the words of a transcript with their times, written as in its text; none where it has no units."""
    groups = _groups(transcript.units)
    written = _WORD.findall(transcript.text)
    if len(written) != len(groups):  # a unit that is written as something else
        written = [_spelled(group) for group in groups]
    pairs = zip(written, groups, strict=True)
    return [TimedWord(text, group[0].start_s, group[-1].end_s) for text, group in pairs]


def segments_of(transcript: Transcript, audio: Audio) -> list[Segment]:
    """Return a transcript in segments; one from the first to the last speech in `audio` where it has no units."""
    if not transcript.text:
        return []
    words = words_of(transcript)
    if not words:
        span = find_speech(audio)
        return [Segment(transcript.text, span.start_s, span.end_s or audio.duration_s, transcript.confidence)]
    parts: list[list[TimedWord]] = [[]]
    for word in words:
        part = parts[-1]
        if part and (word.start_s - part[-1].end_s >= PAUSE_S or word.end_s - part[0].start_s > SEGMENT_LIMIT_S):
            parts.append([])
        parts[-1].append(word)
    return [_segment(part, transcript.units) for part in parts]


def _segment(words: Sequence[TimedWord], units: Sequence[SpokenToken]) -> Segment:
    start_s, end_s = words[0].start_s, words[-1].end_s
    logs = [math.log(max(unit.confidence, 1e-30)) for unit in units if start_s <= unit.start_s < end_s]
    return Segment(joined([word.text for word in words]), start_s, end_s, math.exp(math.fsum(logs) / len(logs)))


def _groups(units: Sequence[SpokenToken]) -> list[list[SpokenToken]]:
    """Return the units of each word: `▁` or a unit that is no text begins one, a Chinese character is one."""
    groups: list[list[SpokenToken]] = []
    is_open = False
    for unit in units:
        if SPECIAL.fullmatch(unit.text) or unit.text == "▁":
            is_open = False
            continue
        is_wide = bool(_WIDE.search(unit.text))
        if is_open and not is_wide and not unit.text.startswith("▁"):
            groups[-1].append(unit)
        else:
            groups.append([unit])
        is_open = not is_wide
    return groups


def _spelled(group: Sequence[SpokenToken]) -> str:
    return "".join(unit.text for unit in group).replace("▁", "")


def joined(words: Sequence[str]) -> str:
    """Return words, or longer texts, as one text: with spaces, but for those between Chinese characters."""
    text = ""
    for word in words:
        tight = not text or (_WIDE.match(word) and _WIDE.match(text[-1]))
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
