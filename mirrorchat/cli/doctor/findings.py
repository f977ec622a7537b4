"""What `mirrorchat doctor` finds: each finding with its state and what to do, and how they are gathered."""

import enum
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mirrorchat.errors import MirrorChatError

Value = str | int | float | bool | None


class State(enum.StrEnum):
    """`warning`: it works, with less than it could. `problem`: it does not, or not as it was asked for."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` is what to do, where the state is not OK; `values` are for programs."""

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
    """Return `1 problem`, `2 problems`."""
    return f"{count} {name}{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Section:
    """What is looked at together: `look` gives the findings, within `limit_s` seconds."""

    title: str
    look: Callable[[], list[Finding]]
    limit_s: float


@dataclass(frozen=True)
class Looked:
    """A section's findings. `stuck`: it was not through at its limit, and still runs in a thread."""

    findings: list[Finding]
    stuck: bool = False


def look_into(section: Section, waiting: Callable[[], None] = lambda: None) -> Looked:
    """Return what `section` finds; whatever goes wrong in it is a finding. `waiting` is called a few times a second."""
    found: list[list[Finding]] = []
    thread = threading.Thread(target=lambda: found.append(_guarded(section)), name=section.title, daemon=True)
    limit_at = time.monotonic() + section.limit_s
    thread.start()
    while thread.is_alive() and time.monotonic() < limit_at:
        thread.join(0.2)
        waiting()
    if found:
        return Looked(found[0])
    text = f"not through after {section.limit_s:g} s"
    return Looked([problem(section.title, text, "look at what the machine is busy with, and run it again")], stuck=True)


def _guarded(section: Section) -> list[Finding]:
    try:
        return section.look()
    except BaseException as error:  # SystemExit too: nothing that one section does shall keep the others from going on
        return [unexpected(section.title, error)]


def unexpected(subject: str, error: BaseException) -> Finding:
    """Return an error that nobody foresaw as a finding: its kind and place; a foreign text can hold a key."""
    if isinstance(error, MirrorChatError):
        return problem(subject, error.message, "do what the message says")
    if isinstance(error, ImportError):
        return problem(subject, f"{error.name} does not import", "correct what the section on packages names first")
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return problem(subject, f"{type(error).__name__}{place}", "report it: this is a defect, unless the disk is full")
