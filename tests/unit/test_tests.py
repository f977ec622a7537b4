"""The tests' own order: what several files share stands in support/, and tests/unit needs nothing that is heavy."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT

TESTS = ROOT / "tests"
TEST_FILES = sorted(TESTS.rglob("test_*.py"))
FOLDERS = {"unit", "engines", "server", "browser", "deploy"}
HEAVY = {"torch", "torchaudio", "TTS", "transformers", "safetensors", "pyworld", "kaldi_native_fbank", "selenium"}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_no_test_module_is_imported_by_another(path: Path) -> None:
    others = {other.stem for other in TEST_FILES}
    assert not [name for name in imported(path) if others & set(name.split("."))]


def test_support_imports_no_test_module() -> None:
    names = {name for path in (TESTS / "support").glob("*.py") for name in imported(path)}
    assert not [name for name in names if name.rpartition(".")[2].startswith("test_")]


def test_every_test_file_stands_in_a_folder_and_has_a_name_of_its_own() -> None:
    assert {path.parent.name for path in TEST_FILES} == FOLDERS
    assert len({path.stem for path in TEST_FILES}) == len(TEST_FILES)


@pytest.mark.parametrize("path", sorted((TESTS / "unit").glob("test_*.py")), ids=lambda path: path.stem)
def test_unit_tests_import_nothing_heavy(path: Path) -> None:
    assert not [name for name in imported(path) if name.partition(".")[0] in HEAVY]
