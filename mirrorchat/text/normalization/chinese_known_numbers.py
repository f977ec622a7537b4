"""Mandarin text normalization: numbers that are names, which are read digit by digit: 12306, 985/211, 618, 996."""

import re

from mirrorchat.text.normalization.chinese_numbers import PHONE_DIGITS, cardinal, digits, phone_words
from mirrorchat.text.normalization.chinese_words import COUNTED
from mirrorchat.text.normalization.patterns import Rule, before, behind, rule
from mirrorchat.text.sentences.speech_length import HAN

_NOT_BEHIND = rf"\d|[.,:]\d|[-~–—]\d|(?!A[Pp][Pp])[%‰°$€£¥A-Za-z^+*=×÷多余几来折给]|(?:{COUNTED.pattern})"
_ENDS = rf"(?!{_NOT_BEHIND}|/)"
_STARTS = r"(?<![A-Za-z0-9$€£¥+*/=×÷<>≈≥≤±~#-])(?<!\d[.,:])(?<![第共约近达超计])"

# Service numbers of China and emergency numbers of other countries.
_EMERGENCY = r"(?:110|112|114|119|120|122)"
_SERVICE = (
    r"(?:110|112|114|119|120|122|911|988|995|999|10\d{3}|11[68]\d{2}|12[1-9]\d{2}|95\d{3}|96\d{3,4}"
    r"|\d{3}-\d{3,4}-\d{3,4}|[48]00 ?\d{3} ?\d{4})"
)
_KNOWN = r"(?:12306|12308|12123|12315|12320|12333|12348|12355|12366|12369|12377|12388|12389|12395|10086|10010|10011"
_KNOWN += r"|10085|11185|11183|11888|12580|118114|116114|95(?!\d00)[0-9]{3}|96110|96315|96777)"
_ANY = r"\d{3,12}(?:[- ]\d{3,8}){0,3}"
_AND = r"(?:[、/，,]|或者?|和|及|以及|与|还是)"
_SERVICE_CUES = "打|拨|叫|联系|找|呼|发送到|发送至|发到|发至|关注|登录|火警|匪警|急救|报警|事故|专线|求助"
_DIALLING_CUES = "电话|手机|热线|拨打|拨通|致电|呼叫|拨|客服|分机|转"
_CUED = "报警|火警|急救|消防|专线|短信|查询|查号|热线|电话|客服|接警|投诉|官网|服务台|平台|App|APP"

_EDUCATION = re.compile(
    "考|专科|分数线|一本|清华|北大|C9|双非|博士|学生|大学|高校|院校|毕业|学校|名校|高考|本科|硕士|双一流|考研|录取|学历|工程|985|211"
)
_HISTORY = (
    "事变|事件|晚会|地震|大地震|汶川|运动|恐袭|恐怖|惨案|纪念|国耻|消费者|打假|曝光"
    "|黄金周|假期|长假|小长假|国庆|妇女节|儿童节|建军节|劳动节|青年节|植树节"
)
_SHOPPING = "大促|购物节|促销|活动|期间|狂欢|年中|优惠|预售|当天|前后"
_SHOPS = "京东|天猫|淘宝|今年|去年|每年|明年|双11|双12"
_LOVE = "快乐|表白|告白|礼物|情人节|红包|礼盒|这天|当天|我爱你"
_STATUS = "错误|页面|状态|报错|响应|重定向| ?Not Found"


_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_RATED = "评分|评分是|评分为|评分：|得分|得分是|得分：|打分|豆瓣|绩点|绩点是|GPA|GPA |评价|打了|综合评分"


def _many(number: str) -> str:
    """Return the pattern of one number or several that are joined. None of them counts what follows it."""
    one = rf"{number}(?!{_NOT_BEHIND}|/(?!\d{{3}}))"
    return rf"{one}(?:{_AND}{one}){{0,5}}"


def _spoken_list(match: re.Match[str]) -> str:
    """Return service numbers and what joins them; a slash or a joint in a number becomes a pause."""
    words = re.sub(r"\d{1,12}", lambda number: phone_words(number[0]), match["numbers"])
    return re.sub("[-/ ]", "，", words)


def _spoken_digits(match: re.Match[str]) -> str:
    return digits(match[0])


def _spoken_university(match: re.Match[str]) -> str:
    """Return 985 and 211 as names where the text is about schools."""
    near = before(match, 12) + match.string[match.end() : match.end() + 12]
    return digits(match[0], PHONE_DIGITS) if _EDUCATION.search(near) else match[0]


def _spoken_pressure(match: re.Match[str]) -> str:
    above, below = (number for number in match.groups() if number)
    return f"{cardinal(int(above))}、{below}"


def _spoken_plate(match: re.Match[str]) -> str:
    """Return the plate of a car: 京A·12345."""
    number = re.sub(r"\d{1,6}", lambda run: digits(run[0]), re.sub("[A-Z]", r" \g<0> ", match[3]))
    return f"{match[1]} {match[2]} {number}"


def _spoken_serial(match: re.Match[str]) -> str:
    """Return a number with letters inside character by character: 91310000MA1FL0."""
    return re.sub(r"\d{1,24}", lambda run: digits(run[0]), re.sub("[A-Z]", r" \g<0> ", match[0])).strip()


def _spoken_tire(match: re.Match[str]) -> str:
    """Return the size of a tire: 205/55R16 91V."""
    return f"{digits(match[1])}，{digits(match[2])} R {match[3]}" + (f" {digits(match[4])} " if match[4] else "")


def _spoken_rating(match: re.Match[str]) -> str:
    below = match[2].removesuffix(".0")
    return (
        f"{match[1]}，满分{below}" if float(match[1]) <= int(below) and below in ("4", "5", "10", "100") else match[0]
    )


def _spoken_day(match: re.Match[str]) -> str:
    """Return a date that names an event: 九一八, but 十一 for the first of October."""
    month, day = match["month"], match["day"]
    return "十一" if (month, day) == ("10", "1") else digits(month + day)


def _spoken_shares(match: re.Match[str]) -> str:
    """Return two shares that make a whole: 50/50 is 五五开, 80/20 before 法则 is 八二."""
    first, second = int(match[1]), int(match[2])
    if first + second != 100:
        return match[0]
    is_joined = re.match("法则|原则|定律|分|开", match.string[match.end() : match.end() + 2])
    return digits(f"{first // 10}{second // 10}") + ("" if is_joined else "开")


KNOWN_NUMBER_RULES: tuple[Rule, ...] = (
    rule(rf"(?<![0-9./])(?P<month>1[0-2]|[1-9])[.·•](?P<day>[12]?[1-9]|[123]0|31)(?={_HISTORY})", _spoken_day),
    rule(r"(?<![A-Za-z0-9])(\d{1,12})[*×xX]{3,12}(\d{1,12})(?![A-Za-z0-9])",
         lambda match: f"{phone_words(match[1])}，星号，{phone_words(match[2])}"),
    rule(rf"([{_PROVINCES}])([A-Z])[·•. ]?(?=[A-Z]{{0,5}}\d)([A-Z0-9]{{5,6}})(?![A-Za-z0-9])", _spoken_plate),
    rule(r"(?<![A-Za-z0-9.,])(\d{5,6})\.(SH|SZ|BJ|HK|SS)(?![A-Za-z0-9])",
         lambda match: f"{digits(match[1])} {' '.join(match[2])}"),
    rule(r"(?<=[\u4e00-\u9fffA-Z][(（])([036]\d{5}|[158]\d{5})(?=[)）])", _spoken_digits),  # a share: 茅台(600519)
    rule(r"(?<=《)((?:19|20)\d\d)|(?<=[〔\[【])((?:19|20)\d\d)(?=[〕\]】])", _spoken_digits),
    rule(r"(?<=号)-(\d)(?!\d|号|[A-Za-z])", r"杠\1"),
    rule(r"(?<=(ISO|IEC))( ?)(\d{4,5}):((?:19|20)\d\d)", lambda match: f" {digits(match[3])}，{digits(match[4])}"),
    rule(r"LPR ?([+-])(\d{1,3})(?:BP|bp|个?基点)",
         lambda match: f"LPR{'加' if match[1] == '+' else '减'}{match[2]}个基点"),
    rule(r"7-11(?=便利店|超市|店|买|[，。、])", "七十一"),
    rule(r"(?<=[图表式])(\d{1,2})-(\d{1,2})(?![\d.-])", r"\1杠\2"),
    rule(r"(?<=第)\d{6,8}(?=期)", _spoken_digits),
    rule(r"(?<=[单号])#(\d{4,20})(?:-(\d{1,8}))?(?!\d)",
         lambda match: f"号{digits(match[1])}" + (f"，{digits(match[2])}" if match[2] else "")),
    rule(r"(?<=码)([是为：:]?)(\d{1,6}(?:-\d{1,6}){1,3})(?![\d-])",
         lambda match: match[1] + "，".join(digits(number) for number in match[2].split("-"))),
    rule(r"(?<![A-Za-z0-9.])(?=\d{5,18}[A-Z])[0-9A-Z]{9,24}(?![A-Za-z0-9])", _spoken_serial),
    rule(r"(?<![\d/.])([12]\d\d)/(\d\d) ?R ?(\d\d)(?: (\d{2,3})(?=[VWHTYSQ](?![A-Za-z])))?", _spoken_tire),
    rule(r"(?<=[“\"])618(?=[”\"])", _spoken_digits),
    rule(r"(?<=\dV)(?=\d{1,3}(?:\.\d)?Ah)", " "),
    rule(r"(?<=[（(，、])(\d{1,3})'(?=[\u4e00-\u9fff）)])", r"\1分钟"),
    rule(r"(?<![\d./])(\d{1,2})/(\d{1,2})(?=层)", r"\1层，共\2"),
    rule(r"(?<=满)(\d{1,5})-(\d{1,4})(?![\d.-])", r"\1减\2"),
    rule(rf"{behind(_RATED)}(\d{{1,3}}(?:\.\d{{1,2}})?)/(\d{{1,3}}(?:\.0)?)(?![\d./])", _spoken_rating),
    rule(rf"{_STARTS}(?!\d00)\d{{3}}(?={_HISTORY})", _spoken_digits),
    rule(rf"{_STARTS}6[.·]?18(?={_SHOPPING})|{behind(_SHOPS)}618{_ENDS}"
         rf"|{_STARTS}618(?=[和、/与]双)|(?<=双1[12][和、/与])618{_ENDS}", _spoken_digits),
    rule(rf"{_STARTS}(?:520|1314|5201314)(?={_LOVE})|{_STARTS}1314{_ENDS}", _spoken_digits),
    rule(rf"{_STARTS}(?:996|955|965)(?:{_ENDS}|(?=工作制))", _spoken_digits),
    rule(rf"{_STARTS}[1-5]\d\d(?={_STATUS})|{behind('HTTP |HTTP|状态码|错误码')}[1-5]\d\d{_ENDS}",
         _spoken_digits),
    rule(rf"{_STARTS}(?:\d{{3}}(?=医院|部队|中学|研究所|国道|省道|工作制)|58(?=同城)|\d{{3,4}}(?=邮箱|小游戏|杀毒|安全卫士))",
         _spoken_digits),
    rule(r"(?<![A-Za-z0-9])(\d{17})[Xx](?![A-Za-z0-9])", lambda match: f"{digits(match[1])} X"),
    rule(rf"{_STARTS}(?:666|5201314){_ENDS}", _spoken_digits),
    rule(r"(?<![0-9.])11[.·]11(?=大促|购物|狂欢|活动)", "双十一"),
    rule(rf"{_STARTS}(?P<numbers>1000[01])(?=号)", _spoken_list),
    rule(rf"{_STARTS}(?P<numbers>985/211|211/985)(?![0-9%.])", _spoken_list),
    rule(rf"{_STARTS}(?:985|211){_ENDS}", _spoken_university),
    rule(r"(?<![A-Za-z0-9/])24/7(?![A-Za-z0-9/])", "全天候"),
    rule(r"(?<![0-9A-Za-z.])7 ?[×xX*] ?24(?=小时| ?h|[^0-9A-Za-z]|$)", "七乘二十四"),
    rule(r"(?<![0-9A-Za-z./])([1-9]0)/([1-9]0)(?![0-9A-Za-z./])", _spoken_shares),
    rule(rf"{behind(_SERVICE_CUES)}(?P<numbers>{_many(_SERVICE)})", _spoken_list),
    rule(rf"(?P<cue>{_DIALLING_CUES})(?P<between>(?:是|为|号|：|:| ){{0,2}})(?P<numbers>{_many(_ANY)})",
         lambda match: match["cue"] + match["between"] + _spoken_list(match)),
    rule(rf"{_STARTS}(?P<numbers>{_many(_SERVICE)})(?=[{HAN}]{{0,4}}(?:{_CUED}))", _spoken_list),
    rule(rf"{_STARTS}[48]00(?=电话|热线|客服|开头)|(?<=\+)86(?![ -]?[\d(])", _spoken_digits),
    rule(r"(?<=保时捷)911(?!\d)|(?<![0-9.])911(?=跑车|车型)", _spoken_digits),
    rule(r"(?<![0-9./])(\d{2,3})/(\d{2,3})(?= ?mmHg|毫米汞柱)|(?<=血压)(\d{2,3})/(\d{2,3})(?![0-9/.])",
         _spoken_pressure),
    rule(rf"{_STARTS}(?P<numbers>{_EMERGENCY}(?:{_AND}{_EMERGENCY}){{1,5}}){_ENDS}", _spoken_list),
    rule(rf"{_STARTS}(?P<numbers>{_many(_KNOWN)})", _spoken_list),
)  # fmt: skip
