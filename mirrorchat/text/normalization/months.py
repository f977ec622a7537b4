"""The English names of months, which Chinese texts use as well."""

MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")  # fmt: skip
MONTH_NAME = r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
MONTH_NAME += r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
MONTH = rf"(?P<month>{MONTH_NAME})(?![A-Za-z])\.?"
YEAR = r"(?P<year>[12]\d{3})"


def full_month(written: str) -> str:
    """Return the full name of a month that `MONTH` matches."""
    return next(month for month in MONTHS if month.startswith(written[:3]))
