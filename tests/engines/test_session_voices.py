"""The voice that a session keeps: whose it is, how it grows, and what changes nothing of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.remembered_profiles import remembering_synthesizer
from support.speech import MAN, TEXTS, WOMAN, say

from mirrorchat.audio.samples import Audio
from mirrorchat.embedded.engines import EmbeddedSynthesizer
from mirrorchat.embedded.voice_tint import TintVoice
from mirrorchat.engines import VoiceKind
from mirrorchat.turn.reference import Utterance
from mirrorchat.turn.sessions import Sessions

TTL_S = 100.0


@pytest.fixture(scope="module")
def synthesizer() -> Iterator[EmbeddedSynthesizer]:
    engine = remembering_synthesizer()
    yield engine
    engine.close()


def kept_voice(sessions: Sessions, session_id: str, synthesizer: EmbeddedSynthesizer) -> bytes:
    """Return the voice that the session has kept: what a turn with too little speech is answered in."""
    with sessions.open(session_id, "") as session:
        return profile_of(session.voice_with(say("yes"), synthesizer))


def profile_of(voice: object) -> bytes:
    assert isinstance(voice, TintVoice) and voice.kind is VoiceKind.TINT
    return voice.to_bytes()


def spoken_turn(sessions: Sessions, session_id: str | None, synthesizer: EmbeddedSynthesizer, audio: Audio) -> Any:
    """Run a turn and return its id, voice and quality."""
    with sessions.open(session_id, "") as session:
        voice, quality = session.voice_with(audio, synthesizer), session.quality()
        session.add_turn("Hi", "Ho")
        return session.id, voice, quality


def test_the_first_turn_gives_the_voice_and_later_ones_lengthen_it(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 0)
    first, second = (say(text, MAN) for text in TEXTS[:2])
    session_id, voice, quality = spoken_turn(sessions, None, synthesizer, first)
    assert profile_of(voice) == profile_of(synthesizer.voice([first]))
    assert kept_voice(sessions, session_id, synthesizer) == profile_of(voice)
    _, longer, better = spoken_turn(sessions, session_id, synthesizer, second)
    assert profile_of(longer) not in (profile_of(voice), profile_of(synthesizer.voice([second])))
    assert better.speech_s > 1.7 * quality.speech_s
    assert kept_voice(sessions, session_id, synthesizer) == profile_of(longer)


def test_another_speaker_hears_their_own_voice_and_changes_nothing(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 0)
    session_id, voice, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
    stranger = say(TEXTS[1], WOMAN)
    _, own, quality = spoken_turn(sessions, session_id, synthesizer, stranger)
    assert profile_of(own) == profile_of(synthesizer.voice([stranger]))
    assert quality.speech_s < 8.0
    assert kept_voice(sessions, session_id, synthesizer) == profile_of(voice)


def test_a_recording_of_two_is_not_added(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 0)
    man, woman = say(TEXTS[1], MAN), say(TEXTS[2], WOMAN)
    mixed = Audio(np.concatenate([man.samples, woman.samples]), man.sample_rate)
    session_id, voice, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
    spoken_turn(sessions, session_id, synthesizer, mixed)
    assert kept_voice(sessions, session_id, synthesizer) == profile_of(voice)


def test_a_second_speaker_behind_the_first_is_not_added(
    synthesizer: EmbeddedSynthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(4, TTL_S, 0)
    session_id, voice, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
    monkeypatch.setattr(Utterance, "_second_speaker", lambda _: True)  # one too soft to change the whole
    _, same, _ = spoken_turn(sessions, session_id, synthesizer, say(TEXTS[1], MAN))
    assert same is voice


def test_a_turn_that_fails_adds_nothing(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 0)
    session_id, voice, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
    with sessions.open(session_id, "") as session:
        longer = session.voice_with(say(TEXTS[1], MAN), synthesizer)
        assert profile_of(longer) != profile_of(voice)
    assert kept_voice(sessions, session_id, synthesizer) == profile_of(voice)


def test_when_it_is_full_the_voice_is_not_computed_again(
    synthesizer: EmbeddedSynthesizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(4, TTL_S, 0)
    whole = Audio(np.tile(say(TEXTS[0], MAN).samples, 6), say(TEXTS[0], MAN).sample_rate)
    session_id, voice, quality = spoken_turn(sessions, None, synthesizer, whole)
    assert quality.speech_s > 20.0
    monkeypatch.setattr(synthesizer, "voice", None)  # would fail
    _, again, _ = spoken_turn(sessions, session_id, synthesizer, say(TEXTS[0], MAN))
    assert again is voice


def test_engines_do_not_share_a_voice_but_a_history(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 1000)
    other = remembering_synthesizer()
    try:
        session_id, voice, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
        _, second, _ = spoken_turn(sessions, session_id, other, say(TEXTS[1], WOMAN))
        assert kept_voice(sessions, session_id, synthesizer) == profile_of(voice)
        assert kept_voice(sessions, session_id, other) == profile_of(second)
        with sessions.open(session_id, "") as session:
            assert len(session.history()) == 4
    finally:
        other.close()


def test_forgetting_lets_go_of_the_voice(synthesizer: EmbeddedSynthesizer) -> None:
    sessions = Sessions(4, TTL_S, 0)
    session_id, _, _ = spoken_turn(sessions, None, synthesizer, say(TEXTS[0], MAN))
    record = next(iter(sessions._records.values()))
    assert record.references
    sessions.forget(session_id, "")
    assert not record.references
