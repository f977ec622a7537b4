"""English: written form -> spoken form, rule by rule. `spoken_form.py` is the way in."""

import re

from num2words import num2words

from mirrorchat.written_form import NUMBER, QUANTITY, SIGN, START, Rule, any_of, apply_rules, rule

LONGEST_CARDINAL = 15  # digits; a longer number is said digit by digit
SHORTEST_CODE = 8  # digits; a bare number this long is a code or a telephone number, unless it is round
ROUND_DIGITS = 4  # before the zeros: 12500000 is round, 13800138000 is a telephone number

_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_ABBREVIATIONS = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Jr": "Junior",
    "Sr": "Senior", "Gen": "General", "Sgt": "Sergeant", "Capt": "Captain", "Lt": "Lieutenant", "Col": "Colonel",
    "Rev": "Reverend", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Inc": "Incorporated",
    "Ltd": "Limited", "Co": "Company", "Corp": "Corporation", "Dept": "Department", "Ave": "Avenue",
    "Blvd": "Boulevard", "Rd": "Road", "Mt": "Mount", "Jan": "January", "Feb": "February", "Aug": "August",
    "Sept": "September", "Sep": "September", "Oct": "October", "Nov": "November", "Dec": "December",
    "vs": "versus", "approx": "approximately", "Fig": "Figure", "fig": "figure", "Vol": "Volume", "vol": "volume",
    "cf": "compare", "dept": "department", "est": "established", "etc": "et cetera", "e.g": "for example",
    "i.e": "that is", "et al": "and others",
}  # fmt: skip

_UNITS = {
    "km": ("kilometer", "kilometers"), "m": ("meter", "meters"), "cm": ("centimeter", "centimeters"),
    "mm": ("millimeter", "millimeters"), "nm": ("nanometer", "nanometers"), "μm": ("micrometer", "micrometers"),
    "ft": ("foot", "feet"), "yd": ("yard", "yards"), "mi": ("mile", "miles"),
    "kg": ("kilogram", "kilograms"), "g": ("gram", "grams"), "mg": ("milligram", "milligrams"),
    "μg": ("microgram", "micrograms"), "t": ("ton", "tons"), "lb": ("pound", "pounds"), "lbs": ("pound", "pounds"),
    "oz": ("ounce", "ounces"), "l": ("liter", "liters"), "L": ("liter", "liters"),
    "ml": ("milliliter", "milliliters"), "mL": ("milliliter", "milliliters"), "gal": ("gallon", "gallons"),
    "mph": ("mile per hour", "miles per hour"), "kph": ("kilometer per hour", "kilometers per hour"),
    "ms": ("millisecond", "milliseconds"), "s": ("second", "seconds"), "sec": ("second", "seconds"),
    "min": ("minute", "minutes"), "mins": ("minute", "minutes"), "h": ("hour", "hours"), "hr": ("hour", "hours"),
    "hrs": ("hour", "hours"), "KB": ("kilobyte", "kilobytes"), "MB": ("megabyte", "megabytes"),
    "GB": ("gigabyte", "gigabytes"), "TB": ("terabyte", "terabytes"), "Mbps": ("megabit per second",
    "megabits per second"), "Gbps": ("gigabit per second", "gigabits per second"), "Hz": ("hertz", "hertz"),
    "kHz": ("kilohertz", "kilohertz"), "MHz": ("megahertz", "megahertz"), "GHz": ("gigahertz", "gigahertz"),
    "W": ("watt", "watts"), "kW": ("kilowatt", "kilowatts"), "MW": ("megawatt", "megawatts"),
    "kWh": ("kilowatt hour", "kilowatt hours"), "V": ("volt", "volts"), "mA": ("milliamp", "milliamps"),
    "mAh": ("milliamp hour", "milliamp hours"), "dB": ("decibel", "decibels"), "Ω": ("ohm", "ohms"),
    "px": ("pixel", "pixels"),
    "cal": ("calorie", "calories"), "kcal": ("kilocalorie", "kilocalories"), "kPa": ("kilopascal", "kilopascals"),
    "%": ("percent", "percent"), "‰": ("per thousand", "per thousand"), "¢": ("cent", "cents"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
}  # fmt: skip
_SECONDS_WRITTEN_APART = r"(?<!\d0)s"  # "the 90s" are no seconds, "90 s" and "1.5s" are
_POWERS = {"2": "square", "3": "cubic"}

_CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"), "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"), "¥": ("yuan", "yuan", "", ""), "₹": ("rupee", "rupees", "", ""),
    "₩": ("won", "won", "", ""),
}  # fmt: skip
_CURRENCY_CODES = {
    "USD": ("US dollar", "US dollars"), "EUR": ("euro", "euros"), "GBP": ("pound", "pounds"), "CNY": ("yuan", "yuan"),
    "RMB": ("yuan", "yuan"), "JPY": ("yen", "yen"), "€": ("euro", "euros"), "£": ("pound", "pounds"),
    "¥": ("yuan", "yuan"), "元": ("yuan", "yuan"),
}  # fmt: skip
_COUNTRIES = {"US": "US ", "A": "Australian ", "C": "Canadian ", "HK": "Hong Kong ", "NZ": "New Zealand "}
_MAGNITUDES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "T": "trillion"}

_ON_THE_HOUR = "o'clock"
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
_MONTH = r"(?P<month>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
_MONTH += r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
_YEAR = r"(?P<year>[12]\d{3})"
_YEAR_CUE = re.compile(
    r"\b(?:in|since|from|by|until|till|before|after|of|during|around|circa|about|early|late|mid|the|year|spring|summer"
    rf"|autumn|fall|winter|and|to|between|class|{'|'.join(_MONTHS)}),? *$", re.IGNORECASE
)  # fmt: skip
_COUNTED = re.compile(
    r" (?!(?:was|is|has|this|as|its|does|us)\b)"
    r"(?:[a-z]{1,20}s|people|men|women|children|percent|million|billion|feet|more|kilometer|mile|word)\b"
)

_SIGNS = {
    "&": " and ", "@": " at ", "=": " equals ", "+": " plus ", "×": " times ", "÷": " divided by ", "<": " less than ",
    ">": " greater than ", "≤": " less than or equal to ", "≥": " greater than or equal to ", "≈": " is about ",
    "≠": " does not equal ", "±": " plus or minus ", "→": " to ", "%": " percent ", "‰": " per thousand ",
    "°": " degrees ", "√": " the square root of ", "π": " pi ", "∞": " infinity ", "$": " dollars ", "£": " pounds ",
    "€": " euros ", "¥": " yuan ", "₹": " rupees ", "₩": " won ", "¢": " cents ", "|": ", ",
}  # fmt: skip


def speak_english(text: str) -> str:
    """Return `text`, whose characters are plain already, as it is said in English."""
    return apply_rules(text, _RULES).strip(" ")


def cardinal(number: int) -> str:
    """Return `number` (at least 0, at most 15 digits) in words, without commas."""
    return str(num2words(number)).replace(",", "")


def ordinal(number: int) -> str:
    """Return the ordinal of `number` (at least 0, at most 15 digits) in words."""
    return str(num2words(number, to="ordinal")).replace(",", "")


def year(number: int) -> str:
    """Return `number` (1000 to 2999) as a year is said: `twenty twenty-five`, `nineteen oh five`."""
    return str(num2words(number, to="year")).replace("oh-", "oh ")


def digits(text: str) -> str:
    """Return the digits in `text`, one by one."""
    return " ".join(_DIGITS[int(digit)] for digit in text if digit.isdigit())


def number_words(written: str) -> str:
    """Return `-1,234.50` in words: `minus one thousand two hundred and thirty-four point five zero`."""
    sign = "minus " if written.startswith("-") else ""
    whole, _, decimals = written.lstrip("-").replace(",", "").partition(".")
    as_code = len(whole) > LONGEST_CARDINAL or (len(whole) > 1 and whole.startswith("0"))
    words = digits(whole) if as_code else cardinal(int(whole))
    return sign + words + (f" point {digits(decimals)}" if decimals else "")


def _quantity(match: re.Match[str]) -> tuple[str, bool]:
    """Return a `QUANTITY` in words, and whether what follows it is one thing."""
    upper = match["b"] or match["c"]
    if upper:
        return f"{number_words(match['a'])} to {number_words(upper)}", False
    return number_words(match["a"]), match["a"].lstrip("-") == "1"


def _spoken_unit(match: re.Match[str]) -> str:
    words, is_one = _quantity(match)
    name = _UNITS[match["unit"]][0 if is_one else 1]
    power = f"{_POWERS[match['power']]} " if match["power"] else ""
    return f"{words} {power}{name}{_per(match['per'])}"


def _per(name: str | None) -> str:
    return f" per {_UNITS[name][0] if name in _UNITS else name}" if name else ""


def _spoken_money(match: re.Match[str]) -> str:
    one, many, minor_one, minor_many = _CURRENCIES[match["currency"]]
    country = _COUNTRIES.get(match["country"] or "", "")
    sign = "minus " if match["sign"] else ""
    written, upper, magnitude = match["a"], match["b"], match["magnitude"]
    if magnitude:
        words = f"{number_words(written)} {_MAGNITUDES.get(magnitude, magnitude)} {country}{many}"
    elif upper:
        words = f"{number_words(written)} to {number_words(upper)} {country}{many}"
    elif minor_one and re.fullmatch(r"[\d,]+\.\d\d", written):
        words = _with_minor_units(written, (country + one, country + many, minor_one, minor_many))
    else:
        words = f"{number_words(written)} {country}{one if written == '1' else many}"
    return f"{sign}{words}{_per(match['per'])}"


def _with_minor_units(written: str, names: tuple[str, str, str, str]) -> str:
    """Return `20.50` as twenty dollars and fifty cents."""
    one, many, minor_one, minor_many = names
    whole, _, minor = written.replace(",", "").partition(".")
    major = f"{number_words(whole)} {one if int(whole) == 1 else many}"
    minor_words = f"{cardinal(int(minor))} {minor_one if int(minor) == 1 else minor_many}"
    if not int(minor):
        return major
    return f"{major} and {minor_words}" if int(whole) else minor_words


def _spoken_time(match: re.Match[str]) -> str:
    hour, minute, second = int(match["hour"]), int(match["minute"] or 0), match["second"]
    if hour > 24 or minute > 59:
        return match[0]
    seconds = f" and {cardinal(int(second))} seconds" if second and int(second) else ""
    half = f" {match['half'].lower()}.m." if match["half"] else ""
    return _clock(hour, minute, bool(half)) + seconds + half


def _clock(hour: int, minute: int, twelve_hours: bool) -> str:
    if minute:
        return f"{cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    if twelve_hours:
        return cardinal(hour)
    if hour in (0, 24):
        return "midnight"
    return f"{cardinal(hour)} {'hundred' if hour > 12 else _ON_THE_HOUR}"


def _spoken_date(match: re.Match[str]) -> str:
    """Return a date in figures, month first where the order is in doubt (`9/1/2025`)."""
    groups = match.groupdict()
    month, day = int(match["m"]), int(match["d"])
    if month > 12 and "loose" in groups:
        month, day = day, month
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {ordinal(day)}, {year(int(match['year']))}{', ' if groups.get('time') else ''}"


def _month_name(written: str) -> str:
    return next(month for month in _MONTHS if month.startswith(written[:3]))


def _spoken_month_day(match: re.Match[str]) -> str:
    words = f"{_month_name(match['month'])} {ordinal(int(match['d']))}"
    words += f" to {ordinal(int(match['upper']))}" if match["upper"] else ""
    return words + (f", {year(int(match['year']))}" if match["year"] else "")


def _spoken_day_month(match: re.Match[str]) -> str:
    article = match["article"] or "the "
    words = f"{article}{ordinal(int(match['d']))} of {_month_name(match['month'])}"
    return words + (f", {year(int(match['year']))}" if match["year"] else "")


def _spoken_fraction(match: re.Match[str]) -> str:
    whole, above, below = match["whole"], int(match["above"]), int(match["below"])
    if not 0 < above < below:
        plain = f"{cardinal(above)} over {cardinal(below)}"
        return f"{number_words(whole)} {plain}" if whole else plain
    part = {2: "half", 4: "quarter"}.get(below, ordinal(below))
    if whole and above == 1:
        return f"{number_words(whole)} and {'an' if part.startswith('e') else 'a'} {part}"
    words = f"{cardinal(above)} {part}{'s' if above > 1 else ''}"
    return f"{number_words(whole)} and {words}" if whole else words


def _spoken_decade(match: re.Match[str]) -> str:
    century, tens = match["century"], match["tens"]
    if tens == "00":
        return f"{year(int(century + tens))}s"
    name = f"{cardinal(int(tens))[:-1]}ies"
    return f"{cardinal(int(century))} {name}" if century else name


def _spoken_year(match: re.Match[str]) -> str:
    """Return a four-digit number as a year where it looks like one, else leave it."""
    number = int(match["year"])
    before = match.string[max(0, match.start() - 12) : match.start()]
    is_cued = _YEAR_CUE.search(before) is not None
    is_counting = _COUNTED.match(match.string, match.end()) is not None
    if 1900 <= number <= 2099:
        return year(number) if is_cued or not is_counting else match[0]
    return year(number) if is_cued and not is_counting else match[0]


def _spoken_phone(match: re.Match[str]) -> str:
    groups = re.findall(r"\d+", match[0])
    return ("plus " if match[0].startswith("+") else "") + ", ".join(digits(group) for group in groups)


def _spoken_version(match: re.Match[str]) -> str:
    parts = match["parts"].split(".")
    is_address = len(parts) == 4
    separator = " dot " if is_address else " point "
    words = separator.join(digits(part) if is_address else number_words(part) for part in parts)
    return f"version {words}" if match["v"] else words


def _spoken_address(match: re.Match[str]) -> str:
    """Return an e-mail or web address as it is dictated."""
    address = re.sub(r"^https?://", "", match[0]).rstrip("/")
    for sign, word in ((".", "dot"), ("@", "at"), ("/", "slash"), ("-", "dash"), ("_", "underscore"), (":", "colon"),
                       ("?", "question mark"), ("=", "equals"), ("&", "and"), ("#", "hash")):  # fmt: skip
        address = address.replace(sign, f" {word} ")
    return re.sub(r"\d{1,4000}", lambda run: f" {digits(run[0])} ", address)


def _spoken_abbreviation(match: re.Match[str]) -> str:
    """Return an abbreviation written out; its full stop stays where it also ends the sentence."""
    ends = match["word"] == "etc" and re.match(r"\s*$| +[A-Z]", match.string[match.end() : match.end() + 9])
    return _ABBREVIATIONS[match["word"]] + ("." if ends else "")


def _spoken_initials(match: re.Match[str]) -> str:
    ends = not match.string[match.end() : match.end() + 9].strip()
    return " ".join(match[0].replace(".", "")) + ("." if ends else "")


def _spoken_rest(match: re.Match[str]) -> str:
    """Return a bare number: long ones that are not round are codes, said digit by digit."""
    written = match[0]
    is_round = len(written.rstrip("0")) <= ROUND_DIGITS
    if len(written) > LONGEST_CARDINAL or (len(written) >= SHORTEST_CODE and not is_round):
        return digits(written)
    return number_words(written)


def _spoken_dimensions(match: re.Match[str]) -> str:
    return " by ".join(number_words(part) for part in re.split(r" ?[x×] ?", match[0]))


def _spoken_feet(match: re.Match[str]) -> str:
    return f"{cardinal(int(match[1]))} foot {cardinal(int(match[2]))}"


def _ratio(match: re.Match[str]) -> str:
    return f"{cardinal(int(match[1]))} to {cardinal(int(match[2]))}"


def _power(match: re.Match[str]) -> str:
    return {"2": " squared", "3": " cubed"}.get(match[1], f" to the power of {number_words(match[1])}")


_WEB = r"(?:https?://[\w.~:/?#@!$&*+=%-]{0,500}[\w/]|(?<![\w@.])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,5}[A-Za-z]{2,24}"
_WEB += r"|(?<![\w@./])(?:[A-Za-z][\w-]{0,62}\.){1,5}(?:com|org|net|edu|gov|io|cn|uk|de|ai|dev|app|co)\b"
_WEB += r"(?:/[\w./-]{0,200}\w)?)"

_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d))?(?![\d:])"
_UNIT_NAMES = any_of(unit for unit in _UNITS if unit != "s")

_RULES: tuple[Rule, ...] = (
    # Addresses and abbreviations: their full stops and signs are no one else's.
    rule(_WEB, _spoken_address),
    rule(r"(?<![\w.)])\.(?=\d)", "0."),
    rule(r"(?<![\w.])St\. (?=[A-Z])", "Saint "),
    rule(r"(?<![\w.])St\.(?!\w)", "Street"),
    rule(r"(?<![\w.])(?:No|Nr|no)\. ?(?=\d)", "number "),
    rule(r"(?<![\w.])pp\. ?(?=\d)", "pages "),
    rule(r"(?<![\w.])p\. ?(?=\d)", "page "),
    rule(r"(?<![\w.])Ph\.D\b\.?", "P H D"),
    rule(rf"(?<![\w.])(?P<word>{any_of(_ABBREVIATIONS)})\.(?!\w)", _spoken_abbreviation),
    rule(r"(?<![\w.])(?:[A-Z]\.){2,8}(?!\w)", _spoken_initials),
    rule(r"(?<!\w)w/o(?!\w)", "without"),
    rule(r"(?<!\w)w/ ?(?=\w)", "with "),
    rule(r"(?<!\w)C\+\+", "C plus plus"),
    rule(r"(?<!\w)(?P<letter>[CF])#(?!\w)", r"\g<letter> sharp"),
    # Spans between two quantities that both carry their sign or unit.
    rule(r"(?<=[%°])[-~–—](?=-?\d)|(?<=°[CF])[-~–—](?=-?\d)", " to "),
    rule(r"(?<=[\dKMB])[-~–—](?=[$£€¥]\d)", " to "),
    rule(r"(?<![\w:.,-])(\d{1,2})[-~–—](?=\d{1,2}(?::\d\d)? ?[AaPp]\.?[Mm]\b)", r"\1 to "),
    rule(r"(?<=:\d\d)(?: ?[~–—] ?|-)(?=\d{1,2}:\d\d)|(?<=\d[ap]m)(?: ?[~–—] ?|-)(?=\d)", " to "),
    # Dates and times.
    rule(rf"(?<![\w./-]){_YEAR}[-/.](?P<m>\d{{1,2}})[-/.](?P<d>\d{{1,2}})(?!\d|[-/.]\d)(?P<time>[T ](?=\d\d:))?",
         _spoken_date),
    rule(rf"(?<![\w./-])(?P<m>\d{{1,2}})[/.](?P<d>\d{{1,2}})[/.](?P<loose>){_YEAR}(?!\d|[-/.]\d)", _spoken_date),
    rule(r"(?<![\w./-])(?P<year>(?:19|20)\d\d)-(?P<m>0[1-9]|1[0-2])(?![\d-]|[./]\d)",
         lambda match: f"{_MONTHS[int(match['m']) - 1]} {year(int(match['year']))}"),
    rule(rf"\b{_MONTH} (?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:[-–](?P<upper>[1-9]|[12]\d|3[01]))?(?![\w:%/.]\w|\w)"
         rf"(?:,? {_YEAR}(?![\w]))?", _spoken_month_day),
    rule(rf"(?P<article>\b[Tt]he )?(?<![\w.,/-])(?P<d>[1-9]|[12]\d|3[01])(?:st|nd|rd|th)? (?:of )?{_MONTH}"
         rf"(?:,? {_YEAR}(?!\w))?", _spoken_day_month),
    rule(rf"(?<![\w:.,]){_CLOCK}(?: ?(?P<half>[AaPp])\.?[Mm]\b(?:\.(?= *[^\sA-Z]))?)?", _spoken_time),
    rule(r"(?<![\w:.,])(?P<hour>\d{1,2})(?P<minute>)(?P<second>) ?(?P<half>[AaPp])\.?[Mm]\b(?:\.(?= *[^\sA-Z]))?",
         _spoken_time),
    rule(r"(?<=[ap]\.m\.)\.", ""),
    rule(r"(?<![\w:.,])(\d{1,4}):(\d{1,4})(?![\d:])", _ratio),
    # Telephone numbers, cards, versions.
    rule(r"(?<![\w.,+-])(?:\+?\d{1,3}[ -])?(?:\(\d{2,4}\) ?|\d{2,4}-)\d{3,4}[- ]\d{4}(?![\d-])", _spoken_phone),
    rule(r"(?<![\w.,+-])\+\d{1,3}(?:[ -]?\d{2,5}){2,4}(?!\d)", _spoken_phone),
    rule(r"(?<![\w.,+-])\d{3}-\d{4}(?![\d-])", _spoken_phone),
    rule(r"(?<![\w.,+-])\d{4}(?: \d{4}){2,4}(?!\d)", _spoken_phone),
    rule(r"(?<![\w.])(?P<v>(?:[vV](?:ersion |er\.? )?)?)(?P<parts>\d{1,5}(?:\.\d{1,5}){2,3})(?!\d|\.\d)",
         _spoken_version),
    rule(r"(?<![\w.])(?P<v>v|[Vv]ersion )(?P<parts>\d{1,5}(?:\.\d{1,5})?)(?![\w]|\.\d)", _spoken_version),
    # Money, units.
    rule(rf"(?P<sign>(?<![\w)])-)?(?P<country>\b(?:US|HK|NZ|A|C))?(?P<currency>[$£€¥₹₩]) ?(?P<a>-?{NUMBER})"
         rf"(?:[-~–](?P<b>{NUMBER}))?(?: ?(?P<magnitude>hundred|thousand|million|billion|trillion|[kKMBT])\b)?"
         r"(?:/(?P<per>[A-Za-z]{1,12})\b)?", _spoken_money),
    rule(rf"{QUANTITY} ?(?P<code>{any_of(_CURRENCY_CODES)})(?![A-Za-z])",
         lambda match: f"{_quantity(match)[0]} {_CURRENCY_CODES[match['code']][0 if _quantity(match)[1] else 1]}"),
    rule(rf"{START}(\d)(?:'| ?ft\.? )(\d{{1,2}})(?:\"| ?in(?:\.|\b)|(?![\d\"]))", _spoken_feet),
    rule(rf"{START}(7|10|14|21)([268]0|40)p\b", lambda match: f"{cardinal(int(match[1]))} {cardinal(int(match[2]))} p"),
    rule(rf"{QUANTITY} ?(?P<unit>{_UNIT_NAMES}|(?:(?<= )|(?<=\.\d)){_SECONDS_WRITTEN_APART})"
         r"(?:\^?(?P<power>[23])(?!\d))?(?:/(?P<per>[A-Za-z]{1,12}))?(?![A-Za-z\d])", _spoken_unit),
    # Shapes of numbers.
    rule(r"(?<![\w'])(?P<century>1[1-9]|20)?'?(?P<tens>[2-9]0)'?s\b", _spoken_decade),
    rule(r"(?<!\w)(?P<century>1[1-9]|20)(?P<tens>00)'?s\b", _spoken_decade),
    rule(rf"{START}(\d{{1,3}}(?:,\d{{3}}){{1,4}}|\d{{1,15}})(?:st|nd|rd|th)\b",
         lambda match: ordinal(int(match[1].replace(",", "")))),
    rule(r"(?<![\w/])24/7(?![\w/])", "twenty-four seven"),
    rule(r"(?<![\w/])9/11(?![\w/])", "nine eleven"),
    rule(r"(?<![\w/])50/50(?![\w/])", "fifty fifty"),
    rule(r"(?<![\w./])(?:(?P<whole>\d{1,3}) )?(?P<above>\d{1,3})/(?P<below>\d{1,3})(?![\w/]|\.\d)", _spoken_fraction),
    rule(rf"{START}{NUMBER}(?: ?[x×] ?{NUMBER}){{1,2}}(?= (?:pixels|meters|feet|inches|grid|matrix|display)\b)",
         _spoken_dimensions),
    rule(rf"{START}{NUMBER}(?:x{NUMBER}){{1,2}}(?![A-Za-z])", _spoken_dimensions),
    rule(rf"{START}({NUMBER})[xX](?!\w| ?[-+=*/^<>×÷])", lambda match: f"{number_words(match[1])} times"),
    # Arithmetic; a hyphen between numbers is a minus only beside other signs.
    rule(r"(?<=[\d)]) +- +(?=[\d(])", " minus "),
    rule(r"(?<=\d)-(?=\d{1,15}(?:\.\d{1,15})? ?=)", " minus "),
    rule(r"(?<=[\d)]) ?[*] ?(?=[\d(])", " times "),
    rule(r"(?<=\d) / (?=\d)", " divided by "),
    rule(r"\^(-?\d{1,15})(?!\d)", _power),
    rule(r"[-=]+>", " to "),
    rule(r"(?<!\w)#(?=\d)", "number "),
    rule(r"(?<!\w)#(?=\w)", "hashtag "),
    rule(r"(?<![\w)])~ ?(?=\d)", "about "),
    rule(rf"{START}{SIGN[:-1]}(?={NUMBER})", lambda match: "minus " if match[0] else ""),
    # Numbers glued to letters, years, and everything that is left.
    rule(r"(?<=[A-Za-z])-(?=\d)", " "),
    rule(r"(?<=[A-Za-z])(\d{3,15})(?!\d)", lambda match: f" {digits(match[1])} "),
    rule(r"(?<=[A-Za-z])(?=\d)", " "),
    rule(r"(?<=\d)-(?=[A-Z]|[a-z]\b)", " "),
    rule(r"(?<=\d)(?=[A-Za-z])", " "),
    rule(rf"(?<![\w.,]){_YEAR}[-–/](?P<upper>[12]\d{{3}})(?![\w]|[.,]\d)",
         lambda match: f"{year(int(match['year']))} to {year(int(match['upper']))}"),
    rule(rf"(?<![\w.,$-]){_YEAR}(?![\w]|[.,-]\d)", _spoken_year),
    rule(rf"{START}({NUMBER})(?: ?[~–—] ?|-)({NUMBER})(?![\d-])",
         lambda match: f"{number_words(match[1])} to {number_words(match[2])}"),
    rule(rf"{START}\d{{1,3}}(?:,\d{{3}}){{1,4}}(?:\.\d{{1,15}})?(?![\d,]\d)", lambda match: number_words(match[0])),
    rule(rf"{START}\d{{1,15}}\.\d{{1,15}}(?!\d)", lambda match: number_words(match[0])),
    rule(r"\d{1,100000}", _spoken_rest),
    rule(r"(?<=\w)\.(?=(?:zero|one|two|three|four|five|six|seven|eight|nine)\b)", " point "),
    # Signs.
    rule(r"(?<=\w)\+\+?(?=\s|$|[.,!?])", lambda match: " plus" * len(match[0])),
    rule("[" + re.escape("".join(_SIGNS)) + "]", lambda match: _SIGNS[match[0]]),
    rule(r"[#*^_`~/\\<>{}\[\]•·]", " "),
    rule(r" {2,}", " "),
    rule(r" +(?=[,.!?;:](?:\s|$))", ""),
)  # fmt: skip
