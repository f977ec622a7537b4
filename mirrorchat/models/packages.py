"""The packages that models need, of the extras `full` and `small`: finds missing ones and installs them with pip."""

import configparser
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

from mirrorchat.errors import InstallError
from mirrorchat.hardware.torch_build import pip_arguments

ROOT = Path(__file__).resolve().parents[2]
_TORCH = "torch=="  # it comes first: other packages choose their versions to match it


def full_requirements(root: Path = ROOT) -> list[str]:
    """Return the requirements of the extra `full`."""
    return requirements_of("full", root)


def requirements_of(extra: str, root: Path = ROOT) -> list[str]:
    """Return the requirements of `extra`, or of MirrorChat itself if it is empty.

    They come from the `setup.cfg` of a checkout, otherwise from the metadata of the installed package.
    """
    if (root / "setup.cfg").is_file():
        setup = configparser.ConfigParser()
        setup.read(root / "setup.cfg", encoding="utf-8")
        place = ("options.extras_require", extra) if extra else ("options", "install_requires")
        lines = setup.get(*place, fallback="").splitlines()
        return [line.strip() for line in lines if line.strip()]
    try:
        declared = importlib.metadata.requires("mirrorchat") or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    parsed = [Requirement(line) for line in declared]
    of_an_extra = [each for each in parsed if each.marker and "extra" in str(each.marker)]
    chosen = [each for each in (of_an_extra if extra else parsed) if extra or each not in of_an_extra]
    chosen = [each for each in chosen if not each.marker or each.marker.evaluate({"extra": extra})]
    return [f"{each.name}{each.specifier}" for each in chosen]


def missing_packages(requirements: list[str]) -> list[str]:
    """Return the requirements that no installed version fulfils."""
    return [line for line in requirements if not _is_met(Requirement(line))]


def _is_met(requirement: Requirement) -> bool:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return requirement.specifier.contains(version, prereleases=True)


def install_packages(
    requirements: list[str],
    *,
    extra: str = "full",
    root: Path = ROOT,
    prefix: Path = Path(sys.prefix),
    python: str = sys.executable,
) -> None:
    """Install `extra`, torch first, and let pip print its progress.

    In a .venv that scripts/environment created, that script installs the packages and updates them from then on.
    Elsewhere the pip of `python` does. torch is the build that this machine's driver and GPU run. Raises InstallError
    when a command fails.
    """
    for command in _commands(requirements, extra, root, prefix, python):
        run = subprocess.run(command)
        if run.returncode:
            raise InstallError(f"the packages could not be installed: see the output of `{' '.join(command[:5])} ...`")
    importlib.invalidate_caches()


def _commands(requirements: list[str], extra: str, root: Path, prefix: Path, python: str) -> list[list[str]]:
    script = root / "scripts" / "environment"
    if script.is_file() and (prefix / "installed").is_file() and (root / ".venv").resolve() == prefix.resolve():
        return [[str(script), extra]]
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check"]
    torch = [line.removeprefix(_TORCH) for line in requirements if line.startswith(_TORCH)]
    return [*([*pip, *pip_arguments(version)] for version in torch), [*pip, *requirements]]
