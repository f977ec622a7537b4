"""`mirrorchat doctor` finds problems of an installation and names their remedies."""

import json
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TextIO

import click

from mirrorchat import __version__
from mirrorchat.cli.client.terminal import Waiting, printable
from mirrorchat.cli.doctor.findings import Finding, Section, State, counted, examine, ok, warning
from mirrorchat.settings import Settings

_QUICK_S = 30.0
_CHECKSUMS_S = 900.0  # for 3 GB of models on a slow disk
_TORCH_S = 120.0
_CHAT_S = 90.0  # an API that loads its model at the first request takes a minute
_CHATS_AT_ONCE = 32
_LOAD_S = 300.0  # for 1.9 GB of XTTS on a slow disk
_SPARE_S = 15.0  # to end a process after its own limit
_WIDTH = 120
_COMMAND = re.compile(r"`[^`]{1,500}`")
_NO_BREAK = "\N{NO-BREAK SPACE}"
_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}


@dataclass(frozen=True)
class Options:
    """The scope of the examination."""

    thorough: bool
    round_trip: bool
    network: bool


class Examination:
    """The sections in their order. The findings of earlier sections affect later ones."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._settings: Settings | None = None
        self._chat_works = True

    def sections(self) -> Iterator[Section]:
        """Yield each section. The previous one must have been examined."""
        yield Section("configuration", self._configuration, _QUICK_S)
        yield Section("packages", self._packages, _QUICK_S)
        yield Section("device", self._device, _TORCH_S + _SPARE_S)
        yield Section("weights", self._weights, _CHECKSUMS_S if self._options.thorough else _QUICK_S)
        yield Section("chat", self._chat, self._chat_limit_s())
        yield Section("deploy", self._deploy, _QUICK_S)
        yield Section("round trip", self._round_trip, self._round_trip_limit_s() + _SPARE_S)

    def _configuration(self) -> list[Finding]:
        from mirrorchat.cli.doctor.config import read_settings

        self._settings, found = read_settings()
        return found

    def _packages(self) -> list[Finding]:
        from mirrorchat.cli.doctor.packages import package_findings

        return package_findings(self._needs_full())

    def _needs_full(self) -> bool:
        try:
            from mirrorchat.cli.doctor.weights import needs_full

            return needs_full(self._settings or Settings())
        except (ImportError, OSError):  # a base package is missing (the next finding), or a folder is not readable
            return False

    def _device(self) -> list[Finding]:
        from mirrorchat.cli.doctor.finding_process import findings_from

        return findings_from("mirrorchat.cli.doctor.device", subject="device", limit_s=_TORCH_S)

    def _weights(self) -> list[Finding]:
        from mirrorchat.cli.doctor.weights import weight_findings

        if self._settings is None:
            return [_not_without_settings("models")]
        return weight_findings(self._settings, thorough=self._options.thorough)

    def _chat_limit_s(self) -> float:
        rounds = 1 + len(self._settings.chatgpt_apis if self._settings else ()) // _CHATS_AT_ONCE
        return 2 * _CHAT_S * rounds + _SPARE_S  # twice: an API that rejects max_tokens is asked again

    def _chat(self) -> list[Finding]:
        from mirrorchat.cli.doctor.chat import chat_findings, source_finding

        if self._settings is None:
            return [_not_without_settings("APIs")]
        source = source_finding(self._settings, network=self._options.network)
        if not self._settings.chatgpt_apis:
            return [source]
        if not self._options.network:
            return [source, ok("APIs", "not tried: --no-network")]
        found = chat_findings(self._settings.chatgpt_apis, limit_s=_CHAT_S, at_once=_CHATS_AT_ONCE)
        self._chat_works = any(finding.state is State.OK for finding in found)
        return [source, *found]

    def _deploy(self) -> list[Finding]:
        from mirrorchat.cli.doctor.deploy import deploy_findings

        return deploy_findings(self._settings or Settings())

    def _round_trip_limit_s(self) -> float:
        turn_s = self._settings.turn_deadline_s if self._settings else 0.0
        return _LOAD_S + 6 * (turn_s + 10.0)  # loading; in each of two languages the question and at most two turns

    def _round_trip(self) -> list[Finding]:
        if not self._options.round_trip:
            return [ok("turn", "not tried: --no-round-trip")]
        if self._settings is None:
            return [_not_without_settings("turn")]
        from mirrorchat.cli.doctor.finding_process import findings_from

        parrot = () if self._options.network and self._chat_works else ("--parrot",)
        limit_s = self._round_trip_limit_s()
        return findings_from("mirrorchat.cli.doctor.round_trip", *parrot, subject="turn", limit_s=limit_s)


def _not_without_settings(subject: str) -> Finding:
    return warning(subject, "not examined: the configuration cannot be read", "correct the configuration first")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, and nothing else.")
@click.option("--thorough", is_flag=True, help="Compare the checksums of the models.")
@click.option("--no-round-trip", is_flag=True, help="Do not load the engines to try a spoken question.")
@click.option("--no-network", is_flag=True, help="Try no chat API; the round trip uses the parrot.")
def doctor(as_json: bool, thorough: bool, no_round_trip: bool, no_network: bool) -> None:
    """Find problems of this installation, and their remedies.

    Each configured chat API gets up to four short questions. The exit status is 0 without problems (warnings do not
    count), 1 with problems, and 2 for wrong usage.
    """
    logging.getLogger("mirrorchat").addHandler(logging.NullHandler())  # the findings repeat what the client logs
    out = sys.stdout  # a configuration file that hangs leaves a redirected sys.stdout
    options = Options(thorough=thorough, round_trip=not no_round_trip, network=not no_network)
    found: list[tuple[str, Finding]] = []
    stuck = False
    for section in Examination(options).sections():
        with Waiting(f"examining: {section.title}"):
            examined = examine(section)
        stuck = stuck or examined.stuck
        found += [(section.title, finding) for finding in examined.findings]
        if not as_json:
            print_section(section.title, examined.findings, out)
    if as_json:
        click.echo(json.dumps(report(found), indent=2, ensure_ascii=False), file=out)
    else:
        click.echo(summary(found), file=out)
    status = 1 if _count(found, State.PROBLEM) else 0
    if stuck:
        out.flush()
        os._exit(status)  # a normal exit would wait for the thread that hangs
    sys.exit(status)


def print_section(title: str, findings: Sequence[Finding], out: TextIO) -> None:
    """Print a section: each finding, with its remedy below."""
    click.echo(title, file=out)
    width = max((len(finding.subject) for finding in findings), default=0)
    for finding in findings:
        state = click.style(finding.state.value.ljust(8), fg=_COLOURS[finding.state])
        first, *others = _wrapped(finding.found, 13 + width)
        click.echo(f"  {state} {finding.subject.ljust(width)}  {first}", file=out)
        remedy = _wrapped(f"-> {finding.remedy}", 13 + width) if finding.remedy else []
        for line in (*others, *remedy):
            click.echo(f"{' ' * (13 + width)}{line}", file=out)
    click.echo(file=out)


def _wrapped(text: str, indent: int) -> list[str]:
    """Return `text` in lines of the terminal's width. No command and no word is broken, so that they can be copied."""
    columns = max(40, min(_WIDTH, shutil.get_terminal_size((_WIDTH, 0)).columns) - indent)
    whole = _COMMAND.sub(lambda command: command[0].replace(" ", _NO_BREAK), printable(text))
    lines = textwrap.wrap(whole, columns, break_long_words=False, break_on_hyphens=False)
    return [line.replace(_NO_BREAK, " ") for line in lines] or [""]


def summary(found: Sequence[tuple[str, Finding]]) -> str:
    """Return the numbers of problems and warnings in one line: `2 problems, 1 warning`."""
    counts = {state: _count(found, state) for state in (State.PROBLEM, State.WARNING)}
    return ", ".join(counted(count, state.value) for state, count in counts.items() if count) or "no problems"


def report(found: Sequence[tuple[str, Finding]]) -> dict[str, object]:
    """Return the object for `--json`."""
    problems, warnings = _count(found, State.PROBLEM), _count(found, State.WARNING)
    findings = [{"section": section, **asdict(finding)} for section, finding in found]
    return {
        "version": __version__, "ok": not problems, "problems": problems, "warnings": warnings, "findings": findings
    }  # fmt: skip


def _count(found: Sequence[tuple[str, Finding]], state: State) -> int:
    return sum(finding.state is state for _, finding in found)
