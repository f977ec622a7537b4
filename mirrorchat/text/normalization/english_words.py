"""English words for abbreviations, units, currencies and signs, and the words that numbers count."""

import re

ABBREVIATIONS = {
    "Mr": "Mister", "Mrs": "Missus", "Ms": "Miz", "Dr": "Doctor", "Prof": "Professor", "Jr": "Junior",
    "Sr": "Senior", "Gen": "General", "Sgt": "Sergeant", "Capt": "Captain", "Lt": "Lieutenant", "Col": "Colonel",
    "Rev": "Reverend", "Gov": "Governor", "Sen": "Senator", "Rep": "Representative", "Inc": "Incorporated",
    "Ltd": "Limited", "Co": "Company", "Corp": "Corporation", "Dept": "Department", "Ave": "Avenue",
    "Blvd": "Boulevard", "Rd": "Road", "Mt": "Mount", "Jan": "January", "Feb": "February", "Aug": "August",
    "Sept": "September", "Sep": "September", "Oct": "October", "Nov": "November", "Dec": "December",
    "vs": "versus", "approx": "approximately", "Fig": "Figure", "fig": "figure", "Vol": "Volume", "vol": "volume",
    "cf": "compare", "dept": "department", "est": "established", "etc": "et cetera", "e.g": "for example",
    "i.e": "that is", "et al": "and others", "a.k.a": "also known as",
}  # fmt: skip
UNITS = {
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
    "px": ("pixel", "pixels"), "tbsp": ("tablespoon", "tablespoons"), "tsp": ("teaspoon", "teaspoons"),
    "ha": ("hectare", "hectares"), "hPa": ("hectopascal", "hectopascals"), "dpi": ("dot per inch", "dots per inch"),
    "fps": ("frame per second", "frames per second"), "kb": ("kilobyte", "kilobytes"),
    "cal": ("calorie", "calories"), "kcal": ("kilocalorie", "kilocalories"), "kPa": ("kilopascal", "kilopascals"),
    "%": ("percent", "percent"), "‰": ("per thousand", "per thousand"),
    "‱": ("per ten thousand", "per ten thousand"), "¢": ("cent", "cents"),
    "J": ("joule", "joules"), "kJ": ("kilojoule", "kilojoules"), "Pa": ("pascal", "pascals"),
    "MPa": ("megapascal", "megapascals"), "mol": ("mole", "moles"), "eV": ("electronvolt", "electronvolts"),
    "MeV": ("megaelectronvolt", "megaelectronvolts"),
    "°C": ("degree Celsius", "degrees Celsius"), "°F": ("degree Fahrenheit", "degrees Fahrenheit"),
    "°": ("degree", "degrees"),
}  # fmt: skip
POWERS = {"2": "square", "3": "cubic"}
POWERS_OF_TIME = {"2": "squared", "3": "cubed"}
CURRENCIES: dict[str, tuple[str, ...]] = {
    "$": ("dollar", "dollars", "cent", "cents"), "USD": ("US dollar", "US dollars", "cent", "cents"),
    "EUR": ("euro", "euros", "cent", "cents"), "GBP": ("pound", "pounds", "penny", "pence"), "CNY": ("yuan", "yuan"),
    "JPY": ("yen", "yen"), "HKD": ("Hong Kong dollar", "Hong Kong dollars", "cent", "cents"),
    "AUD": ("Australian dollar", "Australian dollars", "cent", "cents"),
    "CAD": ("Canadian dollar", "Canadian dollars", "cent", "cents"),
    "NZD": ("New Zealand dollar", "New Zealand dollars", "cent", "cents"),
    "TWD": ("New Taiwan dollar", "New Taiwan dollars"),
    "SGD": ("Singapore dollar", "Singapore dollars", "cent", "cents"),
    "BRL": ("real", "reais"), "CHF": ("Swiss franc", "Swiss francs"), "INR": ("rupee", "rupees"), "KRW": ("won", "won"),
    "RUB": ("ruble", "rubles"), "THB": ("baht", "baht"), "VND": ("dong", "dong"), "TRY": ("lira", "lira"),
    "UAH": ("hryvnia", "hryvnias"), "ILS": ("shekel", "shekels"), "PHP": ("peso", "pesos"), "NGN": ("naira", "naira"),
    "BTC": ("bitcoin", "bitcoin"),
}  # fmt: skip
MAGNITUDES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion", "T": "trillion",
              "bn": "billion", "mn": "million", "tn": "trillion", "m": "million", "b": "billion"}  # fmt: skip
SIGNS = {
    "&": " and ", "@": " at ", "=": " equals ", "+": " plus ", "×": " times ", "÷": " divided by ", "<": " less than ",
    ">": " greater than ", "≤": " less than or equal to ", "≥": " greater than or equal to ", "≈": " is about ",
    "≠": " does not equal ", "±": " plus or minus ", "→": " to ", "%": " percent ", "‰": " per thousand ",
    "°": " degrees ", "√": " the square root of ", "∞": " infinity ", "$": " dollars ", "£": " pounds ",
    "€": " euros ", "¥": " yuan ", "₹": " rupees ", "₩": " won ", "₽": " rubles ", "฿": " baht ", "₫": " dong ",
    "₺": " lira ", "₴": " hryvnias ", "₪": " shekels ", "₱": " pesos ", "₦": " naira ", "₿": " bitcoin ",
    "¢": " cents ", "|": ", ",
    "∓": " minus or plus ", "≡": " is identical to ", "≅": " is congruent to ", "∼": " is similar to ",
    "∝": " is proportional to ", "≪": " is much less than ", "≫": " is much greater than ", "∈": " in ",
    "∉": " not in ", "⊂": " is a subset of ", "⊆": " is a subset of ", "∪": " union ", "∩": " intersection ",
    "∅": " the empty set ", "∀": " for all ", "∃": " there exists ", "∧": " and ", "∨": " or ", "¬": " not ",
    "∴": " therefore ", "∵": " because ", "⇒": " implies ", "⇔": " if and only if ", "←": " from ",
    "↔": " to and from ", "↑": " up ", "↓": " down ", "∠": " angle ", "△": " triangle ", "⊥": " is perpendicular to ",
    "∥": " is parallel to ", "∂": " partial ", "∇": " nabla ", "∑": " the sum of ", "∏": " the product of ",
    "∫": " the integral of ", "⊕": " plus ", "∖": " without ",
}  # fmt: skip
COUNTED = re.compile(
    r" (?!(?:was|is|has|this|as|its|does|us)\b)"
    r"(?:[a-z]{1,20}s|people|men|women|children|percent|million|billion|feet|more|kilometer|mile|word)\b"
)
