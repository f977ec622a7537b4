"""Takes the reasoning out of an answer while it arrives: what a model thinks is never heard, shown or remembered.

reasoning = ReasoningFilter()
for piece in pieces:
    text = reasoning.feed(piece)  # "" while the model reasons
text = reasoning.finish("stop")

Any split of an answer into pieces gives the same text, without whitespace at its start. The cost is linear in the
length of the answer.
"""

import enum
import re

from mirrorchat.chat.marks import MARK, MARK_LIMIT_CHARS, UNFINISHED, MarkKind, is_quoted, kind_of_mark

# Ways in which reasoning without any mark begins. The whole answer waits where one of them begins it.
_THOUGHTS = (
    *("hmm", "hm,", "okay, so ", "ok, so ", "wait, ", "嗯，", "嗯,"),
    *(
        f"{start}{subject}"
        for start in ("okay, ", "ok, ", "first, ", "so, ", "well, ")
        for subject in ("the user", "we need ", "i need ", "i should ", "i have to ", "let me ", "let's ")
    ),
    *("the user", "the question ", "they ask", "they want", "they're asking", "they are asking", "alright, "),
    *("we need to ", "i need to ", "i should ", "i have to ", "let me think", "let's think"),
    *(
        f"{start}{subject}"
        for start in ("", "好的，", "好，", "首先，", "现在")
        for subject in ("用户", "我需要", "我应该", "我们需要")
    ),
    *("让我", "我得", "我现在", "这个问题"),
)
# Reasoning that begins with words, and ends with others (MarkKind.PROSE_CLOSING). The first is harmony without its
# marks: "analysisThe user asks...assistantfinalBlue."
_PROSE = re.compile(
    r"(?:analysis(?=(?-i:[A-Z\u4e00-\u9fff]))|here is my thought process:|here are my reasoning steps:)", re.IGNORECASE
)
_PROSE_STARTS = ("analysis", "here is my thought process:", "here are my reasoning steps:")
_PROSE_END_CHARS = 30  # the longest end, and more
_START_CHARS = 40  # the longest beginning, and more
_NAMES_OF_THINKERS = re.compile(r"(?<![a-z0-9])(?:r1|qwq|thinking|thinker|reasoner|reasoning|think)(?![a-z])")
_BEFORE_A_MARK = "\n.!?。！？…:："  # a mark after these is in its place, and is no word of a sentence


class Opening(enum.Enum):
    """Whether an API sends the opening tag of its reasoning. The templates of some models write it into the prompt."""

    SENT = enum.auto()
    SUSPECTED = enum.auto()  # to be missing, by the model's name
    MISSING = enum.auto()

    @classmethod
    def of_model(cls, model: str) -> "Opening":
        return cls.SUSPECTED if _NAMES_OF_THINKERS.search(model.lower()) else cls.SENT


class OpeningMissing(Exception):
    """A closing tag came without its opening tag, and text before it has been passed on: it was reasoning."""


class ReasoningFilter:
    """Reads one answer. After its end, `opening` tells whether the API sends the opening tag.

    Without the opening tag, text counts as an answer until the closing tag comes. So all text waits for the closing tag
    or the end, if `opening` says that the tag is or may be missing, or if the text begins like reasoning.
    """

    def __init__(self, opening: Opening = Opening.SENT) -> None:
        self.opening = opening
        self.has_reasoned = False
        self._waits = opening is not Opening.SENT
        self._rest = ""  # the end of the text so far, which may begin a mark
        self._before = ""  # the character before it
        self._last = ""  # the last character of the answer so far that is no blank
        self._begun = False
        self._names_user = False
        self._out: list[str] = []
        self._has_text = False  # in `_out` or passed on, other than whitespace
        self._passed_on = False  # whether such text has been
        self._code = ""  # the backticks that began it
        self._wrapped = False  # whether the answer stands between tags of its own
        self._block: MarkKind | None = None  # of reasoning that has begun: the kind of the mark that began it
        self._depth = 0
        self._closed = False  # whether any reasoning has ended
        self._doubtful: list[str] | None = None  # what stands inside, and is text if no closing mark comes

    @property
    def is_reasoning(self) -> bool:
        """Whether what arrives now is reasoning, or may be."""
        return self._block is not None or self._waits

    def feed(self, text: str) -> str:
        """Return the text of the answer that is known by now. Raises OpeningMissing."""
        return self._read(self._rest + text, final=False)

    def finish(self, finish_reason: str, text: str = "") -> str:
        """Return the rest of the answer, whose last piece is `text`. Raises OpeningMissing."""
        rest = self._read(self._rest + text, final=True)
        is_cut = finish_reason == "length"
        if self._doubtful is not None and not is_cut:
            self._out += self._doubtful
        if self._waits and is_cut and (self.opening is not Opening.SENT or self._names_user):  # before the closing tag
            self._out.clear()
            self.has_reasoned = True
        elif self._waits:
            self.opening = Opening.SENT
        self._waits = False
        return rest + self._take()

    def reasoned_apart(self) -> None:
        """Note that the API sends reasoning in a field of its own, so that its text need not wait."""
        self.has_reasoned = True
        if self.opening is Opening.SUSPECTED:
            self.opening = Opening.SENT
            self._waits = False

    def _read(self, text: str, *, final: bool) -> str:
        if not self._begun:
            text = self._begin(text, final=final)
        if not self._begun:
            self._rest = text
            return self._take()
        certain = len(text) if final else self._certain_chars(text)
        at = 0
        for mark in MARK.finditer(text):
            if mark.start() >= certain:
                break
            self._pass(text[at : mark.start()])
            self._apply(mark, quoted=is_quoted(text, mark.start(), mark.end(), self._before))
            at = mark.end()
        self._pass(text[at:certain])
        certain = max(at, certain)
        self._before = text[certain - 1] if certain else self._before
        self._rest = text[certain:]
        return self._take()

    def _begin(self, text: str, *, final: bool) -> str:
        """Note how the answer begins, once enough of it is there, and return the text that is still to be read."""
        spoken = text.lstrip()
        self._out.append(text[: len(text) - len(spoken)])
        start = spoken[:_START_CHARS].lower()
        if not final and any(beginning.startswith(start) for beginning in (*_THOUGHTS, *_PROSE_STARTS)):
            return spoken
        self._begun = True
        if prose := _PROSE.match(spoken):
            self._enter(MarkKind.PROSE_CLOSING)
            return spoken[prose.end() :]
        if start.startswith(_THOUGHTS):
            self._waits = True
            self._names_user = "user" in start or "用户" in start  # nobody speaks so to the user
        return spoken

    def _certain_chars(self, text: str) -> int:
        """Return the number of characters that no later text can make a part of a mark."""
        unfinished = UNFINISHED.search(text, max(0, len(text) - MARK_LIMIT_CHARS))
        certain = unfinished.start() if unfinished else len(text)
        if self._block is MarkKind.PROSE_CLOSING:
            return max(0, min(certain, len(text) - _PROSE_END_CHARS))
        return certain

    def _pass(self, text: str) -> None:
        """Add `text`, which holds no mark, to the answer or to the reasoning."""
        if not text:
            return
        if self._block is None:
            self._out.append(text)
            self._has_text = self._has_text or bool(text.strip())
            self._last = text.rstrip(" \t")[-1:] or self._last
            if "\n" in text and len(self._code) < 3:  # code between single backticks ends with its line
                self._code = ""
        elif self._doubtful is not None:
            self._doubtful.append(text)

    def _apply(self, mark: re.Match[str], *, quoted: bool) -> None:
        kind = kind_of_mark(mark)
        in_code = bool(self._code) and not self._waits and self._block is None
        if kind is MarkKind.CODE:
            self._pass(mark[0])
            self._toggle_code(mark[0])
        elif quoted or in_code:
            self._pass(mark[0])
        elif self._block is None:
            self._apply_in_answer(mark, kind)
        else:
            self._apply_in_reasoning(mark, kind)

    def _toggle_code(self, backticks: str) -> None:
        if self._block is not None:
            return
        if not self._code:
            self._code = backticks
        elif backticks == self._code or min(len(backticks), len(self._code)) >= 3:
            self._code = ""

    def _apply_in_answer(self, mark: re.Match[str], kind: MarkKind) -> None:
        match kind:
            case MarkKind.OPENING if self._is_in_place():
                self._enter(kind)
            case MarkKind.OPENING:
                self._enter(kind, doubtful=mark[0])
            case MarkKind.DETAILS_OPENING | MarkKind.OTHER_CHANNEL:
                self._enter(kind)
            case MarkKind.CLOSING | MarkKind.FINAL_CHANNEL:
                self._close_without_opening()
            case MarkKind.OTHER_ROLE if self._has_text:
                self._block = kind
            case MarkKind.WRAPPER_OPENING if not self._has_text:
                self._wrapped = True
            case MarkKind.WRAPPER_CLOSING if self._wrapped:
                pass
            case (
                MarkKind.WRAPPER_OPENING | MarkKind.WRAPPER_CLOSING | MarkKind.DETAILS_CLOSING | MarkKind.PROSE_CLOSING
            ):
                self._pass(mark[0])

    def _apply_in_reasoning(self, mark: re.Match[str], kind: MarkKind) -> None:
        if kind is MarkKind.OPENING and self._block is kind:
            self._depth += 1
        elif kind is MarkKind.CLOSING and self._block is MarkKind.OPENING and self._depth > 1:
            self._depth -= 1
            # The inner opening tag may have been a word of the reasoning; then this is the end, and an answer follows.
            self._doubtful = []
        elif kind in _ENDS[self._block or kind]:
            self._leave()
            if kind is MarkKind.OTHER_CHANNEL:
                self._enter(kind)
        else:
            self._pass(mark[0])

    def _enter(self, kind: MarkKind, *, doubtful: str = "") -> None:
        self._block, self._depth = kind, 1
        self._doubtful = [doubtful] if doubtful else None
        if not doubtful:
            self._reasoning_is_marked()

    def _leave(self) -> None:
        if self._block is not MarkKind.OTHER_ROLE:
            self._closed = True
            self._reasoning_is_marked()
        self._block, self._doubtful = None, None

    def _reasoning_is_marked(self) -> None:
        """Note that reasoning has an opening mark: the text before it is of the answer."""
        self.has_reasoned = True
        self._waits = False
        if self.opening is Opening.SUSPECTED:
            self.opening = Opening.SENT

    def _close_without_opening(self) -> None:
        """Drop the text so far, which was reasoning, unless other reasoning has ended before."""
        if self._closed:
            return
        self._closed = True
        if self._passed_on:
            raise OpeningMissing
        if self._has_text:
            self.opening = Opening.MISSING
            self.has_reasoned = True
        self._out.clear()
        self._has_text = False
        self._code = ""
        self._waits = False

    def _is_in_place(self) -> bool:
        """Return whether reasoning may begin here: at the start, on a new line, or after a sentence."""
        return not self._has_text or self._last in _BEFORE_A_MARK

    def _take(self) -> str:
        if self._waits:
            return ""
        text = "".join(self._out)
        self._out.clear()
        if not self._passed_on:  # blank lines after the reasoning are no part of the answer
            text = text.lstrip()
            self._passed_on = bool(text)
        return text


_CHANNEL_ENDS = {MarkKind.OTHER_CHANNEL, MarkKind.FINAL_CHANNEL, MarkKind.CHANNEL_END, MarkKind.ANSWER_ROLE}
_ENDS = {
    MarkKind.OPENING: {MarkKind.CLOSING, MarkKind.FINAL_CHANNEL},
    MarkKind.DETAILS_OPENING: {MarkKind.DETAILS_CLOSING},
    MarkKind.OTHER_CHANNEL: _CHANNEL_ENDS,
    MarkKind.OTHER_ROLE: {MarkKind.ANSWER_ROLE, MarkKind.OTHER_CHANNEL, MarkKind.FINAL_CHANNEL},
    MarkKind.PROSE_CLOSING: {MarkKind.PROSE_CLOSING},
}


def without_reasoning(text: str) -> str:
    """Return a whole answer without its reasoning."""
    return ReasoningFilter().finish("stop", text)
