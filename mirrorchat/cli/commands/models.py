"""`mirrorchat models` lists, installs, verifies and removes the small models and those of WeNet and XTTS."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mirrorchat.cli.commands.options import settings_of
from mirrorchat.cli.licence_question import accept_licences
from mirrorchat.errors import ConfigurationError, InstallError
from mirrorchat.models.manifest import GROUPS, LICENCES, RELEASES, Release
from mirrorchat.models.progress import size_text
from mirrorchat.models.store import (
    BY_HAND,
    DAMAGED,
    RECORD_FILE,
    faults,
    installed_name,
    locked,
    read_record,
    remove_model,
    size_on_disk,
)
from mirrorchat.settings import Settings

if TYPE_CHECKING:
    from mirrorchat.models.source_files import InstallRequest

NAME = click.Choice(list(RELEASES))
NAMES = click.Choice([*GROUPS, *RELEASES])
SOURCE_NAMES = ("huggingface", "modelscope", "github", "github-mirror", "package-index")


@click.group()
def models() -> None:
    """Install and manage the small models and those of WeNet and XTTS v2."""


def _releases(_context: click.Context, _argument: click.Parameter, names: Sequence[str]) -> list[Release]:
    """Return the releases that `names` mean, each once. The name of a group means all of it."""
    found = (member for name in names for member in GROUPS.get(name, (name,)))
    return [RELEASES[name] for name in dict.fromkeys(found)]


def _licence_codes(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> frozenset[str]:
    codes = frozenset(code.strip().lower() for value in values for code in value.split(","))
    if unknown := sorted(codes - LICENCES.keys()):
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(LICENCES)}")
    return codes


ACCEPT = click.option(
    "--accept-licence", "accepted", multiple=True, callback=_licence_codes, metavar="CODE[,CODE...]",
    help=f"Accept a licence without being asked: {', '.join(LICENCES)}.",
)  # fmt: skip


# first start


@models.command("first-start", hidden=True)
@click.option("--real", is_flag=True, help="Install the models of WeNet and XTTS, too.")
@ACCEPT
def first_start(real: bool, accepted: frozenset[str]) -> None:
    """Install the models that the server could use and does not have; scripts/serve calls it before the server.

    The small ones are installed if they can be had, the real ones if they are asked for.
    """
    from mirrorchat.models.first_start import provide_small_models

    try:
        settings = settings_of()
    except ConfigurationError:
        return  # the server is about to say it
    if real:
        _install_real(settings, accepted)
    if missing := provide_small_models(settings, _report):
        _report(f"mirrorchat: {missing}")


def _install_real(settings: Settings, accepted: frozenset[str]) -> None:
    """Install the models of WeNet and XTTS that are missing, and the packages that they need."""
    from mirrorchat.models.first_start import missing_real_models, uses_real_models
    from mirrorchat.models.source_files import InstallRequest
    from mirrorchat.models.sources import SOURCES

    sources = tuple(build() for build in SOURCES.values())
    requests = [InstallRequest(release, release.licence.code, sources) for release in missing_real_models(settings)]
    if requests:
        accept_licences([request.release for request in requests], accepted, settings.models_dir)
    if uses_real_models(settings):
        _provide_packages("full", skip=False)
    if requests:
        _install(requests, settings.models_dir)


# list


@dataclass(frozen=True)
class Row:
    """A line of `list`.

    `installed` is `yes`, `no`, `by hand` (without a record) or `damaged` (with a damaged record). `needed` is `yes`,
    `if installed` or `no`, according to the present configuration.
    """

    name: str
    title: str
    languages: tuple[str, ...]
    download_bytes: int
    licence: str
    terms: str
    installed: str
    installed_bytes: int
    needed: str


def rows(settings: Settings) -> list[Row]:
    """Return a row for each model that can be installed."""
    return [_row(release, settings) for release in RELEASES.values()]


def _row(release: Release, settings: Settings) -> Row:
    folder = settings.models_dir / release.folder
    present = installed_name(folder)
    unknown = present in (BY_HAND, DAMAGED)
    mine = present == release.name or (unknown and release.name == release.folder)
    return Row(
        name=release.name,
        title=release.title,
        languages=release.languages,
        download_bytes=release.download_bytes,
        licence=release.licence.code,
        terms=release.licence.terms,
        installed=(present if unknown else "yes") if mine else "no",
        installed_bytes=size_on_disk(folder) if mine else 0,
        needed=_needed(release, settings),
    )


def _needed(release: Release, settings: Settings) -> str:
    chosen = settings.synthesizer if release.engine.speaks else settings.recognizer
    choices = {chosen[language] for language in release.languages}
    if release.engine.setting in choices:
        return "yes"
    return "if installed" if "auto" in choices else "no"


@models.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_models(as_json: bool) -> None:
    """List the models that can be installed, and whether they are."""
    settings = settings_of()
    table = rows(settings)
    if as_json:
        click.echo(json.dumps([asdict(row) for row in table], indent=2))
        return
    click.echo(f"models in {settings.models_dir}\n")
    titles = ("name", "download", "languages", "installed", "needed", "licence")
    lines = [titles, *((
        row.name, size_text(row.download_bytes), ", ".join(row.languages), row.installed, row.needed,
        f"{row.licence}: {row.terms}",
    ) for row in table)]  # fmt: skip
    widths = [max(len(line[column]) for line in lines) for column in range(len(titles))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


# install


@models.command("install")
@click.argument("releases", type=NAMES, nargs=-1, required=True, callback=_releases)
@ACCEPT
@click.option(
    "--from", "offline_path", type=click.Path(exists=True, path_type=Path), metavar="FOLDER_OR_ARCHIVE",
    help="Install from local files; nothing is downloaded.",
)  # fmt: skip
@click.option("--source", type=click.Choice(SOURCE_NAMES), help="Download only from this source.")
@click.option("--replace", is_flag=True, help="Replace the model that is in the folder.")
@click.option("--allow-changed", is_flag=True, help="With --from: accept files that differ from the published ones.")
@click.option("--keep-original", is_flag=True, help="Keep the released weights beside the converted ones.")
@click.option("--no-packages", is_flag=True, help="Do not install the Python packages that the models need.")
def install_models(
    releases: Sequence[Release],
    accepted: frozenset[str],
    offline_path: Path | None,
    source: str | None,
    replace: bool,
    allow_changed: bool,
    keep_original: bool,
    no_packages: bool,
) -> None:
    """Download models, check them, and convert them to files that load without a pickle.

    `small` means whisper-base and kokoro, which hear and speak on a CPU. The server finds them at its next start. To
    resume a broken download, run the command again.
    """
    from mirrorchat.models.source_files import InstallRequest
    from mirrorchat.models.sources import SOURCES

    models_dir = settings_of().models_dir
    sources = tuple(build() for name, build in SOURCES.items() if source in (None, name))
    requests = [
        InstallRequest(
            release=release,
            licence_accepted=release.licence.code,
            sources=sources,
            offline_path=offline_path,
            replace=replace,
            allow_changed=allow_changed,
            keep_original=keep_original,
        )
        for release in releases
    ]
    _check_folders_differ(requests)
    pending = _pending(requests, models_dir)
    if pending:
        accept_licences([request.release for request in pending], accepted, models_dir, offline_path)
        for extra in dict.fromkeys(request.release.extra for request in pending):
            _provide_packages(extra, no_packages)
        _install(pending, models_dir)


def _pending(requests: "Sequence[InstallRequest]", models_dir: Path) -> "list[InstallRequest]":
    """Return the requests that need an installation, and report the others."""
    from mirrorchat.models.install import needs_installation

    pending = [request for request in requests if needs_installation(request, models_dir)]
    for request in (each for each in requests if each not in pending):
        _report(f"{request.release.name} is installed; --replace installs it again")
    return pending


def _install(requests: "Sequence[InstallRequest]", models_dir: Path) -> None:
    from mirrorchat.models.install import install, needs_installation

    with locked(models_dir):
        if len(requests) > 1 and not requests[0].offline_path:
            total = size_text(sum(request.release.download_bytes for request in requests))
            _report(f"{', '.join(request.release.name for request in requests)}: {total} in all")
        for request in requests:
            if needs_installation(request, models_dir):  # another command may have installed it since
                record = install(request, models_dir, _report)
                _report(f"{record.name}: installed in {models_dir / request.release.folder}")


def _report(text: str) -> None:
    click.echo(text, err=True)


def _check_folders_differ(requests: Sequence[Any]) -> None:
    folders: dict[str, str] = {}
    for request in requests:
        other = folders.setdefault(request.release.folder, request.release.name)
        if other != request.release.name:
            raise click.UsageError(f"{other} and {request.release.name} share one folder: choose one")


def _provide_packages(extra: str, skip: bool) -> None:
    from mirrorchat.models.packages import install_packages, missing_packages, requirements_of

    requirements = requirements_of(extra)
    missing = missing_packages(requirements)
    if missing and not skip:
        size = ", several gigabytes with CUDA" if extra == "full" else ""
        _report(f"installing the packages of the models{size}: {', '.join(missing)}")
        install_packages(requirements, extra=extra)
    elif missing:
        _report(f"not installed, and needed to run the models: {', '.join(missing)}")


# verify, remove, path


@models.command("verify")
@click.argument("releases", type=NAMES, nargs=-1, callback=_releases)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def verify_models(releases: Sequence[Release], as_json: bool) -> None:
    """Compare the installed models with their recorded checksums."""
    models_dir = settings_of().models_dir
    names = [release.name for release in releases] or _recorded(models_dir)
    results = {name: _verify(RELEASES[name], models_dir) for name in names}
    if as_json:
        click.echo(json.dumps({name: {"ok": not found, "faults": found} for name, found in results.items()}, indent=2))
    else:
        for name, found in results.items():
            click.echo(f"{name}: {'; '.join(found) or 'unchanged since its installation'}")
        if not results:
            click.echo(f"this command has installed no model in {models_dir}")
    if bad := [name for name, found in results.items() if found]:
        raise InstallError(f"{', '.join(bad)}: install again with --replace")


def _recorded(models_dir: Path) -> list[str]:
    """Return the names of the installed models. A folder with a damaged record counts with its own name."""
    folders = dict.fromkeys(release.folder for release in RELEASES.values())
    present = {folder: installed_name(models_dir / folder) for folder in folders}
    return [folder if name == DAMAGED else name for folder, name in present.items() if name in {*RELEASES, DAMAGED}]


def _verify(release: Release, models_dir: Path) -> list[str]:
    folder = models_dir / release.folder
    try:
        record = read_record(folder)
    except InstallError as error:
        return [str(error)]
    if not record or record.name != release.name:
        return [f"not installed: {folder} has no {RECORD_FILE} for it"]
    return faults(folder, record)


@models.command("remove")
@click.argument("releases", type=NAMES, nargs=-1, required=True, callback=_releases)
@click.option("--force", is_flag=True, help="Also remove files that were put there by hand.")
def remove_models(releases: Sequence[Release], force: bool) -> None:
    """Remove installed models, and the files of unfinished installations."""
    models_dir = settings_of().models_dir
    with locked(models_dir):
        for release in releases:
            remove_model(release, models_dir, unrecorded=force)
            click.echo(f"{release.name}: removed")


@models.command("path")
@click.argument("name", type=NAME, required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def model_path(name: str | None, as_json: bool) -> None:
    """Print the folder of the models, or of one of them."""
    models_dir = settings_of().models_dir
    if as_json:
        folders = {each: str(models_dir / RELEASES[each].folder) for each in ([name] if name else RELEASES)}
        click.echo(json.dumps({"models_dir": str(models_dir), "folders": folders}, indent=2))
    else:
        click.echo(models_dir / RELEASES[name].folder if name else models_dir)
