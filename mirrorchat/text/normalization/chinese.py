"""Mandarin text normalization, rule by rule. Callers use `normalize.py`."""

import re

from mirrorchat.text.normalization.acronyms import spell_acronyms
from mirrorchat.text.normalization.addresses import AddressWords, address_rules
from mirrorchat.text.normalization.algebra import greek_rule
from mirrorchat.text.normalization.chinese_calendar import CALENDAR_RULES, EARLY_CALENDAR_RULES, NOT_LATIN_BEFORE
from mirrorchat.text.normalization.chinese_formulas import GREEK
from mirrorchat.text.normalization.chinese_known_numbers import KNOWN_NUMBER_RULES
from mirrorchat.text.normalization.chinese_numbers import DIGITS, cardinal, digits, number_words, power_words
from mirrorchat.text.normalization.chinese_quantities import MAGNITUDE_RULES, QUANTITY_RULES
from mirrorchat.text.normalization.chinese_runs import RUN_RULES
from mirrorchat.text.normalization.chinese_words import ADDRESS_SIGNS, COUNTED, SIGNS, UNITS
from mirrorchat.text.normalization.english_words import ABBREVIATIONS
from mirrorchat.text.normalization.patterns import (
    FRACTION,
    NUMBER,
    ROMAN,
    SIGN,
    START,
    TO,
    Rule,
    after,
    any_of,
    apply_rules,
    before,
    is_code,
    roman_value,
    rule,
)
from mirrorchat.text.sentences.speech_length import HAN


def normalize_chinese(text: str) -> str:
    """Return the spoken form of `text`, whose characters `normalize.py` has made plain."""
    text = apply_rules(text, _RULES)
    return apply_rules(spell_acronyms(text), _SPACING).strip(" ")


def _spoken_roman(match: re.Match[str]) -> str:
    return cardinal(roman_value(match[0]))


def _spoken_fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], int(match["above"]), int(match["below"])
    sign = "负" if match["sign"] else ""
    is_date = not whole and not sign and above <= 12 and 1 <= below <= 31 and below < above
    if is_date and not _IS_CALCULATED.search(before(match, 3)) and not _CALCULATES.match(after(match, 2)):
        return f"{cardinal(above)}月{cardinal(below)}日"
    parts = {100: "百", 1000: "千", 10_000: "万"}.get(below, cardinal(below))
    words = f"{parts}分之{cardinal(above)}{UNITS.get(match['unit'], '')}"
    return sign + (f"{number_words(whole)}又{words}" if whole else words)


def _spoken_operator(match: re.Match[str]) -> str:
    """Return the sign between two words: it calculates in a formula (速度=路程/时间), else it lists or joins."""
    if _FORMULA.search(_CLAUSE_END.split(before(match, 40))[-1] + _CLAUSE_END.split(after(match, 40))[0]):
        return "减" if match[1] == "-" else "除以"
    return "、" if match[1] == "/" else match[1]


def _spoken_rest(match: re.Match[str]) -> str:
    """Return a bare number in words, a code digit by digit."""
    written, following = match[0], after(match, 3).lstrip(" ")
    if before(match, 1) in ("第", "初"):
        following = ""
    whole = written.lstrip("-")
    if whole.isdigit() and is_code(whole) and not COUNTED.match(following):
        return ("负" if written != whole else "") + digits(whole)
    return number_words(written, following)


def _spoken_or(match: re.Match[str]) -> str:
    """Return `2、3` before what it counts as one of two numbers: 两三个."""
    is_estimate = int(match[2]) == int(match[1]) + 1
    return "".join(number_words(number, "个") for number in match.groups()) if is_estimate else match[0]


def _spoken_range(match: re.Match[str]) -> str:
    following = "" if before(match, 1) == "第" else after(match, 3)
    return f"{number_words(match[1], following)}到{number_words(match[2], following)}"


def _spoken_cued(match: re.Match[str], names: str) -> str:
    """Return a number after 电话 or 密码 digit by digit, unless it counts the word that follows: 手机3000元."""
    if COUNTED.match(after(match, 3)):
        return match[0]
    return match["cue"] + match["between"] + digits(match["code"], names)


def _spoken_isbn(match: re.Match[str]) -> str:
    return "ISBN " + "，".join(digits(group) for group in match[1].split("-"))


def _ratio(match: re.Match[str]) -> str:
    return "比".join(number_words(part) for part in match[0].split(":"))


_FORMULA = re.compile("[=×÷]|等于|乘|除以")
_CLAUSE_END = re.compile("[，。！？；,!?;]")
_IS_CALCULATED = re.compile("(?:[=+×÷*<>≈(-] ?|等于|[乘加减是])$")
_CALCULATES = re.compile("[)]| ?[=+×÷*<>≈]|等于|[乘加减倍]")
_RULERS = "(?<=路易)|(?<=查理)|(?<=亨利)|(?<=乔治)|(?<=威廉)|(?<=保罗)|(?<=约翰)|(?<=伊丽莎白)|(?<=爱德华)|(?<=拿破仑)"
_ABBREVIATIONS = {"e.g": "例如", "i.e": "即", "etc": "等等"}
_ROOM = r"(?<!\d)\d{3,4}(?!\d)"
_CODE_CUES = "号码|密码|验证码|编号|学号|卡号|邮编|邮政编码|房间|房号|尾号|代码|航班|车次|车牌|工号"

ADDRESS_RULES = address_rules(AddressWords(ADDRESS_SIGNS, digits, number_words, port="端口{0}", file=" 点 "))
_RULES: tuple[Rule, ...] = (
    *ADDRESS_RULES,
    rule(r"&&", "&"),
    rule(r"#(?=号?键)", "井"),
    rule(rf"(?<=[A-Za-z{HAN}])(?<![正负阴阳]极)[(（]([-+])[)）]", lambda match: "阳性" if match[1] == "+" else "阴性"),
    rule(r"(?<=[\w)]) % (?=\d|\(|[a-z](?![a-z]))", "模"),  # a % b
    rule(r"(?<=\d,)-(?=\d)", " -"),  # (1,-2)
    rule(r"(?<![A-Za-z])([XYZ]) ?[~∼] ?(?=[NBUPE]\()", r"\1服从"),
    rule(r"(?<=[A-Za-z]) ?-= ?(?=[\w(])", "减等于"),
    rule(r"(?<=[A-Za-z])--(?![\w-])", "减减"),
    rule("([A-G])♭", r"降\1"),
    rule("([A-G])♯", r"升\1"),
    rule(r"(?<=[0-9][pPK%])@(?=\d)|(?<=\d)@(?=\d{2,3}Hz)|(?<=[A-Za-z])@(?=\d{1,3} ?[GM]Hz)", " "),  # 1080p@60fps
    rule(r"(?<![A-Za-z0-9])([fF])/(?=\d{1,2}(?:\.\d)?(?![\d/]))", r"\1 "),
    rule(rf"(?<![A-Za-z0-9_&])(?:话题)?#([{HAN}A-Za-z][{HAN}A-Za-z0-9_]{{0,30}})#?", r"话题\1"),
    rule(r"(?<![A-Za-z0-9_.)])\.(?=\d)", "0."),
    rule(rf"(?<=[{HAN}]) (?=\d{{1,2}}[、.)）] ?[{HAN}A-Za-z“《])", "，"),  # 1、准备 2、搅拌
    rule(rf"(?<=[{HAN}]) {{1,3}}(?=[-+]?[$£€¥]?\d)|(?<=\d) {{1,3}}(?=[{HAN}])", ""),
    rule(r"(?<![A-Za-z])(Mr|Mrs|Ms|Dr|Prof)\. ?(?=[A-Z])", lambda match: f"{ABBREVIATIONS[match[1]]} "),
    rule(r"(?<![A-Za-z.])(e\.g|i\.e|etc)\.,?(?![A-Za-z]) ?", lambda match: _ABBREVIATIONS[match[1]]),
    rule(r"(?<=[A-Za-z] )(\d{1,3})/(\d{1,3})(?![A-Za-z0-9/])", r"\1、\2"),
    rule(r"(?<![A-Za-z])vs\.?(?![A-Za-z])", "versus"),
    rule(r"(?<![A-Za-z])p\. ?(?=\d)", "P"),
    rule(rf"(?:(?<=第)(?!X[^IVX])|{_RULERS}){ROMAN}(?![A-Za-z])", _spoken_roman),
    rule(rf"(?:(?<=[{HAN}])(?:II|III|VII|VIII)|(?<![A-Za-z0-9])(?:I{{1,3}}|IV)(?=[型期级类]))(?![A-Za-z])",
         _spoken_roman),
    rule(r"(?<![A-Za-z])(?P<letter>[CF])#(?![A-Za-z0-9_])", r"\g<letter> sharp"),
    rule(r"(?<![A-Za-z.])N[oO]\. ?(?=\d)", "第"),
    rule(r"(?<![A-Za-z])K\.(?=\d{2,3}(?!\d))", "K "),
    rule(r"(?<=[a-z])\.(?=\d)", " "),  # Lv.5
    *MAGNITUDE_RULES,
    *KNOWN_NUMBER_RULES,
    *EARLY_CALENDAR_RULES,
    *RUN_RULES,
    rule(r"(?<=[A-Z])\.(?=\d)", "点"),  # M.2
    *CALENDAR_RULES,
    rule(rf"{NOT_LATIN_BEFORE}\d{{1,9}}(?:\.\d{{1,3}})?(?::\d{{1,9}}(?:\.\d{{1,3}})?){{1,4}}(?![\d:])", _ratio),
    # Codes.
    rule(r"ISBN[: -]{0,2}(\d[\d-]{8,20}\d)(?![\d-])", _spoken_isbn),
    rule(rf"(?:(?<=单元)|(?<=[A-Z]座)){_ROOM}|{_ROOM}(?={TO}{_ROOM}室)",
         lambda match: digits(match[0])),
    rule(r"(?:(?<=\d栋)|(?<=\d幢)|(?<=号楼))(\d{3,4})(?![\d.户层人元平])", lambda match: digits(match[1])),
    rule(rf"{START}\d{{3,4}}(?=室|房(?!间|屋|子)|路(?![程线人]))",
         lambda match: digits(match[0])),
    rule(rf"{START}\d\.\d(?=折)", lambda match: digits(match[0])),
    rule(rf"{START}(720|1080|1440|2160)(?=[pP](?![A-Za-z]))", lambda match: digits(match[1])),
    rule(rf"(?P<cue>{_CODE_CUES})(?P<between>(?:是|为|号|：|:| ){{0,2}})(?P<code>\d{{3,30}})(?![\d.,])",
         lambda match: _spoken_cued(match, DIGITS)),
    rule(r"(?<=[\d)%]) +- +(?=[\d(])", "减"),
    rule(rf"{FRACTION}(?: ?(?P<unit>{any_of(UNITS)})(?![A-Za-z\d/])|(?![A-Za-z]))", _spoken_fraction),
    *QUANTITY_RULES,
    # Fractions, ordinals, multiples.
    rule(r"(?<!\w)(\d{1,15})(?:st|nd|rd|th)(?![A-Za-z])", lambda match: f"第{cardinal(int(match[1]))}"),
    rule(rf"{START}({NUMBER})[xX](?![A-Za-z0-9])", lambda match: f"{number_words(match[1], '倍')}倍"),
    # Arithmetic.
    rule(r"(?<=[\d)]) +- +(?=[\d(-])|(?<=\d)-(?=\()", "减"),
    rule(r"(?<![A-Za-z0-9)])-(?=[π∞√])", "负"),
    rule(r"(?<=[\d)])(?:[*xX]| [*xX] )(?=[\d(])", "乘"),
    rule(r"(?<=\d) / (?=\d)", "除以"),
    rule(r"\^(-?\d{1,15})(?!\d)", lambda match: power_words(match[1])),
    rule(r"[-=]{1,20}>", "到"),
    rule(r"×{2,9}", "某某"),
    rule(r"(?<=\d)#(?=[楼栋车柱机炉])", "号"),
    rule(r"(?<![A-Za-z0-9])#(\d{1,15})(?!\d)", lambda match: f"{number_words(match[1])}号"),
    # Numbers next to letters, and all other numbers.
    rule(r"(?<=[A-Za-z])-(?=\d)", " "),
    rule(r"(?<=[A-Za-z])\d{3,30}(?![\d.])", lambda match: f" {digits(match[0])}"),
    rule(r"(?<=[A-Za-z])(?=\d)", " "),
    rule(r"(?<=\d)-(?=[A-Za-z])", " "),
    rule(rf"(?<![周期拜第初]){START}2(?=[到至]\d{{1,2}}(?:{COUNTED.pattern}))", "两"),
    rule(r"(?<=第)\d{1,4}(?:、\d{1,4}){1,9}", lambda match: re.sub(r"\d+", lambda n: cardinal(int(n[0])), match[0])),
    rule(rf"(?<![周期拜第初年月]){START}([1-8])、([2-9])(?=(?:{COUNTED.pattern}|[十百千万]))", _spoken_or),
    rule(rf"{START}({SIGN}{NUMBER}){TO}(-?{NUMBER})", _spoken_range),
    rule(rf"{START}{SIGN}{NUMBER}", _spoken_rest),
    rule(r"\d{1,100000}", _spoken_rest),
    rule(rf"(?<=[{HAN}])\.(?=[{DIGITS}])", "点"),
    rule(TO, "到"),
    # Signs.
    greek_rule(GREEK),
    rule(r" ?°(?P<celsius>C)?(?:(?<=C)|F)(?![A-Za-z])", lambda match: "摄氏度" if match["celsius"] else "华氏度"),
    rule(r" ?([" + re.escape("".join(SIGNS)) + "]) ?", lambda match: SIGNS[match[1]]),
    rule(rf"(?<=[元角块次个人万千亿度吨斤克米里升瓦转滴步页])/(?=[{HAN}])(?![{HAN}]{{0,4}}[{DIGITS}十百])", "每"),
    rule(rf"(?<=[)）])/(?=[{DIGITS}十百千万两])", "除以"),
    rule(rf"(?<=[{HAN}）)])([-/])(?=[{HAN}（(])", _spoken_operator),
    rule(rf"(?<=[{HAN}]):(?=[{HAN}]{{1,4}}等于)", "比"),
    rule(rf"(?<=[{DIGITS}十百千万])-(?=[{DIGITS}十两])", "，"),
    rule(r"[#*^_`~/\\<>{}\[\]•]", " "),
)  # fmt: skip

# Chinese speakers spell every short English word in capitals. Letters need a space beside Chinese characters: XTTS
# would join them to the pinyin.
_SPACING: tuple[Rule, ...] = (
    rule("，{2,9}", "，"),
    rule(r"(向量|集合|矩阵|极限|概率|角)(?=\1)", ""),  # a formula repeats the word before it
    rule(r"(?<![A-Za-z])[A-Z]{2,3}(?![A-Za-z])", lambda match: " ".join(match[0])),
    rule(rf"(?<=[{HAN}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{HAN}])", " "),
    rule(r" {2,}", " "),
    rule(r" +(?=[，。！？；：、,.!?;:])|(?<=[，。！？；：、]) +", ""),
)  # fmt: skip
