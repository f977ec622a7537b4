"""The command line itself: quick, and its failures are one line."""

import configparser
import importlib
import importlib.util
import subprocess
import sys

import pytest
from click.testing import CliRunner
from support.places import QUESTION, ROOT

from mirrorchat import __version__
from mirrorchat.cli import main as cli
from mirrorchat.errors import InstallError


def test_the_help_is_quick_and_needs_no_torch() -> None:
    code = (
        "import sys\nfrom mirrorchat.cli.main import cli\n"
        "for line in ('--help', 'doctor --help', 'models --help', 'models list', 'models install --help'):\n"
        "    cli(line.split(), standalone_mode=False)\n"
        "print('imported:', *sorted({'torch', 'numpy', 'huggingface_hub', 'TTS', 'flask'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "models" in done.stdout and "wenet-en-gigaspeech" in done.stdout
    assert done.stdout.endswith("imported:\n")


def test_it_is_a_program_and_a_module() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    name, _, target = setup.get("options.entry_points", "console_scripts").strip().partition(" = ")
    module, _, function = target.partition(":")
    assert name == "mirrorchat" and getattr(importlib.import_module(module), function) is cli.main
    done = subprocess.run(
        [sys.executable, "-m", "mirrorchat", "--version"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == f"mirrorchat, version {__version__}"


def test_commands_are_listed_where_their_module_is(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {"spare": ("mirrorchat.no_such_module:spare", "Not there."), "models": cli.COMMANDS["models"]}
    monkeypatch.setattr(cli, "COMMANDS", added)
    shown = CliRunner().invoke(cli.cli, ["--help"]).output
    assert "models" in shown and "spare" not in shown
    assert CliRunner().invoke(cli.cli, ["spare"]).exit_code == 2


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name != "models"])
def test_every_command_that_is_there_has_its_help(name: str) -> None:
    module = cli.COMMANDS[name][0].partition(":")[0]
    there = importlib.util.find_spec(module) is not None
    assert CliRunner().invoke(cli.cli, [name, "--help"]).exit_code == (0 if there else 2)


def test_an_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from mirrorchat.cli.commands import models as models_command

    def fail() -> None:
        raise InstallError("first line\n  second line")

    monkeypatch.setattr(models_command, "settings_of", fail)
    result = CliRunner().invoke(cli.cli, ["models", "path"])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "mirrorchat: first line second line\n"


def test_a_bad_configuration_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRRORCHAT_CONFIG", "/no/such/config.py")
    result = CliRunner().invoke(cli.cli, ["models", "list"])
    assert result.exit_code == 1 and result.stderr.startswith("mirrorchat: /no/such/config.py cannot be read")


@pytest.mark.parametrize("arguments", [["fly"], ["models", "fly"], ["models", "install"], ["models", "install", "w"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli.cli, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["say", "hi", "--out", ".wav"], "must end in"),
        (["say", "a\udcff", "--out", "b.wav"], "not UTF-8"),
        (["ask", str(QUESTION), "--text", "a\udcff"], "not UTF-8"),
        (["hear", str(QUESTION), "--server", "http://[::1"], "takes a URL"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(cli.cli, arguments)
    assert result.exit_code in (1, 2) and reason in result.stderr and isinstance(result.exception, SystemExit)


def test_a_full_disk_is_said_in_a_line() -> None:
    command = f"{sys.executable} -m mirrorchat key > /dev/full"
    done = subprocess.run(command, shell=True, cwd=ROOT, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr


def test_no_standard_input_is_said_in_a_line() -> None:
    done = subprocess.run(
        f"{sys.executable} -m mirrorchat hear - <&-",
        shell=True,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1 and done.stderr == "mirrorchat: there is no standard input\n"
