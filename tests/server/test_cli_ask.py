"""`mirrorchat ask` against a running server and on engines of its own, with programs that play and record."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from support.chat_server import ChatServer, answer, status, truncated
from support.command_line import Terminal, command, environment, player, recorder, run
from support.places import ROOT
from support.running_server import RunningServer
from support.stream_client import Gate

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.samples import Samples, to_pcm16
from mirrorchat.cli.main import cli

QUESTION = str(ROOT / "examples" / "question.wav")
FIRST = "The first sentence is longer than the second."
REPLY = "Practice every day. Listen to people who speak it."
KEY = "a-key-that-is-long-enough"


@pytest.fixture(scope="module")
def chat() -> Iterator[ChatServer]:
    with ChatServer(answer(REPLY)) as chat:
        yield chat


@pytest.fixture(scope="module")
def server(chat: ChatServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server that needs a key, and whose chat API a test can change."""
    with RunningServer(
        tmp_path_factory.mktemp("asked"), api_keys=[KEY], chatgpt_apis=[chat.api()], wait=False
    ) as server:
        server.wait_until_ready()
        yield server


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    (tmp_path / "programs").mkdir()
    return tmp_path / "programs"


@pytest.fixture
def env(programs: Path, server: RunningServer) -> dict[str, str]:
    return environment(programs, MIRRORCHAT_SERVER=server.url, MIRRORCHAT_API_KEY=KEY)


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 60.0
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def played(programs: Path) -> Samples:
    """Return what the player got, bare samples."""
    return np.frombuffer((programs / "played").read_bytes(), "<i2").astype(np.float32) / np.float32(32767)


def test_piped_there_is_the_reply_and_nothing_else(env: dict[str, str]) -> None:
    done = run("ask", QUESTION, env=env)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{REPLY}\n", b"")


def test_json_is_one_object_that_says_all(env: dict[str, str]) -> None:
    done = run("ask", "-", "--json", env=env, stdin=Path(QUESTION).read_bytes())
    assert (done.returncode, done.stderr) == (0, b"") and done.stdout.count(b"\n") == 1
    found = json.loads(done.stdout)
    assert found["transcript"] == "What is the best way to learn a language" and found["reply"] == REPLY
    assert found["voice"]["kind"] == "tint" and found["engines"]["chat"]["name"] == "chat"
    assert {"recognize_s", "voice_s", "answer_s", "speak_s", "total_s"} <= set(found["timings"])
    assert found["first_audio_s"] > 0 and found["audio_s"] > 1 and found["failed_sentences"] == []
    again = run("ask", QUESTION, "--session", found["session_id"], "--json", env=env)
    assert json.loads(again.stdout)["session_id"] == found["session_id"]
    unknown = run("ask", QUESTION, "--session", "x" * 32, env=env)
    assert unknown.returncode == 1 and b"(not_found)" in unknown.stderr


def test_at_a_terminal_it_is_played_and_all_is_shown(env: dict[str, str], programs: Path, tmp_path: Path) -> None:
    player(programs)
    with Terminal(["ask", QUESTION, "--language", "english"], env) as terminal:
        assert terminal.end() == 0
    shown = terminal.shown
    assert "you: What is the best way to learn a language\n" in shown and f"{REPLY}\n" in shown
    assert "voice: tint, " in shown and "the first sound after" in shown and "session: " in shown
    assert (programs / "arguments").read_text().split() == [
        "-q",
        "-t",
        "raw",
        "-f",
        "S16_LE",
        "-r",
        "24000",
        "-c",
        "1",
        "-",
    ]
    done = run("ask", QUESTION, "--out", str(tmp_path / "answer.wav"), env=env)
    saved = decode((tmp_path / "answer.wav").read_bytes(), limit_s=60)
    assert done.returncode == 0 and saved.sample_rate == 24000
    assert np.abs(played(programs) - saved.samples).max() < 1e-4


def test_a_player_hears_the_first_sentence_while_the_second_is_not_written_yet(
    env: dict[str, str], programs: Path, chat: ChatServer
) -> None:
    gate = Gate(f"{FIRST} And", " the second one comes later.")
    player(programs)
    before, chat.behaviour = chat.behaviour, gate.behave
    process = subprocess.Popen(command("ask", QUESTION, "--play"), cwd=ROOT, env=env, stdout=subprocess.PIPE)
    try:
        wait_for(lambda: (programs / "played").is_file() and (programs / "played").stat().st_size > 0)
        heard = (programs / "played").stat().st_size
        gate.opened.set()
        out, _ = process.communicate(timeout=60)
    finally:
        gate.opened.set()
        chat.behaviour = before
        process.kill()
        process.communicate()
    assert process.returncode == 0 and out.decode() == f"{FIRST} And the second one comes later.\n"
    assert (programs / "played").stat().st_size > heard


def test_that_no_api_answers_is_heard_to_its_end(
    env: dict[str, str], programs: Path, chat: ChatServer, tmp_path: Path
) -> None:
    player(programs)
    before, chat.behaviour = chat.behaviour, status(500)
    try:
        done = run("ask", QUESTION, "--text", "Hi", "--play", "--out", str(tmp_path / "answer.wav"), env=env)
    finally:
        chat.behaviour = before
    assert (done.returncode, done.stdout) == (1, b"") and b"no chat API answered" in done.stderr
    assert 1.0 < len(played(programs)) / 24_000 < 6.0 and not (tmp_path / "answer.wav").exists()


def test_an_answer_that_breaks_off_ends_its_line(env: dict[str, str], chat: ChatServer, tmp_path: Path) -> None:
    before, chat.behaviour = chat.behaviour, truncated(FIRST, " And the")
    try:
        done = run("ask", QUESTION, "--text", "Hi", "--out", str(tmp_path / "answer.wav"), env=env)
    finally:
        chat.behaviour = before
    assert (done.returncode, done.stdout.decode()) == (1, f"{FIRST} And the\n") and b"broke off" in done.stderr


def test_ctrl_c_ends_the_turn_and_the_player(env: dict[str, str], programs: Path, chat: ChatServer) -> None:
    gate = Gate(f"{FIRST} And", " the second one never comes.")
    player(programs, then="import time; time.sleep(60)")
    before, chat.behaviour = chat.behaviour, gate.behave
    process = subprocess.Popen(
        command("ask", QUESTION, "--play"), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        wait_for(lambda: (programs / "played").is_file() and (programs / "played").stat().st_size > 0)
        asked = chat.requests[-1]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 130 and err.decode().strip() == "mirrorchat: interrupted"
        assert asked.closed_early.wait(10), "the server was not told"
        assert not Path(f"/proc/{(programs / 'pid').read_text()}").exists(), "the player goes on"
    finally:
        gate.opened.set()
        chat.behaviour = before
        process.kill()
        process.communicate()


def test_an_answer_is_saved_by_the_ending_of_its_name_or_written_as_it_comes(
    env: dict[str, str], tmp_path: Path
) -> None:
    assert run("ask", QUESTION, "--out", str(tmp_path / "answer.opus"), env=env).returncode == 0
    saved = decode((tmp_path / "answer.opus").read_bytes(), limit_s=60)
    done = run("ask", QUESTION, "--out", "-", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    assert abs(decode(done.stdout, limit_s=60).duration_s - saved.duration_s) < 0.05
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["answer.opus"]


def test_a_player_that_fails_is_told_and_the_file_is_there(env: dict[str, str], programs: Path, tmp_path: Path) -> None:
    player(programs, then="sys.exit('no sound card\\x1b[31m')")
    out = tmp_path / "answer.wav"
    done = run("ask", QUESTION, "--play", "--out", str(out), env=env)
    assert done.returncode == 1 and done.stderr.decode() == "mirrorchat: aplay could not play: no sound card [31m\n"
    assert decode(out.read_bytes(), limit_s=60).duration_s > 1


def test_a_reader_that_goes_away_ends_it_without_a_traceback(env: dict[str, str]) -> None:
    process = subprocess.Popen(
        command("ask", QUESTION, "--out", "-"), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(4) == b"RIFF"
    process.stdout.close()
    assert process.wait(60) == 1
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()


def test_the_key_comes_from_a_file_too_and_its_lack_is_told(env: dict[str, str], tmp_path: Path) -> None:
    del env["MIRRORCHAT_API_KEY"]
    refused = run("ask", QUESTION, env=env)
    assert refused.returncode == 1 and b"MIRRORCHAT_API_KEY" in refused.stderr and not refused.stdout
    (tmp_path / "key").write_text(f"{KEY}\n")
    assert run("ask", QUESTION, "--key-file", str(tmp_path / "key"), env=env).returncode == 0


SPEECH = "[open({!r}, 'rb').read()]"


@pytest.fixture
def speech(tmp_path: Path) -> str:
    """Return the question as a recorder gives it, for `recorder`."""
    samples = decode(Path(QUESTION).read_bytes(), limit_s=60).resample(16_000).samples
    (tmp_path / "speech").write_bytes(to_pcm16(samples).tobytes())
    return SPEECH.format(str(tmp_path / "speech"))


def test_a_question_from_the_microphone_ends_with_silence(env: dict[str, str], programs: Path, speech: str) -> None:
    recorder(programs, f"{speech} + [bytes(3200)] * 600")  # then a minute of silence
    done = run("ask", "--mic", "--json", env=env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["transcript"] == "What is the best way to learn a language"
    assert "-r\n16000\n" in (programs / "arguments").read_text()


def test_a_question_from_the_microphone_ends_with_enter(env: dict[str, str], programs: Path, speech: str) -> None:
    recorder(programs, speech, then="time.sleep(60)")
    with Terminal(["ask", "--mic", "--no-play"], env) as terminal:
        terminal.read_until("speak now; Enter or ")
        wait_for((programs / "recorded").is_file)
        terminal.type("\n")
        terminal.read_until("you: What is the best way to learn a language\n")
        assert terminal.end() == 0


@pytest.mark.parametrize(
    ("pieces", "then", "said"),
    [
        ("[]", "sys.exit('arecord: main:830: audio open error')", "arecord could not record: arecord: main:830"),
        ("[]", "", "arecord recorded nothing"),
        ("[bytes(3200)] * 200", "", "nothing was said for 10 s: is the microphone muted?"),
    ],
)
def test_a_microphone_that_does_not_work_is_told(
    env: dict[str, str], programs: Path, pieces: str, then: str, said: str
) -> None:
    recorder(programs, pieces, then=then)
    done = run("ask", "--mic", env=env)
    assert done.returncode == 1 and done.stderr.decode().startswith(f"mirrorchat: {said}")


def test_it_is_told_what_to_install(env: dict[str, str]) -> None:
    for arguments, names in ((["--mic"], "arecord"), ([QUESTION, "--play"], "ffplay")):
        done = run("ask", *arguments, env=env)
        assert done.returncode == 1 and b"install" in done.stderr and names.encode() in done.stderr


def test_without_a_server_the_engines_of_the_configuration_answer(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "config.py").write_text(f"models_dir = {str(tmp_path)!r}\nthreads = 1\n")
    arguments = ["ask", QUESTION, "--config", str(tmp_path / "config.py"), "--out", str(tmp_path / "answer.wav")]
    with Terminal(arguments, environment(programs)) as terminal:
        assert terminal.end() == 0
    assert "You said: What is the best way to learn a language.\n" in terminal.shown
    assert "voice: tint" in terminal.shown and "session" not in terminal.shown
    assert decode((tmp_path / "answer.wav").read_bytes(), limit_s=60).duration_s > 3


def test_ctrl_c_while_the_engines_load_ends_it(programs: Path, tmp_path: Path, xtts_checkpoint: Path) -> None:
    # XTTS, because the import of torch takes long enough to be told of
    (tmp_path / "config.py").write_text(f"models_dir = {str(xtts_checkpoint.parent)!r}\nthreads = 1\n")
    with Terminal(["ask", QUESTION, "--config", str(tmp_path / "config.py")], environment(programs)) as terminal:
        terminal.read_until(r"loading the engines \(1 s\)")
        terminal.interrupt()
        assert terminal.end() == 130
    assert "mirrorchat: interrupted" in terminal.shown and "Traceback" not in terminal.shown
    assert "\x1b[K" in terminal.shown  # the line of progress is wiped


@pytest.mark.parametrize(
    "arguments",
    [
        ["ask"],
        ["ask", QUESTION, "--mic"],
        ["ask", QUESTION, "--session", "x"],
        ["ask", QUESTION, "--language", "klingon"],
        ["ask", QUESTION, "--out", "answer.doc"],
        ["ask", QUESTION, "--out", "-", "--json"],
        ["say", "-", "--voice", "-"],
        ["say", "hello"],
        ["hear"],
        ["completion", "tcsh"],
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRRORCHAT_SERVER", raising=False)
    assert CliRunner().invoke(cli, arguments).exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ask", "/no/such/file.wav"], "/no/such/file.wav cannot be read: No such file"),
        (["ask", QUESTION, "--server", "ftp://host"], "--server takes a URL"),
        (["ask", QUESTION, "--server", "http://name:word@host"], "--server takes a URL"),
        (["ask", QUESTION, "--server", "http://127.0.0.1:1"], "http://127.0.0.1:1: no server listens there"),
        (["ask", QUESTION, "--out", "/no/such/folder/answer.wav"], "/no/such/folder/answer.wav cannot be written"),
        (["ask", QUESTION, "--config", "/no/such/config.py"], "/no/such/config.py cannot be read"),
        (["hear", QUESTION, "--config", "/no/such/config.py"], "/no/such/config.py cannot be read"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRRORCHAT_SERVER", raising=False)
    result = CliRunner().invoke(cli, arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"mirrorchat: {said}") and result.stderr.count("\n") == 1


def test_shells_complete_commands() -> None:
    script = CliRunner().invoke(cli, ["completion", "bash"])
    assert script.exit_code == 0 and "_MIRRORCHAT_COMPLETE=bash_complete" in script.stdout
    asked = {
        "_MIRRORCHAT_COMPLETE": "bash_complete",
        "COMP_WORDS": "mirrorchat ask --reply-language ",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(command(), cwd=ROOT, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert "plain,chinese" in done.stdout
