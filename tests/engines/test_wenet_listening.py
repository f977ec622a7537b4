"""Callers who still speak: any cutting gives one text, what is stable stays, and nobody is in another's way."""

import gc
import itertools
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_wenet_speech as speech
from hypothesis import given, settings
from hypothesis import strategies as st
from support.places import CLIPS, QUESTION
from support.trained_wenet import MODELS, write_trained_checkpoint
from support.wenet_reference import DATA, STREAMING, unpadded

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import MissingRecognizer
from mirrorchat.engines import Language, Listening, PartialTranscript, Streams, Transcript
from mirrorchat.errors import (
    AudioTooLong,
    ClientGone,
    DeadlineExceeded,
    MirrorChatError,
    NonFiniteAudio,
    ServerBusy,
    ShuttingDown,
)
from mirrorchat.hardware.native import library
from mirrorchat.wenet.listening import LONGEST_S, MAX_LISTENERS, NOTHING_YET, ChunkListener

KINDS = ["fp32-en", "fp32-zh", "script-en", *(["int8-zh"] if library() is not None else [])]
Heard = tuple[list[PartialTranscript], Transcript]


@pytest.fixture(scope="module")
def recognizers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, WenetRecognizer]]:
    made = {}
    for kind in KINDS:
        weights, code = kind.split("-")
        folder = MODELS / code
        if weights != "script":
            folder = write_trained_checkpoint(tmp_path_factory.mktemp("models") / f"wenet-{code}", speech_code(code))
        kept = "fp32" if weights == "script" else weights
        made[kind] = WenetRecognizer(folder, Language.parse(code), threads=1, weights=kept)
    yield made
    for recognizer in made.values():
        recognizer.close()


@pytest.fixture
def english(recognizers: dict[str, WenetRecognizer]) -> WenetRecognizer:
    return recognizers["fp32-en"]


def speech_code(code: str) -> speech.Code:
    return "en" if code == "en" else "zh"


def spoken(code: str, takes: int = 4) -> Audio:
    """Return some takes, one after the other."""
    sounds = speech.speak(speech.held_out(speech_code(code))[:takes])
    return Audio(np.concatenate(sounds), speech.SAMPLE_RATE)


@pytest.fixture(scope="module")
def sounds() -> dict[str, Audio]:
    return {code: spoken(code) for code in ("en", "zh")}


def listen(recognizer: WenetRecognizer, context: Context | None = None, hotwords: Sequence[str] = ()) -> ChunkListener:
    listening = recognizer.listen(recognizer.language, hotwords=hotwords, context=context or Context.after(120))
    assert isinstance(listening, ChunkListener)
    return listening


def hear_all(listening: Listening, audio: Audio, cuts: Sequence[int]) -> Heard:
    """Return every partial and the transcript of `audio` in pieces that end at `cuts`."""
    edges = [0, *sorted(min(cut, len(audio.samples)) for cut in cuts), len(audio.samples)]
    partials = [
        listening.hear(Audio(audio.samples[start:end], audio.sample_rate)) for start, end in itertools.pairwise(edges)
    ]
    return partials, listening.finish()


def in_steps(audio: Audio, step_s: float = 0.1) -> list[int]:
    return list(range(0, len(audio.samples), int(step_s * audio.sample_rate)))


def check_stable(heard: Heard) -> None:
    partials, transcript = heard
    texts = [each.text for each in partials] + [transcript.text]
    for place, partial in enumerate(partials):
        assert all(text.startswith(partial.stable_text) for text in texts[place:])
    stable = [each.stable_text for each in partials]
    assert all(late.startswith(early) for early, late in itertools.pairwise(stable))


@pytest.mark.parametrize("name", STREAMING)
def test_the_text_is_wenets_in_its_simulation_of_streaming(name: str) -> None:
    recognizer = WenetRecognizer(DATA / name, Language.CHINESE, threads=1, weights="fp32")
    try:
        samples, rate = soundfile.read(QUESTION, dtype="float32", always_2d=True)
        question = Audio(samples.mean(axis=1, dtype=np.float32), rate)
        with np.load(DATA / name / "expected.npz") as expected:
            wanted = unpadded(expected["stream/question/16/-1/rescored"])
        for cuts in ([], in_steps(question, 0.07)):
            heard = hear_all(listen(recognizer), question, cuts)
            assert tuple(recognizer._tokens.tokens.index(token.text) for token in heard[1].tokens) == wanted
            check_stable(heard)
    finally:
        recognizer.close()


@pytest.mark.parametrize("kind", KINDS)
def test_partials_come_while_the_caller_speaks(
    recognizers: dict[str, WenetRecognizer], sounds: dict[str, Audio], kind: str
) -> None:
    audio, recognizer = sounds[kind[-2:]], recognizers[kind]
    heard = partials, transcript = hear_all(listen(recognizer), audio, in_steps(audio))
    check_stable(heard)
    assert len({each.text for each in partials}) > 3
    assert len({each.stable_text for each in partials}) > 3
    covered = [each.heard_s for each in partials]
    assert covered == sorted(covered) and covered[0] == 0.0
    assert audio.duration_s - 1.0 < covered[-1] <= audio.duration_s
    assert partials[-1].stable_text
    assert transcript.tokens[-1].end_s <= audio.duration_s and transcript.confidence


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_heard_as_well_as_in_the_whole(recognizers: dict[str, WenetRecognizer], kind: str) -> None:
    takes, recognizer = speech.held_out(speech_code(kind[-2:])), recognizers[kind]
    right = 0
    for take, samples in zip(takes, speech.speak(takes), strict=True):
        audio = Audio(samples, speech.SAMPLE_RATE)
        heard = hear_all(listen(recognizer), audio, in_steps(audio, 0.25))
        check_stable(heard)
        right += heard[1].text.lower() == take.text
    assert right >= 0.6 * len(takes)


@pytest.mark.parametrize("name", [path.name for path in sorted(CLIPS.glob("*.wav"))] or ["none"])
def test_what_is_stable_stays_in_real_speech(recognizers: dict[str, WenetRecognizer], name: str) -> None:
    if not (CLIPS / name).is_file():
        pytest.skip(f"clips absent: {CLIPS}")
    samples, rate = soundfile.read(CLIPS / name, dtype="float32", always_2d=True)
    audio = Audio(samples[: int(LONGEST_S * rate), 0].copy(), rate)
    check_stable(hear_all(listen(recognizers["fp32-en"]), audio, in_steps(audio, 0.3)))


@given(cuts=st.lists(st.integers(0, 120_000), max_size=12), rate=st.sampled_from([16_000, 44_100, 8_000]))
@settings(max_examples=25, deadline=None)
def test_any_cutting_gives_the_same(
    recognizers: dict[str, WenetRecognizer], sounds: dict[str, Audio], cuts: list[int], rate: int
) -> None:
    recognizer = recognizers["fp32-en"]
    audio = Audio(sounds["en"].samples[:64_000], 16_000).resample(rate)
    partials, transcript = hear_all(listen(recognizer), audio, cuts)
    by_time = {each.heard_s: each for each in hear_all(listen(recognizer), audio, in_steps(audio, 0.05))[0]}
    assert all(by_time[each.heard_s] == each for each in partials)
    assert transcript == hear_all(listen(recognizer), audio, [])[1]


def test_several_at_once_hear_what_each_hears_alone(
    recognizers: dict[str, WenetRecognizer], sounds: dict[str, Audio]
) -> None:
    recognizer = recognizers["fp32-en"]
    parts = [Audio(sounds["en"].samples[start : start + 48_000], 16_000) for start in range(0, 40_000, 8_000)]
    alone = [hear_all(listen(recognizer), part, in_steps(part)) for part in parts]
    whole = [recognizer.recognize(part, Language.ENGLISH, context=Context()) for part in parts]
    together = threading.Barrier(2 * len(parts))

    def speak(part: Audio) -> Heard:
        together.wait(30)
        return hear_all(listen(recognizer), part, in_steps(part))

    def recognize(part: Audio) -> Transcript:
        together.wait(30)
        return recognizer.recognize(part, Language.ENGLISH, context=Context())

    with ThreadPoolExecutor(2 * len(parts)) as pool:
        speaking = [pool.submit(speak, part) for part in parts]
        asked = [pool.submit(recognize, part) for part in parts]
        assert [each.result(60) for each in speaking] == alone
        assert [each.result(60).text for each in asked] == [each.text for each in whole]


def test_hot_words_count(recognizers: dict[str, WenetRecognizer], sounds: dict[str, Audio]) -> None:
    recognizer, audio = recognizers["fp32-en"], sounds["en"]
    noise = np.random.default_rng(3).standard_normal(len(audio.samples))
    noisy = Audio(np.clip(audio.samples + 0.05 * noise, -1, 1).astype(np.float32), audio.sample_rate)
    words = [word for take in speech.held_out("en")[:4] for word in take.words if len(word) > 3]
    plain = hear_all(listen(recognizer), noisy, in_steps(noisy))
    hot = hear_all(listen(recognizer, hotwords=words), noisy, in_steps(noisy))
    check_stable(hot)
    assert sum(word in hot[1].text.lower() for word in words) > sum(word in plain[1].text.lower() for word in words)


@pytest.mark.parametrize("samples", [0, 1, 399, 1000, 1600])
def test_too_little_has_no_words(english: WenetRecognizer, samples: int) -> None:
    partials, transcript = hear_all(listen(english), Audio(np.zeros(samples, np.float32), 16_000), [])
    assert partials == [NOTHING_YET] and transcript.text == ""


def test_who_says_nothing_at_all_has_no_words(english: WenetRecognizer) -> None:
    assert listen(english).finish().text == ""


# Bounds


def test_a_piece_that_is_refused_is_not_taken(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    audio, listening = sounds["en"], listen(english)
    half = len(audio.samples) // 2
    listening.hear(Audio(audio.samples[:half], 16_000))
    spoiled = audio.samples[:100].copy()
    spoiled[50] = np.nan
    too_long = np.zeros(int(LONGEST_S * 16_000) - half + 1, np.float32)
    refused: list[tuple[type[Exception], Audio]] = [
        (NonFiniteAudio, Audio(spoiled, 16_000)),
        (AudioTooLong, Audio(too_long, 16_000)),
        (ValueError, Audio(audio.samples[:100], 8_000)),
        (ValueError, Audio(audio.samples[:100].reshape(2, 50), 16_000)),
        (ValueError, Audio(audio.samples[:100].astype(np.float64), 16_000)),
    ]
    for kind, piece in refused:
        with pytest.raises(kind):
            listening.hear(piece)
    listening.hear(Audio(audio.samples[half:], 16_000))
    assert listening.finish() == hear_all(listen(english), audio, [])[1]


@pytest.mark.parametrize("rate", [0, -1, 1_000, 10_000_000])
def test_an_impossible_rate_is_refused(english: WenetRecognizer, rate: int) -> None:
    with pytest.raises(ValueError, match="Hz"):
        listen(english).hear(Audio(np.zeros(10, np.float32), rate))


def test_too_many_are_refused_until_one_has_gone(english: WenetRecognizer) -> None:
    speaking = [listen(english) for _ in range(MAX_LISTENERS)]
    ends: list[Callable[[ChunkListener], object]] = [
        lambda each: each.close(),
        lambda each: each.finish(),
        lambda each: each._context.cancel(ClientGone("gone")),
    ]
    for end in ends:
        with pytest.raises(ServerBusy) as caught:
            listen(english)
        assert caught.value.retry_after_s
        end(speaking.pop(0))
        speaking.append(listen(english))
    with pytest.raises(ServerBusy):
        listen(english)
    del speaking
    gc.collect()
    assert listen(english).finish().text == ""  # those who were forgotten count no more


def test_listeners_past_their_deadline_count_no_more(english: WenetRecognizer) -> None:
    late = []
    for _ in range(2 * MAX_LISTENERS):
        context = Context.after(60.0)
        late.append(listen(english, context))
        context.deadline = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        late[-1].finish()
    assert all(each.is_closed for each in late)


def test_a_recording_that_waits_past_its_deadline_is_not_recognized(
    english: WenetRecognizer, sounds: dict[str, Audio]
) -> None:
    with pytest.raises(DeadlineExceeded):
        english.recognize(sounds["en"], Language.ENGLISH, context=Context.after(0.0))
    in_time = english.recognize(sounds["en"], Language.ENGLISH, context=Context.after(120))
    assert in_time == english.recognize(sounds["en"], Language.ENGLISH, context=Context())


def check_freed(listening: ChunkListener, error: type[Exception]) -> None:
    """The listening is over with `error`, and what it held is gone."""
    reader = listening._reader
    assert reader is not None and reader.frames
    gone = weakref.ref(reader)
    del reader
    with pytest.raises(error):
        listening.hear(Audio(np.zeros(100, np.float32), 16_000))
    gc.collect()
    assert gone() is None and listening.is_closed


def test_a_cancel_ends_it_and_frees_what_it_held(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    context = Context()
    listening = listen(english, context)
    listening.hear(sounds["en"])
    context.cancel(ClientGone("the caller hung up"))
    check_freed(listening, ClientGone)
    with pytest.raises(ClientGone):
        listening.finish()
    with pytest.raises(ClientGone):
        listen(english, context)


def test_closed_it_hears_no_more(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    for end in ("close", "finish"):
        listening = listen(english)
        listening.hear(sounds["en"])
        getattr(listening, end)()
        listening.close()
        for call in (listening.finish, lambda: listening.hear(sounds["en"])):  # noqa: B023
            with pytest.raises(ValueError, match="ended"):
                call()


def test_a_cancel_in_the_middle_of_a_chunk_ends_it_at_once(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    held, let_go, context = threading.Event(), threading.Event(), Context()

    def hold() -> None:
        held.set()
        assert let_go.wait(30)

    listening = listen(english, context)
    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(english._engine.compute, hold, context=Context())
        assert held.wait(10)
        hearing = pool.submit(listening.hear, sounds["en"])
        context.cancel(ClientGone("the caller hung up"))
        with pytest.raises(ClientGone):
            hearing.result(20)  # the engine is still held
        let_go.set()
        holding.result(20)
    assert listening.is_closed and not english._engine._queue


def test_a_full_queue_loses_nothing(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    audio, listening = sounds["en"], listen(english)
    half = len(audio.samples) // 2
    room, english._engine._max_waiting = english._engine._max_waiting, 0
    try:
        with pytest.raises(ServerBusy):
            listening.hear(Audio(audio.samples[:half], 16_000))
        english._engine._max_waiting = room
        assert listening.hear(Audio(audio.samples[:0], 16_000)).text
        listening.hear(Audio(audio.samples[half:], 16_000))
        english._engine._max_waiting = 0
        with pytest.raises(ServerBusy):
            listening.finish()
    finally:
        english._engine._max_waiting = room
    assert listening.finish() == hear_all(listen(english), audio, [])[1]


def test_who_is_silent_holds_no_thread(english: WenetRecognizer, sounds: dict[str, Audio]) -> None:
    before = threading.active_count()
    silent = [listen(english) for _ in range(8)]
    for each in silent:
        each.hear(Audio(sounds["en"].samples[:16_000], 16_000))
    assert threading.active_count() == before
    assert not english._engine._queue
    for each in silent:
        each.close()


def test_another_language_is_a_mistake_of_the_caller(english: WenetRecognizer) -> None:
    with pytest.raises(ValueError, match="english"):
        english.listen(Language.CHINESE, context=Context.after(1))


def test_a_shutdown_ends_it(tmp_path: Path, sounds: dict[str, Audio]) -> None:
    recognizer = WenetRecognizer(write_trained_checkpoint(tmp_path / "wenet-en", "en"), Language.ENGLISH, threads=1)
    listening = listen(recognizer)
    listening.hear(Audio(sounds["en"].samples[:100], 16_000))
    recognizer.close()
    with pytest.raises(ShuttingDown):
        listening.hear(sounds["en"])
    assert listening.is_closed


# The seam


def test_a_network_that_cannot_be_read_in_chunks_hears_the_whole() -> None:
    recognizer = WenetRecognizer(DATA / "batch_norm", Language.CHINESE, threads=1, weights="fp32")
    try:
        assert isinstance(recognizer, Streams) and not recognizer.streams
        samples, rate = soundfile.read(QUESTION, dtype="float32", always_2d=True)
        question = Audio(samples[:, 0].copy(), rate)
        listening = recognizer.listen(Language.CHINESE, context=Context.after(120))
        partials, transcript = hear_all(listening, question, in_steps(question))
        assert set(partials) == {NOTHING_YET}
        assert transcript == recognizer.recognize(question, Language.CHINESE, context=Context())
        assert transcript.text
        with pytest.raises(ValueError, match="ended"):
            listening.hear(question)
        for cancelled, error in ((True, ClientGone), (False, AudioTooLong)):
            context = Context()
            listening = recognizer.listen(Language.CHINESE, context=context)
            if cancelled:
                context.cancel(ClientGone("gone"))
            failed: type[MirrorChatError] = error
            with pytest.raises(failed):
                listening.hear(Audio(np.zeros(int(LONGEST_S * rate) + 1, np.float32), rate))
        nothing = recognizer.listen(Language.CHINESE, context=Context.after(120))
        assert nothing.finish().text == ""
    finally:
        recognizer.close()


def test_which_recognizers_listen(recognizers: dict[str, WenetRecognizer], tmp_path: Path) -> None:
    listening: list[Streams] = list(recognizers.values())
    assert all(isinstance(each, Streams) and each.streams for each in listening)
    assert not isinstance(MissingRecognizer(Language.CHINESE, tmp_path), Streams)
