"""Asks whether the licences of models are accepted: once, for all that are about to be installed."""

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from mirrorchat.errors import InstallError
from mirrorchat.models.manifest import Licence, Release
from mirrorchat.models.store import licence_is_accepted, remember_acceptance


def accept_licences(
    releases: Sequence[Release], accepted: frozenset[str], models_dir: Path, offline_path: Path | None = None
) -> None:
    """Name the licences of `releases`, and ask for those that are not `accepted` yet.

    The answer is remembered until the models are installed: a broken download is resumed without the question. Raises
    InstallError when a licence is not accepted, or nobody can be asked.
    """
    open_licences: dict[Licence, Release] = {}
    for licence in dict.fromkeys(release.licence for release in releases):
        holders = [release for release in releases if release.licence == licence]
        _name(licence, holders)
        is_accepted = licence.code in accepted or all(licence_is_accepted(each, models_dir) for each in holders)
        if licence.must_accept and not is_accepted:
            open_licences[licence] = holders[0]
    if open_licences:
        _ask(open_licences, offline_path)
    for release in releases if not offline_path else ():
        if release.licence.must_accept:
            remember_acceptance(release, models_dir)


def _name(licence: Licence, holders: Sequence[Release]) -> None:
    from mirrorchat.models.licences import licence_url

    names = ", ".join(release.name for release in holders)
    click.echo(f"{names}: {licence.name} ({licence.terms}), {licence_url(holders[0])}", err=True)


def _ask(licences: dict[Licence, Release], offline_path: Path | None) -> None:
    one = len(licences) == 1
    subject = f"the {'licence' if one else 'licences'} of {', '.join(release.name for release in licences.values())}"
    if not sys.stdin.isatty():
        codes = ",".join(licence.code for licence in licences)
        raise InstallError(
            f"{subject} must be accepted: read {'it' if one else 'them'}, and add --accept-licence {codes}"
        )
    for release in licences.values():
        _show_text(release, offline_path)
    if not click.confirm(f"Do you accept {'it' if one else 'all of them'}?", err=True):
        raise InstallError(f"{subject} {'was' if one else 'were'} not accepted: nothing was downloaded")


def _show_text(release: Release, offline_path: Path | None) -> None:
    """Show the text of a licence that is a file of the model's repository."""
    from mirrorchat.models.licences import licence_text

    try:
        if text := licence_text(release, offline_path):
            click.echo(f"\n{text}\n", err=True)
    except InstallError as error:
        click.echo(f"{release.licence.name}: its text could not be fetched: {error}", err=True)
