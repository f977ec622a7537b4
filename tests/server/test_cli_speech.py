"""`mirrorchat say` and `hear`, on the engines of the process and against a running server."""

import json
from pathlib import Path

import numpy as np
import pytest
from support.command_line import environment, player, run
from support.places import ROOT
from support.running_server import RunningServer

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import ENCODERS, encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.client.sound_programs import FILE_FORMATS

QUESTION = str(ROOT / "examples" / "question.wav")
WORDS = "What is the best way to learn a language"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a configuration that has no models, and a player."""
    (tmp_path / "config.py").write_text(f"models_dir = {str(tmp_path)!r}\nthreads = 1\n")
    player(tmp_path / "programs", "paplay")
    return environment(tmp_path / "programs", MIRRORCHAT_CONFIG=str(tmp_path / "config.py"))


def test_a_recording_is_written_down(env: dict[str, str]) -> None:
    done = run("hear", "-", env=env, stdin=Path(QUESTION).read_bytes())
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{WORDS}\n", b"")


def test_what_is_missing_for_chinese_is_told(env: dict[str, str]) -> None:
    done = run("hear", QUESTION, "--language", "zh", env=env)
    assert done.returncode == 1 and b"mirrorchat models install wenet-zh" in done.stderr


def test_units_and_their_times_are_in_the_json(env: dict[str, str], tmp_path: Path) -> None:
    pytest.importorskip("kaldi_native_fbank", reason="WeNet's packages, of the extra `full`, are not installed")
    import tiny_wenet_speech as tiny
    from support.trained_wenet import write_trained_checkpoint

    write_trained_checkpoint(tmp_path / "wenet-en", "en")
    take = next(take for take in tiny.held_out("en") if take.kind == "heard")
    recording = encode_wav(Audio(tiny.speak([take])[0], tiny.SAMPLE_RATE))
    done = run("hear", "-", "--json", env=env, stdin=recording)
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    assert found["text"].lower() == take.text and found["tokens"] and 0 <= found["confidence"] <= 1
    times = [time for token in found["tokens"] for time in (token["start"], token["end"])]
    assert times == sorted(times) and times[-1] <= found["duration"] + 0.1


def test_a_text_is_said_in_the_voice_of_a_recording(env: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "said.wav"
    done = run("say", "Hello there, how are you?", "--voice", QUESTION, "--json", "--out", str(out), "--play", env=env)
    assert (done.returncode, done.stderr) == (0, b"")
    found = json.loads(done.stdout)
    saved = decode(out.read_bytes(), limit_s=60)
    assert found["voice"]["kind"] == "tint" and found["audio_s"] == pytest.approx(saved.duration_s, abs=1e-3)
    played = np.frombuffer((tmp_path / "programs" / "played").read_bytes(), "<i2").astype(np.float32) / 32767
    assert np.abs(played - saved.samples).max() < 1e-4


def test_a_text_from_standard_input_is_said_in_a_neutral_voice(env: dict[str, str]) -> None:
    done = run("say", "-", "--out", "-", env=env, stdin="你好，今天天气很好。".encode())
    assert (done.returncode, done.stderr) == (0, b"")
    assert decode(done.stdout, limit_s=60).duration_s > 1


def test_a_text_that_cannot_be_said_is_told(env: dict[str, str], tmp_path: Path) -> None:
    done = run("say", "-", "--out", str(tmp_path / "said.wav"), env=env, stdin=b"\xff\xfe")
    assert done.returncode == 1 and b"not UTF-8" in done.stderr
    assert not (tmp_path / "said.wav").exists()


def test_a_dry_run_prints_the_spoken_form_and_loads_no_engine(env: dict[str, str]) -> None:
    text = "**Today** it is -3°C in the north. We pay $20 for the tickets."
    done = run("say", text, "--language", "en", "--dry-run", env=env | {"PYTHONPROFILEIMPORTTIME": "1"})
    assert done.returncode == 0
    assert done.stdout.decode().splitlines() == [
        "Today it is minus three degrees Celsius in the north.",
        "We pay twenty dollars for the tickets.",
    ]
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.decode().splitlines()}
    assert "mirrorchat.text.splitter" in imported, "the list of imports is not read"
    assert not imported & {"torch", "mirrorchat.startup.loading", "mirrorchat.synth", "pyworld", "httpx"}


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_a_dry_run_reads_and_prints_utf8_in_every_locale(env: dict[str, str], locale: str) -> None:
    for encoding in ({}, {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}):
        done = run(
            "say", "-", "--dry-run", env=env | {"LC_ALL": locale} | encoding, stdin="今天零下3°C，很冷。\n".encode()
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.decode() == "今天零下三摄氏度，很冷。\n"


def test_a_dry_run_gives_json_and_tells_of_a_text_without_a_word(env: dict[str, str]) -> None:
    done = run("say", "今天3°C。", "--dry-run", "--json", env=env)
    assert json.loads(done.stdout) == {"language": "chinese", "sentences": ["今天三摄氏度。"]}
    done = run("say", "...", "--dry-run", env=env)
    assert (done.returncode, done.stdout) == (1, b"") and b"no words to speak" in done.stderr


def test_the_reasoning_of_a_model_is_not_spoken(env: dict[str, str]) -> None:
    answer = "<think>They greet me, so I greet back.</think>\nHello there, my friend."
    done = run("say", "-", "--dry-run", env=env, stdin=answer.encode())
    assert (done.returncode, done.stdout) == (0, b"Hello there, my friend.\n")


@pytest.mark.parametrize("before", [[], ["--"]])
def test_a_text_may_begin_with_a_minus(env: dict[str, str], before: list[str]) -> None:
    done = run("say", "--dry-run", "--language", "en", *before, "-3°C the whole night", env=env)
    assert done.stdout == b"minus three degrees Celsius the whole night\n"
    done = run("say", "--dry-rum", "Hello there.", env=env)
    assert done.returncode == 2 and b"--dry-run" in done.stderr, "a misspelled option is no text"


def test_a_server_writes_down_and_says(env: dict[str, str], embedded_server: RunningServer, tmp_path: Path) -> None:
    env["MIRRORCHAT_SERVER"] = embedded_server.url
    heard = run("hear", QUESTION, "--json", env=env)
    assert heard.returncode == 0 and json.loads(heard.stdout)["text"] == WORDS
    out = tmp_path / "said.wav"
    said = run("say", "Hello there, how are you?", "--voice", QUESTION, "--json", "--out", str(out), env=env)
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["voice"]["kind"] == "tint"
    assert decode(out.read_bytes(), limit_s=60).duration_s > 1
    neutral = run("say", "Hello there.", "--out", "-", env=env)
    assert neutral.returncode == 0 and decode(neutral.stdout, limit_s=60).duration_s > 0.4


def test_a_text_is_said_at_a_speed(env: dict[str, str], embedded_server: RunningServer) -> None:
    def seconds(*options: str, **environ: str) -> float:
        done = run("say", "Hello there, how are you?", "--out", "-", *options, env=env | environ)
        assert (done.returncode, done.stderr) == (0, b"")
        return decode(done.stdout, limit_s=60).duration_s

    for place in ({}, {"MIRRORCHAT_SERVER": embedded_server.url}):
        plain = seconds("--temperature", "0.5", "--top-k", "3", **place)  # which no engine here follows
        assert plain / seconds("--speed", "2", **place) == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [("--speed", "5"), ("--temperature", "nan"), ("--top-k", "1.5"), ("--voice", QUESTION, "--speaker", "Zoe")],
)
def test_options_out_of_bounds_are_wrong_usage(env: dict[str, str], options: tuple[str, ...]) -> None:
    assert run("say", "Hello.", "--out", "-", *options, env=env).returncode == 2


def test_a_speaker_that_nobody_has_is_told(env: dict[str, str], embedded_server: RunningServer) -> None:
    here = run("say", "Hello.", "--speaker", "Zoe", "--out", "-", env=env)
    assert here.returncode == 1 and here.stderr == b"mirrorchat: the model has no voice 'Zoe'; it has none\n"
    there = run("say", "Hello.", "--speaker", "Zoe", "--out", "-", "--server", embedded_server.url, env=env)
    assert there.returncode == 1 and b"there is no voice 'Zoe' of yours" in there.stderr


def test_a_speaker_of_xtts_says_a_text(env: dict[str, str], tmp_path: Path, xtts_checkpoint: Path) -> None:
    (tmp_path / "xtts-v2").symlink_to(xtts_checkpoint)
    options = ("--speaker", "ana florence", "--temperature", "0.3", "--json", "--out", str(tmp_path / "said.wav"))
    done = run("say", "Hello there.", *options, env=env)
    assert done.returncode == 0, done.stderr
    voice = json.loads(done.stdout)["voice"]
    assert voice == {"kind": "neutral", "reason": "the built-in voice Ana Florence"}
    missing = run("say", "Hello there.", "--speaker", "Zoe", "--out", "-", env=env)
    assert missing.returncode == 1 and b"it has Ana Florence, Claribel Dervla" in missing.stderr


def test_speech_can_be_saved_in_every_format_that_is_encoded() -> None:
    assert set(FILE_FORMATS.values()) == set(ENCODERS)
