"""CONTRIBUTING.md's table of modules is the code's: all of them stand in it, and imports run upward in it only."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "mirrorchat"
ENTRANCES = {"__init__", "__main__"}


def listed() -> list[str]:
    """Return the table's modules in its order, such as "errors" and "wenet.model"."""
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("| modules | hold |")[1].split("\n\n")[0]
    modules: list[str] = []
    package = ""
    for row in table.splitlines()[2:]:
        first, *names = re.findall(r"`([\w./]+)`", row.split("|")[1])
        if first.endswith("/"):
            package = first.replace("/", ".")
        elif "…" in row:
            names.insert(0, first)
        else:
            package, names = "", [name.removesuffix(".py") for name in (first, *names)]
        modules += [package + name for name in names]
    return modules


def modules() -> dict[str, Path]:
    found = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in PACKAGE.rglob("*.py")}
    return {name: path for name, path in found.items() if name.rpartition(".")[2] not in ENTRANCES}


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


def test_every_module_is_listed_once() -> None:
    assert sorted(listed()) == sorted(modules())


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_upward(module: str) -> None:
    order = listed()
    below = [name for name in imported(modules()[module]) if order.index(name) >= order.index(module)]
    assert not below, f"{module} imports what stands under it"


def test_every_package_says_what_it_holds() -> None:
    packages = list(PACKAGE.glob("*/__init__.py"))
    assert len(packages) > 10
    for path in packages:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) and len(tree.body) == 1, path  # and nothing else: imports go to the modules
