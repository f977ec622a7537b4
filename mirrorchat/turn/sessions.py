"""Sessions: what was said last, and the asker's voice, kept in memory from turn to turn.

A session belongs to the key that made it and is found by an id that cannot be guessed; the store itself holds only the
id's hash. A turn takes hold of it alone (`Sessions.open`) and changes it only when it is whole (`Session.add_turn`).
"""

import hashlib
import hmac
import itertools
import math
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mirrorchat.access.api_keys import digest_of
from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Message, Synthesizer, Voice
from mirrorchat.errors import NotFound, ServerBusy, SessionBusy
from mirrorchat.turn.reference import Reference, ReferenceQuality, Take

ID_BYTES = 24  # 192 random bits: 32 characters
TOKENS_PER_MESSAGE = 4  # what a chat format adds to each
CHARACTERS_PER_TOKEN = 4  # of English, roughly, in the usual vocabularies; a Chinese character takes about a token
SWEEP_S = 30.0  # how late a session past its time is forgotten at most
_FIRST_WIDE = "\u2e80"  # from here on Chinese, Japanese and Korean characters, their punctuation, and emoji

Turn = tuple[Message, Message]  # a question and its answer


def count_tokens(message: Message) -> int:
    """Estimate the tokens of a message: a wide character is one, four others are one, and the frame is four."""
    wide = sum(character >= _FIRST_WIDE for character in message.content)
    return TOKENS_PER_MESSAGE + wide + math.ceil((len(message.content) - wide) / CHARACTERS_PER_TOKEN)


def owner_of(key: str) -> str:
    """Return how the caller with the API key `key` is known here: a hash; "" for "", where no keys are set."""
    return digest_of(key) if key else ""


def last_turns(turns: tuple[Turn, ...], token_budget: int) -> tuple[Turn, ...]:
    """Return the newest whole turns that fit into `token_budget` together, oldest first."""
    first = len(turns)
    while first > 0 and (token_budget := token_budget - sum(map(count_tokens, turns[first - 1]))) >= 0:
        first -= 1
    return turns[first:]


@dataclass(eq=False)
class _Record:
    """A session in the store. `references` are one for each synthesizer: voices cannot be exchanged between them."""

    owner: str
    used_at: float
    in_turn: bool = True
    turns: tuple[Turn, ...] = ()
    references: dict[Synthesizer, Reference] = field(default_factory=dict)

    def forget(self) -> None:
        self.turns = ()
        self.references = {}


class Session:
    """One turn's hold on a session; a context manager. Until it is closed no other turn gets hold of the session.

    What the turn adds is kept aside, and dropped unless `add_turn` is called: a turn that fails leaves nothing.
    """

    def __init__(self, session_id: str, record: _Record, sessions: "Sessions | None") -> None:
        self.id = session_id
        self._record = record
        self._sessions = sessions
        self._take: Take | None = None
        self._synthesizer: Synthesizer | None = None
        self._voice: Voice | None = None
        self._reference: Reference | None = None  # what the voice is from, when it is not from this turn's take alone
        self._begins = False

    @classmethod
    def unkept(cls) -> "Session":
        """Return a session that nothing is known of, and that nothing will be kept of."""
        return cls("", _Record("", 0.0), None)

    def history(self) -> tuple[Message, ...]:
        """Return the last whole turns within the token budget: question, answer, question, ...; oldest first."""
        return tuple(message for turn in self._record.turns for message in turn)

    def voice_with(self, audio: Audio, synthesizer: Synthesizer) -> Voice:
        """Return the voice that this turn, whose question is `audio`, is answered in. Called once a turn.

        The first turn with 1 s of speech gives the session its reference. Later turns lengthen it, up to 30 s, and the
        voice is computed anew, when they hold 1 s of speech of the same speaker. A turn with less speech, or once the
        reference is full, is answered in the kept voice. A turn of another speaker, or of whom that cannot be ruled
        out, is answered in the voice of its own audio alone, and leaves the reference as it is: everybody hears their
        own voice. Raises SynthesisFailed when the model fails.
        """
        take = self._take = Take(audio, synthesizer)
        self._synthesizer = synthesizer
        kept = self._record.references.get(synthesizer)
        self._begins = kept is None
        if kept is not None and (not take.has_voice or take.is_by(kept.embedding)):
            self._reference = self._extended(kept, take, synthesizer)
            self._voice = self._reference.voice
        else:
            self._voice = synthesizer.voice([audio])
        return self._voice

    @staticmethod
    def _extended(kept: Reference, take: Take, synthesizer: Synthesizer) -> Reference:
        if kept.is_full or take.embedding is None or take.quality.second_speaker:
            return kept
        return kept.extended(take, synthesizer)

    def quality(self) -> ReferenceQuality:
        """Return what the reference of the voice that `voice_with` returned is like.

        The voice can be used meanwhile: for a first turn it takes about as long as the voice did.
        """
        assert self._take is not None and self._voice is not None, "voice_with comes first"
        if self._begins:
            self._reference = Reference.begun(self._take, self._voice)
        return self._reference.quality if self._reference else self._take.quality

    def add_turn(self, question: str, answer: str) -> None:
        """Keep the turn, which is whole: its words, and the reference if it was begun or lengthened and judged.

        Nothing is kept once the session is closed or forgotten.
        """
        if self._sessions is not None:
            turn = (Message("user", question), Message("assistant", answer))
            self._sessions._keep(self, turn, self._synthesizer, self._reference)

    def close(self) -> None:
        """Let go of the session; a second time does nothing."""
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions._leave(self)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Sessions:
    """At most `limit` sessions, each for `ttl_s` seconds after its last turn, with `history_tokens` of chat history.

    Thread-safe. `clock` counts seconds. Beyond the limit the one that was used longest ago is dropped.
    """

    def __init__(
        self, limit: int, ttl_s: float, history_tokens: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._ttl_s = ttl_s
        self._history_tokens = history_tokens
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()  # by the hash of the id; used longest ago first
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    def open(self, session_id: str | None, owner: str) -> Session:
        """Take hold of a session for one turn, of a new one for None; `close` lets go of it.

        Raises NotFound for an id that is unknown, expired, or another owner's, all alike; SessionBusy while a turn of
        it runs; ServerBusy when there is no room for a new one because each has a turn running.
        """
        with self._lock:
            self._drop_expired()
            if session_id is None:
                return self._new(owner)
            record = self._find(session_id, owner)
            if record.in_turn:
                raise SessionBusy("another turn of this session still runs: wait for its answer", param="session_id")
            record.in_turn = True
            return Session(session_id, record, self)

    def forget(self, session_id: str, owner: str) -> None:
        """Forget a session at once; of a turn that runs nothing will be kept. Raises NotFound as `open` does."""
        with self._lock:
            self._drop_expired()
            record = self._find(session_id, owner)
            del self._records[_digest(session_id)]
            record.forget()

    def clear(self) -> None:
        """Forget every session."""
        with self._lock:
            for record in self._records.values():
                record.forget()
            self._records.clear()

    def sweep(self) -> None:
        """Forget the sessions that are past their time."""
        with self._lock:
            self._drop_expired()

    def start_sweeping(self) -> None:
        """Sweep in a thread until `close`, so that nothing outlives its time because nobody asks."""
        threading.Thread(target=self._sweep_until_closed, name="sweep-sessions", daemon=True).start()

    def close(self) -> None:
        """Forget every session and end the sweeping."""
        self._closed.set()
        self.clear()

    def _sweep_until_closed(self) -> None:
        while not self._closed.wait(min(SWEEP_S, self._ttl_s / 2.0)):
            self.sweep()

    def _new(self, owner: str) -> Session:
        if len(self._records) >= self._limit:
            idle = next((key for key, record in self._records.items() if not record.in_turn), None)
            if idle is None:
                raise ServerBusy("every session has a turn running; try again shortly", retry_after_s=5)
            self._records.pop(idle).forget()
        session_id = secrets.token_urlsafe(ID_BYTES)
        record = self._records[_digest(session_id)] = _Record(owner, self._clock())
        return Session(session_id, record, self)

    def _find(self, session_id: str, owner: str) -> _Record:
        # The time of a look-up by hash tells a guesser nothing about any id, and the owners are compared in constant
        # time, also when there is no such session.
        record = self._records.get(_digest(session_id))
        is_owner = hmac.compare_digest(record.owner if record else owner_of("nobody"), owner)
        if record is None or not is_owner:
            raise NotFound("there is no such session: leave session_id out to begin one", param="session_id")
        return record

    def _drop_expired(self) -> None:
        now = self._clock()
        old = itertools.takewhile(lambda entry: now - entry[1].used_at >= self._ttl_s, self._records.items())
        for key in [key for key, record in old if not record.in_turn]:
            self._records.pop(key).forget()

    def _keep(self, session: Session, turn: Turn, synthesizer: Synthesizer | None, reference: Reference | None) -> None:
        with self._lock:
            record = self._records.get(_digest(session.id))
            if record is None:
                return  # forgotten meanwhile
            record.turns = last_turns((*record.turns, turn), self._history_tokens)
            if reference is not None and synthesizer is not None:
                record.references[synthesizer] = reference

    def _leave(self, session: Session) -> None:
        with self._lock:
            session._record.in_turn = False
            session._record.used_at = self._clock()
            if _digest(session.id) in self._records:
                self._records.move_to_end(_digest(session.id))


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()
