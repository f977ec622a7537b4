"""What `mirrorchat doctor` says of configuration, packages, device and deploy, from real files and programs."""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from mirrorchat.cli.doctor import deploy as doctor_deploy
from mirrorchat.cli.doctor.config import read_settings
from mirrorchat.cli.doctor.deploy import deploy_findings
from mirrorchat.cli.doctor.findings import Finding, State
from mirrorchat.cli.doctor.packages import package_findings, python_finding
from mirrorchat.settings import CONFIG_VARIABLE, Settings

SECRETS = ("sk-secret", "pa55word", "quer7", "head3r", "0123456789abcdef", "my own prompt")
CONFIG = """
chatgpt_apis = [
    {"url": "https://someone:pa55word@chat.example/v1?token=quer7", "key": "sk-secret", "model": "gpt-x"},
    {"url": "http://127.0.0.1:11434/v1", "timeout_s": 3, "headers": {"X-Api-Key": "head3r"},
     "extra_body": {"enable_thinking": False, "token": "head3r"}},
]
api_keys = ["0123456789abcdef"]
system_prompt = "my own prompt in {language}"
recognizer = {"english": "embedded"}
xtts_batch = 8
host = "0.0.0.0"
"""


def named(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.subject: finding for finding in findings}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MIRRORCHAT_HOST", "MIRRORCHAT_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "config.py"))
    return tmp_path / "config.py"


def test_what_differs_from_the_defaults_is_shown_and_no_secret(config: Path) -> None:
    config.write_text(CONFIG)
    settings, findings = read_settings()
    assert settings is not None and settings.chatgpt_apis[0].key == "sk-secret"
    found = named(findings)
    assert not [secret for secret in SECRETS if secret in json.dumps([asdict(finding) for finding in findings])]
    assert found["file"].found == str(config) and found["file"].values["changed"] == 5
    assert found["chatgpt_apis"].found == (
        "1. gpt-x@chat.example, with a key; 2. gpt-4o-mini@127.0.0.1:11434, without a key, timeout_s 3,"
        " 1 header, not shown, extra_body with enable_thinking, token"
    )
    assert found["api_keys"].found == "1 key, not shown" and found["host"].found == "0.0.0.0"
    assert found["recognizer"].found == "chinese: auto, english: embedded"
    assert found["system_prompt"].found == "27 characters" and "xtts_batch" not in found
    assert {finding.state for finding in findings} == {State.OK}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("key = 'sk-secret", "SyntaxError, line 1"),
        ("devise = 'cpu'", "did you mean 'device'"),
        ("raise SystemExit('sk-secret')", "ends the program"),
        ("chatgpt_apis = [{'key': 'sk-secret'}]", "must hold at least 'url'"),
        ("host = '0.0.0.0'", "set api_keys"),
        (None, "cannot be read: FileNotFoundError"),
    ],
)
def test_a_bad_configuration_is_a_finding(config: Path, text: str | None, said: str) -> None:
    if text is not None:
        config.write_text(text)
    settings, (found,) = read_settings()
    assert settings is None and found.state is State.PROBLEM
    assert said in found.found and "sk-secret" not in found.found
    assert (str(config) if text is not None else CONFIG_VARIABLE) in found.remedy


def test_what_the_file_prints_goes_to_stderr(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text("print('hello')")
    assert read_settings()[0] is not None
    assert capsys.readouterr() == ("", "hello\n")


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10), State.PROBLEM), ((3, 11), State.OK), ((3, 14), State.OK), ((3, 15), State.PROBLEM)]
)
def test_python_3_11_to_3_13_will_do(version: tuple[int, int], state: State) -> None:
    found = python_finding(version)
    assert found.state is state and bool(found.remedy) == (state is State.PROBLEM)


def installed(folder: Path, name: str, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a package of that version before the environment's own."""
    metadata = folder / f"{name.replace('-', '_')}-{version}.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])


def test_packages_that_are_there_are_named_with_their_versions() -> None:
    found = named(package_findings(needs_full=False))
    assert found["base"].state is State.OK and "flask 3." in found["base"].found and "av 18" in found["base"].found


def test_wrong_versions_are_problems_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "soxr", "0.1", monkeypatch)
    installed(tmp_path, "pyworld", "0.1", monkeypatch)
    installed(tmp_path, "torch", "2.12.0", monkeypatch)
    found = named(package_findings(needs_full=True))
    assert found["base"].found == "soxr>=0.5,<2 is needed, and 0.1 is installed"
    assert found["base"].state is State.PROBLEM and "scripts/environment" in found["base"].remedy
    assert found["tint"].state is State.WARNING and "does not resemble" in found["tint"].found
    assert found["full"].state is State.PROBLEM and found["full"].remedy == "`scripts/environment full`"
    assert "torch==2.13.0 is needed, and 2.12.0 is installed" in found["full"].found
    assert named(package_findings(needs_full=False))["full"].state is State.OK


def test_where_there_is_no_checkout_pip_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert named(package_findings(False, tmp_path))["base"].state is State.OK  # of the installed package's metadata
    installed(tmp_path, "soxr", "0.1", monkeypatch)
    (found,) = [finding for finding in package_findings(False, tmp_path) if finding.subject == "base"]
    assert found.state is State.PROBLEM and found.remedy == f"`{sys.executable} -m pip install 'mirrorchat'`"


def program(folder: Path, name: str) -> None:
    (folder / name).write_text("#!/bin/sh\n")
    (folder / name).chmod(0o755)


def test_nginx_matters_before_others_are_let_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor_deploy, "_SBIN", ())
    missing = named(deploy_findings(Settings()))["nginx"]
    assert missing.state is State.WARNING and "before you admit" in missing.remedy
    program(tmp_path, "nginx")
    found = deploy_findings(Settings())
    assert {finding.state for finding in found} == {State.OK}
    assert named(found)["nginx"].found == str(tmp_path / "nginx")


def test_limits_above_those_of_nginx_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "nginx")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = deploy_findings(Settings(upload_limit_mb=20, turn_deadline_s=120.0))
    said = [finding.found for finding in found if finding.state is State.WARNING]
    assert said == [
        "client_max_body_size 12m is under upload_limit_mb = 20",
        "proxy_read_timeout 120s is not above turn_deadline_s = 120",
    ]


def test_ffmpeg_is_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for words in ("not needed", "not used"):
        assert words in named(deploy_findings(Settings()))["ffmpeg"].found
        program(tmp_path, "ffmpeg")
