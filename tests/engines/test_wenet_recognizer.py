"""WeNet's checkpoints in the recognizer: words, when they were said, hot words, long recordings, and refusals."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import tiny_wenet_speech as speech
from support.running_server import RunningServer
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Transcript
from mirrorchat.errors import ConfigurationError

CODES: tuple[speech.Code, ...] = ("en", "zh")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("models")
    return {code: write_trained_checkpoint(base / f"wenet-{code}", code) for code in CODES}


@pytest.fixture(scope="module")
def recognizers(folders: dict[str, Path]) -> Iterator[dict[str, WenetRecognizer]]:
    made = {
        code: WenetRecognizer(folder, Language.parse(code), threads=1, weights="fp32")
        for code, folder in folders.items()
    }
    yield made
    for recognizer in made.values():
        recognizer.close()


def takes(code: speech.Code) -> list[tuple[speech.Take, Audio]]:
    held_out = speech.held_out(code)
    sounds = [Audio(samples, speech.SAMPLE_RATE) for samples in speech.speak(held_out)]
    return list(zip(held_out, sounds, strict=True))


def hear(recognizer: WenetRecognizer, audio: Audio, *hotwords: str) -> Transcript:
    return recognizer.recognize(audio, recognizer.language, hotwords=hotwords, context=Context())


@pytest.mark.parametrize("code", CODES)
def test_words_that_it_was_trained_on_are_heard(recognizers: dict[str, WenetRecognizer], code: speech.Code) -> None:
    heard = [(take.text, hear(recognizers[code], audio).text.lower()) for take, audio in takes(code)]
    right = sum(said == understood for said, understood in heard)
    assert right >= 0.7 * len(heard), heard


@pytest.mark.parametrize("code", CODES)
def test_each_token_has_its_time_and_its_confidence(recognizers: dict[str, WenetRecognizer], code: speech.Code) -> None:
    for _, audio in takes(code)[:4]:
        transcript = hear(recognizers[code], audio)
        assert transcript.tokens and transcript.confidence is not None
        assert 0 < transcript.confidence <= 1
        edges = [edge for token in transcript.tokens for edge in (token.start_s, token.end_s)]
        assert edges == sorted(edges)
        assert edges[0] >= 0 and edges[-1] <= audio.duration_s
        assert all(0 < token.confidence <= 1 for token in transcript.tokens)
        assert "".join(token.text for token in transcript.tokens).replace("▁", " ").strip() == transcript.text.lower()


def test_a_long_recording_is_heard_whole(recognizers: dict[str, WenetRecognizer]) -> None:
    pause = np.zeros(8000, np.float32)
    spoken = [audio for _, audio in takes("en")]
    parts = [part for audio in spoken for part in (audio.samples, pause)]
    whole = Audio(np.concatenate(parts)[: 50 * 16_000], 16_000)
    assert whole.duration_s > 30
    transcript = hear(recognizers["en"], whole)
    alone = [hear(recognizers["en"], audio).text.lower().split() for audio in spoken]
    wanted = [word for words in alone for word in words]
    heard = transcript.text.lower().split()
    share = len(set(heard) & set(wanted)) / len(set(heard))
    assert len(heard) > 0.5 * len(wanted) * whole.duration_s / (sum(map(len, parts)) / 16_000)
    assert share > 0.9
    starts = [token.start_s for token in transcript.tokens]
    assert starts == sorted(starts) and starts[-1] > 25


def in_noise(code: speech.Code) -> Iterator[tuple[str, Audio]]:
    """Yield the longest word of each take, and the take in noise."""
    noise = np.random.default_rng(3)
    for take, audio in takes(code):
        samples = audio.samples + 0.03 * noise.standard_normal(len(audio.samples))
        yield max(take.words, key=len), Audio(np.clip(samples, -1, 1).astype(np.float32), audio.sample_rate)


def test_hot_words_are_heard_more_often_in_noise(recognizers: dict[str, WenetRecognizer]) -> None:
    found = dict.fromkeys(("plain", "hot"), 0)
    for word, noisy in in_noise("en"):
        found["plain"] += word in hear(recognizers["en"], noisy).text.lower().split()
        found["hot"] += word in hear(recognizers["en"], noisy, word).text.lower().split()
    assert found["hot"] > found["plain"]


def test_a_caller_gives_hot_words_in_the_form(
    recognizers: dict[str, WenetRecognizer], folders: dict[str, Path], tmp_path: Path
) -> None:
    word, noisy = next(
        (word, noisy)
        for word, noisy in in_noise("en")
        if hear(recognizers["en"], noisy).text != hear(recognizers["en"], noisy, word).text
    )
    models = str(folders["en"].parent)
    with RunningServer(tmp_path, models_dir=models, recognizer="wenet", wenet_weights="fp32", device="cpu") as server:
        plain, hot = (
            unquote(server.ask(encode_wav(noisy), "english", **fields).headers["X-MirrorChat-Transcript"]).lower()
            for fields in ({}, {"hotwords": f"nobody, {word}"})
        )
    assert word in hot.split()
    assert plain != hot


def test_hot_words_that_were_not_said_change_no_clean_text(recognizers: dict[str, WenetRecognizer]) -> None:
    recognizer, words = recognizers["en"], speech.vocabulary("en")
    clean = [(take, audio) for take, audio in takes("en") if hear(recognizer, audio).text.lower() == take.text]
    assert len(clean) > 10
    for index, (take, audio) in enumerate(clean):
        others = sorted(set(words) - set(take.words))
        phrase = f"{others[index]} {others[-1 - index]}"
        assert hear(recognizer, audio, phrase).text.lower() == take.text


def test_a_hot_word_without_tokens_changes_nothing(recognizers: dict[str, WenetRecognizer]) -> None:
    _, audio = takes("zh")[0]
    plain = hear(recognizers["zh"], audio)
    assert hear(recognizers["zh"], audio, "Ωmega", "", "好" * 500) == plain


def test_weights_that_the_device_cannot_keep_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigurationError, match="fp16 on cpu"):
        WenetRecognizer(folders["en"], Language.ENGLISH, threads=1, device="cpu", weights="fp16")


def test_the_engine_says_what_it_is(recognizers: dict[str, WenetRecognizer]) -> None:
    info = recognizers["zh"].info
    assert (info.name, info.model, info.device) == ("wenet", "wenet-zh fp32", "cpu")
