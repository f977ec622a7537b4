"""Recordings that real microphones, cables and telephones make: they are heard, and they give a voice."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import soundfile
import soxr
from support.audio_files import wav
from support.places import QUESTION

from mirrorchat.audio.decoding import decode_speech
from mirrorchat.audio.samples import Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer
from mirrorchat.engines import Language, VoiceKind
from mirrorchat.errors import SilentAudio

SPEECH, RATE = soundfile.read(QUESTION, dtype="float32")
SPEECH = (SPEECH / np.abs(SPEECH).max() * 0.5).astype(np.float32)
WORDS = "What is the best way to learn a language"


@pytest.fixture(scope="module")
def recognizer() -> Iterator[EmbeddedRecognizer]:
    engine = EmbeddedRecognizer()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[EmbeddedSynthesizer]:
    engine = EmbeddedSynthesizer()
    yield engine
    engine.close()


def hum(hz: float, level: float, harmonics: int = 1) -> Samples:
    at = np.arange(len(SPEECH)) / RATE
    tones = [level / number * np.sin(2 * np.pi * hz * number * at + number) for number in range(1, harmonics + 1)]
    mixed: Samples = np.sum(tones, axis=0).astype(np.float32)
    return mixed


def hiss(level: float) -> Samples:
    return np.random.default_rng(0).normal(0.0, level, len(SPEECH)).astype(np.float32)


def late(samples: Samples, delay_ms: float) -> Samples:
    delay = round(RATE * delay_ms / 1000)
    return np.concatenate([np.zeros(delay, np.float32), samples[:-delay]])


def stereo(first: Samples, second: Samples) -> Samples:
    return np.stack([first, second], axis=1)


RECORDINGS: dict[str, Callable[[], Samples]] = {
    "inverted channels": lambda: stereo(SPEECH, -SPEECH),
    "inverted channels, nearly alike": lambda: stereo(SPEECH, -0.97 * SPEECH),
    "inverted channels, one late": lambda: stereo(SPEECH, -late(SPEECH, 2)),
    "one channel late": lambda: stereo(SPEECH, late(SPEECH, 20)),
    "one channel silent": lambda: stereo(0 * SPEECH, SPEECH),
    "one channel with loud hiss": lambda: stereo(hiss(0.2), 0.4 * SPEECH),
    "one channel with an offset": lambda: stereo(0 * SPEECH + 0.6, 0.2 * SPEECH),
    "quiet with an offset": lambda: 0.06 * SPEECH + 0.2,
    "quiet with a negative offset": lambda: 0.2 * SPEECH - 0.5,
    "an offset that changes": lambda: 0.2 * SPEECH + np.linspace(0.4, -0.2, len(SPEECH), dtype=np.float32),
    "hum of 50 Hz": lambda: 0.6 * SPEECH + hum(50, 0.1),
    "hum of 60 Hz": lambda: 0.6 * SPEECH + hum(60, 0.1),
    "buzz of 50 Hz": lambda: 0.6 * SPEECH + hum(49.95, 0.1, 11),
    "buzz of 60 Hz, louder than the speech": lambda: 0.2 * SPEECH + hum(60, 0.2, 5),
    "hum and an offset": lambda: 0.2 * SPEECH + hum(50, 0.05, 3) + 0.2,
    "quiet": lambda: 0.02 * SPEECH,
    "silence at the start": lambda: np.concatenate([np.zeros(RATE // 10, np.float32), SPEECH]),
}


def check_heard_and_tinted(
    recognizer: EmbeddedRecognizer, synthesizer: EmbeddedSynthesizer, samples: Samples, sample_rate: int = RATE
) -> None:
    audio = decode_speech(wav(np.clip(samples, -1.0, 1.0), sample_rate), limit_s=60)
    assert recognizer.recognize(audio, Language.ENGLISH, context=Context()).text == WORDS
    voice = synthesizer.voice([audio])
    assert voice.kind is VoiceKind.TINT, voice.reason


@pytest.mark.parametrize("name", RECORDINGS)
def test_an_odd_recording_is_heard_and_tinted(
    recognizer: EmbeddedRecognizer, synthesizer: EmbeddedSynthesizer, name: str
) -> None:
    check_heard_and_tinted(recognizer, synthesizer, RECORDINGS[name]())


@pytest.mark.parametrize("sample_rate", [8_000, 96_000])
def test_rates_of_telephones_and_studios(
    recognizer: EmbeddedRecognizer, synthesizer: EmbeddedSynthesizer, sample_rate: int
) -> None:
    samples = soxr.resample(SPEECH, RATE, sample_rate)
    if sample_rate > RATE:
        return check_heard_and_tinted(recognizer, synthesizer, samples, sample_rate)
    audio = decode_speech(wav(samples, sample_rate), limit_s=60)  # what is missing above 4 kHz costs words
    heard = recognizer.recognize(audio, Language.ENGLISH, context=Context()).text.split()
    assert len(set(heard) & set(WORDS.split())) > 4
    assert synthesizer.voice([audio]).kind is VoiceKind.TINT


def test_clipped_speech_gives_words_and_a_voice(
    recognizer: EmbeddedRecognizer, synthesizer: EmbeddedSynthesizer
) -> None:
    audio = decode_speech(wav(np.clip(4 * SPEECH, -1.0, 1.0), RATE), limit_s=60)
    heard = recognizer.recognize(audio, Language.ENGLISH, context=Context()).text.split()
    assert len(set(heard) & set(WORDS.split())) > 4
    assert synthesizer.voice([audio]).kind is VoiceKind.TINT


@pytest.mark.parametrize("samples", [0 * SPEECH + 0.4, stereo(0 * SPEECH + 0.3, 0 * SPEECH - 0.3)])
def test_an_offset_alone_is_silence(samples: Samples) -> None:
    with pytest.raises(SilentAudio):
        decode_speech(wav(samples, RATE), limit_s=60)
