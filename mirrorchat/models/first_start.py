"""The models that the server could use at its first start and does not have; installs the small ones among them.

Without a network that ends within seconds: every host is asked first whether it answers, all at the same time.
"""

import threading
import time
from collections.abc import Callable, Sequence

import requests

from mirrorchat.errors import InstallError
from mirrorchat.models.download import is_offline
from mirrorchat.models.install import install, needs_installation
from mirrorchat.models.manifest import GROUPS, RELEASES, Release
from mirrorchat.models.package_index import PackageIndex
from mirrorchat.models.progress import size_text
from mirrorchat.models.source_files import InstallRequest
from mirrorchat.models.sources import SOURCES, Source
from mirrorchat.models.store import installed_name, locked
from mirrorchat.settings import Settings

COMMAND = ".venv/bin/mirrorchat models install small"
REAL = ("xtts-v2", "wenet-zh", "wenet-en")
ANSWER_LIMIT_S = 4.0  # for the first answer of a host
# Where no host answers there may be no network at all. The silence includes the time that pip takes to start.
HASTY_INDEX = PackageIndex(retries=0, timeout_s=4, silence_s=15.0)


def missing_real_models(settings: Settings) -> list[Release]:
    """Return the models of WeNet and XTTS that the settings may choose and whose folders are empty."""
    return [release for name in REAL if _is_missing(release := RELEASES[name], settings)]


def uses_real_models(settings: Settings) -> bool:
    """Tell whether the settings may choose a model of WeNet or XTTS, and so need the packages of `full`."""
    return any(_may_choose(RELEASES[name], settings) for name in REAL)


def provide_small_models(settings: Settings, report: Callable[[str], None]) -> str:
    """Install the small models that are missing and needed. Returns a line about what is still missing, "" if nothing.

    `report` is called with each step once a host has answered.
    """
    missing = [release for name in GROUPS["small"] if _is_missing(release := RELEASES[name], settings)]
    if not missing or is_offline():  # offline on purpose: nothing has to be said
        return ""
    sources = answering([build() for build in SOURCES.values()])
    if has_host := any(source.address for source in sources):
        total = size_text(sum(release.download_bytes for release in missing))
        report(
            f"mirrorchat: downloading the small models that hear and speak, {total}; --no-models starts without them"
        )
    failures: list[str] = []
    try:
        with locked(settings.models_dir):
            for release in missing:
                failures += _install(release, settings, sources, report if has_host else _ignore)
                if failures and not has_host:
                    break  # what keeps one from coming keeps the other, too
    except InstallError as error:
        failures.append(str(error))
    if not failures:
        return ""
    return _missing_line(missing, settings, "; ".join(failures) if has_host else "no source answers")


def _install(
    release: Release, settings: Settings, sources: Sequence[Source], report: Callable[[str], None]
) -> list[str]:
    """Install `release`, and return what went wrong."""
    request = InstallRequest(release, release.licence.code, sources)
    try:
        if needs_installation(request, settings.models_dir):  # another command may have installed it since
            install(request, settings.models_dir, report)
            report(f"{release.name}: installed in {settings.models_dir / release.folder}")
    except InstallError as error:
        return [str(error)]
    return []


def answering(sources: Sequence[Source]) -> list[Source]:
    """Return the sources whose host answers within ANSWER_LIMIT_S, and those without an address to ask."""
    answered: set[str] = set()
    threads = [
        threading.Thread(target=_ask, args=(address, answered), daemon=True)
        for address in {source.address for source in sources if source.address}
    ]
    for thread in threads:
        thread.start()
    deadline_s = time.monotonic() + ANSWER_LIMIT_S  # a name may take longer to look up than any limit of requests
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    reached = answered.copy()
    kept = [source for source in sources if source.address in reached]
    return [*kept, PackageIndex() if kept else HASTY_INDEX]


def _ask(address: str, answered: set[str]) -> None:
    """Add `address` to `answered` when its host answers, whatever it says."""
    try:
        requests.head(address, timeout=ANSWER_LIMIT_S).close()
    except (requests.RequestException, OSError, ValueError):
        return
    answered.add(address)


def _is_missing(release: Release, settings: Settings) -> bool:
    """Tell whether `release` is not installed and the settings may choose it.

    Where XTTS is installed, nothing smaller speaks. Whisper also tells languages apart for WeNet.
    """
    has_better = release.engine.speaks and bool(installed_name(settings.models_dir / "xtts-v2"))
    is_chosen = _may_choose(release, settings, auto=not has_better)
    return is_chosen and not installed_name(settings.models_dir / release.folder)


def _may_choose(release: Release, settings: Settings, *, auto: bool = True) -> bool:
    """Tell whether the settings name the engine of `release`, or, with `auto`, leave the choice to the server."""
    setting = settings.synthesizer if release.engine.speaks else settings.recognizer
    chosen = {setting[language] for language in release.languages}
    return release.engine.setting in chosen or (auto and "auto" in chosen)


def _missing_line(releases: Sequence[Release], settings: Settings, reason: str) -> str:
    missing = [release for release in releases if _is_missing(release, settings)]
    names = " and ".join(release.name for release in missing)
    size = size_text(sum(release.download_bytes for release in missing))
    return f"{names} ({size}) could not be installed: {reason}. The server starts without; to install: {COMMAND}"


def _ignore(_text: str) -> None:
    """Say nothing: no host has answered, and one line at the end is enough."""
