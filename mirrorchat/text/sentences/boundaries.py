"""Segmentation: where streamed text ends a sentence, and where its first clause may be split off."""

import re
from collections import deque
from collections.abc import Callable

from mirrorchat.text.sentences.first_clause import CLOSERS, FirstClause
from mirrorchat.text.sentences.speech_length import starts_with_han

_FORCED_SPLIT_FROM = 1 / 3  # of the limit: an overlong sentence is not split nearer to its start

_CHINESE_ENDS = frozenset("。！？；")
_ENDS = _CHINESE_ENDS | frozenset(".!?…")
_RUN = "。！？；.!?…"  # may follow an end mark and belong to it: "?!", "。。。"
_OPENERS = dict(zip("([{（【「『《“‘", ")]}）】」』》”’", strict=True))
_TOGGLES = '"`'  # the same character opens and closes
_TRAILERS = CLOSERS + "'"
_INSERTS_END = frozenset("）】》")  # close an insertion: the sentence continues after （...。）
_EXTENDS_END = frozenset(_RUN + _TRAILERS)

_ABBREVIATION = re.compile(
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Dr|Prof|St|Gen|Sgt|Capt|Lt|Col|Rev|Gov|Sen|Rep|Mt|Ft|Pt|[Ff]igs?|Vol|vol|vs"
    r"|[A-Z][a-z]{1,12} v|approx|cf|al|Inc|Ltd|Co|Corp|Jr|Sr"
    r"|Jan|Feb|Aug|Sept?|Oct|Nov|Dec|pp?|ca|[a-z](?:\.[a-z])+|[A-Z](?:\.[A-Z])*|Ph\.D)\.$"
)
_UNIT_OR_NAME = re.compile(r"(?:(?:[\d°]|[A-Za-z]-)[A-Z]|\d [CFKBMGWV])\.$")  # no initial: 20°C, 8B, USB-C
_BEFORE_NUMBER = re.compile(  # no end before a number: Eq. 5, Apt. 4B, c. 1400, max. 4 g, 6 ft. 2 in.
    r"(?<![A-Za-z])(?:[Nn]os?|Nr|Art|Secs?|Ch|Eqs?|Apt|Op|Hwy|Rte?|para|pop|Pub|Mar|Apr|Jun|Jul|Bldg|Ste|[Ee]xt|[Mm]ax|[Mm]in|c|ft|lbs?|hrs?)\.$"
)
_LIST_MARKER = re.compile(r"(?:^|[:：;；]\s*|\n)[\s#>*_-]{0,8}(?:\d{1,3}|[a-zA-Z])\.$")

# Where an overlong sentence may be split, best first. A mark stays with the words before it.
_SPLITS = (
    re.compile(r"(?:[。！？；]|[.!?…](?=\s))[”’\"')）」』】]{0,4}"),
    re.compile(r"(?:(?:(?<!\d)[，：]|[，：](?!\d)|[、—])+|[,;:)](?=\s)|[,;:](?=[\u3400-\u9fff])| -)"),
    re.compile(r" (?=(?:and|but|or|because|so|which|that|when|while|where|if|then|as|than|with)\b)"),
    re.compile(r"(?<=[\u3400-\u9fff])(?=因为|但是|所以|而且|如果|然后|并且|或者|以及|不过|虽然|因此)"),
    re.compile(r"\s"),
    re.compile(r"(?<=[\u3400-\u9fff])(?=[\u3400-\u9fff\w])|(?<=\w)(?=[\u3400-\u9fff])"),
)


def _is_abbreviated(sentence: str, following: str) -> bool:
    """Return whether the full stop at the end of `sentence` is part of an abbreviation, an initial or a list marker."""
    tail = sentence[-16:]
    if re.search(r"(?<![A-Za-z.])I\.$", tail):
        return False
    if _BEFORE_NUMBER.search(tail):
        return following.isdigit() or following in "($€£"
    is_abbreviation = _ABBREVIATION.search(tail) and not _UNIT_OR_NAME.search(tail)
    return bool(is_abbreviation or _LIST_MARKER.search(sentence))


def is_whole(text: str) -> bool:
    """Return whether `text`, where a stream broke off, ends with a sentence: not in `3.`, which may become `3.5`."""
    text = text.rstrip(_TRAILERS)
    if text[-1:] != ".":
        return text[-1:] in _ENDS
    return not text[-2:-1].isdigit() and not _is_abbreviated(text, "")


class SentenceBoundaries:
    """Splits a stream of raw text into sentences.

    A sentence for which `is_short` is true is joined to the next one. With `clause_first` the first piece of the
    stream may be a clause. No piece has more than `limit_chars` characters, so an unclosed quote or bracket delays the
    text only up to that limit.
    """

    def __init__(self, limit_chars: int, *, is_short: Callable[[str], bool], clause_first: bool) -> None:
        self._limit_chars = limit_chars
        self._is_short = is_short
        self._clause_first = clause_first
        self._first_clause: FirstClause | None = None
        self._begin_stream()

    def push(self, text: str) -> list[str]:
        """Return the sentences that `text`, the next part of the stream, completes."""
        sentences: list[str] = []
        queue = deque(text)
        while queue:
            end = self._step(queue.popleft())
            if end:
                sentence, rest = self._text[:end].strip(), self._text[end:]
                self._reset()
                self._first_clause = None
                sentences.append(sentence)
                queue.extendleft(reversed(rest))
        return [sentence for sentence in sentences if sentence]

    def flush(self) -> list[str]:
        """End the stream: return the unfinished sentence, if any."""
        rest = self._text.strip()
        self._begin_stream()
        return [rest] if rest else []

    def _begin_stream(self) -> None:
        self._reset()
        self._first_clause = FirstClause(self._is_short) if self._clause_first else None

    def _reset(self) -> None:
        self._text = ""
        self._end = 0  # position after a possible sentence end, which the next characters confirm; 0: none
        self._sentence_start = 0  # after short sentences that wait to be joined
        self._open: list[str] = []  # the closing marks of open quotes and brackets

    def _step(self, character: str) -> int:
        """Append `character`. Return the position at which to split the text, 0 for none."""
        if character == "\n":
            return self._end_line()
        if character.isspace():
            character = " "
            if not self._text or self._text[-1] in " \n":
                return 0
        before, self._text = self._text, self._text + character
        if self._end and character != " " and self._ends_before(character):
            if not self._is_short(before):
                return self._end
            self._begin_sentence(self._end)
        self._track(before, character)
        clause = self._first_clause.push(self._text, bool(self._open)) if self._first_clause else 0
        if clause:
            return clause
        return self._forced_split() if len(self._text) > self._limit_chars and character != " " else 0

    def _end_line(self) -> int:
        length = len(self._text)
        if not self._text.strip():
            return 0
        if not self._is_short(self._text):
            return length
        self._text = self._text.rstrip() + "\n"
        self._begin_sentence(len(self._text))
        return 0 if len(self._text) <= self._limit_chars else len(self._text)

    def _begin_sentence(self, start: int) -> None:
        self._sentence_start, self._end = start, 0
        self._open.clear()

    def _ends_before(self, character: str) -> bool:
        """Return whether the possible end is a sentence end, given the first character after it."""
        apart = len(self._text) - 1 > self._end
        if character in _RUN or (not apart and character in _EXTENDS_END):
            return False  # "?!", ". . .", a closing quote
        sentence = self._text[self._sentence_start : self._end].rstrip(_TRAILERS)
        if not self._is_end(sentence, character, apart):
            self._end = 0
        return self._end > 0

    @staticmethod
    def _is_end(sentence: str, following: str, apart: bool) -> bool:
        marks = sentence[len(sentence.rstrip(_RUN)) :]
        if _CHINESE_ENDS & set(marks):
            return True
        if not apart and (marks.endswith("…") or len(marks.rstrip(".")) < len(marks) - 1):
            return False  # an ellipsis: the Chinese sentence continues
        if not apart:  # a number, an address, or Chinese with ASCII marks
            after_han = starts_with_han(sentence[-len(marks) - 1 : -len(marks)] if marks else "")
            begins = starts_with_han(following) or following in "“「『（《【"
            return begins and (marks[-1:] in ("!", "?") or after_han)
        if following.islower() or following in "=+×÷≈<>≤≥":
            return False  # "5! = 120"
        return marks != "." or not _is_abbreviated(sentence, following)

    def _track(self, before: str, character: str) -> None:
        """Track quotes and brackets, and note where a sentence may have ended."""
        after_end = 0 < self._end == len(before)
        closes = self._closes(character)
        if not closes and not after_end:
            self._open_mark(character, before[-1:])
        closes_sentence = closes and character not in _INSERTS_END and before.rstrip(_TRAILERS)[-1:] in _ENDS
        if not self._open and (character in _ENDS or closes_sentence or (after_end and character in _EXTENDS_END)):
            self._end = len(self._text)

    def _closes(self, character: str) -> bool:
        if character not in self._open:
            return False
        while self._open.pop() != character:
            pass
        return True

    def _open_mark(self, character: str, previous: str) -> None:
        if character in _OPENERS:
            self._open.append(_OPENERS[character])
        elif character in _TOGGLES and (not previous.isalnum() or starts_with_han(previous)):
            self._open.append(character)

    def _forced_split(self) -> int:
        """Return where to split a sentence that is longer than the limit."""
        earliest = max(1, int(self._limit_chars * _FORCED_SPLIT_FROM))
        for pattern in _SPLITS:
            ends = [match.end() for match in pattern.finditer(self._text)]
            fitting = [end for end in ends if earliest <= len(self._text[:end].rstrip()) <= self._limit_chars]
            if fitting and self._text[: fitting[-1]].strip():
                return fitting[-1]
        return self._limit_chars
