"""How a setting is defined: its default, the kind of its values with their unit, and its help text.

`settings.py` defines every setting with `setting`. The kinds of values stand in this package, below `settings.py`,
because the keys, origins and proxies of this package are such kinds.
"""

import difflib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import urlsplit

from mirrorchat.errors import ConfigurationError

T = TypeVar("T")

_JSON_LIMIT_CHARS = 100_000
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,200}")  # RFC 9110, section 5.6.2


@dataclass(frozen=True)
class Kind(Generic[T]):
    """A kind of value.

    `takes` describes the values: it completes the sentence "NAME must be ...". `read(name, value)` returns a value of
    the configuration file as Settings keeps it, and raises ConfigurationError when the value is not of this kind.
    """

    takes: str
    read: Callable[[str, Any], T]
    unit: str = ""


@dataclass(frozen=True)
class Definition:
    """What is known of one setting. `default` is written as in config.py.

    A function as `default` computes it from the machine; `computed` then describes the result.
    """

    kind: Kind[Any]
    help: str
    default: object = None
    computed: str = ""
    required: bool = False

    def default_value(self) -> Any:
        """Return the default as Settings keeps it."""
        return self.kind.read("the default", self.default() if callable(self.default) else self.default)


def setting(default: object, kind: Kind[T], help: str, *, computed: str = "", secret: bool = False) -> T:
    """Return the dataclass field of a setting. Its arguments are those of Definition; `repr` leaves out a `secret` one.

    Example: `port: int = setting(9990, whole_number(1, 65535), "The server listens on this port.")`
    """
    definition = Definition(kind, help, default, computed)
    make: Callable[[], T] = definition.default_value
    return field(default_factory=make, repr=not secret, metadata={"definition": definition})


def required(kind: Kind[Any], help: str) -> dict[str, Definition]:
    """Return the metadata of a field that has no default."""
    return {"definition": Definition(kind, help, required=True)}


def definitions(cls: type[Any]) -> dict[str, Definition]:
    """Return the definitions of the fields of a dataclass that `setting` and `required` made, by name."""
    return {entry.name: entry.metadata["definition"] for entry in fields(cls) if "definition" in entry.metadata}


def kind_of(takes: str, accepts: Callable[[Any], bool], convert: Callable[[Any], T], unit: str = "") -> Kind[T]:
    """Return the kind of the values for which `accepts` is true; Settings keeps what `convert` makes of them."""

    def read(name: str, value: object) -> T:
        if not accepts(value):
            raise ConfigurationError(f"{name} must be {takes}")
        return convert(value)

    return Kind(takes, read, unit)


def number(low: float, high: float, unit: str = "") -> Kind[float]:
    takes = f"a number from {low:g} to {high:g}"
    return kind_of(takes, lambda value: _is_within(int | float, value, low, high), float, unit)


def whole_number(low: int, high: int, unit: str = "") -> Kind[int]:
    takes = f"a whole number from {low} to {high}"
    return kind_of(takes, lambda value: _is_within(int, value, low, high), int, unit)


def _is_within(types: Any, value: Any, low: float, high: float) -> bool:
    return isinstance(value, types) and not isinstance(value, bool) and low <= value <= high


def choice(names: tuple[str, ...]) -> Kind[str]:
    return kind_of(f"one of {', '.join(names)}", lambda value: value in names, str)


def optional(kind: Kind[T]) -> Kind[T | None]:
    """Return the kind of the values of `kind` and of None."""

    def read(name: str, value: object) -> T | None:
        return None if value is None else kind.read(name, value)

    return Kind(f"{kind.takes}, or None", read, kind.unit)


def list_of(entry: Kind[T]) -> Kind[tuple[T, ...]]:
    """Return the kind of a list with entries of the kind `entry`. An error names the bad entry by its index."""
    takes = f"a list; each entry is {entry.takes}"
    whole: Kind[tuple[Any, ...]] = kind_of(takes, lambda value: isinstance(value, list | tuple | set), tuple)

    def read(name: str, value: object) -> tuple[T, ...]:
        return tuple(entry.read(f"{name}[{at}]", each) for at, each in enumerate(whole.read(name, value)))

    return Kind(takes, read)


def suggestion(name: str, choices: Mapping[str, object]) -> str:
    """Return the end of the message for an unknown `name`: the most similar of the `choices`, or all of them."""
    close = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; the settings are {', '.join(sorted(choices))}"


def is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_url(value: object) -> bool:
    text = value.strip() if isinstance(value, str) else ""
    if " " in text or not text.isprintable():  # urlsplit would drop line ends
        return False
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of the port, too
        return False


FLAG: Kind[bool] = kind_of("True or False", lambda value: isinstance(value, bool), bool)


def _is_json_object(value: object) -> bool:
    try:
        text = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(isinstance(name, str) for name in value) and len(text) <= _JSON_LIMIT_CHARS


def _is_header(name: object, text: object) -> bool:
    if not isinstance(name, str) or not isinstance(text, str):
        return False
    return bool(_HEADER_NAME.fullmatch(name)) and text.isascii() and (text.strip().isprintable() or not text.strip())


TEXT: Kind[str] = kind_of("a text that is not empty", is_text, str.strip)
FOLDER: Kind[Path] = kind_of(
    "the path of a folder",
    lambda value: isinstance(value, str | Path) and bool(str(value)),
    lambda value: Path(value).expanduser(),
)
URL: Kind[str] = kind_of(
    "a text that begins with http:// or https://, then a host and perhaps a port", _is_url, str.strip
)
JSON_OBJECT: Kind[Mapping[str, Any]] = kind_of(
    "a dict of names and JSON values",
    _is_json_object,
    lambda value: json.loads(json.dumps(value)),  # a copy, so that nothing changes it later
)
HEADERS: Kind[Mapping[str, str]] = kind_of(
    "a dict of header names and texts of printable ASCII characters",
    lambda value: isinstance(value, Mapping) and all(_is_header(name, text) for name, text in value.items()),
    lambda value: {name: text.strip() for name, text in value.items()},
)
