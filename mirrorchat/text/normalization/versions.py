"""Runs of versions: v1.0.0, Version 2.1, 1.2.3-beta.4, iOS 17.5.1; and IPv4 addresses, which look like one."""

import re
from dataclasses import dataclass

from mirrorchat.text.normalization.runs import RunKind

_STAGE = r"(?:-(?P<stage>alpha|beta|rc|RC|pre|dev|preview|nightly|SNAPSHOT|build)[.-]?(?P<count>\d{1,6})?)?"
_NUMBERED = (
    r"(?:(?<=Python )|(?<=Ubuntu )|(?<=Django )|(?<=Node )|(?<=Node\.js )|(?<=Go )|(?<=iOS )|(?<=macOS )|(?<=Java )"
    r"|(?<=PHP )|(?<=Debian )|(?<=Fedora )|(?<=PyTorch )|(?<=CUDA )|(?<=Kubernetes )|(?<=Linux )|(?<=Rust ))"
)


@dataclass(frozen=True)
class Version:
    """The numbers of a version, the last may be `x`. `word` and `letter` are what stands before: `Version`, `v`."""

    word: str
    letter: str
    numbers: tuple[str, ...]
    stage: str
    count: str


@dataclass(frozen=True)
class IpAddress:
    """An IPv4 address, its port and the length of its prefix: 10.0.0.1:8080, 192.168.0.0/24."""

    numbers: tuple[str, ...]
    port: str
    prefix_bits: str


def _version(match: re.Match[str]) -> Version | None:
    word, letter, stage = match["word"] or "", match["letter"] or "", match["stage"] or ""
    numbers = tuple(match["numbers"].split("."))
    has_cue = len(numbers) == 2 and match["cue"] is not None
    is_cued = bool(letter or stage or len(numbers) > 2 or has_cue or numbers[-1] == "x")
    is_number = word and not (len(numbers) == 1 and len(numbers[0]) == 4)
    is_loose = len(numbers) == 1 and letter not in ("", "v")  # V8, v. 16
    if not (is_cued or is_number) or is_loose or (not letter and _is_date(numbers)):
        return None
    return Version(word.strip(" "), letter, numbers, stage, match["count"] or "")


def _is_date(numbers: tuple[str, ...]) -> bool:
    """Return whether the numbers are a date: 2024.5.1, 31.12.2025."""
    return len(numbers) == 3 and any(re.fullmatch(r"[12]\d{3}", number) for number in (numbers[0], numbers[2]))


_BYTE = r"(?:25[0-5]|2[0-4]\d|1?\d{1,2})"
IP_ADDRESS = RunKind(
    re.compile(
        rf"(?<![A-Za-z0-9.])(?P<numbers>{_BYTE}(?:\.{_BYTE}){{3}})(?::(?P<port>\d{{1,5}})|/(?P<bits>\d{{1,2}}))?"
        r"(?![A-Za-z0-9]|[.]\d)"
    ),
    lambda match: IpAddress(tuple(match["numbers"].split(".")), match["port"] or "", match["bits"] or ""),
)
VERSION = RunKind(
    re.compile(
        r"(?:(?<![A-Za-z0-9.,_@/-])|(?<=\d/))(?P<word>[Vv]ersion |[Vv]er\.? ?(?=\d))?(?P<letter>[vV]\.? ?(?=\d))?"
        rf"(?P<cue>{_NUMBERED})?(?P<numbers>\d{{1,5}}(?:\.\d{{1,5}}){{0,9}}(?:\.x)?){_STAGE}(?![A-Za-z0-9]|[.,-]\d|-[A-Za-z])"
    ),
    _version,
)
