"""Cut text into pieces that can be spoken: a token stream into sentences, a long text into limited pieces.

A stream is read character by character, so the sentences never depend on how it was cut into deltas. Writing numbers
and signs out as words is `spoken_form.py`'s part.
"""

import re
from collections import deque
from collections.abc import Callable

from mirrorchat.engines import Language
from mirrorchat.markup import strip_markup

# By default; below the 250 and 82 characters that XTTS takes at once, numbers being longer when they are written out.
SENTENCE_LIMIT_CHARS = {Language.ENGLISH: 200, Language.CHINESE: 70}
_SHORT_UNITS = 5  # a Latin word counts 2, a Chinese character 1: XTTS garbles one or two words alone
_FORCED_CUT_FROM = 1 / 3  # of the limit: an overlong sentence is cut at a clause no nearer to its start

_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]")
_LATIN_WORD = re.compile(r"[^\W\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+(?:['’.,][^\W\u3400-\u9fff]+)*")
_CHINESE_ENDS = frozenset("。！？；")
_ENDS = _CHINESE_ENDS | frozenset(".!?")
_RUN = "。！？；.!?…"  # what may follow an end and still belong to it: "?!", "。。。"
_OPENERS = dict(zip("([{（【「『《“‘", ")]}）】」』》”’", strict=True))
_TOGGLES = '"`'  # the same character opens and closes
_TRAILERS = "".join(_OPENERS.values()) + _TOGGLES + "'*_~"  # what stays with the sentence that it closes
_INSERTS_END = frozenset("）】》")  # close an insertion: the sentence goes on after （...。）
_EXTENDS_END = frozenset(_RUN + _TRAILERS)

_ABBREVIATION = re.compile(
    r"(?<![A-Za-z])(?:Mr|Mrs|Ms|Dr|Prof|St|Gen|Sgt|Capt|Lt|Col|Rev|Gov|Sen|Rep|Mt|Fig|fig|Vol|vol|vs|approx|cf|al|Inc|Ltd|Co|Corp|Jr|Sr"
    r"|Jan|Feb|Aug|Sept?|Oct|Nov|Dec|pp?|ca|[a-z](?:\.[a-z])+|[A-Z](?:\.[A-Z])*|Ph\.D)\.$"
)
_NUMBER_SIGN = re.compile(r"(?<![A-Za-z])(?:[Nn]o|Nr|Art|Sec|Ch)\.$")  # only before a number
_LIST_MARKER = re.compile(r"(?:^|[:：;；]\s*|\n)[\s#>*_-]{0,8}(?:\d{1,3}|[a-zA-Z])\.$")

# Where an overlong sentence may be cut, best first; a mark stays with the words before it.
_CUTS = (
    re.compile(r"(?:[。！？；]|[.!?…](?=\s))[”’\"')）」』】]{0,4}"),
    re.compile(r"(?:[，、：—]+|[,;:)](?=\s)|[,;:](?=[\u3400-\u9fff])| -)"),
    re.compile(r" (?=(?:and|but|or|because|so|which|that|when|while|where|if|then|as|than|with)\b)"),
    re.compile(r"(?<=[\u3400-\u9fff])(?=因为|但是|所以|而且|如果|然后|并且|或者|以及|不过|虽然|因此)"),
    re.compile(r"\s"),
    re.compile(r"(?<=[\u3400-\u9fff])(?=[\u3400-\u9fff\w])|(?<=\w)(?=[\u3400-\u9fff])"),
)
_JOINS_TIGHTLY = re.compile(r"[\u3000-\u303f\u3400-\u9fff\uff00-\uffef“”‘’…—]")


class SentenceCutter:
    """Cuts a stream of text into speakable sentences as early as is safe.

    Markup, emoji and code blocks are left out; a sentence of one or two words goes with the next one; one longer than
    `limit_chars` (by default as the language's voices take it) is cut at a clause, else between words. Not
    thread-safe: one cutter per stream.
    """

    def __init__(self, language: Language, *, limit_chars: int | None = None) -> None:
        self.language = language
        self._limit_chars = SENTENCE_LIMIT_CHARS[language] if limit_chars is None else limit_chars
        self._boundaries = _Boundaries(self._limit_chars, is_short=lambda text: _is_short(strip_markup(text)))
        self._fences = _CodeFences()

    def feed(self, delta: str) -> list[str]:
        """Return the sentences that `delta` completes, in order."""
        raw = [sentence for character in delta for sentence in self._step(character)]
        return self._speakable(raw)

    def flush(self) -> list[str]:
        """Return what is left at the end of the stream; the cutter is then as new."""
        rest = self._fences.flush()
        raw = [sentence for character in rest for sentence in self._boundaries.push(character)]
        return self._speakable(raw + self._boundaries.flush())

    def _step(self, character: str) -> list[str]:
        return [sentence for kept in self._fences.push(character) for sentence in self._boundaries.push(kept)]

    def _speakable(self, raw: list[str]) -> list[str]:
        clean = [strip_markup(sentence) for sentence in raw]
        return [piece for sentence in clean for piece in self._within_limit(sentence) if _is_speakable(piece)]

    def _within_limit(self, sentence: str) -> list[str]:
        """Return `sentence` cut again where commas in place of line ends made it too long."""
        too_long = len(sentence) > self._limit_chars
        return split_text(sentence, self.language, self._limit_chars) if too_long else [sentence]


def split_text(text: str, language: Language, limit_chars: int) -> list[str]:
    """Return `text` in pieces of at most `limit_chars` characters, every character but white space kept in order.

    It is cut at sentences, then clauses, then words, and only a word longer than the limit inside. A piece of one or
    two words goes with a neighbour where both fit. Both languages' rules apply to every text, since replies mix them;
    `language` is for rules to come.

    Raises ValueError for a limit below 1.
    """
    if limit_chars < 1:
        raise ValueError(f"a piece needs at least 1 character, not {limit_chars}")
    boundaries = _Boundaries(limit_chars, is_short=lambda text: False)
    pieces = [piece for character in text for piece in boundaries.push(character)] + boundaries.flush()
    return _merge_short(pieces, limit_chars)


def _merge_short(pieces: list[str], limit_chars: int) -> list[str]:
    """Return `pieces` with each short one joined to the next, else to the one before, where both fit."""

    def fits(left: str, right: str, short: str) -> bool:
        return _is_short(short) and len(_join(left, right)) <= limit_chars

    for joins_next in (True, False):
        merged: list[str] = []
        for piece in pieces:
            if merged and fits(merged[-1], piece, short=merged[-1] if joins_next else piece):
                merged[-1] = _join(merged[-1], piece)
            else:
                merged.append(piece)
        pieces = merged
    return pieces


def _join(left: str, right: str) -> str:
    tight = _JOINS_TIGHTLY.match(left[-1]) and _JOINS_TIGHTLY.match(right[0])
    return left + ("" if tight else " ") + right


def _is_speakable(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _is_short(text: str) -> bool:
    return len(_HAN.findall(text)) + 2 * len(_LATIN_WORD.findall(text)) < _SHORT_UNITS


def _is_abbreviated(sentence: str, following: str) -> bool:
    """Return whether the full stop that ends `sentence` belongs to an abbreviation, an initial or a list's number."""
    tail = sentence[-16:]
    if re.search(r"(?<![A-Za-z.])I\.$", tail):
        return False
    if _NUMBER_SIGN.search(tail):
        return following.isdigit()
    return bool(_ABBREVIATION.search(tail) or _LIST_MARKER.search(sentence))


class _CodeFences:
    """Leaves out code between lines of ``` or ~~~, character by character; text passes unchanged.

    Only a line's beginning is held back, while it may still become a fence.
    """

    _MARKS = ("```", "~~~")
    _SEEN_CHARS = 400  # of an opening line; a longer one is no fence

    def __init__(self) -> None:
        self._start_over()

    def _start_over(self) -> None:
        self._line = ""  # held back: the line so far, while it may be a fence
        self._deciding = True
        self._closing_mark = ""  # not empty: inside a code block

    def push(self, character: str) -> str:
        """Return what can be passed on, now that `character` is known."""
        if self._closing_mark:
            self._inside(character)
            return ""
        if not self._deciding:
            self._deciding = character == "\n"
            return character
        return self._decide(character)

    def flush(self) -> str:
        """Return the held text; an unfinished code block is dropped."""
        held = "" if self._closing_mark or self._mark() else self._line
        self._start_over()
        return held

    def _mark(self) -> str:
        start = self._line.lstrip(" \t")[:3]
        return start if start in self._MARKS else ""

    def _inside(self, character: str) -> None:
        if character != "\n":
            self._line = (self._line + character)[: self._SEEN_CHARS]
            return
        if self._mark() == self._closing_mark:
            self._closing_mark = ""
        self._line = ""

    def _decide(self, character: str) -> str:
        self._line += character
        mark = self._mark()
        if mark and character == "\n" and mark not in self._line.lstrip(" \t")[3:]:
            self._closing_mark, self._line = mark, ""
            return "\n"
        start = self._line.lstrip(" \t")
        may_be_fence = any(known.startswith(start[:3]) for known in self._MARKS) and character != "\n"
        if may_be_fence and len(self._line) < self._SEEN_CHARS:
            return ""
        held, self._line = self._line, ""
        self._deciding = character == "\n"
        return held


class _Boundaries:
    """Finds where raw text ends a sentence, character by character.

    `is_short` says of a sentence whether it shall wait for the next one. A piece never has more than `limit_chars`
    characters; an unclosed quote or bracket therefore holds nothing back for longer.
    """

    def __init__(self, limit_chars: int, *, is_short: Callable[[str], bool]) -> None:
        self._limit_chars = limit_chars
        self._is_short = is_short
        self._start_over()

    def push(self, character: str) -> list[str]:
        """Return the sentences that end before or at `character`."""
        sentences: list[str] = []
        queue = deque((character,))
        while queue:
            cut = self._step(queue.popleft())
            if cut:
                sentence, rest = self._text[:cut].strip(), self._text[cut:]
                self._start_over()
                sentences.append(sentence)
                queue.extendleft(reversed(rest))
        return [sentence for sentence in sentences if sentence]

    def flush(self) -> list[str]:
        """Return the unfinished sentence, if any; begin again."""
        rest = self._text.strip()
        self._start_over()
        return [rest] if rest else []

    def _start_over(self) -> None:
        self._text = ""
        self._end = 0  # after a possible sentence end that the next characters decide on; 0: none
        self._sentence_start = 0  # where the current sentence begins, after short ones that wait
        self._open: list[str] = []  # the closing marks that are awaited

    def _step(self, character: str) -> int:
        """Take `character`; return where the text shall be cut, 0 for nowhere."""
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
        return self._overlong_cut() if len(self._text) > self._limit_chars and character != " " else 0

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
        """Return whether the sentence ends at the possible end, seeing the first character after it."""
        apart = len(self._text) - 1 > self._end
        if not apart and character in _EXTENDS_END:
            return False
        sentence = self._text[self._sentence_start : self._end].rstrip(_TRAILERS)
        if not self._is_end(sentence, character, apart):
            self._end = 0
        return self._end > 0

    @staticmethod
    def _is_end(sentence: str, following: str, apart: bool) -> bool:
        marks = sentence[len(sentence.rstrip(_RUN)) :]
        if _CHINESE_ENDS & set(marks):
            return True
        if not apart:  # in a number, an address, or Chinese with ASCII marks
            after_han = bool(_HAN.match(sentence[-len(marks) - 1 : -len(marks)] if marks else ""))
            return bool(_HAN.match(following) or following in "“「『（《【") and (marks[-1:] in ("!", "?") or after_han)
        if following.islower():
            return False
        return marks != "." or not _is_abbreviated(sentence, following)

    def _track(self, before: str, character: str) -> None:
        """Keep count of quotes and brackets, and note where a sentence may have ended."""
        after_end = 0 < self._end == len(before)
        closes = self._closes(character)
        if not closes and not after_end:
            self._open_mark(character, before[-1:])
        closes_ended = closes and character not in _INSERTS_END and before.rstrip(_TRAILERS)[-1:] in _ENDS
        if not self._open and (character in _ENDS or closes_ended or (after_end and character in _EXTENDS_END)):
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
        elif character in _TOGGLES and (not previous.isalnum() or _HAN.match(previous)):
            self._open.append(character)

    def _overlong_cut(self) -> int:
        earliest = max(1, int(self._limit_chars * _FORCED_CUT_FROM))
        for pattern in _CUTS:
            ends = [match.end() for match in pattern.finditer(self._text)]
            fitting = [end for end in ends if earliest <= len(self._text[:end].rstrip()) <= self._limit_chars]
            if fitting and self._text[: fitting[-1]].strip():
                return fitting[-1]
        return self._limit_chars
