"""`mirrorchat evaluate` as its users run it: on the embedded engines, and on tiny models."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_wenet_speech as wenet_speech
from click.testing import CliRunner, Result
from support.places import ROOT
from support.small_models import whisper_folder
from support.speech import say, say_wav

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation import judge
from mirrorchat.cli.evaluation import report as evaluation_report
from mirrorchat.cli.evaluation import speech as evaluation_speech
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.error_rate import edits
from mirrorchat.cli.evaluation.judge import NEEDED_PACKAGES
from mirrorchat.cli.evaluation.recording import Answer, Heard
from mirrorchat.cli.evaluation.speech import ANSWERS, choose_answered, make_clips
from mirrorchat.cli.evaluation.table import row, table
from mirrorchat.cli.main import cli
from mirrorchat.engines import Language
from mirrorchat.startup.engine_choice import absent_packages

FIELDS = {
    "claim", "doubts", "versions", "hardware", "settings", "engines", "judged", "normalization", "heard", "spoken",
    "clips", "answers",
}  # fmt: skip
EMBEDDED = ("--recognizer", "embedded", "--synthesizer", "embedded")
QUESTION = "what is the best way to learn a language"


def configure(folder: Path, patch: pytest.MonkeyPatch) -> Path:
    """Put a configuration in force and return its folder of models. It names a chat API that nobody may call."""
    config = folder / "config.py"
    lines = (f"models_dir = {str(folder / 'models')!r}", "threads = 1", "seed = 7")
    config.write_text("\n".join([*lines, "chatgpt_apis = [{'url': 'http://127.0.0.1:9/v1', 'key': 'secret'}]"]))
    patch.setenv("MIRRORCHAT_CONFIG", str(config))
    return folder / "models"


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return configure(tmp_path, monkeypatch)


def write_clips(folder: Path, question: str, voices: Mapping[str, str]) -> Path:
    """Fill `folder` with `question` in each of `voices`, by speaker, and a Chinese one of nobody in particular."""
    rows = ["file\tlanguage\ttranscript\tspeaker"]
    for name, voice in voices.items():
        (folder / f"{name}.wav").write_bytes(say_wav(question, voice))
        rows.append(f"{name}.wav\tenglish\t{question.upper()}?\t{name}")
    (folder / "zh.wav").write_bytes(encode_wav(say("今天天气怎么样", "cmn+f2")))
    rows.append("zh.wav\tchinese\t今天天气怎么样？\t")
    (folder / "clips.tsv").write_text("\n".join(rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two English clips of two speakers, and a Chinese one."""
    return write_clips(tmp_path_factory.mktemp("clips"), QUESTION, {"ann": "en-us+f2", "bob": "en-us+klatt4"})


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two words in English, and a Chinese clip."""
    return write_clips(tmp_path_factory.mktemp("short"), "good morning", {"ann": "en-us+f2"})


@pytest.fixture(scope="module")
def embedded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the report of the embedded engines over `folder`, an answer in each language; nothing was written."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        configure(home, patch)
        before = set(folder.rglob("*")) | set(home.rglob("*"))
        found = figures(evaluate(folder, "--answers", 1, "--json", *EMBEDDED))
        assert set(folder.rglob("*")) | set(home.rglob("*")) == before
    return found


def evaluate(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["evaluate", *map(str, arguments)], prog_name="mirrorchat")


def figures(result: Result) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    assert found.keys() == FIELDS
    return found


def refused(result: Result) -> str:
    assert result.exit_code == 1 and "Traceback" not in result.output, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mirrorchat: ")
    return lines[0]


def test_recognition_over_a_folder(embedded: dict[str, Any]) -> None:
    english, chinese = embedded["heard"]["english"], embedded["heard"]["chinese"]
    assert (english["clips"], english["speakers"], english["rate"], chinese["rate"]) == (2, 2, "WER", "CER")
    assert english["reference"] == 18 and english["failed"] == 0 and 0.0 <= english["error"] < 0.6
    assert english["error"] == (english["substituted"] + english["deleted"] + english["inserted"]) / 18
    assert english["interval_95"] is None and english["not_recognized"] is None
    times = [clip["heard"]["elapsed_s"] for clip in embedded["clips"][:2]]
    assert english["seconds_per_clip"] == pytest.approx(sum(times) / 2)
    assert english["real_time_factor"] == pytest.approx(sum(times) / english["seconds"])
    assert (
        chinese["error"] is chinese["seconds_per_clip"] is None and "models install small" in chinese["not_recognized"]
    )
    assert [clip["file"] for clip in embedded["clips"]] == ["ann.wav", "bob.wav", "zh.wav"]
    assert embedded["clips"][2]["heard"] is None
    assert embedded["clips"][0]["heard"]["reference"] == f"{QUESTION.upper()}?"


def test_answers_over_a_folder(embedded: dict[str, Any]) -> None:
    english, chinese = embedded["spoken"]["english"], embedded["spoken"]["chinese"]
    for spoken in (english, chinese):
        assert (spoken["answers"], spoken["failed"]) == (1, 0) and spoken["seconds"] > 2.0
        assert sum(spoken["voices"].values()) == 1 and spoken["voices"]["clone"] == 0
        assert 0.0 < spoken["first_audio_median_s"] <= spoken["first_audio_max_s"]
        assert spoken["real_time_factor"] > 0.0
        assert spoken["mos"] is spoken["score"] is spoken["similarity"] is spoken["no_score"] is None
    assert english["reference"] > 10 and chinese["error"] is None and embedded["judged"] is False


def test_the_report_says_with_what_it_was_measured(embedded: dict[str, Any]) -> None:
    assert embedded["settings"]["threads"] == 1 and embedded["settings"]["seed"] == 7
    assert embedded["engines"]["recognizer.en"]["name"] == embedded["engines"]["synthesizer.zh"]["name"] == "embedded"
    assert {engine["tier"] for engine in embedded["engines"].values()} == {"floor"}
    assert embedded["hardware"]["cpu"] and embedded["versions"]["numpy"] and "secret" not in json.dumps(embedded)
    assert embedded["claim"] is True and embedded["doubts"] == []


def test_rows_a_table_and_answers_that_are_kept(models_dir: Path, short: Path, tmp_path: Path) -> None:
    options = ("--answers", 1, "--say", "transcript", *EMBEDDED)
    result = evaluate(short, *options, "--save", tmp_path / "kept")
    assert result.exit_code == 0 and result.stderr == ""  # progress is for terminals
    rows, _, lines = result.stdout.partition("\n\n")
    assert re.sub(r"\d+(\.\d+)?", "N", rows).splitlines() == [
        "heard   english  N of N wrong, N s  ann.wav",
        "heard   chinese  not recognized  zh.wav",
        "spoken  chinese  N s for N s  zh.wav",
        "spoken  english  N of N wrong, N s for N s  ann.wav",
    ]
    assert lines.splitlines()[0].split() == ["chinese", "english"]
    assert re.search(r"^  error +not measured +WER \d+\.\d %$", lines, re.MULTILINE)
    assert re.search(r"^  error, by the configured recognizer +not measured +WER \d+\.\d %$", lines, re.MULTILINE)
    assert re.search(r"^recognizer +floor: \S", lines, re.MULTILINE) and "chinese: " in lines
    saved = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in saved] == ["0001-zh-zh.wav", "0002-en-ann.wav"]
    assert decode(saved[1].read_bytes(), limit_s=60.0).duration_s > 0.5
    assert "is not empty" in refused(evaluate(short, "--save", tmp_path / "kept"))


def test_rows_come_as_they_are_measured(models_dir: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "mirrorchat", "evaluate", str(folder), *EMBEDDED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.kill()
        rest = process.stdout.read()
    assert first.startswith("heard   english  ") and "recordings" not in rest  # the table has that word


# The judge


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the report of the judge on the embedded engines, an answer in each language."""
    if missing := absent_packages(NEEDED_PACKAGES):
        pytest.skip(f"{', '.join(missing)} not installed")
    whisper = whisper_folder()
    clips = write_clips(tmp_path_factory.mktemp("judged"), QUESTION, {"ann": "en-us+f2", "bob": "en-us+klatt4"})
    table = clips / "clips.tsv"
    (clips / "again.wav").write_bytes(say_wav("Please tell me about this old city.", "en-us+f2"))
    table.write_text(f"{table.read_text('utf-8')}\nagain.wav\ten\tPlease tell me about this old city.\tann", "utf-8")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        configure(home, patch).mkdir()
        (home / "models" / "whisper-base").symlink_to(whisper)
        return figures(evaluate(clips, "--answers", 1, "--json", "--judge", *EMBEDDED))


def test_the_judge_hears_answers_in_both_languages(judged: dict[str, Any]) -> None:
    english, chinese = judged["spoken"]["english"], judged["spoken"]["chinese"]
    assert judged["judged"] is True and "distillmos" in judged["versions"]
    assert 0.0 <= english["error"] < 0.5 and english["reference"] > 10
    assert chinese["error"] > 0.3 and chinese["reference"] > 10  # eSpeak NG's Mandarin is hard to understand
    assert judged["heard"]["chinese"]["error"] is None  # the judge does not stand in for the recognizer
    assert all(1.0 <= spoken["mos"] < 3.5 for spoken in (english, chinese))


def test_the_score_lies_between_strangers_and_the_same_speaker(judged: dict[str, Any]) -> None:
    english, chinese = judged["spoken"]["english"], judged["spoken"]["chinese"]
    assert 0.0 < english["strangers"] < english["same_speaker"] <= 1.0
    expected = (english["similarity"] - english["strangers"]) / (english["same_speaker"] - english["strangers"])
    assert english["score"] == pytest.approx(expected) and english["no_score"] is None
    assert chinese["score"] is None and chinese["no_score"].startswith("no speaker has two recordings")
    shown = table(judged)
    assert "chinese has no score: no speaker has two recordings" in shown
    assert re.search(rf"score \(0 strangers, 1 same speaker\) +{english['score']:.2f}$", shown, re.MULTILINE)
    assert re.search(r"naturalness \(MOS, 1 to 5\) +\d\.\d\d +\d\.\d\d$", shown, re.MULTILINE)


def test_rows_show_what_the_judge_found() -> None:
    clip = Clip("a\x1b[2J.wav", Language.ENGLISH, "words", None, 1.0, lambda: say(QUESTION))
    heard = Heard("good morning", "good", edits(("good", "morning"), ("good",)), 0.25)
    assert row(clip, heard) == "heard   english  1 of 2 wrong, 0.25 s  a [2J.wav"
    answer = Answer(elapsed_s=0.5, duration_s=2.0, heard=heard, mos=3.26, similarity=0.5)
    shown = row(clip, answer)
    assert shown == "spoken  english  1 of 2 wrong, MOS 3.3, similarity 0.50, 0.50 s for 2.00 s  a [2J.wav"
    assert row(clip, Answer(failure="no\nvoice")) == "spoken  english  failed: no voice  a [2J.wav"
    assert row(clip, None) == "heard   english  not recognized  a [2J.wav"


def test_the_judge_says_what_it_lacks(models_dir: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not absent_packages(NEEDED_PACKAGES):
        assert "run .venv/bin/mirrorchat models install small" in refused(evaluate(short, "--judge"))
    monkeypatch.setattr(judge, "NEEDED_PACKAGES", ("not_a_package",))
    assert "not_a_package: run scripts/environment small full evaluate" in refused(evaluate(short, "--judge"))


def test_it_makes_its_own_recordings(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_speech, "SPEAKERS", {Language.ENGLISH: ("en-us+f2",)})
    found = figures(evaluate("--answers", 0, "--json"))
    assert found["heard"].keys() == {"english"} and found["spoken"] == {} and found["answers"] == []
    assert (found["heard"]["english"]["clips"], found["heard"]["english"]["speakers"]) == (3, 1)
    assert found["claim"] is False and found["doubts"] == ["the recordings are synthetic: made by eSpeak NG"]


def test_recordings_are_made_in_each_voice() -> None:
    clips = make_clips()
    speakers = [voice for voices in evaluation_speech.SPEAKERS.values() for voice in voices]
    assert list(dict.fromkeys(clip.speaker for clip in clips)) == speakers
    assert len({clip.name for clip in clips}) == len(clips) == 18
    assert all(clip.load().duration_s == clip.duration_s > 1.0 for clip in clips)
    assert len({clip.load().samples.tobytes() for clip in clips}) == len(clips)


def test_answers_go_to_each_speaker_in_turn() -> None:
    def clip(name: str, speaker: str | None, language: Language = Language.ENGLISH) -> Clip:
        return Clip(name, language, "words", speaker, 1.0, lambda: Audio(say(QUESTION).samples, 22_050))

    clips = [clip("a1", "a"), clip("a2", "a"), clip("b1", "b"), clip("x", None), clip("y", None)]
    assert [each.name for each in choose_answered(clips, 9)] == ["a1", "b1", "x", "y", "a2"]
    assert [each.name for each in choose_answered(clips, 2)] == ["a1", "b1"]
    both = [*clips, clip("z", "z", Language.CHINESE)]
    assert [each.name for each in choose_answered(both, 1)] == ["z", "a1"]
    assert choose_answered(clips, 0) == [] == choose_answered([], 3)
    assert all(len(set(texts)) == 4 for texts in ANSWERS.values())


# Models


@pytest.fixture
def tiny_models(models_dir: Path) -> Path:
    """Install tiny models, as by hand."""
    pytest.importorskip("mirrorchat.xtts.model", reason="coqui-tts is not installed", exc_type=ImportError)
    from make_tiny_xtts import make_checkpoint
    from support.trained_wenet import write_trained_checkpoint

    make_checkpoint(models_dir / "xtts-v2")
    codes: tuple[wenet_speech.Code, ...] = ("en", "zh")
    for code in codes:
        write_trained_checkpoint(models_dir / f"wenet-{code}", code)
    return models_dir


def trained_clips(folder: Path) -> Path:
    """Fill `folder` with what the tiny recognizers were trained to hear: two clips of each language."""
    folder.mkdir()
    rows = ["transcript\tlanguage\tfile"]
    codes: tuple[wenet_speech.Code, ...] = ("en", "zh")
    for code in codes:
        takes = wenet_speech.held_out(code)[:2]
        for index, (take, samples) in enumerate(zip(takes, wenet_speech.speak(takes), strict=True)):
            (folder / f"{code}{index}.wav").write_bytes(encode_wav(Audio(samples, wenet_speech.SAMPLE_RATE)))
            rows.append(f"{take.text}\t{code}\t{code}{index}.wav")
    (folder / "clips.tsv").write_text("\n".join(rows), encoding="utf-8")
    return folder


def test_tiny_models_in_two_precisions(tiny_models: Path, tmp_path: Path) -> None:
    clips = trained_clips(tmp_path / "trained")
    options = ("--answers", 1, "--json", "--device", "cpu", "--xtts-weights", "fp32")
    for weights in ("fp32", "int8"):
        found = figures(evaluate(clips, *options, "--wenet-weights", weights))
        assert {info["name"] for info in found["engines"].values()} == {"wenet", "xtts"}
        assert weights in found["engines"]["recognizer.zh"]["model"]
        assert (found["settings"]["wenet_weights"], found["settings"]["xtts_weights"]) == (weights, "fp32")
        for language in ("chinese", "english"):
            assert found["heard"][language]["error"] < 0.2 and found["heard"][language]["not_recognized"] is None
            assert found["spoken"][language]["voices"]["clone"] == 1 and found["spoken"][language]["seconds"] > 0.0
            assert found["spoken"][language]["reference"] > 0
        assert found["claim"] is False
        assert [doubt.split(" are ")[0] for doubt in found["doubts"]] == [
            f"the weights in {name}" for name in ("wenet-en", "wenet-zh", "xtts-v2")
        ]


def test_weights_that_are_no_release_are_doubted(tmp_path: Path) -> None:
    folder = tmp_path / "wenet-en"
    folder.mkdir()
    assert "of unknown origin" in evaluation_report.weights_doubt(folder)
    record = {
        "name": "wenet-en",
        "source": "x",
        "installed_at": "",
        "licence_accepted": "",
        "files": [],
        "released": [],
    }
    (folder / "installed.json").write_text(json.dumps(record))
    assert "far smaller than wenet-en" in evaluation_report.weights_doubt(folder)
    with (folder / "final.safetensors").open("wb") as file:
        file.truncate(180_000_000)
    assert evaluation_report.weights_doubt(folder) == ""
    (folder / "installed.json").write_text("{")
    assert "of unknown origin" in evaluation_report.weights_doubt(folder)


def test_an_xtts_that_was_changed_is_doubted(tmp_path: Path) -> None:
    released = [{"name": "model.pth", "size_bytes": 1, "sha256": "0" * 64}]
    record = {"name": "xtts-v2", "source": "x", "installed_at": "", "licence_accepted": "", "files": []}
    (tmp_path / "installed.json").write_text(json.dumps({**record, "released": released}))
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(1_900_000_000)
    assert "differ from the published xtts-v2" in evaluation_report.weights_doubt(tmp_path)


# Failures


def test_failures_are_counted_and_end_with_1(models_dir: Path, short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_speech, "ANSWERS", dict.fromkeys(Language, ("?!",)))  # holds nothing to say
    result = evaluate(short, "--answers", 1, "--json")
    assert result.exit_code == 1 and result.stderr == "mirrorchat: 2 failed, the first one with: nothing was spoken\n"
    report = json.loads(result.stdout)
    spoken = report["spoken"]["english"]
    assert (spoken["answers"], spoken["failed"], spoken["real_time_factor"]) == (0, 1, None)
    assert re.search(r"answers +0, 1 failed +0, 1 failed$", table(report), re.MULTILINE)


@pytest.mark.parametrize(
    "arguments",
    [["no/such/folder"], ["--answers", "-1"], ["--xtts-weights", "fp7"], ["--say", "hello"], ["--threads", "x"]],
)
def test_wrong_usage_ends_with_2(models_dir: Path, arguments: list[str]) -> None:
    assert evaluate(*arguments).exit_code == 2


def test_errors_are_one_line(models_dir: Path, folder: Path, tmp_path: Path) -> None:
    assert "recognizer must be one of auto, wenet, small, embedded" in refused(evaluate(folder, "--recognizer", "vosk"))
    assert "device must be auto, cpu, cuda" in refused(evaluate(folder, "--device", "tpu"))
    assert "threads must be a whole number" in refused(evaluate(folder, "--threads", 0))
    assert "xtts-v2" in refused(evaluate(folder, "--synthesizer", "xtts"))
    (tmp_path / "file").touch()
    assert "cannot be written to" in refused(evaluate(folder, "--save", tmp_path / "file"))
    (tmp_path / "bad.tsv").write_text("file\tlanguage\ttranscript\n../x.wav\ten\thi\n")
    assert "bad.tsv, line 2: ../x.wav leads out of the folder" in refused(evaluate(tmp_path / "bad.tsv"))


def test_the_help_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfrom mirrorchat.cli.main import cli\ncli.main(['evaluate', '--help'], standalone_mode=False)\n"
        "print('imported:', *sorted({'torch', 'numpy', 'librosa', 'TTS', 'flask'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--judge" in done.stdout and done.stdout.endswith("imported:\n")
