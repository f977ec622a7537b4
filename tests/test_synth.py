"""The XTTS synthesiser against coqui-tts's own path, on a tiny checkpoint with random weights."""

import itertools
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts_model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import make_tiny_xtts
import tiny_xtts
from speech import say
from xtts_texts import CHINESE, ENGLISH, LONG, SHORT

from mirrorchat.audio import Audio, Samples
from mirrorchat.engines import Cancel, Deadline, Language, Priority, VoiceKind
from mirrorchat.errors import (
    ClientGone,
    ConfigurationError,
    DeadlineExceeded,
    NotReady,
    SynthesisFailed,
)
from mirrorchat.synth import EDGE_KEPT_S, PIECE_GAP_S, XttsSynthesizer, finish_piece, limited
from mirrorchat.vad import find_speech, trim_to_speech
from mirrorchat.xtts_voice import XttsVoice


def speak(
    synthesizer: XttsSynthesizer,
    text: str,
    voice: XttsVoice,
    language: Language = ENGLISH,
    *,
    seed: int = 1,
    priority: Priority = Priority.FIRST,
    deadline: Deadline | None = None,
    cancel: Cancel | None = None,
) -> Iterator[Audio]:
    deadline = deadline or Deadline.after(600.0)
    return synthesizer.speak(
        text, voice, language, seed=seed, priority=priority, deadline=deadline, cancel=cancel or Cancel()
    )


def joined(audios: Iterator[Audio]) -> Samples:
    return np.concatenate([audio.samples for audio in audios])


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_tiny_xtts.make_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def references() -> list[Audio]:
    """The same words from two speakers, with a second of silence before and after."""
    text = "Please tell me what the weather will be like tomorrow, and whether I should take an umbrella."
    spoken = [say(text, voice) for voice in ("en-us+klatt4", "en-us+f2")]
    assert all(audio.sample_rate == 22_050 for audio in spoken)
    return [Audio(np.pad(audio.samples, 22_050), 22_050) for audio in spoken]


@pytest.fixture(scope="module")
def synthesizer(checkpoint: Path) -> Iterator[XttsSynthesizer]:
    engine = XttsSynthesizer(checkpoint, device="cpu", threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def voice(synthesizer: XttsSynthesizer, references: list[Audio]) -> XttsVoice:
    return synthesizer.voice(references[:1])


@pytest.fixture
def own_copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "xtts-v2"))


@pytest.fixture
def token_ids(synthesizer: XttsSynthesizer, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The text tokens of each piece that reaches the GPT."""
    seen: list[list[int]] = []
    gpt = synthesizer._loaded().gpt
    generate = gpt.generate

    def recording(*, text_inputs: torch.Tensor, **settings: Any) -> Any:
        seen.append(text_inputs[0].tolist())
        return generate(text_inputs=text_inputs, **settings)

    monkeypatch.setattr(gpt, "generate", recording)
    return seen


def spelled(synthesizer: XttsSynthesizer, ids: list[int]) -> str:
    """Return the letters and tone digits that the tokens stand for."""
    names = {index: token for token, index in synthesizer._loaded().tokenizer.tokenizer.get_vocab().items()}
    return "".join(name for index in ids if (name := names[index]).isalnum())


class TestEqualToCoqui:
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_same_voice_and_samples(
        self,
        synthesizer: XttsSynthesizer,
        checkpoint: Path,
        references: list[Audio],
        tmp_path: Path,
        language: Language,
    ) -> None:
        reference = trim_to_speech(references[0], find_speech(references[0]))
        voice = synthesizer.voice([references[0]])
        piece = SHORT[language]
        with tiny_xtts.stock_model(tiny_xtts.pickled_copy(checkpoint, tmp_path / "stock"), reference) as stock:
            latent, embedding = stock.get_conditioning_latents(
                "any file", max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4
            )
            torch.manual_seed(5)
            settings = {"temperature": 0.75, "repetition_penalty": 5.0, "top_k": 50, "top_p": 0.85}
            expected = stock.inference(piece, language.code, latent, embedding, **settings)["wav"]
        torch.testing.assert_close(voice.gpt_cond_latent, latent.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(voice.speaker_embedding, embedding.cpu(), atol=1e-5, rtol=0)
        spoken = joined(speak(synthesizer, piece, voice, language, seed=5))
        np.testing.assert_allclose(spoken, finish_piece(expected, 24_000, 0.0), atol=1e-4)

    def test_several_references_give_their_mean(
        self, synthesizer: XttsSynthesizer, checkpoint: Path, references: list[Audio], tmp_path: Path
    ) -> None:
        trimmed = trim_to_speech(references[0], find_speech(references[0]))
        with tiny_xtts.stock_model(tiny_xtts.pickled_copy(checkpoint, tmp_path / "stock"), trimmed) as stock:
            latent, embedding = stock.get_conditioning_latents(
                ["one", "two"], max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4
            )
        voice = synthesizer.voice([references[0], references[0]])
        torch.testing.assert_close(voice.gpt_cond_latent, latent.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(voice.speaker_embedding, embedding.cpu(), atol=1e-5, rtol=0)


class TestSpeak:
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_audio_is_sound(self, synthesizer: XttsSynthesizer, voice: XttsVoice, language: Language) -> None:
        (audio,) = speak(synthesizer, SHORT[language], voice, language)
        assert audio.sample_rate == synthesizer.sample_rate == 24_000
        assert audio.samples.dtype == np.float32 and audio.samples.ndim == 1
        assert np.isfinite(audio.samples).all() and np.abs(audio.samples).max() <= 1.0
        assert audio.duration_s > 0.2

    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_nothing_of_a_long_text_is_lost(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, token_ids: list[list[int]], language: Language
    ) -> None:
        audios = list(speak(synthesizer, LONG[language], voice, language))
        tokenizer = synthesizer._loaded().tokenizer
        expected = spelled(synthesizer, tokenizer.encode(LONG[language].lower(), lang=language.code))
        assert "".join(spelled(synthesizer, ids) for ids in token_ids) == expected
        assert len(audios) == len(token_ids) > 1
        assert max(len(ids) for ids in token_ids) < 402
        gap = np.zeros(int(PIECE_GAP_S * 24_000))
        assert all(np.array_equal(audio.samples[-len(gap) :], gap) for audio in audios[:-1])

    def test_english_in_chinese_is_not_glued_to_pinyin(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, token_ids: list[list[int]]
    ) -> None:
        list(speak(synthesizer, "我喜欢Python这门语言。", voice, CHINESE))
        space = synthesizer._loaded().tokenizer.tokenizer.token_to_id("[SPACE]")
        words = [
            spelled(synthesizer, list(g))
            for is_space, g in itertools.groupby(token_ids[0], space.__eq__)
            if not is_space
        ]
        assert "python" in words

    def test_chinese_in_an_english_answer_is_not_unknown(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, token_ids: list[list[int]]
    ) -> None:
        list(speak(synthesizer, "They say 你好 to greet each other.", voice, ENGLISH))
        assert "ni3hao3" in spelled(synthesizer, token_ids[0])

    def test_text_without_a_word_gives_nothing(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        assert list(speak(synthesizer, "... !?", voice)) == []
        assert list(speak(synthesizer, "", voice, CHINESE)) == []

    def test_same_seed_same_samples(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        first = joined(speak(synthesizer, LONG[ENGLISH], voice, seed=3))
        torch.rand(7)  # what others draw has no influence
        assert np.array_equal(joined(speak(synthesizer, LONG[ENGLISH], voice, seed=3)), first)
        assert not np.array_equal(joined(speak(synthesizer, LONG[ENGLISH], voice, seed=4)), first)

    def test_others_random_numbers_are_left_alone(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        before = torch.random.get_rng_state()
        list(speak(synthesizer, SHORT[ENGLISH], voice))
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_two_callers_at_once_hear_what_each_hears_alone(
        self, synthesizer: XttsSynthesizer, references: list[Audio]
    ) -> None:
        voices = [synthesizer.voice([reference]) for reference in references]
        assert voices[0] != voices[1]
        calls = [(LONG[ENGLISH], voices[0], ENGLISH), (LONG[CHINESE], voices[1], CHINESE)]
        alone = [joined(speak(synthesizer, *call)) for call in calls]
        assert not np.array_equal(alone[0], joined(speak(synthesizer, LONG[ENGLISH], voices[1], ENGLISH)))
        together = threading.Barrier(4)

        def call_again(index: int) -> tuple[XttsVoice, Samples]:
            together.wait(60)
            return synthesizer.voice([references[index % 2]]), joined(speak(synthesizer, *calls[index % 2]))

        with ThreadPoolExecutor(4) as pool:
            for index, (voice, samples) in enumerate(pool.map(call_again, range(4))):
                assert voice == voices[index % 2]
                assert np.array_equal(samples, alone[index % 2])

    def test_a_slow_listener_stalls_nobody(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        slow = speak(synthesizer, LONG[ENGLISH], voice)
        next(slow)
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))
        slow.close()  # type: ignore[attr-defined]  # it is a generator

    def test_voice_of_another_engine_is_refused(self, synthesizer: XttsSynthesizer) -> None:
        with pytest.raises(TypeError, match="XttsVoice"):
            list(speak(synthesizer, SHORT[ENGLISH], object()))  # type: ignore[arg-type]

    def test_closed(self, checkpoint: Path, voice: XttsVoice) -> None:
        engine = XttsSynthesizer(checkpoint, device="cpu", threads=1)
        engine.close()
        with pytest.raises(NotReady):
            list(speak(engine, SHORT[ENGLISH], voice))


class TestEnding:
    def test_cancelled_before(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Cancel()
        cancel.set(ClientGone("gone"))
        with pytest.raises(ClientGone):
            next(speak(synthesizer, SHORT[ENGLISH], voice, cancel=cancel))

    def test_deadline_passed(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        with pytest.raises(DeadlineExceeded):
            next(speak(synthesizer, SHORT[ENGLISH], voice, deadline=Deadline(time.monotonic() - 1.0)))

    def test_cancel_between_pieces(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Cancel()
        audios = speak(synthesizer, LONG[ENGLISH], voice, cancel=cancel)
        next(audios)
        cancel.set(ClientGone("gone"))
        with pytest.raises(ClientGone):
            next(audios)

    def test_cancel_takes_effect_within_one_step(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Cancel()
        steps = itertools.count(1)
        done: list[int] = []

        def after_step(*_: object) -> None:
            done.append(next(steps))
            if len(done) == 5:
                cancel.set(ClientGone("gone"))

        hook = synthesizer._loaded().gpt.gpt_inference.register_forward_hook(after_step)
        try:
            with pytest.raises(ClientGone):
                next(speak(synthesizer, SHORT[ENGLISH], voice, cancel=cancel))
        finally:
            hook.remove()
        assert done == [1, 2, 3, 4, 5]
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))  # the model is free again

    def test_cancel_while_waiting_for_the_model(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Cancel()
        with (
            ThreadPoolExecutor(1) as pool,
            synthesizer._turnstile.turn(Priority.FIRST, Deadline.after(600.0), Cancel()),
        ):
            waiting = pool.submit(next, speak(synthesizer, SHORT[ENGLISH], voice, cancel=cancel))
            wait_until(lambda: len(synthesizer._turnstile._waiting) == 1)
            cancel.set(ClientGone("gone"))
            assert isinstance(waiting.exception(60), ClientGone)  # while the model is still held

    def test_deadline_while_waiting_for_the_model(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        with (
            ThreadPoolExecutor(1) as pool,
            synthesizer._turnstile.turn(Priority.FIRST, Deadline.after(600.0), Cancel()),
        ):
            call = speak(synthesizer, SHORT[ENGLISH], voice, deadline=Deadline.after(0.2))
            assert isinstance(pool.submit(next, call).exception(60), DeadlineExceeded)


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


class TestVoice:
    def test_clone(self, voice: XttsVoice) -> None:
        assert voice.kind is VoiceKind.CLONE
        assert voice.gpt_cond_latent.shape == (1, 32, 64) and voice.speaker_embedding.shape == (1, 512, 1)
        assert voice.gpt_cond_latent.dtype == voice.speaker_embedding.dtype == torch.float32

    def test_bytes_round_trip(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        again = XttsVoice.from_bytes(voice.to_bytes())
        assert again == voice and hash(again) == hash(voice)
        assert (again.kind, again.reason) == (voice.kind, voice.reason)
        text = SHORT[ENGLISH]
        assert np.array_equal(joined(speak(synthesizer, text, again)), joined(speak(synthesizer, text, voice)))
        assert replace(voice, reason="another") != voice
        assert replace(voice, speaker_embedding=voice.speaker_embedding * 2) != voice

    @pytest.mark.parametrize("data", [b"", b"nonsense", b"\x02\0\0\0\0\0\0\0{}"])
    def test_other_bytes_are_refused(self, data: bytes) -> None:
        with pytest.raises(ValueError, match="not an XTTS voice"):
            XttsVoice.from_bytes(data)

    def test_silence_and_noise_give_a_neutral_voice(self, synthesizer: XttsSynthesizer) -> None:
        noise = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1
        for samples in (np.zeros(48_000, np.float32), noise):
            neutral = synthesizer.voice([Audio(samples, 16_000)])
            assert neutral.kind is VoiceKind.NEUTRAL
            assert neutral.reason == "0.0 s of speech, 1 s is needed"
        assert list(speak(synthesizer, SHORT[ENGLISH], neutral))
        assert synthesizer.voice([]) == neutral

    def test_a_word_of_speech_gives_a_neutral_voice(
        self, synthesizer: XttsSynthesizer, references: list[Audio]
    ) -> None:
        span = find_speech(references[0])
        start = int(span.start_s * 22_050)
        brief = Audio(references[0].samples[start : start + 15_000], 22_050)
        neutral = synthesizer.voice([brief])
        assert neutral.kind is VoiceKind.NEUTRAL
        assert re.fullmatch(r"0\.[1-9] s of speech, 1 s is needed", neutral.reason)
        assert neutral == replace(
            synthesizer.voice([]), reason=neutral.reason
        )  # nothing of the brief reference is in it
        assert synthesizer.voice([brief] * 4).kind is VoiceKind.CLONE  # together they are enough

    @pytest.mark.parametrize("names", [["Zoe", "Claribel Dervla"], ["Zoe"]])
    def test_neutral_voice_is_a_studio_speaker(self, own_copy: Path, names: list[str]) -> None:
        speakers = {
            name: {"gpt_cond_latent": torch.randn(1, 32, 64), "speaker_embedding": torch.randn(1, 512, 1)}
            for name in names
        }
        torch.save(speakers, own_copy / "speakers_xtts.pth")
        neutral = XttsSynthesizer(own_copy, device="cpu", threads=1).voice([])
        assert torch.equal(neutral.gpt_cond_latent, speakers[names[-1]]["gpt_cond_latent"])
        assert torch.equal(neutral.speaker_embedding, speakers[names[-1]]["speaker_embedding"])

    def test_references_are_limited_to_30_s(self) -> None:
        parts = limited([Audio(np.ones(44_100 * 20, np.float32), 44_100)] * 3, 30.0)
        assert [len(part) for part in parts] == [22_050 * 20, 22_050 * 10]


class TestFailures:
    def test_samples_that_are_not_finite(self, own_copy: Path, voice: XttsVoice) -> None:
        name = "hifigan_decoder.waveform_decoder.conv_post.weight"
        tiny_xtts.replace_weights(own_copy, {name: torch.full((1, 2, 7), torch.nan)})
        engine = XttsSynthesizer(own_copy, device="cpu", threads=1)
        with pytest.raises(SynthesisFailed, match="not finite"):
            list(speak(engine, SHORT[ENGLISH], voice))

    def test_a_failing_model(self, own_copy: Path, voice: XttsVoice) -> None:
        tiny_xtts.replace_weights(own_copy, {"gpt.final_norm.weight": torch.full((64,), torch.nan)})
        engine = XttsSynthesizer(own_copy, device="cpu", threads=1)
        with pytest.raises(SynthesisFailed, match="could not speak the sentence"):
            list(speak(engine, SHORT[ENGLISH], voice))

    def test_out_of_memory_is_one_sentence_s_failure(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        with monkeypatch.context() as patch:
            patch.setattr(synthesizer._loaded().gpt, "generate", fail)
            with pytest.raises(SynthesisFailed, match="OutOfMemoryError"):
                list(speak(synthesizer, SHORT[ENGLISH], voice))
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))


def test_info(synthesizer: XttsSynthesizer) -> None:
    assert (synthesizer.info.name, synthesizer.info.model, synthesizer.info.device) == ("xtts", "xtts-v2", "cpu")


def test_device_auto(checkpoint: Path) -> None:
    engine = XttsSynthesizer(checkpoint, device="auto", threads=1)
    assert engine.info.device == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["cudaa", "cuda:99"])
def test_unusable_device(checkpoint: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=device):
        XttsSynthesizer(checkpoint, device=device, threads=1)


def test_edges_are_trimmed_gently() -> None:
    speech = np.full(1_000, 0.5, np.float32)
    silence = np.full(24_000, 0.001, np.float32)
    kept = int(EDGE_KEPT_S * 24_000)
    finished = finish_piece(np.concatenate([silence, speech * 3, silence]), 24_000, 0.1)
    expected = np.concatenate([silence[:kept], np.ones(1_000), silence[:kept], np.zeros(2_400)])
    assert np.array_equal(finished, expected.astype(np.float32))
    assert len(finish_piece(silence, 24_000, 0.0)) == len(silence)
