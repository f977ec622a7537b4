"""constraints.txt agrees with setup.cfg, and make_constraints.py writes the same on a CPU machine and one with CUDA."""

import importlib.metadata
from pathlib import Path

import pytest
from make_constraints import declared, installed_versions, text_of
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version
from support.places import ROOT

CONSTRAINTS = ROOT / "constraints.txt"


def constraints() -> dict[str, Requirement]:
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return {canonicalize_name(each.name): each for each in map(Requirement, lines)}


@pytest.mark.parametrize("requirement", declared(), ids=str)
def test_every_requirement_has_a_tested_version_within_its_range(requirement: Requirement) -> None:
    constraint = constraints()[canonicalize_name(requirement.name)]
    (version,) = [each.version for each in constraint.specifier]
    assert requirement.specifier.contains(version, prereleases=True), f"setup.cfg has {requirement}"


def test_each_line_is_one_exact_version_that_every_machine_can_install() -> None:
    lines = [line for line in CONSTRAINTS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    assert list(constraints()) == sorted(constraints()) and len(lines) == len(constraints()) > 100
    for name, each in constraints().items():
        (specifier,) = each.specifier
        assert specifier.operator == "==" and "*" not in specifier.version and each.marker is None and not each.extras
        assert Version(specifier.version).local is None, f"{each}: a build such as +cpu exists on some machines only"
        assert not name.startswith(("nvidia-", "cuda-", "triton")), f"{each}: only CUDA's torch brings it"


def test_the_versions_are_those_of_this_environment() -> None:
    versions = installed_versions([Requirement("flask>=3")])
    assert versions["flask"] == importlib.metadata.version("flask")
    assert versions["werkzeug"] == importlib.metadata.version("werkzeug")  # flask requires it
    assert "pytest" not in versions
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        installed_versions([Requirement("mirrorchat-absent")])


def _install(site: Path, name: str, version: str, *requires: str) -> None:
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = [
        "Metadata-Version: 2.1",
        f"Name: {name}",
        f"Version: {version}",
        *map("Requires-Dist: {}".format, requires),
    ]
    (folder / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")


def test_a_cuda_machine_gives_the_same_text_as_a_cpu_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = []
    for build, cuda in (("cpu", ()), ("cu130", ("nvidia-cublas==13.0", "triton==3.7", "cuda-toolkit[cudart]==13.0.3"))):
        site = tmp_path / build
        _install(site, "mc-torch", f"2.13.0+{build}", "mc-base", *cuda)
        _install(site, "mc-base", "1.5", "mc-other; python_version < '3'", "mc-more; extra == 'more'")
        _install(site, "mc-by-hand", "9")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(site))
            written.append(text_of(installed_versions([Requirement("mc-torch>=2")])))
    assert written[0] == written[1]
    assert [line for line in written[0].splitlines() if line[0] != "#"] == ["mc-base==1.5", "mc-torch==2.13.0"]
