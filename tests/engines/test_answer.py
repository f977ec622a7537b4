"""Answers that cannot be spoken as they are: without words, broken off, or with a sentence that fails."""

from collections.abc import Callable, Iterator, Sequence

import pytest
from support.chat_server import DONE, ChatServer, answer, chunked_stream, delta, status, truncated
from support.speech import say
from support.turns import Turns

from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.engines import EmbeddedRecognizer, EmbeddedSynthesizer
from mirrorchat.engines import Language
from mirrorchat.errors import (
    ChatFailure,
    ChatInterrupted,
    MirrorChatError,
    NoChatApi,
    ReasoningSent,
    ServerBusy,
    SynthesisFailed,
)
from mirrorchat.pipeline import Question
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.sentences.markup import strip_markup
from mirrorchat.turn.admission import Admission
from mirrorchat.turn.answer import with_fallback
from mirrorchat.turn.events import Done, Error, Event, SentenceFailed, SpokenAudio, StartedOver, TextDelta, VoiceKnown
from mirrorchat.turn.reader import Answer, AnswerReader
from mirrorchat.turn.sessions import Sessions
from mirrorchat.turn.spoken_notices import no_words
from mirrorchat.turn.stopwatch import Stopwatch

UNLUCKY = "unlucky"  # a sentence with this word meets a defect
FIRST, LAST = "Here is the first sentence.", "This is the last sentence."


class FailsAt:
    """A function of ours that fails where a text has UNLUCKY in it: it raises `error`, or recurses without end."""

    def __init__(self, real: Callable[..., str], error: MirrorChatError | None = None) -> None:
        self._real, self._error = real, error

    def __call__(self, text: str, *arguments: object) -> str:
        if UNLUCKY not in text:
            return self._real(text, *arguments)
        if self._error is not None:
            raise self._error
        return self(text)


@pytest.fixture(scope="module")
def engines() -> Iterator[tuple[EmbeddedRecognizer, EmbeddedSynthesizer]]:
    recognizer, synthesizer = EmbeddedRecognizer(), EmbeddedSynthesizer()
    yield recognizer, synthesizer
    recognizer.close()
    synthesizer.close()


@pytest.fixture
def speaking_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirrorchat.embedded.engines.normalize_text", FailsAt(normalize_text))


def spoken(events: Sequence[Event]) -> list[str]:
    """Return the sentences that are spoken, each once."""
    return list(dict.fromkeys(event.sentence for event in events if isinstance(event, SpokenAudio)))


def whole_answer(turns: Turns) -> Answer:
    question = Question(say("hello there"), Language.ENGLISH, Language.ENGLISH, "Hi")
    with turns.admission.acquire(Context.after(30)) as slot:
        return turns.pipeline.answer(question, slot, watch=Stopwatch())


# Without a word to speak

NO_WORDS = [
    ("🙂👍", Language.ENGLISH, "only emoji"),
    ("🙂 --- 🙂", Language.CHINESE, "表情"),
    ("```python\nprint(1)\n```", Language.ENGLISH, "only code"),
    ("~~~\nx = 1\n~~~\n", Language.CHINESE, "代码"),
    ("...", Language.ENGLISH, "no words"),
    ("。。。", Language.CHINESE, "没有可以朗读的文字"),
    ("***\n---\n", Language.ENGLISH, "no words"),
    ("→ ← ※", Language.CHINESE, "没有可以朗读的文字"),
]


@pytest.mark.parametrize(("reply", "language", "said"), NO_WORDS)
def test_an_answer_without_words_is_told_in_one_sentence(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], reply: str, language: Language, said: str
) -> None:
    sessions = Sessions(2, 60.0, 1000)
    with ChatServer(answer(reply)) as chat, sessions.open(None, "") as session:
        turns = Turns(engines, chat)
        events = list(turns.run(session=session, reply_language=language))
        turns.assert_all_places_free()
    assert isinstance(events[-1], Done) and "".join(e.text for e in events if isinstance(e, TextDelta)) == reply
    (sentence,) = spoken(events)
    assert said in sentence and not any(isinstance(event, SentenceFailed) for event in events)
    with sessions.open(session.id, "") as again:
        assert [message.content for message in again.history()] == ["Hi", reply.strip()]  # not that sentence


def test_a_sentence_that_sounds_like_nothing_is_not_the_end_of_an_answer(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Text normalization leaves out what a voice cannot read, which the splitter does not know."""
    monkeypatch.setattr("mirrorchat.embedded.engines.normalize_text", lambda text, _: text.replace("ꡀꡁꡂ", ""))
    with ChatServer(answer("ꡀꡁꡂ.")) as chat:
        found = whole_answer(Turns(engines, chat))
    assert found.reply == "ꡀꡁꡂ." and found.audio.duration_s > 1.0 and not found.unspoken


# A sentence that fails


@pytest.mark.parametrize("error", [None, SynthesisFailed("it made no sound")])
def test_a_sentence_that_fails_is_named_and_ends_no_other(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
    error: MirrorChatError | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("mirrorchat.embedded.engines.normalize_text", FailsAt(normalize_text, error))
    with ChatServer(answer(f"{FIRST} Here is an {UNLUCKY} one in between. {LAST}")) as chat:
        turns = Turns(engines, chat)
        events = list(turns.run())
        found = whole_answer(turns)
    assert spoken(events) == [FIRST, LAST] and isinstance(events[-1], Done)
    (failed,) = [event for event in events if isinstance(event, SentenceFailed)]
    assert (failed.index, failed.sentence) == (1, f"Here is an {UNLUCKY} one in between.")
    assert type(failed.reason) is type(error or MirrorChatError("")) and UNLUCKY not in failed.reason.message
    assert [each.sentence for each in found.unspoken] == [failed.sentence] and found.audio.duration_s > 2.0


def test_what_is_not_about_one_sentence_ends_the_answer(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = FailsAt(normalize_text, ServerBusy("too many sentences wait"))
    monkeypatch.setattr("mirrorchat.embedded.engines.normalize_text", failing)
    with ChatServer(answer(f"{FIRST} Here is an {UNLUCKY} one. {LAST}")) as chat:
        events = list(Turns(engines, chat).run())
    assert isinstance(events[-1], Error) and isinstance(events[-1].reason, ServerBusy)


@pytest.mark.usefixtures("speaking_fails")
def test_an_answer_of_which_nothing_can_be_spoken_is_an_error(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    with ChatServer(answer(f"Nothing but {UNLUCKY} words.")) as chat, pytest.raises(MirrorChatError):
        whole_answer(Turns(engines, chat))


@pytest.mark.usefixtures("speaking_fails")
def test_audio_alone_is_complete_or_raises_at_its_end(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    with ChatServer(answer(f"This {UNLUCKY} one comes first. {FIRST} {LAST}")) as chat:
        reader = AnswerReader(Turns(engines, chat).run())
        heard = [reader.first_audio()]
        with pytest.raises(MirrorChatError):
            heard.extend(event.audio for event in reader.complete() if isinstance(event, SpokenAudio))
    assert len(heard) >= 2


def test_a_defect_of_the_splitter_names_the_text_and_ends_no_other_sentence(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mirrorchat.text.splitter.strip_markup", FailsAt(strip_markup))
    reply = f"{FIRST} Here is an {UNLUCKY} one in between. {LAST}"
    with ChatServer(answer(reply)) as chat, ChatServer(answer("", pieces=[reply])) as at_once:
        for server in (chat, at_once):
            events = list(Turns(engines, server).run())
            assert spoken(events)[0] == FIRST and spoken(events)[-1] == LAST and isinstance(events[-1], Done)
            assert any(UNLUCKY in event.sentence for event in events if isinstance(event, SentenceFailed))


# No answer, or half of one


@pytest.mark.parametrize(("language", "said"), [(Language.ENGLISH, "No chat service"), (Language.CHINESE, "聊天服务")])
def test_a_listener_hears_that_no_api_answers(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], language: Language, said: str
) -> None:
    sessions = Sessions(2, 60.0, 1000)
    with ChatServer(status(500)) as chat, sessions.open(None, "") as session:
        turns = Turns(engines, chat)
        events = list(turns.run(session=session, reply_language=language, audio=say("good morning to all of you")))
        turns.assert_all_places_free()
    (sentence,) = spoken(events)
    assert said in sentence and isinstance(events[-1], Error) and isinstance(events[-1].reason, NoChatApi)
    assert any(isinstance(event, VoiceKnown) and event.voice.kind == "tint" for event in events)
    with sessions.open(session.id, "") as again:
        assert again.history() == ()


def test_who_gets_the_whole_answer_later_gets_the_error_alone(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    with ChatServer(status(500)) as chat:
        events = list(Turns(engines, chat).run(collected=True))
    assert spoken(events) == [] and isinstance(events[-1], Error)


HALVES = [
    (["Here it is. It goes on. And ", "ends"], ["Here it is.", "It goes on."]),
    (["Here it is. This was the end."], ["Here it is.", "This was the end."]),
    (["Here it is. It costs 3."], ["Here it is."]),
    (["Here it is. Ask Mr."], ["Here it is."]),
    (["这是第一句话。这是第二句话。还有"], ["这是第一句话。", "这是第二句话。"]),
]


@pytest.mark.parametrize(("pieces", "whole"), HALVES)
def test_the_whole_sentences_of_an_answer_that_breaks_off_are_spoken(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer], pieces: list[str], whole: list[str]
) -> None:
    with ChatServer(truncated(*pieces)) as chat:
        events = list(Turns(engines, chat).run())
    assert "".join(spoken(events)).replace(" ", "") == "".join(whole).replace(" ", "")
    assert isinstance(events[-1], Error) and isinstance(events[-1].reason, ChatInterrupted)


def test_reasoning_that_was_taken_for_an_answer_is_not_spoken_on(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    pieces = ["Their question is about the sky. ", "It is an easy one. ", "Just one word will do.", "</think>", "Blue."]
    with ChatServer(answer("", pieces=pieces)) as chat:
        turns = Turns(engines, chat)
        events = list(turns.run())
        over = next(index for index, event in enumerate(events) if isinstance(event, StartedOver))
        assert len(spoken(events[:over])) < 3  # what had been spoken until the tag came
        assert spoken(events[over:]) == ["Blue."] and isinstance(events[-1], Done)
        events = list(turns.run())  # from now on it is known
    assert spoken(events) == ["Blue."] and not any(isinstance(event, StartedOver) for event in events)


def test_an_answer_that_never_stops_reasoning_ends() -> None:
    with Admission(1).acquire(Context.after(30)) as slot:
        slot.context.heard = True

        def attempt(failed: Sequence[ChatFailure]) -> Iterator[str]:
            yield "Hm."
            raise ReasoningSent("it was reasoning", failed)

        items: list[object] = []
        with pytest.raises(ReasoningSent):
            items.extend(with_fallback(attempt, slot.context))
    assert 2 < len(items) < 8


# What is known of an answer


def test_the_api_that_answers_and_the_end_are_known(engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer]) -> None:
    cut = chunked_stream(delta("It is a long"), delta(None, "length"), DONE)
    with ChatServer(truncated("Half an")) as broken, ChatServer(cut) as second:
        found = whole_answer(Turns(engines, broken, second))
        assert found.reply == "It is a long" and found.finish_reason == "length"
        assert found.answered_by is not None and found.answered_by.model.endswith(f"@127.0.0.1:{second.port}")


def test_a_chat_that_tells_nothing_answers_all_the_same(
    engines: tuple[EmbeddedRecognizer, EmbeddedSynthesizer],
) -> None:
    def texts(failed: Sequence[ChatFailure], context: Context) -> Iterator[str]:
        return iter((FIRST,))

    turns, synthesizer = Turns(engines), engines[1]
    with Admission(1).acquire(Context.after(30)) as slot:
        events = turns.pipeline.speak(
            texts, lambda: synthesizer.voice([]), Language.ENGLISH, slot, watch=Stopwatch(), no_words=no_words
        )
        found = AnswerReader(events).collect()
    assert (found.reply, found.finish_reason, found.answered_by) == (FIRST, "stop", None)
