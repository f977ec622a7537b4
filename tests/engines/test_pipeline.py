"""The turn as events: their order, what ends them, and that nothing is left behind."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import pytest
from support.chat_server import ChatServer, answer, hang_after, status, truncated
from support.checks import wait_for
from support.speech import say
from support.stream_client import Gate
from support.turns import Turns

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer
from mirrorchat.engines import BatchStats, Language, Transcript, Voice
from mirrorchat.errors import ChatInterrupted, ClientGone, DeadlineExceeded, NotReady, NoWords, ShuttingDown
from mirrorchat.pipeline import Question
from mirrorchat.turn.events import Done, Error, Event, SpokenAudio, StartedOver, TextDelta, Timings
from mirrorchat.turn.sessions import Sessions
from mirrorchat.turn.stopwatch import Stopwatch


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[EmbeddedRecognizer, EmbeddedSynthesizer]]:
    recognizer, synthesizer = EmbeddedRecognizer(), EmbeddedSynthesizer()
    yield recognizer, synthesizer
    recognizer.close()
    synthesizer.close()


def test_events_come_in_order(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer(answer("The first sentence is here. The second one follows it.")) as chat:
        turns = Turns(engines, chat)
        events = list(turns.run("What is it?"))
        turns.assert_all_places_free()
    assert events[0] == Transcript("What is it?", Language.ENGLISH)
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == "The first sentence is here. The second one follows it."
    indices = [event.index for event in events if isinstance(event, SpokenAudio)]
    assert indices == sorted(indices) and set(indices) == {0, 1}
    assert isinstance(events[-2], Timings) and isinstance(events[-1], Done)
    assert set(events[-2].seconds) == {"voice", "answer", "speak", "total"}


def test_the_end_says_what_the_reference_was_like(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer() as chat:
        done = list(Turns(engines, chat).run(audio=say("good morning to all of you my dear friends")))[-1]
    assert isinstance(done, Done)
    assert 1.0 < done.quality.speech_s < 4.0 and done.quality.second_speaker is None


@pytest.mark.parametrize("collected", [True, False])
def test_a_whole_turn_is_kept_and_asked_with(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], collected: bool
) -> None:
    sessions = Sessions(2, 60.0, 1000)
    with ChatServer(truncated("A broken answer. It ", "ends")) as broken, ChatServer(answer(" A whole one. ")) as whole:
        turns = Turns(engines, *([broken] if collected else []), whole)
        with sessions.open(None, "") as session:
            assert isinstance(list(turns.run("What?", collected=collected, session=session))[-1], Done)
        with sessions.open(session.id, "") as again:
            list(turns.run("And?", collected=collected, session=again))
        asked = [message["content"] for message in whole.requests[-1].messages]
    assert asked == ["Answer in English.", "What?", "A whole one.", "And?"]


@pytest.mark.parametrize("end", ["close", "broken"])
def test_a_turn_that_is_not_whole_is_not_kept(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], end: str
) -> None:
    sessions = Sessions(2, 60.0, 1000)
    behaviour = truncated("Here it is. And ", "ends") if end == "broken" else answer("Here it is. And it ends.")
    with ChatServer(behaviour) as chat, sessions.open(None, "") as session:
        turns = Turns(engines, chat)
        events = turns.run(session=session)
        for event in events:
            if end == "close" and isinstance(event, Timings | SpokenAudio):
                events.close()  # type: ignore[attr-defined]  # a generator's
        turns.assert_all_places_free()
    with sessions.open(session.id, "") as again:
        assert again.history() == ()


def test_a_sentence_is_spoken_while_the_next_is_written(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    gate = Gate("The first sentence is here. And ", "the second one follows it.")
    with ChatServer(gate.behave) as chat, gate.open_at_the_end():
        events: list[Event] = []
        for event in Turns(engines, chat).run():
            events.append(event)
            if isinstance(event, SpokenAudio):
                gate.opened.set()
    assert isinstance(events[-1], Done)
    assert "".join(event.text for event in events if isinstance(event, TextDelta)).endswith("follows it.")


def test_nothing_heard_ends_the_turn_before_the_chat(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    noise = Audio((np.random.default_rng(0).standard_normal(32_000) * 0.1).astype(np.float32), 16_000)
    with ChatServer() as chat:
        events = list(Turns(engines, chat).run(None, audio=noise))
        assert not chat.requests
    assert [type(event) for event in events] == [Error]
    assert isinstance(events[0], Error) and isinstance(events[0].reason, NoWords)


def test_a_broken_answer_is_started_over_when_nobody_has_heard_of_it(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    with ChatServer(truncated("A broken answer. It ", "ends")) as broken, ChatServer(answer("A whole one.")) as whole:
        events = list(Turns(engines, broken, whole).run(collected=True))
        assert len(broken.requests) == len(whole.requests) == 1
    over = next(i for i, event in enumerate(events) if isinstance(event, StartedOver))
    assert "".join(event.text for event in events[over:] if isinstance(event, TextDelta)) == "A whole one."
    assert isinstance(events[-1], Done)


def test_a_broken_answer_ends_the_turn_when_it_was_heard(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    with ChatServer(truncated("A broken answer. It ", "ends")) as broken, ChatServer(answer("A whole one.")) as whole:
        events = list(Turns(engines, broken, whole).run(collected=False))
        assert not whole.requests
    assert isinstance(events[-1], Error) and isinstance(events[-1].reason, ChatInterrupted)


@pytest.mark.parametrize("end", ["close", "deadline", "hang-up", "shutdown"])
def test_the_end_of_a_turn_ends_its_chat_and_frees_its_slot(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], end: str
) -> None:
    with ChatServer(hang_after("Here comes the first sentence. And ")) as chat:
        turns = Turns(engines, chat)
        limit_s = 4.0 if end == "deadline" else 30.0
        context = Context.after(limit_s)
        events = turns.run(context=context)
        last: Event | None = None
        for event in events:
            last = event
            if isinstance(event, TextDelta):
                if end == "close":
                    events.close()  # type: ignore[attr-defined]  # a generator's
                if end == "hang-up":
                    context.cancel(ClientGone("the caller hung up"))
                if end == "shutdown":
                    turns.admission.end_all(ShuttingDown("bye"))
        assert chat.requests[0].closed_early.wait(10)
        turns.assert_all_places_free()
    expected = {"deadline": DeadlineExceeded, "hang-up": ClientGone, "shutdown": ShuttingDown}
    if end != "close":
        assert isinstance(last, Error) and isinstance(last.reason, expected[end])


def test_no_api_is_an_error_that_names_each(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer(status(500)) as chat:
        events = list(Turns(engines, chat).run(collected=True))
    assert isinstance(events[-1], Error) and "HTTP 500" in events[-1].reason.message


class Counting:
    """A synthesizer that counts the seconds it has spoken; all else is the real one's."""

    def __init__(self, real: EmbeddedSynthesizer) -> None:
        self.real = real
        self.info, self.sample_rate, self.follows = real.info, real.sample_rate, real.follows
        self.voice, self.check_ready, self.close = real.voice, real.check_ready, real.close
        self.spoken_s = 0.0

    def speak(self, text: str, voice: Voice, language: Language, **urgency: Any) -> Iterator[Audio]:
        for audio in self.real.speak(text, voice, language, **urgency):
            self.spoken_s += audio.duration_s
            yield audio


def test_no_more_is_spoken_than_a_slow_listener_has_room_for(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirrorchat.turn.answer.UNHEARD_LIMIT_S", 10.0)
    counting = Counting(engines[1])
    sentence = "This is one of many sentences, all of the same length. "
    with ChatServer(answer("", pieces=[sentence] * 30)) as chat:
        turns = Turns((engines[0], cast(EmbeddedSynthesizer, counting)), chat)
        heard_s = 0.0
        for event in turns.run(audio=say("yes")):
            if isinstance(event, SpokenAudio):
                if not heard_s:  # as much as will ever be spoken meanwhile, and time enough for much more
                    wait_for(lambda: counting.spoken_s > 10.0)
                    time.sleep(0.5)
                assert counting.spoken_s - heard_s <= 10.0 + 2 * 5.0  # no sentence takes 5 s
                heard_s += event.audio.duration_s
    assert heard_s == pytest.approx(counting.spoken_s) and heard_s > 60.0
    assert isinstance(event, Done)


def test_recognition_is_told_when_the_turn_ends(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Context] = []
    recognizer, real = engines[0], engines[0].recognize

    def recognize(*arguments: Any, context: Context, **options: Any) -> Transcript:
        told.append(context)
        return real(*arguments, context=context, **options)

    monkeypatch.setattr(recognizer, "recognize", recognize)
    with ChatServer() as chat:
        events = list(Turns(engines, chat).run(None, audio=say("hello there"), deadline_s=1_000.0))
    assert isinstance(events[-1], Done)
    assert [500.0 < each.remaining_s() <= 1_000.0 for each in told] == [True]


def test_a_slow_listener_hears_what_was_spoken_in_time(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer(answer("The first sentence is here. The second one follows it.")) as chat:
        last: Event | None = None
        for event in Turns(engines, chat).run(audio=say("yes"), deadline_s=6.0):
            if isinstance(event, SpokenAudio) and not isinstance(last, SpokenAudio):
                time.sleep(6.0)
            last = event
    assert isinstance(last, Done)


def test_a_hang_up_frees_the_slot_and_the_chat_within_100_ms(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    slots, chats = [], []
    for delay_s in (0.15, 0.25, 0.35, 0.5, 0.62):
        with ChatServer(hang_after("Here comes the first sentence. And ")) as chat:
            turns, context = Turns(engines, chat), Context.after(30.0)
            events = turns.run(context=context)
            while not isinstance(next(events), SpokenAudio):
                pass
            hung_up_at: list[float] = []

            def hang_up(context: Context = context, at: list[float] = hung_up_at) -> None:
                at.append(time.monotonic())
                context.cancel(ClientGone("the caller hung up"))

            threading.Timer(delay_s, hang_up).start()
            assert isinstance(list(events)[-1], Error)  # waits for the chat
            assert turns.admission.running == 0
            slots.append(time.monotonic() - hung_up_at[0])
            assert chat.requests[0].closed_early.wait(10)
            chats.append(time.monotonic() - hung_up_at[0])
            turns.assert_all_places_free()
    # the median: this machine may be busy with something else
    assert sorted(slots)[2] < 0.1 and sorted(chats)[2] < 0.1


def test_a_native_call_that_goes_on_does_not_hold_the_slot(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    computing, go_on = threading.Event(), threading.Event()
    real = EmbeddedSynthesizer.voice

    def slow(self: EmbeddedSynthesizer, references: Sequence[Audio]) -> Voice:
        computing.set()
        go_on.wait(20)
        return real(self, references)

    monkeypatch.setattr(EmbeddedSynthesizer, "voice", slow)
    with ChatServer(answer("Hello.")) as chat:
        turns, context = Turns(engines, chat), Context.after(30.0)

        def hang_up() -> None:
            computing.wait(20)
            context.cancel(ClientGone("the caller hung up"))

        caller = threading.Thread(target=hang_up)
        caller.start()
        events = list(turns.run(context=context))
        caller.join()
        assert isinstance(events[-1], Error) and isinstance(events[-1].reason, ClientGone)
        assert (turns.admission.running, turns.admission.stats().orphans) == (0, 1)
        go_on.set()
        turns.assert_all_places_free()


@pytest.mark.parametrize("collected", [True, False])
def test_a_sentence_is_awaited_when_its_listener_has_nothing_left(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], collected: bool
) -> None:
    """Two sentences of 2 s or so are heard when the third begins late; nobody plays what is collected first."""
    buffer_low: list[bool] = []

    class Late(Counting):
        def speak(self, text: str, voice: Voice, language: Language, **urgency: Any) -> Iterator[Audio]:
            if "third" in text:
                buffer_low.append(urgency["buffer_low"]())
                time.sleep(8.0)
                buffer_low.append(urgency["buffer_low"]())
            yield from super().speak(text, voice, language, **urgency)

    reply = "The first sentence is here. The second one follows it. And the third one ends it."
    with ChatServer(answer(reply)) as chat:
        turns = Turns((engines[0], cast(EmbeddedSynthesizer, Late(engines[1]))), chat)
        assert isinstance(list(turns.run(collected=collected))[-1], Done)
    assert buffer_low == [False, not collected]


# For longer than LOW_BUFFER_S: until it has been heard, nobody waits for the next one.
UNHURRIED = "The first sentence is as long as a listener needs who shall not be waiting for the second one yet."


class Overlapping(Counting):
    """A synthesizer with a batch whose first sentence stops after a piece until the second has been spoken whole."""

    def __init__(self, real: EmbeddedSynthesizer) -> None:
        super().__init__(real)
        self.second_is_spoken = threading.Event()
        self.begun: list[str] = []
        self.at_once: set[str] = set()
        self.most_at_once = 0

    def stats(self) -> BatchStats:
        return BatchStats(0, 8, 0, 0)

    def speak(self, text: str, voice: Voice, language: Language, **urgency: Any) -> Iterator[Audio]:
        slot = len(self.begun)
        self.begun.append(text)
        self.at_once.add(text)
        self.most_at_once = max(self.most_at_once, len(self.at_once))
        for audio in super().speak(text, voice, language, **urgency):
            yield audio
            if slot == 0:
                assert self.second_is_spoken.wait(20)
        self.at_once.remove(text)
        if slot == 1:
            self.second_is_spoken.set()


def test_sentences_share_the_batch_and_come_in_order(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    overlapping = Overlapping(engines[1])
    reply = f"{UNHURRIED} The second one follows it. And the third one ends it."
    with ChatServer(answer(reply)) as chat:
        turns = Turns((engines[0], cast(EmbeddedSynthesizer, overlapping)), chat)
        events = list(turns.run())
        turns.assert_all_places_free()
    indices = [event.index for event in events if isinstance(event, SpokenAudio)]
    assert indices == sorted(indices) and set(indices) == set(range(len(overlapping.begun)))
    assert overlapping.most_at_once == 2
    assert isinstance(events[-1], Done)


def test_what_ends_the_turn_is_heard_before_a_later_sentence(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    """The second sentence is there when the first one breaks off with what no further sentence can mend."""

    class Failing(Overlapping):
        def speak(self, text: str, voice: Voice, language: Language, **urgency: Any) -> Iterator[Audio]:
            first = not self.begun
            yield from super().speak(text, voice, language, **urgency)
            if first:
                raise NotReady("the speech engine has failed")

    failing = Failing(engines[1])
    with ChatServer(answer(f"{UNHURRIED} The second one follows it.")) as chat:
        events = list(Turns((engines[0], cast(EmbeddedSynthesizer, failing)), chat).run())
    assert isinstance(events[-1], Error) and isinstance(events[-1].reason, NotReady)
    assert {event.index for event in events if isinstance(event, SpokenAudio)} == {0}


def test_what_speech_takes_is_measured(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer(answer("The first sentence is here. The second one follows it.")) as chat:
        turns = Turns(engines, chat)
        watch = Stopwatch()
        question = Question(say("hello there"), Language.ENGLISH, Language.ENGLISH, "Hi")
        assert turns.admission.playback.rate(1) is None
        with turns.admission.acquire(Context.after(30)) as slot:
            spoken = turns.pipeline.answer(question, slot, watch=watch)
    seconds = spoken.timings.seconds
    assert watch.speech_s == pytest.approx(spoken.audio.duration_s)
    assert watch.first_audio_s is not None and 0 < watch.first_audio_s < seconds["total"]
    rate = turns.admission.playback.rate(1)
    assert rate is not None and rate >= 0.9 * watch.speech_s / seconds["speak"]
