"""CONTRIBUTING.md's table of packages is the code's: all of them stand in it, and imports run upward in it only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT

PACKAGE = ROOT / "mirrorchat"
ENTRANCES = {"__init__", "__main__"}
FRONT_DOORS = {"app", "pipeline", "asr", "llm", "synth", "engines", "settings", "errors"}


def listed() -> list[str]:
    """Return the table's first column in its order, such as "errors" and "wenet.ctc"."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| package | holds |")[1].split("\n\n")[0]
    names = [re.findall(r"`([\w./]+)`", row.split("|")[1]) for row in table.splitlines()[2:]]
    return [name.removesuffix(".py").strip("/").replace("/", ".") for row in names for name in row]


def modules() -> dict[str, Path]:
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in found.items() if name.rpartition(".")[2] not in ENTRANCES}


def home(module: str) -> str:
    """Return where a module stands in the table: its package, or itself if it is at the top or has a row of its own."""
    return module if module in listed() else module.rpartition(".")[0] or module


def imported(path: Path) -> Iterator[str]:
    """Yield the modules of the project that a file imports, wherever in it."""
    known = modules()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from {name for name in known if f"mirrorchat.{name}" in {alias.name for alias in node.names}}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: a relative import"
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mirrorchat":
            module = (node.module or "").removeprefix("mirrorchat").lstrip(".")
            for alias in node.names:
                yield from {f"{module}.{alias.name}".lstrip("."), module} & known.keys()


def test_every_package_is_listed_once() -> None:
    assert sorted(listed()) == sorted(set(map(home, modules())))


def test_only_front_doors_stand_at_the_top() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == FRONT_DOORS | ENTRANCES


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_upward(module: str) -> None:
    order, own = listed(), home(module)
    others = {name for name in imported(modules()[module]) if home(name) != own}
    assert not [name for name in others if order.index(home(name)) > order.index(own)]


def test_every_package_says_what_it_holds() -> None:
    packages = list(PACKAGE.rglob("*/__init__.py"))
    assert len(packages) > 20
    for path in packages:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) and len(tree.body) == 1, path  # and nothing else: imports go to the modules
