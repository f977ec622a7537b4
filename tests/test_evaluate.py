"""`mirrorchat evaluate` as its users run it: on the embedded engines, and on tiny models."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_wenet_speech as wenet_speech
from click.testing import CliRunner, Result
from running_server import ROOT
from speech import say, say_wav

from mirrorchat import evaluation_report, evaluation_speech, speaker_encoder
from mirrorchat.audio import Audio, decode, encode_wav
from mirrorchat.cli import cli
from mirrorchat.engines import Language
from mirrorchat.evaluation_clips import Clip
from mirrorchat.evaluation_speech import ANSWERS, choose_answered, make_clips

FIELDS = {
    "claim", "doubts", "versions", "hardware", "settings", "engines", "normalisation", "similarity_encoder",
    "no_similarity", "languages", "clips", "answers",
}  # fmt: skip
QUESTION = "what is the best way to learn a language"


@pytest.fixture
def models_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of models of a configuration that is in force; it names a chat API that nobody may call."""
    config = tmp_path / "config.py"
    lines = (f"models_dir = {str(tmp_path / 'models')!r}", "threads = 1", "seed = 7")
    config.write_text("\n".join([*lines, "chatgpt_apis = [{'url': 'http://127.0.0.1:9/v1', 'key': 'secret'}]"]))
    monkeypatch.setenv("MIRRORCHAT_CONFIG", str(config))
    return tmp_path / "models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of two English clips of two speakers, and a Chinese one."""
    folder = tmp_path / "clips"
    folder.mkdir()
    rows = ["file\tlanguage\ttranscript\tspeaker"]
    for name, voice in (("ann", "en-us+f2"), ("bob", "en-us+klatt4")):
        (folder / f"{name}.wav").write_bytes(say_wav(QUESTION, voice))
        rows.append(f"{name}.wav\tenglish\t{QUESTION.upper()}?\t{name}")
    (folder / "zh.wav").write_bytes(encode_wav(say("今天天气怎么样", "cmn+f2")))
    rows.append("zh.wav\tchinese\t今天天气怎么样？\t")
    (folder / "clips.tsv").write_text("\n".join(rows), encoding="utf-8")
    return folder


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


def test_embedded_engines_over_a_folder(models_dir: Path, folder: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    found = figures(evaluate(folder, "--answers", 1, "--json"))
    assert set(tmp_path.rglob("*")) == before  # nothing is written
    english, chinese = found["languages"]["english"], found["languages"]["chinese"]
    assert (english["clips"], english["speakers"], english["rate"], chinese["rate"]) == (2, 2, "WER", "CER")
    heard = english["recognition"]
    assert heard["said"] == 18 and heard["failed"] == 0 and 0.0 <= heard["error_rate"] < 0.6
    assert heard["error_rate"] == (heard["substituted"] + heard["deleted"] + heard["inserted"]) / 18
    assert heard["elapsed_per_second"] > 0 and heard["interval_95"] is None
    assert chinese["recognition"] is None and "wenet-zh" in chinese["not_recognised"]
    for language in (english, chinese):
        spoken = language["answers"]
        assert (spoken["spoken"], spoken["failed"]) == (1, 0) and spoken["seconds"] > 2.0
        assert sum(spoken["voices"].values()) == 1 and spoken["voices"]["clone"] == 0
        assert 0.0 < spoken["first_audio_median_s"] <= spoken["first_audio_max_s"]
        assert spoken["real_time_factor"] > 0.0
    assert english["answers"]["recognition"]["said"] > 10 and chinese["answers"]["recognition"] is None
    assert found["settings"]["threads"] == 1 and found["settings"]["seed"] == 7
    assert found["engines"]["recognizer.en"]["name"] == found["engines"]["synthesizer.zh"]["name"] == "embedded"
    assert found["hardware"]["cpu"] and found["versions"]["numpy"] and "secret" not in json.dumps(found)
    assert [clip["file"] for clip in found["clips"]] == ["ann.wav", "bob.wav", "zh.wav"]
    assert found["clips"][2]["heard"] is None and found["clips"][0]["heard"]["said"] == f"{QUESTION.upper()}?"
    assert found["claim"] is True and found["doubts"] == []


def test_the_table_has_the_same_figures(models_dir: Path, folder: Path, tmp_path: Path) -> None:
    result = evaluate(folder, "--answers", 2, "--say", "transcript", "--save", tmp_path / "kept")
    assert result.exit_code == 0 and result.stderr == ""  # progress is for terminals
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["chinese", "english"]
    assert any(re.search(r"  error rate +not measured +WER \d+\.\d %$", line) for line in lines)
    assert any(re.search(r"real-time factor +\d\.\d+ +\d\.\d+$", line) for line in lines)
    assert "install wenet-zh" in result.stdout
    saved = sorted((tmp_path / "kept").iterdir())
    assert [path.name for path in saved] == ["0001-zh-zh.wav", "0002-en-ann.wav", "0003-en-bob.wav"]
    assert decode(saved[1].read_bytes(), limit_s=60.0).duration_s > 1.0
    assert "is not empty" in refused(evaluate(folder, "--save", tmp_path / "kept"))


def test_likeness_is_measured(models_dir: Path, folder: Path) -> None:
    if missing := speaker_encoder.missing_packages():
        pytest.skip(missing)
    found = figures(evaluate(folder, "--answers", 2, "--json", "--require-similarity"))
    assert found["similarity_encoder"] == "Resemblyzer 0.1.4" and found["no_similarity"] is None
    spoken = found["languages"]["english"]["answers"]
    assert 0.0 < spoken["floor"] < spoken["ceiling"] <= 1.0 and 0.0 < spoken["similarity"] <= 1.0
    assert spoken["ceilings_by_halves"] == 2
    assert found["languages"]["chinese"]["answers"]["floor"] is None
    assert all(
        answer["similarity"].keys() == {"answer", "ceiling", "floor", "by_halves"} for answer in found["answers"]
    )


def test_missing_packages_cost_only_the_likeness(
    models_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speaker_encoder, "NEEDED_PACKAGES", ("not_a_package",))
    result = evaluate(folder, "--answers", 1)
    assert result.exit_code == 0
    assert "likeness was not measured: not_a_package not installed: run scripts/environment full" in result.stdout
    assert "not_a_package" in refused(evaluate(folder, "--require-similarity"))


def test_it_makes_its_own_recordings(models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_speech, "SPEAKERS", {Language.ENGLISH: ("en-us+f2", "en-us+klatt4")})
    found = figures(evaluate("--answers", 0, "--json"))
    assert found["languages"].keys() == {"english"}
    english = found["languages"]["english"]
    assert (english["clips"], english["speakers"], english["answers"], found["answers"]) == (6, 2, None, [])
    low, high = english["recognition"]["interval_95"]
    assert low <= english["recognition"]["error_rate"] <= high
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
    pytest.importorskip("mirrorchat.xtts_model", reason="coqui-tts is not installed", exc_type=ImportError)
    from make_tiny_xtts import make_checkpoint
    from trained_wenet import write_trained_checkpoint

    make_checkpoint(models_dir / "xtts-v2")
    codes: tuple[wenet_speech.Code, ...] = ("en", "zh")
    for code in codes:
        write_trained_checkpoint(models_dir / f"wenet-{code}", code)
    return models_dir


def trained_clips(folder: Path) -> Path:
    """Fill `folder` with what the tiny recognisers were trained to hear: two clips of each language."""
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
            assert language["recognition"]["error_rate"] < 0.2 and language["not_recognised"] is None
            assert language["answers"]["voices"]["clone"] == 1 and language["answers"]["seconds"] > 0.0
            assert language["answers"]["recognition"]["said"] > 0
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


def test_failures_are_counted_and_end_with_1(models_dir: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_speech, "ANSWERS", dict.fromkeys(Language, ("?!",)))  # holds nothing to say
    result = evaluate(folder, "--answers", 1, "--json")
    assert result.exit_code == 1 and result.stderr == "mirrorchat: 2 failed, the first because: nothing was spoken\n"
    spoken = json.loads(result.stdout)["languages"]["english"]["answers"]
    assert (spoken["spoken"], spoken["failed"], spoken["real_time_factor"]) == (0, 1, None)
    table = evaluate(folder, "--answers", 1)
    assert table.exit_code == 1 and "0 (), 0 s, 1 failed" not in table.stdout and "1 failed" in table.stdout


@pytest.mark.parametrize(
    "arguments",
    [["no/such/folder"], ["--answers", "-1"], ["--xtts-weights", "fp7"], ["--say", "hello"], ["--threads", "x"]],
)
def test_wrong_usage_ends_with_2(models_dir: Path, arguments: list[str]) -> None:
    assert evaluate(*arguments).exit_code == 2


def test_errors_are_one_line(models_dir: Path, folder: Path, tmp_path: Path) -> None:
    assert "recognizer: 'vosk' is not one of auto, wenet, embedded" in refused(evaluate(folder, "--recognizer", "vosk"))
    assert "device must be auto, cpu, cuda" in refused(evaluate(folder, "--device", "tpu"))
    assert "threads must be a whole number" in refused(evaluate(folder, "--threads", 0))
    assert "xtts-v2" in refused(evaluate(folder, "--synthesizer", "xtts"))
    (tmp_path / "file").touch()
    assert "cannot be written to" in refused(evaluate(folder, "--save", tmp_path / "file"))
    (folder / "clips.tsv").write_text("file\tlanguage\ttranscript\n../x.wav\ten\thi\n")
    assert "clips.tsv, line 2: ../x.wav leads out of the folder" in refused(evaluate(folder))


def test_the_help_needs_no_heavy_package() -> None:
    code = (
        "import sys\nfrom mirrorchat.cli import cli\ncli.main(['evaluate', '--help'], standalone_mode=False)\n"
        "print('imported:', *sorted({'torch', 'numpy', 'librosa', 'TTS', 'flask'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--require-similarity" in done.stdout and done.stdout.endswith("imported:\n")
