"""The XTTS synthesizer against coqui-tts's own path, on a tiny checkpoint with random weights."""

import itertools
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from support import tiny_xtts
from support.speaking import speak
from support.speech import say
from support.xtts_texts import CHINESE, ENGLISH, LONG, SHORT

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Priority, VoiceKind
from mirrorchat.errors import ClientGone, DeadlineExceeded, NotReady, SynthesisFailed
from mirrorchat.hardware import native
from mirrorchat.synth import (
    EDGE_KEPT_S,
    EDGE_LEVEL,
    LOOP_S,
    PIECE_GAP_S,
    RESAMPLE_SEED,
    EdgeTrimmer,
    XttsSynthesizer,
    cut_off,
    token_budget,
)
from mirrorchat.turn.reference import Utterance as QuestionUtterance
from mirrorchat.xtts.utterance import FinishReason, Request, Utterance
from mirrorchat.xtts.voice import XttsVoice, similarity


def joined(audios: Iterator[Audio]) -> Samples:
    return np.concatenate([audio.samples for audio in audios])


@pytest.fixture(scope="session")
def references() -> list[Audio]:
    """The same words from two speakers, with a second of silence before and after."""
    text = "Please tell me what the weather will be like tomorrow, and whether I should take an umbrella."
    spoken = [say(text, voice) for voice in ("en-us+klatt4", "en-us+f2")]
    assert all(audio.sample_rate == 22_050 for audio in spoken)
    return [Audio(np.pad(audio.samples, 22_050), 22_050) for audio in spoken]


@pytest.fixture(scope="module")
def synthesizer(xtts_checkpoint: Path) -> Iterator[XttsSynthesizer]:
    engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def reference_engine(xtts_checkpoint: Path) -> Iterator[XttsSynthesizer]:
    """Return an engine with the weights as they are."""
    engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1, weights="fp32")
    yield engine
    engine.close()


def seed_that_stops(engine: XttsSynthesizer, piece: str, voice: XttsVoice, language: Language, start: int = 0) -> int:
    """Return a seed with which random weights happen to end `piece` by themselves, as trained ones do."""
    for seed in range(start, start + 60):
        utterance = engine._engine.submit(
            engine._request(piece, voice, language, seed, Priority.FIRST, Context.after(60.0))
        )
        list(utterance)
        if utterance.finish_reason is FinishReason.STOP:
            return seed
    raise AssertionError("no seed makes this model stop")


@pytest.fixture(scope="module")
def voice(synthesizer: XttsSynthesizer, references: list[Audio]) -> XttsVoice:
    return synthesizer.voice(references[:1])


@pytest.fixture
def own_copy(xtts_checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(xtts_checkpoint, tmp_path / "xtts-v2"))


@pytest.fixture
def requests(synthesizer: XttsSynthesizer, monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What reaches the decode engine, in order."""
    seen: list[Request] = []
    submit = synthesizer._engine.submit

    def recording(request: Request) -> Utterance:
        seen.append(request)
        return submit(request)

    monkeypatch.setattr(synthesizer._engine, "submit", recording)
    return seen


def pieces_of(requests: list[Request]) -> list[list[int]]:
    """Return the text tokens of each piece, once, however often it was resampled."""
    return [list(request.text_ids) for request in requests if request.seed < RESAMPLE_SEED]


def trimmed(samples: Samples) -> Samples:
    """Return what is left of a whole piece: the slow reference of EdgeTrimmer."""
    loud = np.flatnonzero(np.abs(samples) > EDGE_LEVEL)
    kept = int(EDGE_KEPT_S * 24_000)
    return np.clip(samples[max(0, loud[0] - kept) : loud[-1] + 1 + kept], -1.0, 1.0)


def spelled(synthesizer: XttsSynthesizer, ids: list[int]) -> str:
    """Return the letters and tone digits that the tokens stand for."""
    names = {index: token for token, index in synthesizer._loaded().tokenizer.tokenizer.get_vocab().items()}
    return "".join(name for index in ids if (name := names[index]).isalnum())


class TestEqualToCoqui:
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_same_voice_and_samples(
        self,
        reference_engine: XttsSynthesizer,
        xtts_checkpoint: Path,
        references: list[Audio],
        tmp_path: Path,
        language: Language,
    ) -> None:
        reference = trim_to_speech(references[0], find_speech(references[0]))
        voice = reference_engine.voice([references[0]])
        piece = SHORT[language]
        seed = seed_that_stops(reference_engine, piece, voice, language)
        with tiny_xtts.stock_model(tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path / "stock"), reference) as stock:
            latent, embedding = stock.get_conditioning_latents(
                "any file", max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4
            )
            torch.manual_seed(seed)
            settings = {"temperature": 0.75, "repetition_penalty": 5.0, "top_k": 50, "top_p": 0.85}
            expected = stock.inference(piece, language.code, latent, embedding, **settings)["wav"]
        torch.testing.assert_close(voice.gpt_cond_latent, latent.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(voice.speaker_embedding, embedding.cpu(), atol=1e-5, rtol=0)
        spoken = joined(speak(reference_engine, piece, voice, language, seed=seed))
        np.testing.assert_allclose(spoken, trimmed(expected), atol=1e-4)

    def test_several_references_give_their_mean(
        self, synthesizer: XttsSynthesizer, xtts_checkpoint: Path, references: list[Audio], tmp_path: Path
    ) -> None:
        trimmed = trim_to_speech(references[0], find_speech(references[0]))
        with tiny_xtts.stock_model(tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path / "stock"), trimmed) as stock:
            latent, embedding = stock.get_conditioning_latents(
                ["one", "two"], max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4
            )
        voice = synthesizer.voice([references[0], references[0]])
        torch.testing.assert_close(voice.gpt_cond_latent, latent.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(voice.speaker_embedding, embedding.cpu(), atol=1e-5, rtol=0)

    def test_thirty_seconds_of_each_of_several_references_count(
        self,
        synthesizer: XttsSynthesizer,
        xtts_checkpoint: Path,
        references: list[Audio],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        speech = trim_to_speech(references[0], find_speech(references[0]))
        long = [lengthened(speech, 40.0), lengthened(speech.resample(48_000), 33.0, gain=0.5), speech]
        heard = [trim_to_speech(audio, find_speech(audio)).resample(22_050).samples.copy() for audio in long]
        assert [len(samples) > 30 * 22_050 for samples in heard] == [True, True, False]
        with tiny_xtts.stock_model(tiny_xtts.pickled_copy(xtts_checkpoint, tmp_path / "stock"), speech) as stock:
            monkeypatch.setattr(
                "TTS.tts.models.xtts.load_audio", lambda i, _rate: torch.from_numpy(heard[i].copy())[None]
            )
            latent, embedding = stock.get_conditioning_latents(
                [0, 1, 2], max_ref_length=30, gpt_cond_len=30, gpt_cond_chunk_len=4
            )
        voice = synthesizer.voice(long)
        torch.testing.assert_close(voice.gpt_cond_latent, latent.cpu(), atol=1e-5, rtol=0)
        torch.testing.assert_close(voice.speaker_embedding, embedding.cpu(), atol=1e-5, rtol=0)


def lengthened(audio: Audio, least_s: float, gain: float = 1.0) -> Audio:
    """Return `audio` repeated until it is longer than `least_s`."""
    times = int(least_s / audio.duration_s) + 1
    return Audio(np.tile(audio.samples, times) * np.float32(gain), audio.sample_rate)


class TestSpeaker:
    def test_the_embedding_is_the_voices_without_its_conditioning(
        self, synthesizer: XttsSynthesizer, references: list[Audio], voice: XttsVoice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(synthesizer._loaded(), "get_gpt_cond_latents", None)  # would fail
        embedding = synthesizer.embed_speaker(trim_to_speech(references[0], find_speech(references[0])))
        assert embedding is not None and embedding.shape == (512,)
        np.testing.assert_allclose(embedding, voice.speaker_embedding.numpy().ravel(), atol=1e-6)
        assert synthesizer.embed_speaker(Audio(np.zeros(0, np.float32), 16_000)) is None

    @pytest.mark.parametrize(("cosine", "same"), [(1.0, True), (0.61, True), (0.59, None), (0.26, None), (0.24, False)])
    def test_the_cosine_decides(self, synthesizer: XttsSynthesizer, cosine: float, same: bool | None) -> None:
        one = np.zeros(512)
        one[0] = 1.0
        two = np.zeros(512)
        two[:2] = 3.0 * cosine, 3.0 * np.sqrt(1.0 - cosine**2)
        assert similarity(one, two) == pytest.approx(cosine)
        assert synthesizer.same_speaker(one, two) is same
        assert synthesizer.same_speaker(one, 0.0 * two) is False

    def test_a_model_that_fails_costs_the_check_alone(
        self, synthesizer: XttsSynthesizer, references: list[Audio], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> torch.Tensor:
            raise RuntimeError("out of memory")

        monkeypatch.setattr(synthesizer._loaded(), "get_speaker_embedding", fail)
        with pytest.raises(SynthesisFailed, match="RuntimeError"):
            synthesizer.embed_speaker(references[0])
        question = QuestionUtterance(references[0], synthesizer)
        assert question.embedding is None and question.quality.second_speaker is None
        assert question.quality.speech_s > 3.0


class TestSpeak:
    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_audio_is_sound(self, synthesizer: XttsSynthesizer, voice: XttsVoice, language: Language) -> None:
        audios = list(speak(synthesizer, SHORT[language], voice, language))
        assert {audio.sample_rate for audio in audios} == {synthesizer.sample_rate} == {24_000}
        samples = joined(iter(audios))
        assert samples.dtype == np.float32 and samples.ndim == 1
        assert np.isfinite(samples).all() and np.abs(samples).max() <= 1.0
        assert len(samples) > 0.2 * 24_000

    @pytest.mark.parametrize("language", [ENGLISH, CHINESE])
    def test_nothing_of_a_long_text_is_lost(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, requests: list[Request], language: Language
    ) -> None:
        audios = list(speak(synthesizer, LONG[language], voice, language))
        pieces = pieces_of(requests)
        tokenizer = synthesizer._loaded().tokenizer
        expected = spelled(synthesizer, tokenizer.encode(LONG[language].lower(), lang=language.code))
        assert "".join(spelled(synthesizer, ids) for ids in pieces) == expected
        assert max(len(ids) for ids in pieces) < 402
        gap = np.zeros(int(PIECE_GAP_S * 24_000))
        assert sum(np.array_equal(audio.samples, gap) for audio in audios) == len(pieces) - 1 > 0

    def test_english_in_chinese_is_not_glued_to_pinyin(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, requests: list[Request]
    ) -> None:
        list(speak(synthesizer, "我喜欢Python这门语言。", voice, CHINESE))
        space = synthesizer._loaded().tokenizer.tokenizer.token_to_id("[SPACE]")
        words = [
            spelled(synthesizer, list(g))
            for is_space, g in itertools.groupby(pieces_of(requests)[0], space.__eq__)
            if not is_space
        ]
        assert "python" in words

    def test_chinese_in_an_english_answer_is_not_unknown(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, requests: list[Request]
    ) -> None:
        list(speak(synthesizer, "They say 你好 to greet each other.", voice, ENGLISH))
        assert "ni3hao3" in spelled(synthesizer, pieces_of(requests)[0])

    def test_text_without_a_word_gives_nothing(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        assert list(speak(synthesizer, "... !?", voice)) == []
        assert list(speak(synthesizer, "", voice, CHINESE)) == []

    def test_same_seed_same_samples(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        first = joined(speak(synthesizer, LONG[ENGLISH], voice, seed=3))
        torch.rand(7)  # the global random generator has no influence
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
                if native.library() is not None:
                    assert np.array_equal(samples, alone[index % 2])
                # Without the library, products of a batch are summed in another order than those of one row.
                np.testing.assert_allclose(samples, alone[index % 2], atol=1e-5)

    def test_a_slow_listener_stalls_nobody(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        slow = speak(synthesizer, LONG[ENGLISH], voice)
        next(slow)
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))
        slow.close()  # type: ignore[attr-defined]  # it is a generator

    def test_voice_of_another_engine_is_refused(self, synthesizer: XttsSynthesizer) -> None:
        with pytest.raises(TypeError, match="XttsVoice"):
            list(speak(synthesizer, SHORT[ENGLISH], object()))  # type: ignore[arg-type]

    def test_closed(self, xtts_checkpoint: Path, voice: XttsVoice) -> None:
        engine = XttsSynthesizer(xtts_checkpoint, device="cpu", threads=1)
        engine.close()
        with pytest.raises(NotReady):
            list(speak(engine, SHORT[ENGLISH], voice))


class TestEnding:
    def test_cancelled_before(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Context()
        cancel.cancel(ClientGone("gone"))
        with pytest.raises(ClientGone):
            next(speak(synthesizer, SHORT[ENGLISH], voice, context=cancel))

    def test_deadline_passed(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        with pytest.raises(DeadlineExceeded):
            next(speak(synthesizer, SHORT[ENGLISH], voice, context=Context(time.monotonic() - 1.0)))

    def test_cancel_between_pieces(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        cancel = Context()
        audios = speak(synthesizer, LONG[ENGLISH], voice, context=cancel)
        next(audios)
        cancel.cancel(ClientGone("gone"))
        with pytest.raises(ClientGone):
            next(audios)

    def test_the_engine_is_free_after_a_listener_has_gone(self, synthesizer: XttsSynthesizer, voice: XttsVoice) -> None:
        audios = speak(synthesizer, LONG[ENGLISH], voice)
        next(audios)
        audios.close()  # type: ignore[attr-defined]  # it is a generator
        wait_until(lambda: synthesizer._engine.running == 0)
        assert list(speak(synthesizer, SHORT[ENGLISH], voice))


def wait_until(condition: Callable[[], bool], limit_s: float = 20.0) -> None:
    limit = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.005)


class TestGuards:
    def test_a_piece_that_runs_on_is_resampled_once(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, requests: list[Request]
    ) -> None:
        stopping = seed_that_stops(synthesizer, SHORT[ENGLISH], voice, ENGLISH)
        endless = next(seed for seed in range(60) if not self._stops(synthesizer, voice, seed))
        for seed, seeds in ((stopping, [stopping]), (endless, [endless, endless + RESAMPLE_SEED])):
            requests.clear()
            assert list(speak(synthesizer, SHORT[ENGLISH], voice, seed=seed, priority=Priority.LATER))
            assert [request.seed for request in requests] == seeds

    def _stops(self, synthesizer: XttsSynthesizer, voice: XttsVoice, seed: int) -> bool:
        try:
            return seed_that_stops(synthesizer, SHORT[ENGLISH], voice, ENGLISH, start=seed) == seed
        except AssertionError:
            return False

    def test_a_later_sentence_comes_as_a_whole_unless_it_is_awaited(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice
    ) -> None:
        """From then on: what is there comes at once, and so does the rest."""
        seed = seed_that_stops(synthesizer, SHORT[ENGLISH], voice, ENGLISH)
        asked = iter([False, True])
        whole, from_then_on, at_once = (
            [
                audio.samples
                for audio in speak(
                    synthesizer, SHORT[ENGLISH], voice, seed=seed, priority=Priority.LATER, buffer_low=awaited
                )
            ]
            for awaited in (lambda: False, lambda: next(asked, False), lambda: True)
        )
        assert len(whole) == 1 < len(from_then_on) < len(at_once)
        for pieces in (from_then_on, at_once):
            assert np.array_equal(np.concatenate(pieces), whole[0])

    def test_speech_that_was_heard_is_not_resampled(
        self, synthesizer: XttsSynthesizer, voice: XttsVoice, requests: list[Request]
    ) -> None:
        endless = next(seed for seed in range(60) if not self._stops(synthesizer, voice, seed))
        requests.clear()
        assert len(list(speak(synthesizer, SHORT[ENGLISH], voice, seed=endless))) > 1  # in chunks, as it is decoded
        assert len(requests) == 1

    def test_budget_grows_with_the_text(self) -> None:
        assert token_budget("Yes.", ENGLISH) == 36  # 1.7 s
        assert token_budget("a" * 100, ENGLISH) == 324  # 15 s, of which speech needs 7
        assert token_budget("好" * 20, CHINESE) == 224  # 10 s, of which speech needs 4.4

    def test_a_cut_has_no_click_and_no_loop(self) -> None:
        cut = cut_off(np.ones(48_000, np.float32), 24_000, looped_s=LOOP_S)
        assert len(cut) == 48_000 - round(32 / 21.5 * 24_000)
        assert cut[-1] == pytest.approx(0.0, abs=1e-6) and cut[-300] == 1.0
        assert len(cut_off(np.ones(100, np.float32), 24_000, looped_s=LOOP_S)) == 0

    def test_speech_without_a_sound_fails(self, own_copy: Path, voice: XttsVoice) -> None:
        name = "hifigan_decoder.waveform_decoder.conv_post.weight"
        tiny_xtts.replace_weights(own_copy, {name: torch.zeros(1, 2, 7)})
        engine = XttsSynthesizer(own_copy, device="cpu", threads=1)
        with pytest.raises(SynthesisFailed, match="no sound"):
            list(speak(engine, SHORT[ENGLISH], voice))
        engine.close()


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


def test_info(synthesizer: XttsSynthesizer) -> None:
    assert (synthesizer.info.name, synthesizer.info.model, synthesizer.info.device) == ("xtts", "xtts-v2 fp16w", "cpu")


@pytest.mark.parametrize("chunk", [7, 400, 100_000])
def test_edges_are_trimmed_gently(chunk: int) -> None:
    speech = np.full(1_000, 1.5, np.float32)
    silence = np.full(24_000, 0.001, np.float32)
    whole = np.concatenate([silence, speech, silence, speech, silence])
    trimmer = EdgeTrimmer(24_000)
    given = [trimmer.push(whole[start : start + chunk]) for start in range(0, len(whole), chunk)]
    assert np.array_equal(np.concatenate([*given, trimmer.finish()]), trimmed(whole))
    nothing = EdgeTrimmer(24_000)
    assert len(nothing.push(silence)) == len(nothing.finish()) == 0
