"""Writes constraints.txt: the version of every package that MirrorChat's requirements bring into this environment.

    .venv/bin/python scripts/make_constraints.py [--output FILE]

Run it after `scripts/environment full test evaluate`, and after the tests have passed there. It follows the
requirements of setup.cfg from package to package, so a package that was installed by hand is left out. The result
depends only on the installed versions: a CPU and a CUDA build of torch give the same lines.
"""

import argparse
import importlib.metadata
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from mirrorchat.models.packages import ROOT, requirements_of

EXTRAS = ("", "recognize", "tint", "small", "full", "evaluate", "test")  # "" is what MirrorChat always needs
WITHOUT_REQUIREMENTS = {"resemblyzer"}  # scripts/environment installs it with --no-deps
# torch's CUDA build pins these exactly, and no CPU build has them.
ONLY_WITH_CUDA = ("nvidia-", "cuda-", "triton")
INSTALLERS = {"pip", "setuptools", "wheel"}  # they belong to the virtual environment
HEADER = """\
# Tested versions of every package, made by scripts/make_constraints.py: do not edit. setup.cfg has the ranges.
# A package that only another Python, another system or CUDA needs is not listed, and pip chooses its version.
"""


def declared(root: Path = ROOT) -> list[Requirement]:
    """Return every requirement of setup.cfg, with and without an extra."""
    return [Requirement(line) for extra in EXTRAS for line in requirements_of(extra, root)]


def installed_versions(requirements: Iterable[Requirement]) -> dict[str, str]:
    """Return the installed version of each requirement and of what these require, by canonical name.

    Raises `importlib.metadata.PackageNotFoundError` for one that is not installed.
    """
    versions: dict[str, str] = {}
    followed: set[tuple[str, str]] = set()
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name.startswith(ONLY_WITH_CUDA) or name in INSTALLERS:
            continue
        found = importlib.metadata.distribution(name)
        versions[name] = Version(found.version).public  # 2.13.0 for 2.13.0+cpu
        extras = {(name, extra) for extra in ("", *requirement.extras)} - followed
        followed |= extras
        if name not in WITHOUT_REQUIREMENTS:
            waiting += [each for _, extra in extras for each in _required_by(found, extra)]
    return versions


def _required_by(package: importlib.metadata.Distribution, extra: str) -> list[Requirement]:
    """Return what `package` requires on this machine when it is installed with `extra`, or without one."""
    parsed = [Requirement(line) for line in package.requires or []]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": extra})]


def text_of(versions: dict[str, str]) -> str:
    """Return the text of constraints.txt, one package a line, sorted by name."""
    return HEADER + "".join(f"{name}=={version}\n" for name, version in sorted(versions.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "constraints.txt")
    output: Path = parser.parse_args().output
    versions = installed_versions(declared())
    output.write_text(text_of(versions), encoding="utf-8")
    print(f"{output}: {len(versions)} packages")


if __name__ == "__main__":
    main()
