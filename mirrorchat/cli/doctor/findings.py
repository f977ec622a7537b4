"""The findings of `mirrorchat doctor`, with a state and a remedy each, and the sections that yield them."""

import enum
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirrorchat.errors import MirrorChatError

Value = str | int | float | bool | None


class State(enum.StrEnum):
    """A `warning` means reduced function or quality. A `problem` means that something requested does not work."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """The result for one subject. `remedy` is the advice unless the state is OK; `values` are for programs."""

    subject: str
    state: State
    found: str
    remedy: str = ""
    values: Mapping[str, Value] = field(default_factory=dict)


def ok(subject: str, found: str, **values: Value) -> Finding:
    return Finding(subject, State.OK, found, "", values)


def warning(subject: str, found: str, remedy: str, **values: Value) -> Finding:
    return Finding(subject, State.WARNING, found, remedy, values)


def problem(subject: str, found: str, remedy: str, **values: Value) -> Finding:
    return Finding(subject, State.PROBLEM, found, remedy, values)


def counted(count: int, name: str) -> str:
    """Return a count with its noun: `1 problem`, `2 problems`."""
    return f"{count} {name}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Section:
    """A part of the report. `look` returns its findings and may take `limit_s` seconds."""

    title: str
    look: Callable[[], list[Finding]]
    limit_s: float


@dataclass(frozen=True)
class Examined:
    """The findings of a section. `stuck` means that it exceeded its limit and still runs in a thread."""

    findings: list[Finding]
    stuck: bool = False


def examine(section: Section) -> Examined:
    """Return the findings of `section`. Its errors are findings too."""
    found: list[list[Finding]] = []
    thread = threading.Thread(target=lambda: found.append(_guarded(section)), name=section.title, daemon=True)
    thread.start()
    thread.join(section.limit_s)
    if found:
        return Examined(found[0])
    text, remedy = (
        f"no result after {section.limit_s:g} s",
        "check the load of this computer, and run the command again",
    )
    return Examined([problem(section.title, text, remedy)], stuck=True)


def _guarded(section: Section) -> list[Finding]:
    try:
        return section.look()
    except BaseException as error:  # SystemExit too: the other sections must run in any case
        return [unexpected(section.title, error)]


def unexpected(subject: str, error: BaseException) -> Finding:
    """Return an unexpected error as a finding: its type and place, without its text, which could contain a key."""
    if isinstance(error, MirrorChatError):
        return problem(subject, error.message, "follow the message")
    if isinstance(error, ImportError):
        return problem(subject, f"{error.name} cannot be imported", "first solve the problems of the packages")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return problem(subject, f"{type(error).__name__}{place}", "report this defect, unless the disk is full")
