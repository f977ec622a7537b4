"""Checks Python and the packages for `mirrorchat doctor`: their versions, and the missing ones."""

import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from packaging.requirements import Requirement

from mirrorchat.cli.doctor.findings import Finding, ok, problem, warning
from mirrorchat.models.packages import ROOT, full_requirements, missing_packages, requirements_of

OLDEST, NEWEST = (3, 11), (3, 14)
_BUILD = "`sudo apt install build-essential python3-dev && {}`"
_SMALL_EXTRAS = {  # the extras that need a compiler on some computers, and the loss without them
    "recognize": "English is not recognized without a model",
    "tint": "the voice does not resemble the speaker's without XTTS",
}


def package_findings(needs_full: bool, root: Path = ROOT) -> list[Finding]:
    """Return the findings about Python and the packages. `needs_full` makes missing packages of `full` a problem."""
    found = [python_finding((sys.version_info.major, sys.version_info.minor)), _base(root)]
    found += [_small_extra(name, loss, root) for name, loss in _SMALL_EXTRAS.items()]
    return [*found, _full(needs_full, root)]


def python_finding(version: tuple[int, int]) -> Finding:
    text = f"{platform.python_version()} in {sys.prefix}"
    if OLDEST <= version <= NEWEST:
        return ok("Python", text, version=platform.python_version())
    remedy = "install Python 3.11, 3.12, 3.13 or 3.14, then `rm -r .venv; scripts/environment`"
    return problem("Python", f"{text}; 3.11 to 3.14 is needed", remedy, version=platform.python_version())


def _base(root: Path) -> Finding:
    requirements = requirements_of("", root)
    missing = missing_packages(requirements)
    if missing:
        return problem("base", _lacking(missing), f"`{_install('', root)}`", missing=", ".join(missing))
    if not requirements:
        return problem("base", "MirrorChat itself is not installed", f"`{_install('', root)}`")
    return ok("base", _versions(requirements))


def _small_extra(name: str, loss: str, root: Path) -> Finding:
    requirements = requirements_of(name, root)
    if missing := missing_packages(requirements):
        remedy = _BUILD.format(_install(name, root))
        return warning(name, f"{_lacking(missing)}: {loss}", remedy, missing=", ".join(missing))
    return ok(name, _versions(requirements))


def _full(needed: bool, root: Path) -> Finding:
    requirements = full_requirements(root)
    missing = missing_packages(requirements)
    if not missing:
        return ok("full", _versions(requirements))
    if needed:
        return problem("full", _lacking(missing), f"`{_install('full', root)}`", missing=", ".join(missing))
    return ok("full", f"not needed: no model is installed or named, {len(missing)} of its packages are missing")


def _install(extra: str, root: Path) -> str:
    """Return the command that installs an extra: the script of a checkout, otherwise pip."""
    if (root / "scripts" / "environment").is_file():
        repeat = "" if extra == "full" else "rm -f .venv/installed && "  # without this the script finds nothing to do
        return f"{repeat}scripts/environment {'full' if extra == 'full' else ''}".strip()
    return f"{sys.executable} -m pip install 'mirrorchat{f'[{extra}]' if extra else ''}'"


def _lacking(missing: Sequence[str]) -> str:
    return "; ".join(f"{line} is needed, and {_present(Requirement(line).name)}" for line in missing)


def _present(name: str) -> str:
    try:
        return f"{importlib.metadata.version(name)} is installed"
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _versions(requirements: Sequence[str]) -> str:
    names = [Requirement(line).name for line in requirements]
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
