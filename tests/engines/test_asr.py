"""The WeNet recognizer: words of speech it was never trained on, its text, and every refusal."""

import shutil
import threading
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import make_tiny_wenet
import numpy as np
import pytest
import soundfile
import tiny_wenet_speech as speech
import torch
from support.contexts import HungUpAtWait
from support.places import ROOT

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.errors import ClientGone, ConfigurationError, ModelNotInstalled
from mirrorchat.wenet.checkpoint import read_tokens
from mirrorchat.wenet.text import written

MODELS = ROOT / "tests" / "data" / "wenet-tiny"
CLIPS = ROOT.parent / "shared" / "clips"
CODES: tuple[speech.Code, ...] = ("en", "zh")
KINDS: tuple[speech.Kind, ...] = ("heard", "new_order", "new_voice")
Spoken = list[tuple[speech.Take, Audio]]


@pytest.fixture(scope="module")
def recognizers() -> dict[str, WenetRecognizer]:
    return {code: WenetRecognizer(MODELS / code, Language.parse(code), threads=1) for code in CODES}


@pytest.fixture(scope="module")
def held_out() -> dict[str, Spoken]:
    spoken: dict[str, Spoken] = {}
    for code in CODES:
        takes = speech.held_out(code)
        sounds = (Audio(samples, speech.SAMPLE_RATE) for samples in speech.speak(takes))
        spoken[code] = list(zip(takes, sounds, strict=True))
    return spoken


def hear(recognizer: WenetRecognizer, audio: Audio) -> str:
    return recognizer.recognize(audio, recognizer.language, context=Context()).text


def error_rate(pairs: Sequence[tuple[speech.Take, str]]) -> float:
    """Return errors per word of English, per character of Chinese."""
    errors = total = 0
    for take, heard in pairs:
        wanted: Sequence[str] = take.words if take.language == "en" else take.text
        got: Sequence[str] = heard.lower().split() if take.language == "en" else heard
        errors += make_tiny_wenet.edit_distance(wanted, got)
        total += len(wanted)
    return errors / total


# Words


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("kind", KINDS)
def test_held_out_takes_are_understood(
    recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken], code: str, kind: str
) -> None:
    takes = [(take, hear(recognizers[code], audio)) for take, audio in held_out[code] if take.kind == kind]
    assert len(takes) == speech.HELD_OUT_PER_KIND
    wrong = [(take.text, heard) for take, heard in takes if heard.lower() != take.text]
    assert error_rate(takes) < 0.10, wrong


@pytest.mark.parametrize("code", CODES)
def test_held_out_takes_are_held_out(code: speech.Code) -> None:
    trained = speech.training(code, make_tiny_wenet.TAKES, make_tiny_wenet.SEED)
    sentences, voices = {take.words for take in trained}, {take.voice for take in trained}
    words = {word for take in trained for word in take.words}
    for take in speech.held_out(code):
        assert set(take.words) <= words
        assert (take.words in (speech.sentences(code) if take.kind == "heard" else sentences)) is (take.kind == "heard")
        assert (take.voice in voices) is (take.kind != "new_voice")
    unseen = [take for take in speech.held_out(code) if take.kind == "new_voice"]
    assert len({take.words for take in unseen}) == len(unseen) >= len(speech.held_out(code)) // 3


def test_english_reads_as_a_person_writes_it(
    recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken]
) -> None:
    """Exactly the sentence, capital and "I" and all, for most takes; no token's own spelling in any."""
    exact = 0
    for take, audio in held_out["en"]:
        heard = hear(recognizers["en"], audio)
        wanted = " ".join("I" if word == "i" else word for word in take.words)
        exact += heard == wanted[0].upper() + wanted[1:]
        assert "▁" not in heard and "<" not in heard and "  " not in heard
    assert exact > len(held_out["en"]) // 2


def test_chinese_has_no_spaces(recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken]) -> None:
    heard = [hear(recognizers["zh"], audio) for _, audio in held_out["zh"]]
    assert not [text for text in heard if set(text) & set(" ▁<>")]


def test_any_sample_rate_is_heard(recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken]) -> None:
    pairs = [(take, hear(recognizers["en"], audio.resample(44100))) for take, audio in held_out["en"]]
    assert error_rate(pairs) < 0.10


def test_the_same_audio_gives_the_same_words(
    recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken]
) -> None:
    for code in CODES:
        again = WenetRecognizer(MODELS / code, Language.parse(code), threads=1)
        for _, audio in held_out[code][::8]:
            assert hear(recognizers[code], audio) == hear(recognizers[code], audio) == hear(again, audio)


def test_callers_at_once_hear_what_each_would_alone(
    recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken]
) -> None:
    jobs = [(code, audio) for code in CODES for _, audio in held_out[code][::5]]
    alone = [hear(recognizers[code], audio) for code, audio in jobs]
    together = threading.Barrier(4)

    def run(shift: int) -> list[str]:
        together.wait(timeout=30)
        order = jobs[shift:] + jobs[:shift]
        heard = [hear(recognizers[code], audio) for code, audio in order]
        return heard[len(jobs) - shift :] + heard[: len(jobs) - shift]

    with ThreadPoolExecutor(4) as pool:
        for heard in pool.map(run, (0, 5, 11, 16)):
            assert heard == alone


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("samples", [0, 1, 399, 400, 1000, 1359, 1360, 1600])
def test_too_little_audio_has_no_words(recognizers: dict[str, WenetRecognizer], code: str, samples: int) -> None:
    audio = Audio(np.zeros(samples, np.float32), 16000)
    assert hear(recognizers[code], audio) == ""


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("seconds", [0.3, 2.0, 10.0])
def test_digital_silence_has_no_words(recognizers: dict[str, WenetRecognizer], code: str, seconds: float) -> None:
    audio = Audio(np.zeros(int(16000 * seconds), np.float32), 16000)
    transcript = recognizers[code].recognize(audio, Language.parse(code), context=Context())
    assert transcript.text == "" and transcript.language is Language.parse(code)


def clip_names() -> list[str]:
    return sorted(path.name for path in CLIPS.glob("*.wav")) or ["none"]


@pytest.mark.parametrize("name", clip_names())
def test_real_speech_is_read_without_a_crash(recognizers: dict[str, WenetRecognizer], name: str) -> None:
    """A hundred words cannot spell these clips; whatever comes must be text of the model's, the same twice."""
    if not (CLIPS / name).is_file():
        pytest.skip(f"clips absent: {CLIPS}")
    samples, rate = soundfile.read(CLIPS / name, dtype="float32", always_2d=True)
    audio = Audio(samples[:, 0].copy(), rate)
    for recognizer in recognizers.values():
        heard = hear(recognizer, audio)
        assert heard == hear(recognizer, audio)
        assert not set(heard) & set("▁<>")


# Text


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["▁what", "'s", "▁the", "▁time"], "What's the time"),
        (["▁WHAT", "▁DO", "▁I", "▁WANT"], "What do I want"),
        (["▁i", "▁am", "▁sure", "▁i", "'m", "▁in", "▁it"], "I am sure I'm in it"),
        (["▁hawai", "'i", "▁wi", "-", "fi", "▁i"], "Hawai'i wi-fi I"),
        (["▁", "p", "lay", "▁", "it"], "Play it"),
        (["<blank>", "▁yes", "<unk>", "▁no", "<sos/eos>"], "Yes no"),
        (["<unk>"], ""),
        ([], ""),
        (["▁"], ""),
        (["▁élan"], "Élan"),
    ],
)
def test_english_tokens_are_written(tokens: list[str], expected: str) -> None:
    assert written(tokens, Language.ENGLISH) == expected


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        (["今", "天", "天", "气"], "今天天气"),
        (["▁今", "天", "▁", "天", "气"], "今天天气"),
        (["我", "喜", "欢", "▁jazz", "▁music", "你", "呢"], "我喜欢 jazz music 你呢"),
        (["下", "载", "A", "P", "P", "吧"], "下载 APP 吧"),
        (["一", "<unk>", "二", "<sos/eos>"], "一二"),
        (["三", "月", "▁3", "号", "▁", "2", "▁点"], "三月3号2点"),
    ],
)
def test_chinese_tokens_are_written(tokens: list[str], expected: str) -> None:
    assert written(tokens, Language.CHINESE) == expected


# Loading


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the English model, to be spoiled."""
    return Path(shutil.copytree(MODELS / "en", tmp_path / "wenet-en"))


def load(folder: Path) -> WenetRecognizer:
    return WenetRecognizer(folder, Language.ENGLISH, threads=1)


def test_the_engine_says_what_it_is(folder: Path) -> None:
    recognizer = load(folder)
    assert (recognizer.info.name, recognizer.info.model, recognizer.info.device) == ("wenet", "wenet-en", "cpu")
    assert "quantized" in recognizer.info.reason
    recognizer.close()


def test_the_models_are_small_and_quantized_as_the_releases_are() -> None:
    files = [path for path in MODELS.rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(MODELS)) for path in files) == [
        "en/final.zip", "en/units.txt", "zh/final.zip", "zh/units.txt",
    ]  # fmt: skip
    assert sum(path.stat().st_size for path in files) < 3_000_000
    for code in CODES:
        with zipfile.ZipFile(MODELS / code / "final.zip") as archive:
            code_text = "".join(archive.read(name).decode() for name in archive.namelist() if name.endswith(".py"))
            everything = b"".join(archive.read(name) for name in archive.namelist())
        assert "quantized.linear_dynamic" in code_text
        assert b"site-packages" not in everything, "debug records name folders of the machine that trained it"


@pytest.mark.parametrize("code", CODES)
def test_the_tokens_are_the_scripts(code: speech.Code) -> None:
    assert read_tokens(MODELS / code / "units.txt") == make_tiny_wenet.list_tokens(code)


def test_an_absent_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotInstalled) as caught:
        load(tmp_path / "wenet-en")
    for part in (str(tmp_path / "wenet-en"), "final.zip", "units.txt", "english"):
        assert part in caught.value.message


@pytest.mark.parametrize(("gone", "stays"), [("final.zip", "units.txt"), ("units.txt", "final.zip")])
def test_only_the_missing_file_is_named(folder: Path, gone: str, stays: str) -> None:
    (folder / gone).unlink()
    with pytest.raises(ModelNotInstalled) as caught:
        load(folder)
    assert gone in caught.value.message and stays not in caught.value.message


@pytest.mark.parametrize("kept", [0, 100, 200_000])
def test_a_cut_model_is_refused(folder: Path, kept: int) -> None:
    whole = (folder / "final.zip").read_bytes()
    (folder / "final.zip").write_bytes(whole[:kept])
    with pytest.raises(ConfigurationError, match=r"final\.zip cannot be read as TorchScript"):
        load(folder)


def test_a_zip_of_something_else_is_refused(folder: Path) -> None:
    with zipfile.ZipFile(folder / "final.zip", "w") as archive:
        archive.writestr("readme.txt", "not a model")
    with pytest.raises(ConfigurationError, match=r"final\.zip cannot be read as TorchScript"):
        load(folder)


def test_another_kind_of_network_is_refused(folder: Path) -> None:
    make_tiny_wenet.save_script(torch.nn.Linear(2, 2), folder / "final.zip")
    with pytest.raises(ConfigurationError, match=r"final\.zip is not a WeNet runtime model"):
        load(folder)


def test_tokens_of_another_model_are_refused(folder: Path) -> None:
    shutil.copy(MODELS / "zh" / "units.txt", folder / "units.txt")
    with pytest.raises(ConfigurationError, match=r"knows \d+ tokens and units\.txt lists \d+"):
        load(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("<blank> 0\nword\n", "line 2"),
        ("<blank> 0\na one\n", "line 2"),
        ("<blank> 0\na 0\n", "line 2"),
        ("<blank> 0\na 2\n", "numbers are missing"),
        ("", "numbers are missing"),
    ],
)
def test_spoiled_tokens_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "units.txt").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=message):
        read_tokens(tmp_path / "units.txt")


def test_tokens_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    (tmp_path / "units.txt").write_bytes("今 0\n".encode("gb18030"))
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read_tokens(tmp_path / "units.txt")


def test_tokens_in_any_order_and_with_odd_spaces_are_read(tmp_path: Path) -> None:
    (tmp_path / "units.txt").write_bytes("a\t2\r\n<blank> 0\n\u3000 1\n\n".encode())
    assert read_tokens(tmp_path / "units.txt") == ["<blank>", "\u3000", "a"]


# Turns that end early


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_cancelled_turn_goes_on_at_once(
    recognizers: dict[str, WenetRecognizer], held_out: dict[str, Spoken], at: int
) -> None:
    """A turn that is cancelled before its work does none; afterwards it waits once for each of its pieces."""
    recognizer, audio = recognizers["en"], held_out["en"][0][1]
    long = Audio(np.tile(audio.samples, 30), audio.sample_rate)
    assert len(pieces_of(long)) > 2
    context = HungUpAtWait(at)
    with pytest.raises(ClientGone):
        recognizer.recognize(long, Language.ENGLISH, context=context)
    assert context.waits == at
    assert hear(recognizer, audio)  # the engine is free again


def test_another_language_is_a_mistake_of_the_caller(recognizers: dict[str, WenetRecognizer]) -> None:
    with pytest.raises(ValueError, match="english"):
        recognizers["en"].recognize(Audio(np.zeros(16000, np.float32), 16000), Language.CHINESE, context=Context())
