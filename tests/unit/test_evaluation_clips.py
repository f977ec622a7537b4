"""Tables of recordings: what is read, and everything that is refused, by its line."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.places import CLIPS
from support.speech import noise_wav, say_wav

from mirrorchat.cli.evaluation import clips as evaluation_clips
from mirrorchat.cli.evaluation.clips import ClipLimits, read_clips
from mirrorchat.engines import Language
from mirrorchat.errors import EvaluationError

LIMITS = ClipLimits(size_bytes=2_000_000, length_s=10.0)
HEADER = "file\tlanguage\ttranscript\tspeaker"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of sounds, beside one that no table may lead to."""
    folder = tmp_path / "clips"
    (folder / "more").mkdir(parents=True)
    (folder / "one.wav").write_bytes(say_wav("hello there"))
    (folder / "more" / "two.wav").write_bytes(say_wav("good morning"))
    (tmp_path / "outside.wav").write_bytes(say_wav("outside"))
    return folder


def write(folder: Path, *lines: str, header: str = HEADER) -> None:
    (folder / "clips.tsv").write_bytes("\n".join([header, *lines]).encode("utf-8", "surrogateescape"))


def refusal(place: Path, limits: ClipLimits = LIMITS) -> str:
    with pytest.raises(EvaluationError) as caught:
        read_clips(place, limits)
    return str(caught.value)


def test_a_table_is_read(folder: Path) -> None:
    write(folder, "one.wav\tenglish\tHello there!\tAnn", "", "more/two.wav\tZH-cn\t早上好\t")
    one, two = read_clips(folder, LIMITS)
    assert (one.name, one.language, one.transcript, one.speaker) == ("one.wav", Language.ENGLISH, "Hello there!", "Ann")
    assert (two.name, two.language, two.speaker) == ("more/two.wav", Language.CHINESE, None)
    assert one.load().duration_s == one.duration_s > 0.3
    assert [clip.name for clip in read_clips(folder / "clips.tsv", LIMITS)] == ["one.wav", "more/two.wav"]


def test_columns_come_in_any_order_with_others_and_as_windows_writes_them(folder: Path) -> None:
    table = '\ufeffsource\tTranscript\tLANGUAGE\tfile\r\nx\thello "there"\ten\tone.wav\r\n'
    (folder / "a.tsv").write_text(table, encoding="utf-8", newline="")
    assert read_clips(folder, LIMITS)[0].transcript == 'hello "there"'


@pytest.mark.skipif(not CLIPS.is_dir(), reason="clips absent")
def test_a_real_manifest_is_read() -> None:
    clips = read_clips(CLIPS, ClipLimits(12 << 20, 60.0))
    assert {clip.language for clip in clips} == set(Language)
    assert len(clips) == len(list(CLIPS.glob("*.wav")))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("../outside.wav\ten\thi\t", r"\.\./outside\.wav leads out of the folder"),
        ("more/../one.wav\ten\thi\t", "leads out of the folder"),
        ("/etc/hostname\ten\thi\t", "leads out of the folder"),
        ("link.wav\ten\thi\t", "leads out of the folder"),
        ("circle.wav\ten\thi\t", "does not exist"),
        ("none.wav\ten\thi\t", "none.wav does not exist"),
        ("n" * 5000 + "\ten\thi\t", r"n\.\.\. does not exist"),
        ("more\ten\thi\t", "more is not a file"),
        ("pipe.wav\ten\thi\t", "pipe.wav is not a file"),
        ("\ten\thi\t", "no file is named"),
        ("big.wav\ten\thi\t", "big.wav is larger than 2000000 bytes"),
        ("long.wav\ten\thi\t", "long.wav: The recording is longer than 10 s"),
        ("silent.wav\ten\thi\t", "silent.wav: The recording is silent"),
        ("text.wav\ten\thi\t", "text.wav: "),
        ("empty.wav\ten\thi\t", "empty.wav: The upload is empty"),
        ("one.wav\tklingon\thi\t", "unknown language; choose Mandarin Chinese"),
        ("one.wav\ten\t...!\t", "the transcript has no words"),
        ("one.wav\ten\t" + "word " * 500 + "\t", "longer than 2000 characters"),
        ("one.wav\ten\thi\t" + "s" * 300, "speaker's name is longer"),
        ("one.wav\ten\thi", "3 fields, where the first line has 4"),
        ("one.wav\ten\thi\tme\tyou", "5 fields"),
        ("one.wav\ten\thi\x00\t", "control characters"),
        ("one.wav\ten\thi\x1b[2J\t", "control characters"),
        ("one.wav\ten\tna\udcefve\t", "not UTF-8"),
        ("first.wav\ten\thi\t", "first.wav is already in line 2"),
        ("./first.wav\ten\thi\t", "first.wav is already in line 2"),
    ],
)
def test_a_bad_line_is_refused_by_its_number(folder: Path, line: str, why: str) -> None:
    (folder / "first.wav").write_bytes(say_wav("first"))
    (folder / "link.wav").symlink_to(folder.parent / "outside.wav")
    (folder / "circle.wav").symlink_to(folder / "circle.wav")
    os.mkfifo(folder / "pipe.wav")
    (folder / "big.wav").write_bytes(b"\0" * 2_000_001)
    (folder / "long.wav").write_bytes(noise_wav(11.0))
    (folder / "silent.wav").write_bytes(noise_wav(1.0, level=1e-6))
    (folder / "text.wav").write_text("this is no sound")
    (folder / "empty.wav").touch()
    write(folder, "first.wav\ten\tfirst\tme", "", line)
    message = refusal(folder)
    assert re.match(r"clips\.tsv, line 4: ", message), message
    assert re.search(why, message) and len(message) < 600 and message.isprintable(), message


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (
            "one.wav\ten\thello",
            "line 1: the first line names the columns; file, language, transcript is not among them",
        ),
        ("file\tlanguage", "transcript is not among them"),
        ("file\tlanguage\ttranscript\tFILE", "line 1: a column is named twice"),
        ("", "is not among them"),
    ],
)
def test_a_table_without_names_for_its_columns_is_refused(folder: Path, header: str, why: str) -> None:
    write(folder, header=header)
    assert why in refusal(folder)


def test_folders_without_one_table_are_refused(folder: Path) -> None:
    assert "has no tsv: a table with the columns file, language, transcript" in refusal(folder)
    write(folder)
    assert refusal(folder) == "clips.tsv lists no recording"
    (folder / "other.TSV").touch()
    assert "has 2 tsv (clips.tsv, other.TSV): name the one to use" in refusal(folder)
    os.mkfifo(folder / "pipe.tsv")
    assert refusal(folder / "pipe.tsv") == "pipe.tsv is not a file"
    assert "cannot be read" in refusal(folder / "gone.tsv")


def test_huge_tables_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "clips.tsv").write_bytes(b"a" * 8_000_001)
    assert refusal(folder) == "clips.tsv is larger than 8000000 bytes"
    monkeypatch.setattr(evaluation_clips, "MAX_CLIPS", 1)
    write(folder, "one.wav\ten\thi\t", "more/two.wav\ten\thi\t")
    assert refusal(folder) == "clips.tsv, line 3: more than 1 recordings"


def test_a_file_that_goes_meanwhile_is_named(folder: Path) -> None:
    write(folder, "one.wav\ten\thi\t")
    (clip,) = read_clips(folder, LIMITS)
    (folder / "one.wav").unlink()
    with pytest.raises(EvaluationError, match=r"one\.wav cannot be read"):
        clip.load()


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_no_bytes_are_more_than_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "any.tsv").write_bytes(b"file\tlanguage\ttranscript\n" + data)
    refusal(tmp_path)
