"""The small synthesizer with its real models: whose voice, how loud, both languages, what ends it, what it refuses."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.small_models import kokoro_folder, whisper_folder
from support.speech import MAN, TEXTS, WOMAN, say

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.error_rate import edits, tokens
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.voice_tint import TintVoice, VoiceTint
from mirrorchat.engines import Language, Priority, Synthesizer, Voice, VoiceKind
from mirrorchat.errors import ClientGone, ConfigurationError, DeadlineExceeded, ModelNotInstalled, SynthesisFailed

ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
WAIT_S = 120.0
NEUTRAL = Voice(VoiceKind.NEUTRAL, "")
SENTENCE = "Please open the window before you go to bed."
CHINESE_SENTENCE = "图书馆旁边新开了一家面馆。"


@pytest.fixture(scope="module")
def small() -> SimpleNamespace:
    """The package's modules, whose own packages are an extra."""
    try:
        from mirrorchat.small import high_band, kokoro, synthesizer, voices_base
    except ModuleNotFoundError as error:
        pytest.skip(f"small models absent: {error}")
    return SimpleNamespace(high=high_band, kokoro=kokoro, synthesizer=synthesizer, base=voices_base)


@pytest.fixture(scope="module")
def folder(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kokoro's folder, of our own: the synthesizer writes what it has measured into it."""
    copy = tmp_path_factory.mktemp("models") / "kokoro"
    copy.mkdir()
    for file in kokoro_folder().iterdir():
        if file.name != small.base.CACHE_FILE:
            (copy / file.name).symlink_to(file)
    return copy


@pytest.fixture(scope="module")
def synthesizer(small: SimpleNamespace, folder: Path) -> Synthesizer:
    engine: Synthesizer = small.synthesizer.SmallSynthesizer(folder, threads=2)
    return engine


@pytest.fixture(scope="module")
def english_only(small: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Synthesizer:
    engine: Synthesizer = small.synthesizer.SmallSynthesizer(tmp_path_factory.mktemp("empty") / "kokoro", threads=1)
    return engine


@pytest.fixture(scope="module")
def man(synthesizer: Synthesizer) -> Voice:
    return synthesizer.voice([say(TEXTS[0], MAN)])


@pytest.fixture(scope="module")
def woman(synthesizer: Synthesizer) -> Voice:
    return synthesizer.voice([say(TEXTS[0], WOMAN), say(TEXTS[1], WOMAN)])


def speak(
    synthesizer: Synthesizer, text: str, voice: Voice, language: Language = ENGLISH, context: Context | None = None
) -> list[Audio]:
    context = context or Context.after(WAIT_S)
    return list(synthesizer.speak(text, voice, language, seed=0, priority=Priority.FIRST, context=context))


def joined(pieces: list[Audio]) -> Audio:
    return Audio(np.concatenate([piece.samples for piece in pieces]), pieces[0].sample_rate)


def loudness(audio: Audio) -> float:
    """Return the root mean square of the loud frames of 20 ms."""
    length = audio.sample_rate // 50
    power = (audio.samples[: len(audio.samples) // length * length].reshape(-1, length) ** 2).mean(axis=1)
    return float(np.sqrt(power[power > power.max() * 1e-3].mean()))


def pitch(tint: VoiceTint, audio: Audio) -> float:
    profile = tint.profile(audio)
    assert profile is not None
    return float(np.exp(profile.f0_mean))


def test_the_base_voice_is_the_nearest(
    synthesizer: Synthesizer, man: Voice, woman: Voice, small: SimpleNamespace
) -> None:
    assert isinstance(man, TintVoice) and isinstance(woman, TintVoice)
    assert man.kind is woman.kind is VoiceKind.TINT  # a tint, never a clone
    base = synthesizer.base  # type: ignore[attr-defined]
    assert base(man.profile, ENGLISH).name == base(man.profile, CHINESE).name == "jm_kumo"
    assert base(woman.profile, ENGLISH).name == base(None, ENGLISH).name == small.base.HIBARI_VOICE
    assert base(woman.profile, CHINESE).name.startswith(("zf_", "jf_"))


def test_a_man_like_hibari_speaks_as_a_man(synthesizer: Synthesizer, man: Voice, small: SimpleNamespace) -> None:
    """hibari's timbre is nearer than the English man's to nearly everybody: the Mandarin voices tell the sex."""
    profiles = synthesizer._profiles  # type: ignore[attr-defined]
    hibari = small.base.BaseVoice(small.base.HIBARI_VOICE, ENGLISH)
    assert isinstance(man, TintVoice) and man.profile is not None
    asker = replace(man.profile, f0_mean=np.log(130.0), voiced=profiles[hibari].voiced)
    english = {voice: profile for voice, profile in profiles.items() if voice.language is ENGLISH}
    assert small.base.nearest(english, asker, ENGLISH) == hibari
    assert small.base.nearest(profiles, asker, ENGLISH).is_mans
    assert small.base.nearest(profiles, asker, CHINESE).is_mans


@pytest.mark.parametrize(("language", "text"), [(ENGLISH, SENTENCE), (CHINESE, CHINESE_SENTENCE)])
def test_speech(synthesizer: Synthesizer, man: Voice, woman: Voice, language: Language, text: str) -> None:
    tint = VoiceTint()
    spoken = [joined(speak(synthesizer, text, voice, language)) for voice in (man, woman, NEUTRAL)]
    for audio in spoken:
        assert audio.sample_rate == synthesizer.sample_rate == 24_000
        assert audio.samples.dtype == np.float32 and np.abs(audio.samples).max() <= 0.95 + 1e-6
        assert 1.2 < audio.duration_s < 5.0
        assert loudness(audio) == pytest.approx(0.1, rel=0.25)
        high = np.abs(np.fft.rfft(audio.samples))[np.fft.rfftfreq(len(audio.samples), 1 / 24_000) > 8_500]
        assert np.linalg.norm(high) > 1e-3 * np.linalg.norm(np.fft.rfft(audio.samples))  # wider than 16 kHz
    assert pitch(tint, spoken[0]) < 0.75 * pitch(tint, spoken[1])


@pytest.mark.parametrize(("language", "text"), [(ENGLISH, SENTENCE), (CHINESE, CHINESE_SENTENCE)])
def test_the_same_always_sounds_the_same(
    synthesizer: Synthesizer, man: Voice, woman: Voice, language: Language, text: str
) -> None:
    """Also from a restored voice, and for callers at the same time."""
    alone = [joined(speak(synthesizer, text, voice, language)).samples for voice in (man, woman)]
    restored = [synthesizer.restore(voice.to_bytes()) for voice in (man, woman)]
    assert restored == [man, woman] and man != woman
    with ThreadPoolExecutor(4) as callers:
        together = list(callers.map(lambda voice: joined(speak(synthesizer, text, voice, language)).samples, restored))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_what_is_spoken_is_understood(synthesizer: Synthesizer, man: Voice, woman: Voice) -> None:
    """Whisper hears it; mixed text, too, in both languages."""
    folder = whisper_folder()
    from mirrorchat.small.whisper import WhisperRecognizer

    recognizer = WhisperRecognizer(folder, threads=2)
    cases = [
        (ENGLISH, "The museum opens at nine, but the garden behind it is free all day.", 0.0),
        (CHINESE, "图书馆旁边新开了一家面馆，味道很不错。", 0.3),
        (CHINESE, "他昨天在 YouTube 上看了一个视频。", 0.4),
        (ENGLISH, "The city of 北京 is very large and very old.", 0.4),
    ]
    for language, text, at_most in cases:
        for voice in (man, woman):
            heard = recognizer.recognize(joined(speak(synthesizer, text, voice, language)), language, context=Context())
            rate = edits(tokens(text, language), tokens(heard.text, language)).rate
            assert rate is not None and rate <= at_most, heard.text
    recognizer.close()


@pytest.mark.parametrize("text", ["", " ", "…", "!?", "🙂", "—", "。。。"])
@pytest.mark.parametrize("language", list(Language))
def test_text_without_a_word_is_silent(synthesizer: Synthesizer, text: str, language: Language) -> None:
    assert speak(synthesizer, text, NEUTRAL, language) == []


def test_text_without_a_sound_is_named(synthesizer: Synthesizer) -> None:
    with pytest.raises(SynthesisFailed, match="cannot read"):
        speak(synthesizer, "\u3402\u3403", NEUTRAL, CHINESE)  # characters that no dictionary reads
    assert speak(synthesizer, SENTENCE, NEUTRAL)  # and the next sentence is spoken


HOSTILE = [
    "W" * 400,
    "W " * 150,
    "[x](/hˈaɪ/) [](//) ((((",
    "a'b''c-_-d…e’’s 'tis 'twas o'' --",
    "\u0301\u0301e\u0301 Ⅷ ½ ² ﬁ \u200b\ufeff \x00\x07 é̃",
    "A1B2C3 3D 4K x2 2x 1.2.3.4 1/0 $ $5k £€",
    "http://a.b/c?d=e#f me@host.tld #tag \\n C:\\x",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_was_written_is_spoken(english_only: Synthesizer, text: str) -> None:
    pieces = speak(english_only, text, NEUTRAL)
    assert pieces and all(np.isfinite(piece.samples).all() for piece in pieces)


def test_a_long_text_comes_in_pieces(synthesizer: Synthesizer, woman: Voice) -> None:
    pieces = speak(synthesizer, " ".join([SENTENCE] * 6), woman)
    assert len(pieces) > 1
    assert all(piece.duration_s < 15.0 for piece in pieces)


def test_it_ends_with_its_context(synthesizer: Synthesizer, woman: Voice) -> None:
    context = Context.after(WAIT_S)
    pieces = synthesizer.speak(
        " ".join([SENTENCE] * 6), woman, ENGLISH, seed=0, priority=Priority.FIRST, context=context
    )
    assert next(pieces).duration_s > 1.0
    context.cancel(ClientGone("gone"))
    with pytest.raises(ClientGone):
        next(pieces)
    with pytest.raises(DeadlineExceeded):
        speak(synthesizer, SENTENCE, woman, context=Context.after(0.0))


def test_a_cancelled_sentence_stops_within_its_piece(synthesizer: Synthesizer, man: Voice) -> None:
    """The network runs to the end of a piece; the tint is left out."""
    context = Context.after(WAIT_S)
    threading.Timer(0.1, context.cancel, [ClientGone("gone")]).start()
    started = time.monotonic()
    with pytest.raises(ClientGone):
        speak(synthesizer, "。".join([CHINESE_SENTENCE] * 9), man, CHINESE, context)
    assert time.monotonic() - started < 60.0


def test_speakers(synthesizer: Synthesizer) -> None:
    him, too, her = (
        synthesizer.embed_speaker(say(text, voice)) for text, voice in zip(TEXTS, (MAN, MAN, WOMAN), strict=True)
    )
    assert him is not None and too is not None and her is not None
    assert synthesizer.same_speaker(him, her) is False
    assert synthesizer.same_speaker(him, too) is not False
    assert synthesizer.embed_speaker(Audio(np.zeros(16_000, np.float32), 16_000)) is None


def test_references_without_enough_speech(synthesizer: Synthesizer) -> None:
    assert synthesizer.voice([]).kind is VoiceKind.NEUTRAL
    quiet = synthesizer.voice([Audio(np.zeros(48_000, np.float32), 16_000)])
    assert (quiet.kind, quiet.reason) == (VoiceKind.NEUTRAL, "0.0 s of speech, 1 s is needed")
    assert synthesizer.restore(quiet.to_bytes()) == quiet


def test_other_bytes_are_no_voice(synthesizer: Synthesizer, man: Voice) -> None:
    data = man.to_bytes()
    for damaged in (b"", b"{}\n", data[:-8], data + b"\0" * 8, data[:-8] + b"\xff" * 8, b"[" * 100_000):
        with pytest.raises(ValueError, match="voice"):
            synthesizer.restore(damaged)


def test_without_kokoro_it_speaks_english(english_only: Synthesizer, synthesizer: Synthesizer) -> None:
    voice = english_only.voice([say(TEXTS[0], MAN)])
    assert voice.kind is VoiceKind.TINT
    assert joined(speak(english_only, "The word 你好 means hello.", voice)).duration_s > 1.0
    with pytest.raises(ModelNotInstalled, match="models install small"):
        speak(english_only, CHINESE_SENTENCE, voice, CHINESE)
    assert "Kokoro" in synthesizer.info.model and "Kokoro" not in english_only.info.model


def test_the_package_knows_the_usual_base_voices(
    small: SimpleNamespace, folder: Path, synthesizer: Synthesizer, english_only: Synthesizer
) -> None:
    """So no start has to measure them, not even from a folder that cannot be written."""
    for engine in (synthesizer, english_only):
        assert engine._profiles.keys() == set(engine._voices)  # type: ignore[attr-defined]
    assert not (folder / small.base.CACHE_FILE).exists()


def test_the_base_voices_are_measured_once(
    small: SimpleNamespace, folder: Path, synthesizer: Synthesizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that the package does not know. It knows what is measured; other CPUs round otherwise."""
    monkeypatch.setattr(small.base, "MEASURED_BASES", tmp_path / "none.npz")
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    first = small.synthesizer.SmallSynthesizer(tmp_path, threads=2)
    for voice, known in synthesizer._profiles.items():  # type: ignore[attr-defined]
        measured = np.frombuffer(first._profiles[voice].to_bytes(), "<f8")
        np.testing.assert_allclose(np.frombuffer(known.to_bytes(), "<f8"), measured, rtol=0.02, atol=0.02)
    cache = tmp_path / small.base.CACHE_FILE
    written = cache.stat().st_mtime_ns
    again = small.synthesizer.SmallSynthesizer(tmp_path, threads=1)
    assert again.voice([say(TEXTS[0], MAN)]) == first.voice([say(TEXTS[0], MAN)])
    assert cache.stat().st_mtime_ns == written  # each measurement writes it
    assert cache.stat().st_size < 200_000
    voice = next(base for base in small.base.base_voices(["jm_kumo"]) if base.language is CHINESE)
    for damaged in (b"", b"PK\x03\x04 no archive", cache.read_bytes()[:-900], b"\x93NUMPY"):
        broken = tmp_path / "broken"
        broken.mkdir(exist_ok=True)
        (broken / small.base.CACHE_FILE).write_bytes(damaged)
        assert small.base.MeasuredFile(broken).get(voice, "") is None
    assert small.base.MeasuredFile(tmp_path / "nowhere").get(voice, "") is None


def test_kokoros_mandarin_voices_come_first(small: SimpleNamespace, tmp_path: Path) -> None:
    """The official archive, as numpy writes it under that name. Its voices themselves have never been tried."""
    names = ("af_heart", "jf_alpha", "jm_kumo", "zf_xiaoxiao", "zf_xiaobei", "zm_yunxi")
    tables: dict[str, Any] = {name: np.zeros((510, 1, 256), np.float32) for name in names}
    with (tmp_path / "voices-v1.0.bin").open("wb") as file:
        np.savez(file, **tables)
    (tmp_path / "kokoro-v1.0.int8.onnx").symlink_to(kokoro_folder() / "kokoro-v1.0.int8.onnx")
    voices = small.kokoro.Kokoro(tmp_path, {}, 1).voices
    assert voices == set(names)
    chosen = [(voice.language.code, voice.name) for voice in small.base.base_voices(voices)]
    assert chosen == [("en", "heart"), ("en", "jm_kumo"), ("zh", "zf_xiaoxiao"), ("zh", "zm_yunxi")]


@pytest.mark.parametrize("name", ["kokoro-v1.0.int8.onnx", "voices_ja.npz"])
def test_damaged_models_do_not_start(small: SimpleNamespace, folder: Path, tmp_path: Path, name: str) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / name).unlink()
    for name_of_voices in ("voices-v1.0.bin", "voices_ja.npz"):
        (tmp_path / name_of_voices).unlink(missing_ok=True)
    shutil.copy(folder / "voices_ja.npz", tmp_path / "voices_ja.npz")
    (tmp_path / name).write_bytes(b"PK\x03\x04 not what it should be")
    with pytest.raises(ConfigurationError, match=name):
        small.synthesizer.SmallSynthesizer(tmp_path, threads=1)


@pytest.mark.parametrize(
    "table", [np.zeros((510, 1, 255), np.float32), np.zeros((510, 1, 256)), np.full((510, 1, 256), np.nan, np.float32)]
)
def test_styles_of_another_shape_are_refused(small: SimpleNamespace, tmp_path: Path, table: np.ndarray) -> None:
    np.savez(tmp_path / "voices_ja.npz", jm_kumo=table)
    with pytest.raises(ConfigurationError, match="voice"):
        small.kokoro.Kokoro(tmp_path, {}, 1)
    with pytest.raises(ModelNotInstalled, match="voices"):
        small.kokoro.Kokoro(tmp_path / "empty", {}, 1)


def test_the_high_band_is_the_neutral_speechs(small: SimpleNamespace) -> None:
    random = np.random.default_rng(5)
    neutral = Audio((0.1 * random.standard_normal(24_000)).astype(np.float32), 24_000)
    low = neutral.resample(16_000)
    same = small.high.with_high_band(low, neutral)
    assert np.abs(same.samples - neutral.samples).max() < 1e-4  # nothing changed below: nothing changes above
    quieter = small.high.with_high_band(Audio(low.samples * 0.5, 16_000), neutral)
    assert np.abs(quieter.samples - 0.5 * neutral.samples).max() < 1e-4
    silent = small.high.with_high_band(Audio(np.zeros(16_000, np.float32), 16_000), neutral)
    assert np.abs(silent.samples).max() < 1e-6


def test_the_treble_is_raised(small: SimpleNamespace) -> None:
    times = np.arange(24_000) / 24_000
    for hz, factor in ((500.0, 1.0), (2_000.0, 1.0), (6_000.0, 10 ** (3 / 20)), (11_000.0, 10 ** (3 / 20))):
        tone = Audio((0.1 * np.sin(2 * np.pi * hz * times)).astype(np.float32), 24_000)
        np.testing.assert_allclose(small.high.brightened(tone).samples, factor * tone.samples, atol=1e-4)
    assert len(small.high.brightened(Audio(np.zeros(999, np.float32), 24_000)).samples) == 999
