"""Code blocks out of a stream of text, character by character."""


class CodeFences:
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
