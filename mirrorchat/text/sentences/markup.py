"""Removal of Markdown, HTML tags and emoji from text for speech. The words stay."""

import re

from mirrorchat.text.sentences.speech_length import count_han, starts_with_han

# Every repetition is bounded: no text costs more than a constant per character.
_FENCED = re.compile(r"^[ \t]{0,8}(```|~~~)[^\n`]{0,400}\n.*?(?:^[ \t]{0,8}\1[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_NOTHING_TO_SAY = re.compile(r"^[\s|:+*_=~-]*$")  # rules, and the line under a table's header
_LINE_MARKS = re.compile(r"^\s*(?:(?:>\s?|#{1,6}\s+|[-*+•‣▪]\s+){1,6}(?:\[[ xX]\]\s+)?)")
_ORDERED = re.compile(r"^\s*(?:\*\*)?(\d{1,3})[.)]\s+(?=(.))")
_HEADING_END = re.compile(r"\s+#{1,6}\s*$")

_INLINE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!?\[([^\[\]\n]{1,300})\]\((?:[^()\s]{0,1000})(?:\s+\"[^\"\n]{0,200}\")?\)"), r"\1"),
    (re.compile(r"!\[\]\([^()\s]{0,1000}\)"), ""),
    (re.compile(r"\[\^[\w-]{1,40}\]:?"), ""),
    (re.compile(r"<(https?://[^<>\s]{1,1000})>"), r"\1"),
    (re.compile(r"<br ?/?>"), " "),
    (re.compile(r"</?(?:a|b|i|u|s|p|em|strong|span|div|sub|sup|code|pre|ul|ol|li|h[1-6]|hr|img)\b[^<>]{0,200}>"), ""),
    (re.compile(r"\\(?=[*_`#~\[\]()>|-])"), ""),
    (re.compile(r"(?<=\d)\*\*(?=\d)"), "^"),
    (re.compile(r"\*{2,3}|~~|`"), ""),
    (re.compile(r"(?<![A-Za-z0-9)])\*(?! )|(?<!\s)\*(?![A-Za-z0-9(])"), ""),  # not in 2*3 and x * y
    (re.compile(r"(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?![\w{])"), ""),  # not in snake_case, x_{12}
)  # fmt: skip
_EMOJI = re.compile(
    # Letters in squares stand among the emoji: 🅰 is spoken.
    "[\U0001f000-\U0001f12f\U0001f18a-\U0001faff\u2600-\u2775\u2794-\u27bf\u2b00-\u2bff\u231a\u231b\u23cf\u23e9-\u23fa\ufe0e\ufe0f\u200d"
    "\u20e3\U000e0020-\U000e007f]+"
)
_SPACES = re.compile(r"[^\S\n]{2,}")
_SPACE_BEFORE_MARK = re.compile(r"(?<=\w) +(?=[,.!?;:，。！？；：](?:\s|$))")
_ENDS_WITH_MARK = re.compile(r"[^\w\s%°+)）\]」』》”’\"'$€£¥]$")


def strip_markup(text: str) -> str:
    """Return the words of `text` in one line: no Markdown, HTML tags, emoji or code blocks. Links keep their text.

    A comma joins two lines if the first one ends without a mark.
    """
    text = _FENCED.sub("", text)
    joined = ""
    for line in text.split("\n"):
        words = _strip_line(line)
        if words:
            joined = _join_lines(joined, words)
    return joined


def _strip_line(line: str) -> str:
    if _NOTHING_TO_SAY.match(line):
        return ""
    line = _LINE_MARKS.sub("", line, count=1)
    line = _HEADING_END.sub("", _table_row(line))
    line = _ORDERED.sub(_spoken_marker, line, count=1)
    for pattern, replacement in _INLINE:
        line = pattern.sub(replacement, line)
    line = _EMOJI.sub(" ", line)
    return _SPACE_BEFORE_MARK.sub("", _SPACES.sub(" ", line)).strip()


def _spoken_marker(match: re.Match[str]) -> str:
    """Return `1. ` as `1, `: the number is then neither a sentence of its own nor read as in 1.5."""
    return f"{match[1]}，" if starts_with_han(match[2]) else f"{match[1]}, "


def _table_row(line: str) -> str:
    row = line.strip()
    if not (row.startswith("|") and row.endswith("|") and len(row) > 1):
        return line
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    comma = "，" if count_han(row) else ", "
    return comma.join(cell for cell in cells if cell)


def _join_lines(left: str, right: str) -> str:
    if not left:
        return right
    is_han = starts_with_han(left[-1]) or starts_with_han(right)
    if _ENDS_WITH_MARK.search(left):
        return left + right if left[-1] in "。！？；：，、…" else f"{left} {right}"
    return f"{left}，{right}" if is_han else f"{left}, {right}"
