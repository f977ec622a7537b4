"""Mandarin number words: cardinals, digits, and when 2 is 两."""

import re

LONGEST_CARDINAL = 15  # digits; a longer number is said digit by digit
SHORTEST_CODE = 8  # digits; a bare number this long is a code or a telephone number, unless it is round
ROUND_DIGITS = 4  # before the zeros: 12500000 is round, 13800138000 is a telephone number
DIGITS = "零一二三四五六七八九"
PHONE_DIGITS = "零幺二三四五六七八九"  # in telephone numbers 1 is yao, which cannot be heard as 7
# Before these 2 is 两; before 月 号 日 楼 级 班 路 it is 二, as it is after 第.
COUNTED_BY = re.compile(
    r"(?:个|只|条|张|本|位|次(?!方)|年(?!级)|天|夜|周(?!目)|岁|米|斤|克|升|元|块|角|分(?!之)|秒|小时|点|倍|人|名|件|套|台|辆|部|种|类"
    r"|家|座|层|步|杯|瓶|碗|口|双|对|把|片|颗|粒|棵|朵|头|匹|间|所|幅|首|篇|句|段|页|节|届|度|趟|遍|顿|场|局|轮|回|群|组|批|支|枚|根"
    r"|包|盒|箱|袋|份|项|款|笔|门|盘|道|艘|架|封|排|万|亿|千|百|公里|公斤|公顷|毫|厘|英|吨|平方|立方|摄氏|华氏|美元|欧元|日元|港元"
    r"|多个|多次)"
)


def cardinal(number: int) -> str:
    """Return `number` (0 to 10^16 - 1) in words: 一万零二十, 两千二百, 十二."""
    if number == 0:
        return "零"
    words = _group(number)
    return "十" + words[2:] if words.startswith("一十") else words


def _group(number: int) -> str:
    """Return a number above 0 in words; a gap of zeros between two groups or places is one 零."""
    for size, name in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        high, low = divmod(number, size)
        if not high:
            continue
        is_pair = high == 2 and size >= 1000
        head = ("两" if is_pair else _group(high)) + name
        if not low:
            return head
        gap = "零" if low < size // 10 else ""
        rest = _group(low)
        return head + gap + ("二" + rest[1:] if size == 10**4 and rest.startswith("两千") else rest)
    return DIGITS[number]


def digits(text: str, names: str = DIGITS) -> str:
    """Return the digits in `text`, one by one."""
    return "".join(names[int(digit)] for digit in text if digit.isdigit())


def number_words(written: str, following: str = "") -> str:
    """Return `-1,234.5` in words: 负一千二百三十四点五. `following` decides between 两 and 二."""
    sign = "负" if written.startswith("-") else ""
    whole, _, decimals = written.lstrip("-").replace(",", "").partition(".")
    if whole == "2" and not decimals and COUNTED_BY.match(following):
        return sign + "两"
    as_code = len(whole) > LONGEST_CARDINAL or (len(whole) > 1 and whole.startswith("0"))
    words = digits(whole) if as_code else cardinal(int(whole))
    return sign + words + (f"点{digits(decimals)}" if decimals else "")


def quantity(match: re.Match[str], following: str) -> str:
    """Return a `QUANTITY` in words, before `following`."""
    upper = match["b"] or match["c"]
    first = number_words(match["a"], following if not upper or len(upper) == 1 else "")
    return f"{first}到{number_words(upper, following)}" if upper else first
