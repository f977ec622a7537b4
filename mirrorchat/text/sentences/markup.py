"""Removal of Markdown, HTML tags and emoji from text for speech. The words stay."""

import re
from collections.abc import Callable

from mirrorchat.text.sentences.speech_length import HAN, count_han, starts_with_han

# Every repetition is bounded: no text costs more than a constant per character.
_FENCED = re.compile(r"^[ \t]{0,8}(```|~~~)[^\n`]{0,400}\n.*?(?:^[ \t]{0,8}\1[^\n]*$|\Z)", re.DOTALL | re.MULTILINE)
_NOTHING_TO_SAY = re.compile(r"^[\s|:+*_=~-]*$")  # rules, and the line under a table's header
_LINE_MARKS = re.compile(
    r"^\s*(?:(?:>\s?|#{1,6}\s+|[-*+•‣▪◦●○■→➤►▶»:]\s+){1,6}(?:\[[ xX]\]\s+)?)(?:\[!(?P<alert>[A-Za-z]{2,20})\])?"
)
_ORDERED = re.compile(r"^\s*(?:\*\*)?(\d{1,3})[.)]\s+(?:\[[ xX]\]\s+)?(?=[*_~`=]{0,3}(.))")
_HEADING_END = re.compile(r"\s+#{1,6}\s*$")
_REFERENCE = re.compile(r"^\s{0,3}\[[^\[\]]{1,100}\]:\s+\S{1,1000}(?:\s+[\"'(].{0,200})?$")  # [1]: https://...

_TAGS = (
    "a|abbr|article|aside|b|big|blockquote|body|button|caption|center|cite|code|dd|del|details|div|dl|dt|em|figcaption"
    "|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|ol"
    "|p|pre|q|s|samp|script|section|small|source|span|strike|strong|style|sub|summary|sup|svg|table|tbody|td|tfoot|th"
    "|thead|time|title|tr|tt|u|ul|var|video"
)
_BLOCKS = "blockquote|dd|details|div|dl|dt|h[1-6]|hr|li|ol|p|section|summary|table|tbody|thead|tr|ul"
_HAN_OR_MARK = rf"[{HAN}.!?,;:。！？，；：、”’\"')）」』》\]]"
_CITATION = r"(?:\[\d{1,3}(?:[,，–-] ?\d{1,3}){0,8}\]){1,9}"
_SQUARED_WORDS = "".join(
    f"(?<!{unit})" for unit in ("meters", "metres", "inches", "miles", "feet", "seconds", "second")
)
_FOOTNOTE = re.compile(
    rf"(?:(?<=[A-Za-z]{{4}}){_SQUARED_WORDS}|(?<={_HAN_OR_MARK})(?<![)）\]米里尺寸秒元分]))[¹²³⁴-⁹]{{1,2}}(?![⁰¹²³⁴-⁹⁺⁻√A-Z])"
)
# Behind these words the number of a source is part of the sentence: "see [4]".
_NOT_CITED = "".join(
    f"(?<!{word})" for word in ("to", "in", "by", "of", "see", "See", "and", "or", "from", "with", "both")
)
_LINK = re.compile(
    r"!?\[([^\[\]\n]{1,300})\]\([^()\s]{0,1000}(?:\([^()\s]{0,200}\)[^()\s]{0,200}){0,3}(?:\s+[\"'][^\"'\n]{0,200}[\"'])?\)"
)

_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def _lowered(match: re.Match[str]) -> str:
    return match[1].translate(_LOWERED)


_INLINE: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"<!--.{0,1000}?-->|\x1b\[[0-9;]{0,20}[A-Za-z]"), ""),
    (re.compile(r"(?<![A-Za-z])(?::contentReference)?\[oaicite:\d{1,4}\](?:\{index=\d{1,4}\})?"), ""),
    (re.compile(r"【\d{1,3}(?:[:：]\d{1,3})?†[^【】]{0,100}】|\ue200[^\ue200-\ue2ff]{0,200}[\ue201-\ue2ff]"), ""),
    (re.compile(r"\[\[\d{1,3}\]\]\([^()\s]{0,1000}\)|\[(?:citation|source|ref|cite)[:：]? ?\d{1,3}\]"), ""),
    (_LINK, r"\1"),
    (_LINK, r"\1"),  # a picture inside a link
    (re.compile(r"!\[\]\([^()\s]{0,1000}\)"), ""),
    (re.compile(r"\[\^[\w-]{1,40}\]:?"), ""),
    (re.compile(r"\[([^\[\]\n]{0,299}[^\W\d][^\[\]\n]{0,299})\]\[[^\[\]\n]{0,100}\]"), r"\1"),
    (re.compile(rf"(?:(?<=[A-Za-z]{{2}})|(?<={_HAN_OR_MARK})(?<![为是在间集域于])){_CITATION}(?! ?[=(\[]|\w)"), ""),
    (re.compile(rf"(?<=\w){_NOT_CITED} {_CITATION}(?=[.,;:!?。，；：！？]|$)"), ""),
    (re.compile(r"(?<![\w\]])\[(\d{1,3}(?:[,-] ?\d{1,3}){0,8})\](?![(\[:])"), r"\1"),
    (re.compile(r"<((?:https?://|mailto:)?[^<>\s@]{1,500}[@/.][^<>\s]{1,500})>"), r"\1"),
    (_FOOTNOTE, ""),
    (re.compile(r"(?<=\d)<sup>(st|nd|rd|th)</sup>"), r"\1"),
    (re.compile(rf"(?:(?<=[A-Za-z]{{3}})|(?<={_HAN_OR_MARK}))<sup>\[?\d{{1,3}}\]?</sup>"), ""),  # a footnote
    (re.compile(r"(?<=[\w)])<sup>([^<>]{1,40})</sup>"), r"^{\1}"),
    (re.compile(r"(?<=[A-Za-z])<sub>(\d{1,4})</sub>"), _lowered),
    (re.compile(r"(?<=[A-Za-z])<sub>([A-Za-z\d+-]{1,10})</sub>"), r"_{\1}"),
    (re.compile(r"<(/?[A-Za-z][A-Za-z0-9]{0,20})>(?=\s?(?:tag|element|标签|元素))"), r"＜\1＞"),
    (re.compile(r"<br ?/?>"), " "),
    (re.compile(r"</t[dh]>(?=\s{0,9}<t[dh]\b)", re.IGNORECASE), ", "),
    (re.compile(rf"</?(?:{_BLOCKS})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE), " "),
    (re.compile(rf"</?(?:{_TAGS})(?:\s[^<>]{{0,300}})?/?>", re.IGNORECASE), ""),
    # Tags that were escaped, or stand in code, are spoken; those that format words are not.
    (re.compile(r"＜(b|i|em|strong|u|code|p|span)＞([^＜＞]{0,300})＜/\1＞"), r"\2"),
    (re.compile(r"＜/?([A-Za-z][\w-]{0,20})[^＜＞]{0,100}＞"), r" \1 "),
    (re.compile(r"\\(?=[*_`#~\[\]()>|.!+-])|\\$"), ""),
    (re.compile(r"(?<=\d)\*\*(?=\d)|(?<=[A-Za-z)])\*\*(?=\d{1,4}(?![\d*]))|(?<=[\w)]) \*\* (?=[\w(])"), "^"),
    (re.compile(r"(?<![A-Za-z0-9_)\]=])==(?=[^\s=])([^=\n]{1,300})(?<=\S)==(?![A-Za-z0-9_(=])"), r"\1"),  # not in a==b
    (re.compile(r"\\(?:textbf|textit|emph|underline|textrm|texttt)\{([^{}\n]{0,300})\}"), r"\1"),
    (re.compile(r"(?<=\d)\*{3,12}(?=\d)"), "＊＊＊"),  # hidden digits
    (re.compile(r"\*{2,3}|~~|`"), ""),
    (re.compile(r"(?<=[\w)])\^([\w+-]{1,20})\^(?![\w({-])"), r"^{\1}"),
    (re.compile(r"(?<=[A-Za-z])~(\d{1,3})~"), _lowered),
    (re.compile(r"(?<![A-Za-z0-9)])\*(?! )|(?<!\s)\*(?![A-Za-z0-9(])"), ""),  # not in 2*3 and x * y
    (re.compile(r"(?<![A-Za-z0-9_])_{1,3}(?=\S)|(?<=\S)_{1,3}(?![A-Za-z0-9_{])"), ""),  # not in snake_case, x_{12}
    (re.compile(r"(?<=\s)\|\|(?=\s)"), "|"),
    (re.compile(r"(?<![\w:]):[a-z][a-z_]{2,30}:(?![\w:])"), ""),  # :smile:
)  # fmt: skip
_CODE = re.compile(r"(?<!`)`{1,2}([^`\n]{1,300})`{1,2}(?!`)")
_POWER = re.compile(r"(?<=[\w)])\*\*(?=[\w(-])")
_IN_CODE = str.maketrans("<>[]", "＜＞［］")  # what code holds looks like no tag, link or citation
# Faces made of signs: (≧▽≦), (^_^), ¯\\_(ツ)_/¯, but not (+), (±) and (≥).
_EYES = "▽ω•｡´`ツ°□∀︿╯╰ಠ益◕‿≧≦・∩⊙ಥ"
_FACE = re.compile(
    rf"[¯ヽヾ╮╯\\_~]{{0,4}}[(（] ?(?=[^()（）\n]{{0,14}}[{_EYES}])"
    r"(?:[^\w()（）\n+=.,，。%$#&@/\s]|[_oTwuツωಠಥ益Дд๑ㅂᴥ]| (?=\S)){2,14}"
    r" ?[)）][ノ/ﾉ╮╭╯_¯︵ ┻━シ~♡]{0,8}|[¯ヽヾ]\\?_?[(（]ツ[)）]_?/?¯?"
    r"|[(（](?:\^[_.o-]?\^|[TQ]_[TQ]|>_<|-_-|[oO]_[oO]|;_;)[)）]|(?<![\w=<>^-])(?:\^_\^|=_=|>_<|-_-|T_T)(?![\w=<>^-])"
)
_EMOJI = re.compile(
    # Letters in squares stand among the emoji: 🅰 is spoken.
    "[\u2500-\u259f\U0001f000-\U0001f12f\U0001f18a-\U0001faff\u2600-\u266c\u266e\u2670-\u2775\u2794-\u27bf\u2b00-\u2bff\u231a\u231b\u23cf\u23e9-\u23fa\ufe0e\ufe0f\u200d"
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
    if _NOTHING_TO_SAY.match(line) or _REFERENCE.match(line):
        return ""
    line = _CODE.sub(lambda match: _POWER.sub("^", match[1]).translate(_IN_CODE), line)
    line = _LINE_MARKS.sub(lambda match: (match["alert"] or "").capitalize(), line, count=1)
    line = _FACE.sub(" ", line)
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
    if _ENDS_WITH_MARK.match(left[-1]):
        return left + right if left[-1] in "。！？；：，、…" else f"{left} {right}"
    return f"{left}，{right}" if is_han else f"{left}, {right}"
