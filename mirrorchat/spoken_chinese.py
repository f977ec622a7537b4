"""Mandarin: written form -> spoken form, rule by rule. `spoken_form.py` is the way in."""

import re

from mirrorchat.written_form import HAN, NUMBER, QUANTITY, SIGN, START, Rule, any_of, apply_rules, rule

LONGEST_CARDINAL = 15  # digits; a longer number is said digit by digit
SHORTEST_CODE = 8  # digits; a bare number this long is a code or a telephone number, unless it is round
ROUND_DIGITS = 4  # before the zeros: 12500000 is round, 13800138000 is a telephone number

_DIGITS = "零一二三四五六七八九"
_PHONE_DIGITS = "零幺二三四五六七八九"  # in telephone numbers 1 is yao, which cannot be heard as 7

# Before these 2 is 两; before 月 号 日 楼 级 班 路 it is 二, as it is after 第.
_COUNTED_BY = re.compile(
    r"(?:个|只|条|张|本|位|次(?!方)|年(?!级)|天|周(?!目)|岁|米|斤|克|升|元|块|角|分(?!之)|秒|小时|点|倍|人|名|件|套|台|辆|部|种|类"
    r"|家|座|层|步|杯|瓶|碗|口|双|对|把|片|颗|粒|棵|朵|头|匹|间|所|幅|首|篇|句|段|页|节|届|度|趟|遍|顿|场|局|轮|回|群|组|批|支|枚|根"
    r"|包|盒|箱|袋|份|项|款|笔|门|盘|道|艘|架|封|排|万|亿|千|百|公里|公斤|公顷|毫|厘|英|吨|平方|立方|摄氏|华氏|美元|欧元|日元|港元"
    r"|多个|多次)"
)

_UNITS = {
    "km": "公里", "m": "米", "cm": "厘米", "mm": "毫米", "nm": "纳米", "μm": "微米", "ft": "英尺", "mi": "英里",
    "kg": "公斤", "g": "克", "mg": "毫克", "μg": "微克", "t": "吨", "lb": "磅", "lbs": "磅", "oz": "盎司",
    "l": "升", "L": "升", "ml": "毫升", "mL": "毫升", "mph": "英里每小时", "kph": "公里每小时", "ms": "毫秒", "s": "秒",
    "sec": "秒", "min": "分钟", "mins": "分钟", "h": "小时", "hr": "小时", "hrs": "小时", "Hz": "赫兹", "kHz": "千赫",
    "MHz": "兆赫", "GHz": "吉赫", "W": "瓦", "kW": "千瓦", "MW": "兆瓦", "kWh": "千瓦时", "V": "伏", "mA": "毫安",
    "mAh": "毫安时", "dB": "分贝", "px": "像素", "cal": "卡", "kcal": "千卡", "kPa": "千帕", "KB": "K B", "MB": "M B",
    "GB": "G B", "TB": "T B", "°": "度", "度": "度",
}  # fmt: skip
_POWERS = {"2": "平方", "3": "立方"}
_DEGREES = {"C": "摄氏度", "F": "华氏度"}
_CURRENCIES = {"$": "美元", "£": "英镑", "€": "欧元", "¥": "元", "₹": "卢比", "₩": "韩元"}
_CURRENCY_CODES = {"USD": "美元", "EUR": "欧元", "GBP": "英镑", "CNY": "元", "RMB": "元", "JPY": "日元", "HKD": "港元",
                   "€": "欧元", "£": "英镑", "¥": "元", "$": "美元"}  # fmt: skip
_COUNTRIES = {"US": "", "HK": "港", "A": "澳", "C": "加", "NZ": "新西兰"}
_MAGNITUDES = {"k": "千", "K": "千", "M": "百万", "B": "十亿", "": ""}

_SIGNS = {
    "&": "和", "=": "等于", "+": "加", "×": "乘", "÷": "除以", "<": "小于", ">": "大于", "≤": "小于等于",
    "≥": "大于等于", "≈": "约等于", "≠": "不等于", "±": "正负", "→": "到", "%": "百分号", "°": "度", "√": "根号",
    "π": "派", "∞": "无穷大", "$": "美元", "£": "英镑", "€": "欧元", "¥": "元", "₹": "卢比", "₩": "韩元",
    "@": "艾特", "|": "，", "‰": "千分号", "¢": "美分",
}  # fmt: skip
_ADDRESS_SIGNS = {".": "点", "@": "艾特", "/": "斜杠", "-": "杠", "_": "下划线", ":": "冒号", "?": "问号", "=": "等于",
                  "&": "和", "#": "井号", "+": "加", "%": "百分号"}  # fmt: skip


def speak_chinese(text: str) -> str:
    """Return `text`, whose characters are plain already, as it is said in Mandarin."""
    return apply_rules(text, _RULES).strip(" ")


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
    return _DIGITS[number]


def digits(text: str, names: str = _DIGITS) -> str:
    """Return the digits in `text`, one by one."""
    return "".join(names[int(digit)] for digit in text if digit.isdigit())


def number_words(written: str, following: str = "") -> str:
    """Return `-1,234.5` in words: 负一千二百三十四点五. `following` decides between 两 and 二."""
    sign = "负" if written.startswith("-") else ""
    whole, _, decimals = written.lstrip("-").replace(",", "").partition(".")
    if whole == "2" and not decimals and _COUNTED_BY.match(following):
        return sign + "两"
    as_code = len(whole) > LONGEST_CARDINAL or (len(whole) > 1 and whole.startswith("0"))
    words = digits(whole) if as_code else cardinal(int(whole))
    return sign + words + (f"点{digits(decimals)}" if decimals else "")


def _quantity(match: re.Match[str], following: str) -> str:
    """Return a `QUANTITY` in words, before `following`."""
    upper = match["b"] or match["c"]
    first = number_words(match["a"], following if not upper or len(upper) == 1 else "")
    return f"{first}到{number_words(upper, following)}" if upper else first


def _spoken_unit(match: re.Match[str]) -> str:
    name = _POWERS.get(match["power"] or "", "") + _UNITS[match["unit"]]
    per = match["per"]
    return _quantity(match, name) + name + (f"每{_UNITS.get(per, per)}" if per else "")


def _spoken_degrees(match: re.Match[str]) -> str:
    """Return a temperature; below zero it is 零下, never 负."""
    unit = _DEGREES[match["scale"]] if match["scale"] else "度"
    return _quantity(match, unit).replace("负", "零下") + unit


def _spoken_percent(match: re.Match[str]) -> str:
    whole = "百分之" if match["sign"] == "%" else "千分之"
    words = _quantity(match, "")
    if words == "一百" and match["sign"] == "%":
        return "百分之百"
    return f"负{whole}{words[1:]}" if words.startswith("负") else whole + words


def _spoken_money(match: re.Match[str]) -> str:
    name = _COUNTRIES.get(match["country"] or "", "") + _CURRENCIES[match["currency"]]
    name = name.replace("港美", "港").replace("澳美", "澳").replace("加美", "加").replace("新西兰美", "新西兰")
    magnitude = _MAGNITUDES.get(match["magnitude"] or "", match["magnitude"] or "")
    words = number_words(_plain_amount(match["a"]), magnitude or name)
    if match["b"]:
        words += "到" + number_words(_plain_amount(match["b"]), magnitude or name)
    if match["magnitude"] in ("M", "B"):
        words, magnitude = _times(match["a"], {"M": 10**6, "B": 10**9}[match["magnitude"]]), ""
    return ("负" if match["sign"] else "") + words + magnitude + name


def _times(written: str, factor: int) -> str:
    """Return `written` times `factor` as Chinese counts it: 2.5 million is 二百五十万."""
    whole, _, decimals = written.replace(",", "").partition(".")
    exact = int(whole + decimals) * factor
    quotient, rest = divmod(exact, 10 ** len(decimals))
    return cardinal(quotient) if not rest and quotient < 10**15 else f"{number_words(written)}乘以{cardinal(factor)}"


def _plain_amount(written: str) -> str:
    """Return `20.50` as `20.5` and `20.00` as `20`: what the price is, not how it is printed."""
    return re.sub(r"\.?0{1,2}$", "", written) if "." in written else written


def _spoken_time(match: re.Match[str]) -> str:
    hour, minute, second = int(match["hour"]), int(match["minute"]), match["second"]
    if hour > 24 or minute > 59:
        return match[0]
    half = match.groupdict().get("half") or ""
    return _part_of_day(hour, half) + _clock(hour, minute, second, bool(half))


def _clock(hour: int, minute: int, second: str | None, twelve_hours: bool) -> str:
    words = number_words(str(hour), "点") + "点"
    if minute == 30 and not second and (hour <= 12 or twelve_hours):
        return words + "半"
    if minute or second:
        words += ("零" if 0 < minute < 10 else "") + cardinal(minute) + "分"
    return words + (("零" if 0 < int(second) < 10 else "") + cardinal(int(second)) + "秒" if second else "")


def _part_of_day(hour: int, half: str) -> str:
    if not half:
        return ""
    if half in "aA":
        return "凌晨" if hour < 6 or hour == 12 else "上午"
    return "中午" if hour == 12 else "下午" if hour < 6 else "晚上"


def _spoken_hour(match: re.Match[str]) -> str:
    hour = int(match["hour"])
    return _part_of_day(hour, match["half"]) + _clock(hour, 0, None, True) if hour <= 12 else match[0]


def _spoken_date(match: re.Match[str]) -> str:
    """Return a date in figures, month first where the order is in doubt (`9/1/2025`)."""
    month, day = int(match["m"]), int(match["d"])
    if month > 12 and "loose" in match.groupdict():
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{digits(match['year'])}年{cardinal(month)}月{cardinal(day)}日"


def _spoken_year(match: re.Match[str]) -> str:
    """Return the number before 年: a year digit by digit, a length of time as a number."""
    written = match[1]
    is_length = len(written) == 4 and written.endswith("00") and re.match(r"年(?:前|的?历史|以来|之久)", match[2])
    if is_length or (written.endswith("000") and written != "2000"):
        return number_words(written)
    return digits(written)


def _spoken_fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], int(match["above"]), int(match["below"])
    if not whole and above >= below and above <= 12 and 1 <= below <= 31 and below != above:
        return f"{cardinal(above)}月{cardinal(below)}日"
    words = f"{cardinal(below)}分之{cardinal(above)}"
    return f"{number_words(whole)}又{words}" if whole else words


def _spoken_phone(match: re.Match[str]) -> str:
    groups = [digits(group, _PHONE_DIGITS) for group in re.findall(r"\d+", match[0])]
    return ("加" if match[0].startswith("+") else "") + "，".join(groups)


def _spoken_mobile(match: re.Match[str]) -> str:
    return "，".join(digits(part, _PHONE_DIGITS) for part in (match[0][:3], match[0][3:7], match[0][7:]))


def _spoken_version(match: re.Match[str]) -> str:
    parts = match["parts"].split(".")
    words = "点".join(digits(part) if len(parts) == 4 else number_words(part) for part in parts)
    return (" V " if match["v"] else "") + words


def _spoken_address(match: re.Match[str]) -> str:
    """Return an e-mail or web address as it is dictated."""
    address = re.sub(r"^https?://", "", match[0]).rstrip("/").replace("www.", "W W W.")
    spoken = "".join(_ADDRESS_SIGNS.get(character, character) for character in address)
    return re.sub(r"\d{1,4000}", lambda run: digits(run[0]), spoken)


def _spoken_rest(match: re.Match[str]) -> str:
    """Return a bare number: long ones that are not round are codes, said digit by digit."""
    written, following = match[0], match.string[match.end() : match.end() + 3].lstrip(" ")
    if match.string[max(0, match.start() - 1) : match.start()] in ("第", "初"):
        following = ""
    whole = written.lstrip("-")
    is_code = len(whole) >= SHORTEST_CODE and whole.isdigit() and len(whole.rstrip("0")) > ROUND_DIGITS
    if is_code and not _COUNTED_BY.match(following):
        return ("负" if written != whole else "") + digits(whole)
    return number_words(written, following)


def _spoken_range(match: re.Match[str]) -> str:
    following = match.string[match.end() : match.end() + 3]
    if match.string[max(0, match.start() - 1) : match.start()] == "第":
        following = ""
    first = number_words(match[1], following if len(match[2]) == 1 else "")
    return f"{first}到{number_words(match[2], following)}"


def _ratio(match: re.Match[str]) -> str:
    return f"{cardinal(int(match[1]))}比{cardinal(int(match[2]))}"


def _power(match: re.Match[str]) -> str:
    return {"2": "的平方", "3": "的立方"}.get(match[1], f"的{number_words(match[1])}次方")


_WEB = r"(?:https?://[\w.~:/?#@!$&*+=%-]{0,500}[A-Za-z0-9_/]"
_WEB += r"|(?<![A-Za-z0-9_@.+-])[A-Za-z0-9_.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,5}[A-Za-z]{2,24}"
_WEB += r"|(?<![A-Za-z0-9_@./-])(?:[A-Za-z][A-Za-z0-9-]{0,62}\.){1,5}"
_WEB += r"(?:com|org|net|edu|gov|io|cn|uk|de|ai|dev|app)(?![A-Za-z0-9_-])(?:/[A-Za-z0-9_./-]{0,200}[A-Za-z0-9_])?)"

_NOT_LATIN_BEFORE = r"(?<![A-Za-z0-9_.,:/-])"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?![\d:])"
_DAY_HALF = r" ?(?P<half>[AaPp])\.?[Mm](?![A-Za-z])\.?"
_PHONE_CUES = "电话|手机|热线|拨打|致电|拨"
_CODE_CUES = "号码|密码|验证码|编号|学号|卡号|邮编|邮政编码|房间|房号|尾号|代码|航班|车次|车牌|工号"

_RULES: tuple[Rule, ...] = (
    rule(_WEB, _spoken_address),
    rule(r"(?<![\w.)])\.(?=\d)", "0."),
    rule(rf"(?<=[{HAN}]) {{1,3}}(?=[-+]?[$£€¥]?\d)|(?<=\d) {{1,3}}(?=[{HAN}])", ""),
    rule(r"(?<![A-Za-z])C\+\+", "C 加加"),
    rule(r"(?<![A-Za-z])(?P<letter>[CF])#(?!\w)", r"\g<letter> sharp"),
    rule(r"(?<![A-Za-z.])N[oO]\. ?(?=\d)", "第"),
    # Spans between two quantities that both carry their sign or unit.
    rule(r"(?:(?<=[%°])|(?<=°[CF]))[-~–—](?=-?\d)|(?<=[年月日度元点个])[~–—](?=-?\d)|(?<=[年月日点])-(?=\d)", "到"),
    rule(r"(?<=\d)[-~–—](?=[$£€¥]\d)", "到"),
    rule(r"(?<=:\d\d)(?: ?[~–—] ?|-)(?=\d{1,2}:\d\d)|(?<=\d[ap]m)(?: ?[~–—] ?|-)(?=\d)", "到"),
    # Dates and times.
    rule(rf"{_NOT_LATIN_BEFORE}(?P<year>[12]\d{{3}})[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}})(?!\d|[-/.]\d)"
         r"(?:[T ](?=\d\d:))?", _spoken_date),
    rule(rf"{_NOT_LATIN_BEFORE}(?P<m>\d{{1,2}})[/.](?P<d>\d{{1,2}})[/.](?P<loose>)(?P<year>[12]\d{{3}})(?!\d|[-/.]\d)",
         _spoken_date),
    rule(rf"{_NOT_LATIN_BEFORE}(?P<year>(?:19|20)\d\d)-(?P<m>0[1-9]|1[0-2])(?![\d-]|[./]\d|[个年])",
         lambda match: f"{digits(match['year'])}年{cardinal(int(match['m']))}月"),
    rule(rf"{START}(\d{{4}})(?:年?[-~–—]|年?(?=[至到]))([至到]?)(\d{{4}})(?=年)",
         lambda match: f"{digits(match[1])}年{match[2] or '到'}{digits(match[3])}"),
    rule(rf"{START}(0\d|[789][1-9]|\d{{4}})(?=(年(?!级|代|[前后来多])|年前|年的?历史))", _spoken_year),
    rule(rf"{START}0(\d)(?=[月日])", lambda match: cardinal(int(match[1])) if match[1] != "0" else "零"),
    rule(rf"{_NOT_LATIN_BEFORE}{_CLOCK}{_DAY_HALF}", _spoken_time),
    rule(rf"{_NOT_LATIN_BEFORE}{_CLOCK}", _spoken_time),
    rule(rf"{_NOT_LATIN_BEFORE}(?P<hour>\d{{1,2}}){_DAY_HALF}", _spoken_hour),
    rule(rf"{_NOT_LATIN_BEFORE}(\d{{1,4}}):(\d{{1,4}})(?![\d:])", _ratio),
    # Telephone numbers, codes, versions.
    rule(r"(?<![A-Za-z0-9.,+-])(?:\+?\d{1,3}[ -])?(?:\(\d{2,4}\) ?|\d{2,4}-)\d{3,4}[- ]\d{4}(?![\d-])", _spoken_phone),
    rule(r"(?<![A-Za-z0-9.,+-])(?:0\d{2,3}-\d{7,8}|1[3-9]\d \d{4} \d{4}|\+\d{1,3}(?:[ -]?\d{2,5}){2,4})(?![\d-])",
         _spoken_phone),
    rule(rf"{START}1[3-9]\d{{9}}(?!\d)", _spoken_mobile),
    rule(r"(?<![A-Za-z0-9.,+-])\d{4}(?: \d{4}){2,4}(?!\d)", _spoken_phone),
    rule(rf"(?P<cue>{_PHONE_CUES})(?P<between>(?:是|为|号|：|:| ){{0,2}})(?P<code>\d{{3,30}})(?![\d.,])",
         lambda match: match["cue"] + match["between"] + digits(match["code"], _PHONE_DIGITS)),
    rule(rf"{START}(720|1080|1440|2160)(?=[pP](?![A-Za-z]))", lambda match: digits(match[1])),
    rule(rf"(?P<cue>{_CODE_CUES})(?P<between>(?:是|为|号|：|:| ){{0,2}})(?P<code>\d{{3,30}})(?![\d.,])",
         lambda match: match["cue"] + match["between"] + digits(match["code"])),
    rule(r"(?<![A-Za-z0-9.])(?P<v>[vV]?)(?P<parts>\d{1,5}(?:\.\d{1,5}){2,3})(?!\d|\.\d)", _spoken_version),
    rule(r"(?<![A-Za-z0-9.])(?P<v>[vV])(?P<parts>\d{1,5}(?:\.\d{1,5})?)(?![A-Za-z0-9]|\.\d)", _spoken_version),
    # Money, temperatures, percent, units.
    rule(rf"(?P<sign>(?<![A-Za-z0-9)])-)?(?P<country>(?<![A-Za-z])(?:US|HK|NZ|A|C))?(?P<currency>[$£€¥₹₩]) ?"
         rf"(?P<a>-?{NUMBER})(?:[-~–—](?P<b>{NUMBER}))?(?P<magnitude>[万亿千百]{{1,2}}|[kKMB](?![A-Za-z]))?(?:元|美元)?",
         _spoken_money),
    rule(rf"{QUANTITY} ?(?P<code>{any_of(_CURRENCY_CODES)})(?![A-Za-z\d])",
         lambda match: _quantity(match, _CURRENCY_CODES[match["code"]]) + _CURRENCY_CODES[match["code"]]),
    rule(rf"(?P<a>){START}(?P<plain>{NUMBER})(?=元|块|美元|欧元|英镑)",
         lambda match: number_words(_plain_amount(match["plain"]), match.string[match.end() : match.end() + 1])),
    rule(rf"{QUANTITY} ?°(?P<scale>[CF])(?![A-Za-z])", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?:°|度)(?P<scale>)(?!电)", _spoken_degrees),
    rule(rf"{QUANTITY} ?(?P<sign>[%‰])", _spoken_percent),
    rule(rf"{QUANTITY} ?(?P<unit>{any_of(_UNITS)})(?:\^?(?P<power>[23])(?!\d))?"
         rf"(?:/(?P<per>[A-Za-z]{{1,12}}|[{HAN}]))?(?![A-Za-z\d])", _spoken_unit),
    # Shapes of numbers.
    rule(r"(?<![A-Za-z0-9/])24/7(?![A-Za-z0-9/])", "全天候"),
    rule(r"(?<![A-Za-z0-9./])(?:(?P<whole>\d{1,3}) )?(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![A-Za-z0-9/]|\.\d)",
         _spoken_fraction),
    rule(r"(?<!\w)(\d{1,15})(?:st|nd|rd|th)(?![A-Za-z])", lambda match: f"第{cardinal(int(match[1]))}"),
    rule(rf"{START}({NUMBER})[xX](?![A-Za-z0-9])", lambda match: f"{number_words(match[1], '倍')}倍"),
    # Arithmetic; a hyphen between numbers is a minus only beside other signs.
    rule(r"(?<=[\d)]) +- +(?=[\d(])|(?<=\d)-(?=\d{1,15}(?:\.\d{1,15})? ?=)", "减"),
    rule(r"(?<=[\d)])(?:[*xX]| [*xX] )(?=[\d(])", "乘"),
    rule(r"(?<=\d) / (?=\d)", "除以"),
    rule(r"\^(-?\d{1,15})(?!\d)", _power),
    rule(r"[-=]+>", "到"),
    rule(r"(?<![A-Za-z0-9])#(\d{1,15})(?!\d)", lambda match: f"{number_words(match[1])}号"),
    rule(r"(?<![\w)])~ ?(?=\d)|(?<=[\u3400-\u9fff])~(?=\d)", "约"),
    # Numbers glued to letters, and everything that is left.
    rule(r"(?<=[A-Za-z])-?(\d{3,15})(?![\d.])", lambda match: f" {digits(match[1])}"),
    rule(r"(?<=[A-Za-z])-(?=\d)", " "),
    rule(r"(?<=[A-Za-z])(?=\d)", " "),
    rule(r"(?<=\d)-(?=[A-Za-z])", " "),
    rule(rf"{START}({NUMBER})(?:[-~–—]| [~–—] )({NUMBER})(?![\d-])", _spoken_range),
    rule(rf"{START}{SIGN}{NUMBER}", _spoken_rest),
    rule(r"\d{1,100000}", _spoken_rest),
    rule(rf"(?<=[{HAN}])\.(?=[{_DIGITS}])", "点"),
    # Signs.
    rule(r" ?([" + re.escape("".join(_SIGNS)) + "]) ?", lambda match: _SIGNS[match[1]]),
    rule(rf"(?<=[元角块次个度吨斤克米升瓦])/(?=[{HAN}])", "每"),
    rule(rf"(?<=[{HAN}])/(?=[{HAN}])", "、"),
    rule(r"[#*^_`~/\\<>{}\[\]•]", " "),
    # Letters: acronyms one by one, and a space beside Chinese, or XTTS glues them to the pinyin.
    rule(r"(?<![A-Za-z])(?:[A-Z]{2,3}|[B-DF-HJ-NP-TV-XZ]{4,8})(?![A-Za-z])", lambda match: " ".join(match[0])),
    rule(rf"(?<=[{HAN}])(?=[A-Za-z])|(?<=[A-Za-z])(?=[{HAN}])", " "),
    rule(r" {2,}", " "),
    rule(r" +(?=[，。！？；：、,.!?;:])|(?<=[，。！？；：、]) +", ""),
)  # fmt: skip
