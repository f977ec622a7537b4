"""Runs: pieces of text that mean one thing, recognized and parsed whole before any rule looks at a single sign.

A kind of run is added in three steps. A module of this package defines a frozen dataclass and a `RunKind` that parses
it, without a word of either language. `chinese_runs.py` and `english_runs.py`, or a module beside them, speak it. Their
`RUN_RULES` list it at its place: an earlier kind takes its text before a later one.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from mirrorchat.text.normalization.patterns import Rule

RunT = TypeVar("RunT")


@dataclass(frozen=True)
class RunKind(Generic[RunT]):
    """A pattern that finds a run, and the parser that returns it, or None if the text means something else."""

    pattern: re.Pattern[str]
    parse: Callable[[re.Match[str]], RunT | None]

    def spoken(self, speak: Callable[[RunT], str]) -> Rule:
        """Return the rule that replaces each run of this kind with what `speak` returns for it."""

        def replacement(match: re.Match[str]) -> str:
            run = self.parse(match)
            return match[0] if run is None else speak(run)

        return self.pattern, replacement
