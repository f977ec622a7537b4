"""scripts/: what they say when the machine lacks something, and that they start at once when it does not."""

import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import ROOT

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "grep", "printf", "sed", "sleep", "tail")
DISTRIBUTIONS = {
    "ID=debian VERSION_CODENAME=bookworm": "apt install python3.11 python3.11-venv",
    "ID=debian VERSION_CODENAME=trixie": "apt install python3.13 python3.13-venv",
    "ID=debian VERSION_CODENAME=bullseye": "uv python install 3.12",
    "ID=ubuntu ID_LIKE=debian UBUNTU_CODENAME=jammy": (
        "add-apt-repository ppa:deadsnakes/ppa && apt install python3.12 python3.12-venv"
    ),
    "ID=ubuntu ID_LIKE=debian UBUNTU_CODENAME=noble": "apt install python3.12 python3.12-venv",
    "ID=linuxmint ID_LIKE='ubuntu debian' VERSION_CODENAME=zara UBUNTU_CODENAME=noble": (
        "apt install python3.12 python3.12-venv"
    ),
    "ID=raspbian ID_LIKE=debian VERSION_CODENAME=bookworm": "apt install python3.11 python3.11-venv",
    "ID=kali ID_LIKE=debian VERSION_CODENAME=kali-rolling": "apt install python3 python3-venv",
    "ID=fedora VERSION_ID=43": "dnf install python3.13",
    "ID=rocky ID_LIKE='rhel centos fedora' VERSION_ID=9.6": "dnf install python3.12",
    "ID=arch": "pacman -S python",
    "ID=manjaro ID_LIKE=arch": "pacman -S python",
    "ID=opensuse-leap ID_LIKE='suse opensuse' VERSION_ID=15.6": "zypper install python312",
    "ID=opensuse-tumbleweed ID_LIKE='opensuse suse' VERSION_ID=20261101": "zypper install python313",
    "ID=alpine VERSION_ID=3.23.0": "apk add python3",
    "ID=void": "uv python install 3.12",
}
BOOKWORM = "ID=debian VERSION_CODENAME=bookworm"


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder of tools that has no Python, beside a checkout without .venv."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (tools / name).symlink_to(found)
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "native", tmp_path / "native")
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def serve(machine: Path, script: str = "serve", os_release: str = BOOKWORM) -> subprocess.CompletedProcess[str]:
    """Run a script on a machine whose os-release has these assignments."""
    (machine / "os-release").write_text(os_release + "\n")
    environ = {"PATH": str(machine / "bin"), "OS_RELEASE": str(machine / "os-release")}
    return subprocess.run([str(machine / "scripts" / script)], env=environ, capture_output=True, text=True)


def add_tool(machine: Path, name: str, body: str) -> None:
    file = machine / "bin" / name
    file.write_text(f"#!/bin/bash\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def add_python(machine: Path, *refused: str) -> None:
    """Add a Python 3 that makes environments whose pip fails, and fails itself for the code with one of `refused`."""
    add_tool(
        machine,
        "python3",
        "".join(f'case "$2" in *{word}*) exit 1;; esac\n' for word in refused)
        + f"""
        [ "$2 $3" = "venv .venv" ] || exec {sys.executable} "$@"
        mkdir=.venv/bin; {shutil.which("mkdir")} -p $mkdir
        printf '#!/bin/bash\\nexec "%s" "$@"\\n' "$0" >$mkdir/python
        printf '#!/bin/bash\\necho Collecting; echo ERROR: no index; exit 1\\n' >$mkdir/pip
        {shutil.which("chmod")} +x $mkdir/python $mkdir/pip""",
    )


@pytest.mark.parametrize("script", ["serve", "test"])
@pytest.mark.parametrize(("os_release", "command"), DISTRIBUTIONS.items())
def test_without_python_the_distributions_command_is_named(
    machine: Path, script: str, os_release: str, command: str
) -> None:
    run = serve(machine, script, os_release.replace(" ID", "\nID").replace(" V", "\nV").replace(" U", "\nU"))
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert f"Python 3.11, 3.12, 3.13 or 3.14 is needed; install it: {command}" in run.stderr


def test_a_machine_without_os_release_is_known_by_its_package_manager(machine: Path) -> None:
    add_tool(machine, "brew", "exit 1")
    environ = {"PATH": str(machine / "bin"), "OS_RELEASE": str(machine / "absent")}
    run = subprocess.run([str(machine / "scripts" / "serve")], env=environ, capture_output=True, text=True)
    assert run.stderr.endswith("install it: brew install python@3.13\n")


def test_a_python_that_is_too_old_does_not_count(machine: Path) -> None:
    # as Ubuntu 22.04's: it runs, and is 3.10
    add_tool(machine, "python3", 'case "$2" in *version_info*) exit 1;; esac; echo "Python 3.10.12"')
    assert "is needed, and Python 3.10.12 is here; install it: apt install" in serve(machine).stderr


def test_no_venv_names_the_package(machine: Path) -> None:
    # as Debian's python3 without python3-venv: it runs, and has no ensurepip
    add_python(machine, "ensurepip")
    run = serve(machine)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1 and "apt install python3.1" in run.stderr and "-venv" in run.stderr


@pytest.mark.parametrize("compiler", [False, True])
def test_a_missing_compiler_is_said_before_anything_is_installed(machine: Path, compiler: bool) -> None:
    add_python(machine, *([] if compiler else ["Python.h"]))
    add_tool(machine, "c++", "exit 1")
    lines = serve(machine).stderr.splitlines()
    said = [number for number, line in enumerate(lines) if "apt install build-essential python3.1" in line]
    (first,) = [
        number for number, line in enumerate(lines) if "installing MirrorChat with small, and compiling" in line
    ]
    assert said == [] if compiler else len(said) == 1 and said[0] < first


@pytest.mark.parametrize(("free_gb", "short"), [(0, True), (2, False)])
def test_a_disk_that_is_nearly_full_is_told(machine: Path, free_gb: int, short: bool) -> None:
    add_python(machine)
    add_tool(machine, "df", f'printf "Filesystem 1024-blocks Used Available\\n/dev/x 9 9 {free_gb}500000 9%% /\\n"')
    assert (f"disk space is short: {free_gb} GB are free" in serve(machine).stderr) == short


def test_a_failed_installation_shows_the_end_of_its_log_and_is_tried_again(machine: Path) -> None:
    add_python(machine)
    for _ in range(2):
        run = serve(machine)
        assert run.returncode == 1
        assert "ERROR: no index" in run.stderr
        assert run.stderr.endswith(
            "the packages could not be installed; see above, and the whole log in .venv/install.log\n"
        )


def test_a_long_step_tells_what_pip_is_doing(machine: Path) -> None:
    sleep = shutil.which("sleep")
    add_python(machine)
    (machine / "bin" / "sleep").unlink()
    add_tool(machine, "sleep", f"exec {sleep} 0.1")  # instead of 10 s
    pip = f"#!/bin/bash\necho Collecting flask; echo WARNING: no cache; {sleep} 1; exit 1\n"
    serve(machine)
    (machine / ".venv" / "bin" / "pip").write_text(pip)
    lines = serve(machine).stderr.splitlines()
    told = [line for line in lines if re.fullmatch(r"mirrorchat:   \d+ s: Collecting flask", line)]
    steps = [line for line in lines if re.match(r"mirrorchat: \d+ s: installing MirrorChat", line)]
    assert len(told) > 2 and lines.index(steps[0]) < lines.index(told[0])


def test_help_is_the_usage() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "serve"), "--help"], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: scripts/serve") and run.stderr == ""


def test_an_unknown_option_is_answered_with_the_usage() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "serve"), "--prot", "1"], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("usage: scripts/serve")


def test_a_licence_is_accepted_for_models_only() -> None:
    command = [str(ROOT / "scripts" / "serve"), "--accept-licence", "cpml"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.startswith("mirrorchat: --accept-licence needs --models\nusage: ")


def test_nothing_is_installed_when_nothing_is_missing() -> None:
    run = subprocess.run([str(ROOT / "scripts" / "environment")], capture_output=True, text=True, check=True)
    assert run.stdout == run.stderr == ""


@pytest.mark.parametrize(("options", "said"), [(["--quick"], "less than a minute"), ([], r"about \d+ minutes")])
def test_tests_say_beforehand_how_long_they_take(options: list[str], said: str) -> None:
    command = [str(ROOT / "scripts" / "test"), *options, "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.match(rf"mirrorchat: running tests in \d+ processes: {said} for all, ", run.stderr), run.stderr
    assert "pytest" in run.stdout + run.stderr


@pytest.fixture
def started(tmp_path: Path) -> Path:
    """Return a checkout whose environment is there, and whose Python writes down how it is called."""
    (tmp_path / "scripts").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "serve", tmp_path / "scripts")
    programs = {
        "scripts/environment": 'echo "environment $@" >>calls',
        ".venv/bin/python": 'echo "$@" >>calls; [[ $* != *first-start* ]] || exit ${STATUS:-0}',
    }
    for name, body in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def calls(started: Path, *options: str, status: int = 0) -> tuple[int, list[str]]:
    """Run scripts/serve where the installation of models ends with `status`; return its own, and the calls."""
    environ = os.environ | {"STATUS": str(status)}
    run = subprocess.run([str(started / "scripts" / "serve"), *options], env=environ)
    return run.returncode, (started / "calls").read_text().splitlines()


FIRST_START, SERVE = "-m mirrorchat models first-start", "-m mirrorchat serve"


def test_the_small_models_are_fetched_before_the_server_starts(started: Path) -> None:
    assert calls(started) == (0, ["environment small", FIRST_START, SERVE])


def test_no_models_starts_without_them(started: Path) -> None:
    assert calls(started, "--no-models", "--full") == (0, ["environment small full", SERVE])


@pytest.mark.parametrize("status", [1, 2, 139])
def test_the_server_starts_whatever_happens_to_the_models(started: Path, status: int) -> None:
    assert calls(started, status=status) == (0, ["environment small", FIRST_START, SERVE])


def test_ctrl_c_ends_the_start(started: Path) -> None:
    assert calls(started, status=130) == (130, ["environment small", FIRST_START])


def test_models_installs_the_real_ones_before_the_server_starts(started: Path) -> None:
    assert calls(started, "--models") == (0, ["environment small", f"{FIRST_START} --real", SERVE])


def test_licences_are_accepted_in_the_line_that_starts_the_server(started: Path) -> None:
    options = ("--accept-licence", "cpml,wenetspeech", "--models", "--accept-licence", "cc-by-4.0")
    accepted = "--accept-licence cpml,wenetspeech --accept-licence cc-by-4.0"
    assert calls(started, *options) == (0, ["environment small", f"{FIRST_START} --real {accepted}", SERVE])


@pytest.mark.parametrize("status", [1, 130])
def test_without_the_real_models_that_were_asked_for_no_server_starts(
    started: Path, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    assert calls(started, "--models", status=status) == (status, ["environment small", f"{FIRST_START} --real"])
    assert "scripts/serve, without --models, starts with what is installed" in capfd.readouterr().err
