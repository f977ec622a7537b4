"""Removal of code blocks from streamed text."""


class CodeFences:
    """Removes the code between lines of ``` or ~~~ from a stream of characters, and passes all other text.

    The start of a line is held back as long as it may become a fence.
    """

    _MARKS = ("```", "~~~")
    _LINE_LIMIT_CHARS = 400  # a longer line is no fence

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._line = ""  # held back while it may be a fence
        self._deciding = True
        self._closing_mark = ""  # inside a code block, the mark that ends it; empty outside

    def push(self, text: str) -> str:
        """Return what `text`, the next part of the stream, releases."""
        return "".join(map(self._step, text))

    def _step(self, character: str) -> str:
        if self._closing_mark:
            self._inside(character)
            return ""
        if not self._deciding:
            self._deciding = character == "\n"
            return character
        return self._decide(character)

    def flush(self) -> str:
        """End the stream: return the text that is held back, without an unfinished code block."""
        mark = self._mark()
        is_fence = mark and mark not in self._line.lstrip(" \t")[3:]  # ```code``` in one line is none
        held = "" if self._closing_mark or is_fence else self._line
        self._reset()
        return held

    def _mark(self) -> str:
        start = self._line.lstrip(" \t")[:3]
        return start if start in self._MARKS else ""

    def _inside(self, character: str) -> None:
        if character != "\n":
            self._line = (self._line + character)[: self._LINE_LIMIT_CHARS]
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
        if may_be_fence and len(self._line) < self._LINE_LIMIT_CHARS:
            return ""
        held, self._line = self._line, ""
        self._deciding = character == "\n"
        return held
