"""config.example.py and the documents of the configuration: made from the settings, never stale, and valid."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

from mirrorchat.access.definitions import definitions
from mirrorchat.settings import Settings, load_settings

SCRIPT = ROOT / "scripts" / "make_configuration_docs.py"
FILES = ("config.example.py", "docs/configuration.md", "docs/zh/configuration.md", "docs/zh/configuration.po")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with a copy of the files that are made."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(project), *options]
    return subprocess.run(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_nothing_is_stale() -> None:
    checked = make(ROOT, "--check")
    assert checked.returncode == 0, checked.stderr


def test_what_is_stale_is_named_and_made_anew(project: Path) -> None:
    change(project / "config.example.py", "max_turns = 4", "max_turns = 5")
    change(project / "docs/configuration.md", "| `9990` |", "| `9991` |")
    checked = make(project, "--check")
    assert checked.returncode == 1
    assert checked.stderr.startswith("config.example.py, docs/configuration.md: stale; run")
    assert make(project).returncode == 0
    for name in FILES:
        assert (project / name).read_bytes() == (ROOT / name).read_bytes()


def test_the_prose_of_a_document_is_not_made(project: Path) -> None:
    change(project / "docs/configuration.md", "# Configuration\n", "# Another heading\n")
    assert make(project, "--check").returncode == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "docs/zh/configuration.po",
            'msgid "The server listens on this port.',
            'msgid "Another text.',
            "no Chinese for",
        ),
        ("docs/zh/configuration.po", 'msgid "Name"', 'msgid "Not said"\nmsgstr "无"\n\nmsgid "Name"', "is not said"),
        ("docs/configuration.md", "<!-- made: settings -->", "", "docs/configuration.md has no place for settings"),
    ],
)
def test_what_does_not_fit_together_is_named(project: Path, name: str, old: str, new: str, message: str) -> None:
    change(project / name, old, new)
    checked = make(project, "--check")
    assert checked.returncode == 1 and message in checked.stderr


def test_the_example_holds_every_setting_with_its_default() -> None:
    example = load_settings(ROOT / "config.example.py", environ={})
    assert example == Settings(threads=example.threads) and not example.chat_source
    names = {
        target.id
        for node in ast.parse((ROOT / "config.example.py").read_text(encoding="utf-8")).body
        for target in (node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)])
        if isinstance(target, ast.Name)
    }
    assert names | {"threads", "chatgpt_apis"} == set(definitions(Settings))


def test_the_worked_examples_are_valid(tmp_path: Path) -> None:
    lines = (ROOT / "config.example.py").read_text(encoding="utf-8").splitlines()
    example = lines[lines.index("# chatgpt_apis = [") : lines.index("# ]") + 1]
    (tmp_path / "config.py").write_text("\n".join(line.removeprefix("# ") for line in example), encoding="utf-8")
    settings = load_settings(environ={}, folder=tmp_path)
    assert [api.host for api in settings.chatgpt_apis] == [
        "api.openai.com", "api.deepseek.com", "127.0.0.1:11434", "192.0.2.10:8000"]  # fmt: skip
