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
from support.speech import say, say_wav

from mirrorchat.audio.decoding import decode
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation import report as evaluation_report
from mirrorchat.cli.evaluation import speaker_encoder
from mirrorchat.cli.evaluation import speech as evaluation_speech
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.speech import ANSWERS, choose_answered, make_clips
from mirrorchat.cli.evaluation.table import table
from mirrorchat.cli.main import cli
from mirrorchat.engines import Language

FIELDS = {
    "claim", "doubts", "versions", "hardware", "settings", "engines", "normalization", "similarity_encoder",
    "no_similarity", "languages", "clips", "answers",
}  # fmt: skip
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
        found = figures(evaluate(folder, "--answers", 1, "--json"))
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
    english, chinese = embedded["languages"]["english"], embedded["languages"]["chinese"]
    assert (english["clips"], english["speakers"], english["rate"], chinese["rate"]) == (2, 2, "WER", "CER")
    heard = english["recognition"]
    assert heard["reference"] == 18 and heard["failed"] == 0 and 0.0 <= heard["error_rate"] < 0.6
    assert heard["error_rate"] == (heard["substituted"] + heard["deleted"] + heard["inserted"]) / 18
    assert heard["elapsed_per_second"] > 0 and heard["interval_95"] is None
    assert chinese["recognition"] is None and "wenet-zh" in chinese["not_recognized"]
    assert [clip["file"] for clip in embedded["clips"]] == ["ann.wav", "bob.wav", "zh.wav"]
    assert embedded["clips"][2]["heard"] is None
    assert embedded["clips"][0]["heard"]["reference"] == f"{QUESTION.upper()}?"


def test_answers_over_a_folder(embedded: dict[str, Any]) -> None:
    english, chinese = (embedded["languages"][name]["answers"] for name in ("english", "chinese"))
    for spoken in (english, chinese):
        assert (spoken["spoken"], spoken["failed"]) == (1, 0) and spoken["seconds"] > 2.0
        assert sum(spoken["voices"].values()) == 1 and spoken["voices"]["clone"] == 0
        assert 0.0 < spoken["first_audio_median_s"] <= spoken["first_audio_max_s"]
        assert spoken["real_time_factor"] > 0.0
    assert english["recognition"]["reference"] > 10 and chinese["recognition"] is None


def test_the_report_says_with_what_it_was_measured(embedded: dict[str, Any]) -> None:
    assert embedded["settings"]["threads"] == 1 and embedded["settings"]["seed"] == 7
    assert embedded["engines"]["recognizer.en"]["name"] == embedded["engines"]["synthesizer.zh"]["name"] == "embedded"
    assert embedded["hardware"]["cpu"] and embedded["versions"]["numpy"] and "secret" not in json.dumps(embedded)
    assert embedded["claim"] is True and embedded["doubts"] == []


def test_speaker_similarity_is_measured(embedded: dict[str, Any]) -> None:
    if missing := speaker_encoder.missing_packages():
        pytest.skip(missing)
    assert embedded["similarity_encoder"] == "Resemblyzer 0.1.4" and embedded["no_similarity"] is None
    english, chinese = (embedded["languages"][name]["answers"] for name in ("english", "chinese"))
    assert 0.0 < english["floor"] < english["ceiling"] <= 1.0 and 0.0 < english["similarity"] <= 1.0
    assert english["ceilings_by_halves"] == 1 and chinese["floor"] is None
    fields = {"answer", "ceiling", "floor", "by_halves"}
    assert all(answer["similarity"].keys() == fields for answer in embedded["answers"])


def test_a_table_without_similarity_and_answers_that_are_kept(
    models_dir: Path, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_encoder, "NEEDED_PACKAGES", ("not_a_package",))
    result = evaluate(short, "--answers", 1, "--say", "transcript", "--save", tmp_path / "kept")
    assert result.exit_code == 0 and result.stderr == ""  # progress is for terminals
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["chinese", "english"]
    assert any(re.search(r"  error rate +not measured +WER \d+\.\d %$", line) for line in lines)
    assert any(re.search(r"real-time factor +\d\.\d+ +\d\.\d+$", line) for line in lines)
    assert "install wenet-zh" in result.stdout
    assert "similarity was not measured: not_a_package not installed: run scripts/environment full" in result.stdout
    saved = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in saved] == ["0001-zh-zh.wav", "0002-en-ann.wav"]
    assert decode(saved[1].read_bytes(), limit_s=60.0).duration_s > 0.5
    assert "is not empty" in refused(evaluate(short, "--save", tmp_path / "kept"))
    assert "not_a_package" in refused(evaluate(short, "--require-similarity"))


def test_it_makes_its_own_recordings(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_speech, "SPEAKERS", {Language.ENGLISH: ("en-us+f2",)})
    found = figures(evaluate("--answers", 0, "--json"))
    assert found["languages"].keys() == {"english"}
    english = found["languages"]["english"]
    assert (english["clips"], english["speakers"], english["answers"], found["answers"]) == (3, 1, None, [])
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
        for language in found["languages"].values():
            assert language["recognition"]["error_rate"] < 0.2 and language["not_recognized"] is None
            assert language["answers"]["voices"]["clone"] == 1 and language["answers"]["seconds"] > 0.0
            assert language["answers"]["recognition"]["reference"] > 0
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
    spoken = report["languages"]["english"]["answers"]
    assert (spoken["spoken"], spoken["failed"], spoken["real_time_factor"]) == (0, 1, None)
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
    assert "--require-similarity" in done.stdout and done.stdout.endswith("imported:\n")
