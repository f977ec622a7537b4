"""`mirrorchat doctor` as its users run it: real configurations, chat servers and checkpoints, and what breaks them."""

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from click.testing import CliRunner
from make_tiny_xtts import make_checkpoint
from support.chat_server import ChatServer, answer, status
from support.ollama import OllamaServer
from support.places import ROOT
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.chat.ollama import HOST_VARIABLE
from mirrorchat.cli.doctor.findings import State
from mirrorchat.cli.doctor.round_trip import STAGES
from mirrorchat.cli.doctor.weights import needs_full, stages, weight_findings
from mirrorchat.cli.main import cli
from mirrorchat.engines import Language
from mirrorchat.models.store import FileRecord, Record, describe, now_text, write_record
from mirrorchat.settings import load_settings

KEY = "sk-secret-0123456789"
REPLY = "Certainly, by listening every day."
SECTIONS = ["configuration", "packages", "device", "weights", "chat", "deploy", "round trip"]


class Doctor:
    """Runs the command with a configuration file of its own; models_dir is beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.models_dir = folder / "models"
        self.config = folder / "config.py"
        self.configure()

    def configure(self, **settings: Any) -> None:
        values = {"models_dir": str(self.models_dir), "threads": 1} | settings
        self.config.write_text("".join(f"{name} = {value!r}\n" for name, value in values.items()), encoding="utf-8")

    def environ(self, **changes: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIRRORCHAT_")}
        return kept | {"MIRRORCHAT_CONFIG": str(self.config), "PYTHONPATH": str(self.folder / "first")} | changes

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "mirrorchat", "doctor", *arguments]
        done = subprocess.run(
            command, cwd=ROOT, env=self.environ(**environ), capture_output=True, text=True, timeout=120
        )
        assert KEY not in done.stdout + done.stderr and "Certainly" not in done.stdout
        assert "Traceback" not in done.stderr
        return done

    def report(self, *arguments: str, **environ: str) -> tuple[int, "Report"]:
        """Return the exit status and what `--json` printed, which is all that was printed."""
        done = self.run("--json", *arguments, **environ)
        assert done.stderr == ""
        return done.returncode, Report(json.loads(done.stdout))


class Report:
    """What `--json` says."""

    def __init__(self, whole: Mapping[str, Any]) -> None:
        self.whole = whole
        self.sections = list(dict.fromkeys(finding["section"] for finding in whole["findings"]))
        for finding in whole["findings"]:
            assert set(finding) == {"section", "subject", "state", "found", "remedy", "values"}
            assert finding["found"] and bool(finding["remedy"]) == (finding["state"] != "ok"), finding

    def find(self, section: str, subject: str) -> Any:
        found = [each for each in self.whole["findings"] if (each["section"], each["subject"]) == (section, subject)]
        assert len(found) == 1, self.whole
        return found[0]

    def state(self, section: str, subject: str) -> str:
        return str(self.find(section, subject)["state"])


@pytest.fixture
def doctor(tmp_path: Path) -> Doctor:
    return Doctor(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny model for each stage, recorded as an installation does."""
    folder = tmp_path_factory.mktemp("models")
    write_trained_checkpoint(folder / "wenet-zh", "zh")
    write_trained_checkpoint(folder / "wenet-en", "en")
    make_checkpoint(folder / "xtts-v2")
    for name in ("wenet-zh", "wenet-en", "xtts-v2"):
        record(folder / name, name)
    return folder


def record(folder: Path, name: str) -> None:
    files = describe(folder, [path.name for path in folder.iterdir()])
    write_record(folder, Record(name, "here", now_text(), "none", files, (FileRecord("a.tar.gz", 1, "0" * 64),)))


def test_out_of_the_box_there_are_warnings_only(doctor: Doctor) -> None:
    with ChatServer(answer(REPLY)) as api:
        doctor.configure(chatgpt_apis=[api.api(KEY)])
        code, report = doctor.report()
        asked = [request.body.get("max_tokens") for request in api.requests]
    assert code == 0 and report.whole["ok"] and report.whole["problems"] == 0 and report.sections == SECTIONS
    assert report.state("chat", "API 1") == "ok" and asked == [1, None, None]
    assert report.find("weights", "hearing Chinese")["values"] == {"engine": "none", "tier": "floor"}
    for subject in ("hearing Chinese", "hearing English", "speaking Chinese"):  # one command goes up a tier
        assert report.find("weights", subject)["remedy"] == "`.venv/bin/mirrorchat models install small`"
    english = report.find("weights", "speaking English")
    assert english["values"] == {"engine": "small", "tier": "small"} and "hibari speaks" in english["found"]
    assert english["found"].endswith("; to go up a tier: `.venv/bin/mirrorchat models install xtts-v2`")
    english = report.find("round trip", "English")["values"]
    assert english["voice"] == "tint" and all(english[f"{stage}_ms"] >= 0 for stage in STAGES)
    assert "its text was given" in report.find("round trip", "Chinese")["found"]
    check_the_engines(report)


def test_the_chat_api_of_the_environment_is_examined(doctor: Doctor) -> None:
    with ChatServer(answer(REPLY)) as api:
        url = f"http://127.0.0.1:{api.port}"
        code, report = doctor.report(
            "--no-round-trip", MIRRORCHAT_CHAT_URL=url, MIRRORCHAT_CHAT_KEY=KEY, MIRRORCHAT_CHAT_MODEL="gpt-x"
        )
        assert [request.path for request in api.requests] == ["/v1/chat/completions"]
        assert api.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert code == 0
    assert report.find("chat", "source")["found"] == (
        f"MIRRORCHAT_CHAT_URL is set; words are sent to 127.0.0.1:{api.port}")  # fmt: skip
    assert report.find("chat", "API 1")["found"].startswith(f"gpt-x@127.0.0.1:{api.port} answers")


def test_the_command_for_the_ollama_that_runs_stands_in_one_line(doctor: Doctor) -> None:
    with OllamaServer("qwen2.5-coder:32b-instruct-q4_K_M") as ollama:
        done = doctor.run("--no-round-trip", **{HOST_VARIABLE: f"127.0.0.1:{ollama.port}"})
    command = (
        f"`MIRRORCHAT_CHAT_URL=http://127.0.0.1:{ollama.port}"
        " MIRRORCHAT_CHAT_MODEL=qwen2.5-coder:32b-instruct-q4_K_M scripts/serve`"
    )
    assert [line.strip() for line in done.stdout.splitlines() if "MIRRORCHAT_CHAT_MODEL" in line] == [command]


def test_a_bad_variable_is_named(doctor: Doctor) -> None:
    code, report = doctor.report("--no-round-trip", OPENAI_API_KEY=KEY, OPENAI_BASE_URL="nowhere")
    found = report.find("configuration", "file")
    assert code == 1 and found["found"].startswith("OPENAI_BASE_URL must be") and "environment" in found["remedy"]


def check_the_engines(report: Report) -> None:
    """See that the engines which the section on weights names are those that were loaded."""
    loaded = report.find("round trip", "load")["values"]
    for language in Language:
        name = language.value.capitalize()
        heard = report.find("weights", f"hearing {name}")["values"]["engine"]
        (spoken,) = (
            finding["values"]["engine"]
            for finding in report.whole["findings"]
            if finding["subject"].startswith("speaking") and name in finding["subject"]
        )
        assert (heard, spoken) == (loaded[f"recognizer.{language.code}"], loaded[f"synthesizer.{language.code}"])


def test_real_models_are_compared_and_make_the_round_trip(doctor: Doctor, models: Path) -> None:
    with ChatServer(status(401)) as api:
        doctor.configure(
            models_dir=str(models), recognizer={"english": "wenet"}, xtts_weights="fp32", chatgpt_apis=[api.api(KEY)]
        )
        code, report = doctor.report("--thorough")
        assert len(api.requests) == 1  # the round trip goes on with the parrot
    assert code == 1 and not report.whole["ok"] and report.whole["problems"] == 1
    assert report.find("chat", "API 1")["values"]["status"] == 401
    assert "files of the recorded checksums" in report.find("weights", "hearing English")["found"]
    assert report.find("weights", "speaking Chinese and English")["values"] == {"model": "xtts-v2", "engine": "xtts"}
    check_the_engines(report)
    for language in ("Chinese", "English"):
        found = report.find("round trip", language)
        if found["values"].get("error") == "NoWords":  # the tiny recognizers know the tests' words only
            found = report.find("round trip", f"{language}, text given")
        assert found["state"] == "ok" and found["values"]["voice"] == "clone" and found["values"]["speak_ms"] > 0


def test_weights_that_do_not_load_are_a_problem_of_the_round_trip_too(doctor: Doctor, models: Path) -> None:
    doctor.models_dir.mkdir()
    shutil.copytree(models / "xtts-v2", doctor.models_dir / "xtts-v2")
    (doctor.models_dir / "xtts-v2" / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    code, report = doctor.report("--no-network")
    assert code == 1
    speaking = report.find("weights", "speaking Chinese and English")
    assert speaking["state"] == "problem" and "has 16 bytes, not" in speaking["found"]
    assert speaking["remedy"] == "`.venv/bin/mirrorchat models install xtts-v2 --replace`"
    load = report.find("round trip", "load")
    assert load["state"] == "problem" and load["values"] == {"stage": "load"}


def test_a_broken_package_stops_what_needs_it_and_nothing_else(doctor: Doctor) -> None:
    (doctor.folder / "first").mkdir()
    (doctor.folder / "first" / "soundfile.py").write_text("raise ImportError('broken', name='soundfile')\n")
    (doctor.folder / "nvidia-smi").write_text("#!/bin/sh\necho NVIDIA Fake\n")
    (doctor.folder / "nvidia-smi").chmod(0o755)
    doctor.configure(device="cuda:7")
    done = doctor.run("--no-network", PATH=f"{doctor.folder}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 1 and done.stderr == ""
    titles = [line for line in done.stdout.splitlines() if line and not line.startswith(" ")]
    assert titles[:-1] == SECTIONS and "problem" in titles[-1]
    assert "soundfile cannot be imported" in done.stdout and "device is 'cuda:7'" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_bad_configuration_leaves_the_rest_to_be_looked_at(doctor: Doctor) -> None:
    doctor.config.write_text(f"print('hello')\nchatgpt_apis = [{{'key': '{KEY}'}}]\n")
    done = doctor.run("--json")
    report = Report(json.loads(done.stdout))
    assert done.returncode == 1 and done.stderr == "hello\n" and report.sections == SECTIONS
    assert [each["subject"] for each in report.whole["findings"] if each["state"] == "problem"] == ["file"]
    assert report.state("packages", "base") == "ok" and report.state("device", "memory") == "ok"


def test_a_configuration_that_hangs_is_given_up(doctor: Doctor) -> None:
    doctor.config.write_text("import time\ntime.sleep(600)\n")
    code = (
        "import mirrorchat.cli.commands.doctor as doctor\ndoctor._QUICK_S = doctor._TORCH_S = doctor._SPARE_S = 1.0\n"
    )
    code += "from mirrorchat.cli.main import cli\ncli.main(['doctor', '--json'])\n"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT, env=doctor.environ(), capture_output=True, text=True, timeout=60)
    report = Report(json.loads(done.stdout))
    assert done.returncode == 1 and report.state("configuration", "configuration") == "problem"
    assert report.sections == SECTIONS


def test_what_takes_long_is_said_at_a_terminal_only(doctor: Doctor) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "mirrorchat", "doctor", "--no-round-trip", "--json"]
    with subprocess.Popen(
        command, cwd=ROOT, env=doctor.environ(), stdout=subprocess.PIPE, stderr=theirs, text=True
    ) as process:
        os.close(theirs)
        printed = process.communicate(timeout=60)[0]
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "examining: device" in shown and shown.endswith("\r\x1b[K")
    assert json.loads(printed)["findings"]


@pytest.mark.parametrize("arguments", [["--fast"], ["now"]])
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(cli, ["doctor", *arguments]).exit_code == 2


# weights


def hearing_english(doctor: Doctor, *, thorough: bool = False) -> Any:
    settings = load_settings(doctor.config, environ={})
    (found,) = [each for each in weight_findings(settings, thorough=thorough) if each.subject == "hearing English"]
    return found


def test_changed_weights_are_found_by_size_or_by_checksum(doctor: Doctor, models: Path) -> None:
    folder = doctor.models_dir / "wenet-en"
    shutil.copytree(models / "wenet-en", folder)
    assert hearing_english(doctor, thorough=True).state is State.OK
    content = bytearray((folder / "final.pt").read_bytes())
    content[-1] ^= 1
    (folder / "final.pt").write_bytes(content)
    assert hearing_english(doctor).state is State.OK  # the size is right
    changed = hearing_english(doctor, thorough=True)
    assert changed.state is State.PROBLEM and "final.pt has changed" in changed.found
    (folder / "final.pt").unlink()
    missing = hearing_english(doctor)
    assert missing.state is State.PROBLEM and "final.pt is missing" in missing.found
    assert missing.remedy == "`.venv/bin/mirrorchat models install wenet-en --replace`"
    (folder / "installed.json").write_text("{")
    assert "damaged" in hearing_english(doctor).found
    (folder / "installed.json").unlink()
    by_hand = hearing_english(doctor)
    assert by_hand.state is State.PROBLEM and "has no final.pt or" in by_hand.found
    (folder / "final.pt").write_bytes(content)
    assert hearing_english(doctor).state is State.OK and "by hand" in hearing_english(doctor).found


@pytest.mark.parametrize(
    ("choice", "state", "engine"),
    [("embedded", State.OK, "embedded"), ("auto", State.WARNING, "embedded"), ("wenet", State.PROBLEM, "none")],
)
def test_without_weights_it_is_told_what_is_used(doctor: Doctor, choice: str, state: State, engine: str) -> None:
    doctor.configure(recognizer={"english": choice})
    found = hearing_english(doctor)
    assert found.state is state and found.values["engine"] == engine and bool(found.remedy) == (state is not State.OK)
    assert needs_full(load_settings(doctor.config, environ={})) == (choice == "wenet")


def test_languages_with_other_synthesizers_are_apart(doctor: Doctor) -> None:
    doctor.configure(synthesizer={"chinese": "xtts", "english": "embedded"}, recognizer="wenet:paraformer")
    titles = [stage.title for stage in stages(load_settings(doctor.config, environ={}))]
    assert titles == ["hearing Chinese", "hearing English", "speaking Chinese", "speaking English"]
    heard = hearing_english(doctor)
    assert heard.state is State.PROBLEM and "wenet-e2e/wenet" in heard.remedy
