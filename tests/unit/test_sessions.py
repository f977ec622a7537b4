"""Sessions: the store against a simple model, and what a turn keeps."""

import re
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.checks import wait_for
from support.speech import MAN, TEXTS, say

from mirrorchat.embedded.engines import EmbeddedSynthesizer
from mirrorchat.engines import Language, Message
from mirrorchat.errors import NotFound, ServerBusy, SessionBusy
from mirrorchat.llm import build_messages
from mirrorchat.turn.sessions import Session, Sessions, count_tokens, owner_of

TTL_S = 100.0


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def words(session: Session) -> list[str]:
    return [message.content for message in session.history()]


def one_turn(
    sessions: Sessions,
    session_id: str | None,
    owner: str = "",
    said: str = "Hi",
    reply: str = "Ho",
    subject: str | None = None,
) -> str:
    with sessions.open(session_id, owner, subject) as session:
        session.add_turn(said, reply)
        return session.id


class TestHistory:
    def test_turns_are_kept_in_order(self) -> None:
        sessions = Sessions(4, TTL_S, 1000)
        first = one_turn(sessions, None, said="What is it?", reply="A boat.")
        one_turn(sessions, first, said="Whose?", reply="Mine.")
        with sessions.open(first, "") as session:
            assert session.history() == (
                Message("user", "What is it?"), Message("assistant", "A boat."),
                Message("user", "Whose?"), Message("assistant", "Mine."),
            )  # fmt: skip
        with sessions.open(None, "") as other:
            assert other.history() == ()

    def test_a_turn_without_its_end_leaves_nothing(self) -> None:
        sessions = Sessions(4, TTL_S, 1000)
        session_id = one_turn(sessions, None)
        with pytest.raises(RuntimeError), sessions.open(session_id, ""):
            raise RuntimeError
        with sessions.open(session_id, "") as late:
            pass
        late.add_turn("too", "late")  # its turn was given up
        with sessions.open(session_id, "") as session:
            assert words(session) == ["Hi", "Ho"]

    def test_tokens_are_estimated(self) -> None:
        assert count_tokens(Message("user", "")) == 4
        assert count_tokens(Message("user", "abcd" * 10)) == 14
        assert count_tokens(Message("user", "abcde")) == 6
        assert count_tokens(Message("user", "今天天气好。")) == 10

    @pytest.mark.parametrize(("budget", "kept"), [(1000, 4), (40, 4), (39, 3), (20, 2), (19, 1), (9, 0), (0, 0)])
    def test_the_newest_whole_turns_fit_the_budget(self, budget: int, kept: int) -> None:
        sessions = Sessions(4, TTL_S, budget)
        session_id = one_turn(sessions, None, said="q0", reply="a0")  # 10 tokens each
        for index in range(1, 4):
            one_turn(sessions, session_id, said=f"q{index}", reply=f"a{index}")
        with sessions.open(session_id, "") as session:
            expected = [f"{who}{index}" for index in range(4 - kept, 4) for who in "qa"]
            assert words(session) == expected

    def test_history_stands_between_the_prompt_and_the_question(self) -> None:
        history = (Message("user", "one"), Message("assistant", "two"))
        messages = build_messages("Answer in {language}.", Language.CHINESE, "three", history)
        assert messages == [Message("system", "Answer in Chinese."), *history, Message("user", "three")]


class TestStore:
    def test_ids_are_long_random_and_unlike(self) -> None:
        sessions = Sessions(1000, TTL_S, 0)
        ids = {one_turn(sessions, None) for _ in range(500)}
        assert len(ids) == 500
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", session_id) for session_id in ids)

    def test_unknown_expired_forgotten_and_anothers_are_alike(self) -> None:
        clock = Clock()
        sessions = Sessions(4, TTL_S, 0, clock)
        expired, forgotten = one_turn(sessions, None, "a"), one_turn(sessions, None, "a")
        sessions.forget(forgotten, "a")
        clock.now = TTL_S
        anothers = one_turn(sessions, None, "b")
        errors = []
        for session_id in (expired, forgotten, anothers, "never-seen"):
            for call in (sessions.open, sessions.forget):
                with pytest.raises(NotFound) as caught:
                    call(session_id, "a")
                errors.append(caught.value.body())
        assert all(error == errors[0] for error in errors)
        one_turn(sessions, anothers, "b")

    def test_anothers_session_is_not_found_even_while_it_is_busy(self) -> None:
        sessions = Sessions(4, TTL_S, 0)
        with sessions.open(None, "a") as session:
            with pytest.raises(NotFound):
                sessions.open(session.id, "b")
            with pytest.raises(SessionBusy) as caught:
                sessions.open(session.id, "a")
            assert (caught.value.status, caught.value.code) == (409, "session_busy")
        sessions.open(session.id, "a").close()

    def test_a_turn_longer_than_the_time_to_live_keeps_its_session(self) -> None:
        clock = Clock()
        sessions = Sessions(4, TTL_S, 1000, clock)
        with sessions.open(None, "") as session:
            clock.now += 5 * TTL_S
            sessions.sweep()
            session.add_turn("Hi", "Ho")
        clock.now += TTL_S - 1
        with sessions.open(session.id, "") as again:
            assert words(again) == ["Hi", "Ho"]

    def test_what_is_past_its_time_goes_without_a_call(self) -> None:
        sessions = Sessions(4, 0.2, 1000)
        sessions.start_sweeping()
        one_turn(sessions, None)
        assert len(sessions) == 1
        wait_for(lambda: len(sessions) == 0, 10.0)
        sessions.close()

    def test_the_one_used_longest_ago_is_dropped_for_room(self) -> None:
        sessions = Sessions(2, TTL_S, 0)
        first, second = one_turn(sessions, None), one_turn(sessions, None)
        one_turn(sessions, first)
        one_turn(sessions, None)
        one_turn(sessions, first)
        with pytest.raises(NotFound):
            sessions.open(second, "")

    def test_none_in_a_turn_is_dropped_for_room(self) -> None:
        sessions = Sessions(2, TTL_S, 0)
        with sessions.open(None, "") as first:
            second = one_turn(sessions, None)
            third = one_turn(sessions, None)  # drops the second: the first, though older, is in a turn
            with pytest.raises(NotFound):
                sessions.open(second, "")
            with sessions.open(third, ""), pytest.raises(ServerBusy):
                sessions.open(None, "")
        one_turn(sessions, first.id)

    def test_the_subject_with_most_gives_way(self) -> None:
        sessions = Sessions(4, TTL_S, 1000)
        others = one_turn(sessions, None, subject="quiet")
        flood = [one_turn(sessions, None, subject="flood") for _ in range(40)]
        one_turn(sessions, others)
        one_turn(sessions, flood[-3])  # the least recently used of the flood's is now the one before the last
        newcomer = one_turn(sessions, None, subject="newcomer")
        for kept in (others, newcomer, flood[-3], flood[-1]):
            one_turn(sessions, kept)
        with pytest.raises(NotFound):
            sessions.open(flood[-2], "")

    def test_a_subject_whose_sessions_all_have_a_turn_gives_nothing_away(self) -> None:
        sessions = Sessions(3, TTL_S, 1000)
        idle = one_turn(sessions, None, subject="quiet")
        with sessions.open(None, "", "busy"), sessions.open(None, "", "busy") as second:
            third = sessions.open(None, "", "busy")
            with pytest.raises(NotFound):
                sessions.open(idle, "")
            with pytest.raises(ServerBusy):
                sessions.open(None, "", "quiet")
            assert len(sessions) == 3
            third.close()
        one_turn(sessions, second.id)

    def test_memory_is_bounded_and_the_subject_that_takes_most_gives_way(self) -> None:
        sessions = Sessions(1000, TTL_S, 1_000_000, memory_bytes=1_000_000)
        small = one_turn(sessions, None, subject="quiet")
        large = [one_turn(sessions, None, said="q" * 100_000, reply="a", subject="large") for _ in range(20)]
        assert 800_000 < sessions.taken_bytes <= 1_000_000 and len(sessions) == 10
        one_turn(sessions, small)
        one_turn(sessions, large[-1])
        with pytest.raises(NotFound):
            sessions.open(large[0], "")
        sessions.forget(small, "")
        sessions.clear()
        assert sessions.taken_bytes == 0

    def test_a_growing_session_counts_while_its_turn_runs(self) -> None:
        sessions = Sessions(1000, TTL_S, 1_000_000, memory_bytes=1_000_000)
        idle = [one_turn(sessions, None, said="q" * 200_000) for _ in range(4)]
        with sessions.open(None, "") as growing:
            growing.add_turn("q" * 500_000, "a")
            assert sessions.taken_bytes <= 1_000_000
        one_turn(sessions, growing.id)
        with pytest.raises(NotFound):
            sessions.open(idle[0], "")

    def test_references_count_with_their_speech(self) -> None:
        speech, synthesizer = say(TEXTS[0], MAN), EmbeddedSynthesizer()
        sessions = Sessions(1000, TTL_S, 1000)
        try:
            with sessions.open(None, "") as session:
                session.voice_with(speech, synthesizer)
                session.quality()
                session.add_turn("Hi", "Ho")
            assert 0.5 < sessions.taken_bytes / (2 * 24_000 * speech.duration_s) < 1.2
        finally:
            synthesizer.close()

    def test_forgotten_during_a_turn_nothing_of_it_is_kept(self) -> None:
        sessions = Sessions(2, TTL_S, 1000)
        session_id = one_turn(sessions, None)
        with sessions.open(session_id, "") as session:
            sessions.forget(session_id, "")
            assert session.history() == () and len(sessions) == 0
            session.add_turn("Hi", "Ho")
        assert len(sessions) == 0
        with pytest.raises(NotFound):
            sessions.open(session_id, "")

    def test_the_id_itself_is_not_in_the_store(self) -> None:
        sessions = Sessions(2, TTL_S, 0)
        session_id = one_turn(sessions, None)
        assert session_id not in repr(sessions._records) and session_id.encode() not in sessions._records

    def test_owners_are_hashes(self) -> None:
        assert owner_of("") == "" and len(owner_of("key")) == 64 and owner_of("key") != owner_of("kez")

    def test_one_of_many_callers_gets_the_turn(self) -> None:
        sessions = Sessions(100, TTL_S, 10_000)
        session_id = one_turn(sessions, None)
        barrier = threading.Barrier(8)

        def ask(index: int) -> bool:
            barrier.wait(10)
            try:
                with sessions.open(session_id, "") as session:
                    session.add_turn(f"q{index}", f"a{index}")
                    barrier.wait(10)  # held until all have tried
                    return True
            except SessionBusy:
                barrier.wait(10)
                return False

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(8))) == 1
        with sessions.open(session_id, "") as session:
            assert len(session.history()) == 4


@dataclass
class Known:
    """What the model knows of a session."""

    owner: str
    used_at: float
    words: list[str] = field(default_factory=list)
    session: Session | None = None


class StoreAgainstModel(RuleBasedStateMachine):
    """The store does what a list that is searched from end to end does."""

    LIMIT = 3
    OWNERS = st.sampled_from(["", "a", "b"])

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.sessions = Sessions(self.LIMIT, TTL_S, 10_000, self.clock)
        self.known: dict[str, Known] = {}
        self.seen: list[str] = ["unknown"]
        self.open: list[tuple[str, Session]] = []
        self.turns = 0

    def live(self) -> dict[str, Known]:
        now = self.clock.now
        self.known = {name: one for name, one in self.known.items() if one.session or now - one.used_at < TTL_S}
        return self.known

    @rule(owner=OWNERS)
    def begin(self, owner: str) -> None:
        self.clock.now += 0.01  # no two are used at once
        most = Counter([owner, *(one.owner for one in self.live().values())])
        idle = sorted((-most[one.owner], one.used_at, name) for name, one in self.known.items() if not one.session)
        if len(self.known) >= self.LIMIT and not idle:
            with pytest.raises(ServerBusy):
                self.sessions.open(None, owner)
            return
        if len(self.known) >= self.LIMIT:
            del self.known[idle[0][2]]
        session = self.sessions.open(None, owner)
        assert session.id not in self.seen and session.history() == ()
        self.known[session.id] = Known(owner, self.clock.now, session=session)
        self.seen.append(session.id)
        self.open.append((session.id, session))

    @rule(owner=OWNERS, data=st.data())
    def go_on(self, owner: str, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.seen))
        self.clock.now += 0.01
        one = self.live().get(name)
        if one is None or one.owner != owner:
            with pytest.raises(NotFound):
                self.sessions.open(name, owner)
        elif one.session:
            with pytest.raises(SessionBusy):
                self.sessions.open(name, owner)
        else:
            one.session, one.used_at = self.sessions.open(name, owner), self.clock.now
            assert words(one.session) == one.words
            self.open.append((name, one.session))

    @precondition(lambda self: self.open)
    @rule(whole=st.booleans(), data=st.data())
    def end(self, whole: bool, data: st.DataObject) -> None:
        name, session = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.turns += 1
        if whole:
            session.add_turn(f"q{self.turns}", f"a{self.turns}")
        self.clock.now += 0.01
        session.close()
        one = self.known.get(name)
        if one and one.session is session:
            one.session, one.used_at = None, self.clock.now
            one.words += [f"q{self.turns}", f"a{self.turns}"] if whole else []

    @rule(owner=OWNERS, data=st.data())
    def forget(self, owner: str, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.seen))
        one = self.live().get(name)
        if one is None or one.owner != owner:
            with pytest.raises(NotFound):
                self.sessions.forget(name, owner)
        else:
            self.sessions.forget(name, owner)
            del self.known[name]

    @rule(seconds=st.sampled_from([1.0, TTL_S / 2, TTL_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def clear(self) -> None:
        self.sessions.clear()
        self.known = {}

    @invariant()
    def as_many_as_known(self) -> None:
        self.sessions.sweep()
        assert len(self.sessions) == len(self.live()) <= self.LIMIT


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
