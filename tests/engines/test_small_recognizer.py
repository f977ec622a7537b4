"""Whisper base hears both languages: real speech with transcripts, long and silent recordings, cancellation."""

import csv
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import soundfile
from support.places import CLIPS, QUESTION
from support.small_models import whisper_folder
from support.speech import say

from mirrorchat.audio.samples import Audio
from mirrorchat.audio.vad import find_speech
from mirrorchat.cli.evaluation.error_rate import Edits, edits, tokens
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import WITHOUT_SPEECH, Language
from mirrorchat.errors import ClientGone, ConfigurationError
from mirrorchat.settings import Settings
from mirrorchat.small.whisper import WhisperRecognizer
from mirrorchat.startup.loading import build_engines

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE


@pytest.fixture(scope="module")
def recognizer() -> Iterator[WhisperRecognizer]:
    whisper = WhisperRecognizer(whisper_folder(), threads=2)
    yield whisper
    whisper.close()


def read(path: Path) -> Audio:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return Audio(samples.mean(axis=1), rate)


def clips(language: Language) -> list[tuple[Audio, str]]:
    if not CLIPS.is_dir():
        pytest.skip(f"clips absent: {CLIPS}")
    with (CLIPS / "manifest.tsv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["language"] == language.code]
    return [(read(CLIPS / row["file"]), row["transcript"]) for row in rows]


@pytest.mark.parametrize(("language", "at_most"), [(ENGLISH, 0.04), (CHINESE, 0.17)])
def test_real_speech(recognizer: WhisperRecognizer, language: Language, at_most: float) -> None:
    errors = Edits()
    for audio, transcript in clips(language):
        heard = recognizer.recognize(audio, language, context=Context())
        errors += edits(tokens(transcript, language), tokens(heard.text, language))
    assert errors.rate is not None and errors.rate <= at_most


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("seconds", [1.5, 3.0, 60.0])
def test_the_language_is_detected(recognizer: WhisperRecognizer, seconds: float, noisy: bool) -> None:
    """Real speech in both languages, cut after so many seconds of it, also with white noise at 15 dB."""
    for language in Language:
        for audio, _ in clips(language):
            spoken = starting_with_speech(audio, seconds)
            heard_in = with_noise(spoken, 15.0) if noisy else spoken
            assert recognizer.detect_language(heard_in, context=Context()) is language


def starting_with_speech(audio: Audio, seconds: float) -> Audio:
    start = round(find_speech(audio).start_s * audio.sample_rate)
    return Audio(audio.samples[start : start + round(seconds * audio.sample_rate)], audio.sample_rate)


def with_noise(audio: Audio, snr_db: float) -> Audio:
    noise = np.random.default_rng(7).standard_normal(len(audio.samples))
    noisy = audio.samples + noise * np.sqrt(np.mean(audio.samples**2) / 10.0 ** (snr_db / 10.0))
    return Audio(np.clip(noisy, -1.0, 1.0).astype(np.float32), audio.sample_rate)


@pytest.mark.parametrize("language", Language)
def test_detection_and_recognition_share_the_encoder(recognizer: WhisperRecognizer, language: Language) -> None:
    """The transcript is the one of the named language, and the encoder reads each piece once for both."""
    with patch.object(recognizer, "_states", wraps=recognizer._states) as encode:
        for audio, _ in clips(language):
            named = recognizer.recognize(audio, language, context=Context())
            times = encode.call_count
            assert recognizer.recognize_any(audio, context=Context()) == named
            assert encode.call_count == 2 * times
            encode.reset_mock()


def test_the_first_piece_decides_the_language(recognizer: WhisperRecognizer) -> None:
    english, chinese = (
        np.concatenate([audio.resample(16_000).samples for audio, _ in clips(one)]) for one in (ENGLISH, CHINESE)
    )
    audio = Audio(np.concatenate([english[: 28 * 16_000], chinese]), 16_000)
    assert recognizer.recognize_any(audio, context=Context()).language is ENGLISH


def test_times_and_confidence(recognizer: WhisperRecognizer) -> None:
    audio = read(QUESTION)
    quiet = Audio(np.concatenate([np.zeros(audio.sample_rate, np.float32), audio.samples]), audio.sample_rate)
    heard = recognizer.recognize(quiet, ENGLISH, context=Context())
    assert heard.text == "What is the best way to learn a language?"
    assert [word.text for word in heard.words] == heard.text.split()
    starts = [word.start_s for word in heard.words]
    assert starts == sorted(starts)
    assert 0.7 < starts[0] < 1.6 and heard.words[-1].end_s <= quiet.duration_s + 0.1
    assert heard.confidence is not None and 0.5 < heard.confidence <= 1.0


def test_a_long_recording_is_heard_whole(recognizer: WhisperRecognizer) -> None:
    spoken = clips(ENGLISH)
    pause = np.zeros(8_000, np.float32)
    samples = [part for audio, _ in spoken for part in (audio.resample(16_000).samples, pause)]
    audio = Audio(np.concatenate(samples)[: 60 * 16_000], 16_000)
    assert audio.duration_s > 30.0
    heard = recognizer.recognize(audio, ENGLISH, context=Context())
    found = edits(tokens(" ".join(transcript for _, transcript in spoken), ENGLISH), tokens(heard.text, ENGLISH))
    assert found.rate is not None and found.rate <= 0.12
    assert heard.words[-1].end_s <= audio.duration_s + 0.1


@pytest.mark.parametrize("kind", ["silence", "noise", "hum", "click"])
def test_no_speech_is_no_text(recognizer: WhisperRecognizer, kind: str) -> None:
    random, times = np.random.default_rng(0), np.arange(48_000) / 16_000
    samples = {
        "silence": np.zeros(48_000),
        "noise": 0.3 * random.standard_normal(48_000),
        "hum": 0.3 * np.sin(2 * np.pi * 50.0 * times),
        "click": np.eye(1, 48_000, 20_000)[0],
    }[kind]
    audio = Audio(samples.astype(np.float32), 16_000)
    for language in Language:
        assert recognizer.recognize(audio, language, context=Context()).text == ""
    assert recognizer.recognize_any(audio, context=Context()).text == ""
    assert recognizer.detect_language(audio, context=Context()) is WITHOUT_SPEECH


def test_callers_share_the_model(recognizer: WhisperRecognizer) -> None:
    audio = read(QUESTION)
    alone = recognizer.recognize(audio, ENGLISH, context=Context())
    with ThreadPoolExecutor(4) as callers:
        together = callers.map(lambda _: recognizer.recognize(audio, ENGLISH, context=Context()), range(4))
        assert list(together) == [alone] * 4


def test_what_is_spoken_twice_is_heard_twice(recognizer: WhisperRecognizer) -> None:
    text = "Please close the window. Please close the window."
    heard = recognizer.recognize(say(text), Language.ENGLISH, context=Context.after(60.0)).text
    assert heard.lower().count("close the window") == 2, heard


def test_who_leaves_does_not_wait(recognizer: WhisperRecognizer) -> None:
    """A caller that is gone is free at once, and the next one is heard."""
    audio, context, over = read(QUESTION), Context(), threading.Event()
    busy = [threading.Thread(target=recognizer.recognize, args=(audio, ENGLISH), kwargs={"context": Context()})]
    busy[0].start()

    def leaver() -> None:
        with pytest.raises(ClientGone):
            recognizer.recognize(audio, ENGLISH, context=context)
        over.set()

    busy.append(threading.Thread(target=leaver))
    busy[1].start()
    context.cancel(ClientGone("hung up"))
    assert over.wait(60.0)
    for thread in busy:
        thread.join(60.0)
    assert recognizer.recognize(audio, ENGLISH, context=Context()).text


def test_its_threads_wait_without_spinning() -> None:
    """On busy cores spinning threads keep each other from running: a short question took 10 s and more."""
    program = f"""if True:
        import os
        from pathlib import Path
        from mirrorchat.small.whisper import WhisperRecognizer
        WhisperRecognizer(Path({str(whisper_folder())!r}), threads=2).close()
        print(os.environ.get("OMP_WAIT_POLICY"))"""
    environ = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env=environ | {"OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "GOMP_SPINCOUNT = '0'" in run.stderr
    assert run.stdout.split() == ["None"]  # other libraries are not affected


def test_a_damaged_model(recognizer: WhisperRecognizer, tmp_path: Path) -> None:
    for name in ("config.json", "vocabulary.txt"):
        (tmp_path / name).write_bytes((whisper_folder() / name).read_bytes())
    (tmp_path / "model.bin").write_bytes((whisper_folder() / "model.bin").read_bytes()[:1000])
    with pytest.raises(ConfigurationError, match="Whisper cannot be loaded"):
        WhisperRecognizer(tmp_path, threads=1)


@pytest.mark.parametrize("damage", [lambda lines: lines[1:], lambda lines: ["你", *lines[1:]]], ids=["lost", "changed"])
def test_a_damaged_vocabulary(
    recognizer: WhisperRecognizer, tmp_path: Path, damage: Callable[[list[str]], list[str]]
) -> None:
    for name in ("config.json", "model.bin"):
        (tmp_path / name).symlink_to(whisper_folder() / name)
    lines = (whisper_folder() / "vocabulary.txt").read_text(encoding="utf-8").splitlines()
    (tmp_path / "vocabulary.txt").write_text("\n".join(damage(lines)) + "\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="Whisper cannot be loaded"):
        WhisperRecognizer(tmp_path, threads=1)


def test_both_languages_share_the_model_and_each_tells_why(tmp_path: Path) -> None:
    (tmp_path / "whisper-base").symlink_to(whisper_folder())
    engines = build_engines(Settings(models_dir=tmp_path), speaking=())
    try:
        english, chinese = engines.recognizers[ENGLISH], engines.recognizers[CHINESE]
        assert isinstance(english, WhisperRecognizer) and isinstance(chinese, WhisperRecognizer)
        assert english._model is chinese._model
        assert "wenet-en" in english.info.reason and "wenet-zh" not in english.info.reason
        assert "wenet-zh" in chinese.info.reason and "wenet-en" not in chinese.info.reason
        assert engines.detector and engines.detector.info.reason == f"its weights are in {tmp_path / 'whisper-base'}"
        assert not engines.detector.info.upgrade and engines.infos()["recognizer.zh"].upgrade
        assert english.recognize(read(QUESTION), ENGLISH, context=Context()).text
    finally:
        engines.close()
