"""Markdown tables in streamed text: each row becomes a sentence with the names of its columns."""

import re

from mirrorchat.text.sentences.speech_length import count_han

_LONGEST_LINE_CHARS = 4000
_QUOTED = re.compile(r"^[ \t]{0,8}(?:> ?){0,4}[ \t]{0,8}")
_RULER = re.compile(
    r"\|?[ \t]{0,40}:?-{1,200}:?[ \t]{0,40}(?:\|[ \t]{0,40}:?-{1,200}:?[ \t]{0,40}){0,100}\|?[ \t]{0,40}"
)
_BEGINS_RULER = re.compile(r"[-:][-:| \t]{0,1000}")
_CELL_END = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"`[^`\n]{1,300}`")
_TICKS = dict.fromkeys("✓✔✅☑🗸√⭕", True) | dict.fromkeys("✗✘❌✖❎×", False)
_ANSWERS = {(True, True): "是", (True, False): "否", (False, True): "yes", (False, False): "no"}  # (Chinese, tick)
_YEAR = re.compile(r"^(?:19|20)\d\d$")
_NOTHING = frozenset({"", "-", "–", "—", "--", "/"})
# With these names a table of two columns is a list of keys and values, and its names say nothing.
_KEYS = re.compile(
    r"(?:property|key|field|item|attribute|feature|parameter|setting|term"
    r"|属性|键|字段|项目?|参数|特征|指标|名词|术语|设置)s?", re.IGNORECASE
)  # fmt: skip
_VALUES = re.compile(
    r"(?:value|description|detail|meaning|definition|content|info|数?值|内容|说明|描述|详情|含义|定义|信息)s?",
    re.IGNORECASE,
)


class Tables:
    """Replaces the rows of tables in a stream of characters: `Name: Ann, Age: 30.` All other text passes.

    A line that begins with a pipe is held back until it is whole; the line under the header shows that a table begins.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._line = ""
        self._held = True  # whether the line is held back; else it was passed on as it came
        self._candidate = ""  # a whole line that is the header if a ruler follows
        self._last = ""  # the last line that was passed on: the header of a table without outer pipes
        self._names: list[str] = []  # of the columns, inside a table
        self._has_rows = False

    def push(self, text: str) -> str:
        """Return what `text`, the next part of the stream, releases."""
        if not self._held and "\n" not in text:
            self._remember(text)
            return text
        return "".join(map(self._step, text))

    def flush(self) -> str:
        """End the stream: return the text that is held back."""
        released = self._end_line("") if self._held and self._line else ""
        released = released + self._released_candidate() + self._end_table()
        self._reset()
        return released

    def _step(self, character: str) -> str:
        if character == "\n":
            return self._end_line("\n") if self._held else self._end_passed_line()
        self._remember(character)
        if not self._held:
            return character
        if self._may_be_row() and len(self._line) < _LONGEST_LINE_CHARS:
            return ""
        self._held = False
        return self._released_candidate() + self._end_table() + self._line

    def _remember(self, text: str) -> None:
        """Add `text` to the line. The end of a line that is too long for a header is not needed."""
        if len(self._line) < _LONGEST_LINE_CHARS:
            self._line += text

    def _may_be_row(self) -> bool:
        start = _QUOTED.sub("", self._line)
        if not start:
            return len(self._line) < 16
        return (
            start[0] == "|" or bool(self._names) or ("|" in self._last and _BEGINS_RULER.fullmatch(start) is not None)
        )

    def _end_passed_line(self) -> str:
        self._last, self._line, self._held = self._line, "", True
        return "\n"

    def _end_line(self, line_end: str) -> str:
        """Decide what a line is that was held back whole."""
        line, self._line = self._line, ""
        row = _QUOTED.sub("", line).rstrip()
        is_ruler = "-" in row and _RULER.fullmatch(row) is not None
        if self._names and is_ruler:
            return ""
        if self._names and _CELL_END.search(row):
            self._has_rows = True
            return _spoken_row(self._names, _cells(row)) + "\n"
        header = self._candidate or (self._last if "|" in row else "")
        if is_ruler and header:
            is_new = bool(self._candidate)
            self._names, self._candidate, self._last = _cells(_QUOTED.sub("", header)), "", ""
            self._has_rows = not is_new
            return ""
        released = self._released_candidate() + self._end_table()
        if row.startswith("|"):
            self._candidate = line
            return released
        self._last = line
        return released + line + line_end

    def _released_candidate(self) -> str:
        candidate, self._candidate = self._candidate, ""
        return f"{candidate}\n" if candidate else ""

    def _end_table(self) -> str:
        """Return the names of a table that has no rows, so that they are not lost."""
        names, self._names = self._names, []
        return "" if self._has_rows or not names else f"{_joined(names)}\n"


def _cells(row: str) -> list[str]:
    """Return the cells of `row`. A pipe in code or behind a backslash separates none."""
    row = _CODE.sub(lambda match: match[0].replace("|", "\\|"), row.strip())
    row = row.removeprefix("|")
    row = row[:-1] if row.endswith("|") and not row.endswith("\\|") else row
    return [cell.strip().replace("\\|", "|") for cell in _CELL_END.split(row)]


def _spoken_row(names: list[str], cells: list[str]) -> str:
    """Return one row as a sentence."""
    is_chinese = count_han("".join(names + cells)) > 0
    cells = [_ANSWERS[is_chinese, _TICKS[cell[0]]] if cell.rstrip("\ufe0f") in _TICKS else cell for cell in cells]
    names = [*names, *[""] * (len(cells) - len(names))]
    if len(names) == 2 and _KEYS.fullmatch(names[0].strip("*_ ")) and _VALUES.fullmatch(names[1].strip("*_ ")):
        names, cells = cells[:1], cells[1:]
    if is_chinese:
        names = [_YEAR.sub(r"\g<0>年", name) for name in names]
    pairs = [(name, cell) for name, cell in zip(names, cells, strict=False) if cell not in _NOTHING]
    if len(pairs) == 1 and len(names) > 1:  # the title of a group of rows
        return _ended(pairs[0][1], is_chinese)
    return _joined([_named(name, cell, is_chinese) for name, cell in pairs])


def _named(name: str, cell: str, is_chinese: bool) -> str:
    """Return `cell` behind the name of its column. Between two digits the Chinese colon would make a ratio of them."""
    if not name:
        return cell
    is_between_digits = name[-1].isdigit() and cell[0].isdigit()
    return f"{name}{'，' if is_between_digits else '：'}{cell}" if is_chinese else f"{name}: {cell}"


def _joined(parts: list[str]) -> str:
    is_chinese = count_han("".join(parts)) > 0
    row = ("，" if is_chinese else ", ").join(part.rstrip("。；;，,") for part in parts if part)
    return _ended(row, is_chinese)


def _ended(row: str, is_chinese: bool) -> str:
    return row if not row or row.rstrip("*_`")[-1:] in ".!?。！？…" else row + ("。" if is_chinese else ".")
