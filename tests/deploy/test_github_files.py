"""The workflows, forms and hooks of the repository: they parse, their commands exist, and they may only read."""

import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from make_constraints import declared
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from support.places import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
INSTALLED_BEFORE = {"apt-get", "git", "python"}  # by the image or by an action
EVENTS = True  # how YAML 1.1 reads the key `on`


def read(path: Path) -> dict[Any, Any]:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def commands(path: Path) -> list[list[str]]:
    runs = [step["run"] for step in steps(path) if "run" in step]
    return [shlex.split(line) for text in runs for line in text.splitlines()]


def python_range() -> SpecifierSet:
    found = re.search(r"^python_requires = (.+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)
    assert found
    return SpecifierSet(found[1])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_only_read_and_pins_its_actions(path: Path) -> None:
    assert read(path)["permissions"] == {"contents": "read"}
    actions = [step["uses"] for step in steps(path) if "uses" in step]
    assert actions and all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)
    for job in read(path)["jobs"].values():
        assert job["timeout-minutes"] <= 120 and "permissions" not in job
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_exists(path: Path) -> None:
    installed = {re.split("[<>=]", word)[0] for words in commands(path) if "install" in words for word in words}
    for command, *words in commands(path):
        if "/" in command:
            assert (ROOT / command).stat().st_mode & 0o100, command
            text = (ROOT / command).read_text(encoding="utf-8")
            assert all(word in text for word in words if word.startswith("-")), f"{command} takes no {words}"
        else:
            assert command in INSTALLED_BEFORE | installed, command
        files = [word for word in words if word.endswith(".txt")]
        assert all((ROOT / file).is_file() for file in files), files


def test_check_runs_on_every_python_that_setup_allows() -> None:
    workflow = read(ROOT / ".github" / "workflows" / "check.yml")
    assert workflow[EVENTS].keys() == {"push", "pull_request"}
    tried = workflow["jobs"]["check"]["strategy"]["matrix"]["python-version"]
    assert tried == [f"3.{minor}" for minor in range(40) if f"3.{minor}" in python_range()]
    assert commands(ROOT / ".github" / "workflows" / "check.yml") == [["scripts/test", "--quick"], ["scripts/check"]]


def test_the_whole_gate_and_the_audit_run_every_night() -> None:
    path = ROOT / ".github" / "workflows" / "nightly.yml"
    assert read(path)[EVENTS]["schedule"]
    assert [".ci/run"] in commands(path)
    (audit,) = [words for words in commands(path) if words[0] == "pip-audit"]
    assert audit[-2:] == ["-r", "constraints.txt"]


def test_each_hook_runs_a_tool_of_the_environment() -> None:
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert [hook["id"] for hook in hooks] == ["ruff-check", "ruff-format"]
    for hook in hooks:
        tool = shlex.split(hook["entry"])[0]
        assert hook["language"] == "system" and tool.startswith(".venv/bin/")
        assert Path(tool).name in {canonicalize_name(each.name) for each in declared()}
        assert shutil.which(Path(sys.executable).parent / Path(tool).name)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_asks_for_the_doctors_report_and_warns_of_secrets(path: Path) -> None:
    form = read(path)
    if path.name == "config.yml":
        assert form.keys() == {"blank_issues_enabled"}
        return
    assert form["name"] and form["description"]
    asked = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert "doctor" in asked and len(asked) == len(set(asked))
    text = path.read_text(encoding="utf-8")
    assert "`mirrorchat doctor`" in text and "keys" in text and "recordings" in text


def test_files_that_are_named_exist() -> None:
    for name in ("SECURITY.md", ".github/pull_request_template.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        paths = re.findall(r"`((?:docs|scripts|deploy)/[\w./]*|[A-Z]+\.md)`", text)
        assert paths and all((ROOT / path).exists() for path in paths), name


def test_no_address_of_ours_is_invented() -> None:
    assert not re.search(r"[\w.]+@[\w-]+\.\w+", (ROOT / "SECURITY.md").read_text(encoding="utf-8"))
