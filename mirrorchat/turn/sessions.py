"""Sessions keep the last turns and the speaker reference in memory, from turn to turn.

A session is tied to the API key that created it and has an id that cannot be guessed; the store holds only the id's
hash. One turn at a time opens it (`Sessions.open`), and changes it only when the turn is complete (`Session.add_turn`):

    with sessions.open(session_id, owner) as session:
        voice = session.voice_with(audio, synthesizer)
        session.add_turn("How far is the moon?", "About 384,000 km.")
"""

import hashlib
import hmac
import itertools
import math
import secrets
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mirrorchat.access.api_keys import digest_of
from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Message, Synthesizer, Voice
from mirrorchat.errors import NotFound, ServerBusy, SessionBusy
from mirrorchat.turn.reference import Reference, ReferenceQuality, Utterance

ID_BYTES = 24  # 192 random bits: 32 characters
TOKENS_PER_MESSAGE = 4  # the chat format adds them to each message
CHARACTERS_PER_TOKEN = 4  # of English, roughly, in the usual vocabularies; a Chinese character takes about a token
RECORD_BYTES = 1_000  # of a session, beside what it keeps
MESSAGE_BYTES = 100  # of a message, beside its text
SWEEP_S = 30.0  # an expired session is forgotten after this time at the latest
_FIRST_WIDE = "\u2e80"  # Chinese, Japanese and Korean characters, their punctuation, and emoji start here

Turn = tuple[Message, Message]  # a question and its answer


def count_tokens(message: Message) -> int:
    """Estimate the tokens of a message: a wide character is one, four others are one, and the chat format adds four."""
    wide = sum(character >= _FIRST_WIDE for character in message.content)
    return TOKENS_PER_MESSAGE + wide + math.ceil((len(message.content) - wide) / CHARACTERS_PER_TOKEN)


def owner_of(key: str) -> str:
    """Return the owner's name for the API key `key`: its hash; "" for "", where no keys are set."""
    return digest_of(key) if key else ""


def last_turns(turns: tuple[Turn, ...], token_budget: int) -> tuple[Turn, ...]:
    """Return the newest turns that fit into `token_budget` together, oldest first."""
    first = len(turns)
    while first > 0 and (token_budget := token_budget - sum(map(count_tokens, turns[first - 1]))) >= 0:
        first -= 1
    return turns[first:]


@dataclass(eq=False)
class _Record:
    """A session in the store. It has a reference for each synthesizer, because synthesizers cannot exchange voices.

    `subject` is what shares the room: the API key, or the address where there are no keys.
    """

    owner: str
    subject: str
    used_at: float
    size_bytes: int = RECORD_BYTES
    in_turn: bool = True
    turns: tuple[Turn, ...] = ()
    references: dict[Synthesizer, Reference] = field(default_factory=dict)

    def measure(self) -> None:
        """Set `size_bytes`."""
        texts = [message.content for turn in self.turns for message in turn]
        kept = sum(sys.getsizeof(text) + MESSAGE_BYTES for text in texts)
        kept += sum(reference.size_bytes for reference in self.references.values())
        self.size_bytes = RECORD_BYTES + kept

    def forget(self) -> None:
        self.turns = ()
        self.references = {}


class Session:
    """A session, opened by one turn; a context manager. No other turn can open the session until it is closed.

    The session keeps the turn's words and reference only when `add_turn` is called: a failed turn changes nothing.
    """

    def __init__(self, session_id: str, record: _Record, sessions: "Sessions | None") -> None:
        self.id = session_id
        self._record = record
        self._sessions = sessions
        self._utterance: Utterance | None = None
        self._synthesizer: Synthesizer | None = None
        self._voice: Voice | None = None
        self._reference: Reference | None = None  # of the voice, unless the voice is this utterance's alone
        self._begins = False

    @classmethod
    def unkept(cls) -> "Session":
        """Return an empty session that keeps nothing."""
        return cls("", _Record("", "", 0.0), None)

    def history(self) -> tuple[Message, ...]:
        """Return the last turns within the token budget: question, answer, question, ...; oldest first."""
        return tuple(message for turn in self._record.turns for message in turn)

    def voice_with(self, audio: Audio, synthesizer: Synthesizer) -> Voice:
        """Return the voice for the answer to `audio`. Each turn calls it once.

        The first turn with 1 s of speech starts the session's reference. Later turns with 1 s of speech of the same
        speaker extend it, up to 30 s, and the voice is computed again. A turn with less speech, or after the reference
        is full, gets the kept voice. If the speaker is, or may be, another person, the turn gets the voice of its own
        audio and leaves the reference unchanged, so that all askers hear their own voice.

        Arguments:
            audio: the question, at any sample rate.
            synthesizer: the engine that will speak the answer.

        Raises:
            SynthesisFailed: the model failed.

        Example:

            voice = session.voice_with(question.audio, synthesizer)
            quality = session.quality()  # of the voice's reference
        """
        utterance = self._utterance = Utterance(audio, synthesizer)
        self._synthesizer = synthesizer
        kept = self._record.references.get(synthesizer)
        self._begins = kept is None
        if kept is not None and (not utterance.has_voice or utterance.is_by(kept.embedding)):
            self._reference = self._extended(kept, utterance, synthesizer)
            self._voice = self._reference.voice
        else:
            self._voice = synthesizer.voice([audio])
        return self._voice

    @staticmethod
    def _extended(kept: Reference, utterance: Utterance, synthesizer: Synthesizer) -> Reference:
        if kept.is_full or utterance.embedding is None or utterance.quality.second_speaker:
            return kept
        return kept.extended(utterance, synthesizer)

    def quality(self) -> ReferenceQuality:
        """Return the quality of the reference of the voice that `voice_with` returned.

        For a first turn this takes about as long as `voice_with`; the voice can be used meanwhile.
        """
        assert self._utterance is not None and self._voice is not None, "voice_with comes first"
        if self._begins:
            self._reference = Reference.begun(self._utterance, self._voice)
        return self._reference.quality if self._reference else self._utterance.quality

    def add_turn(self, question: str, answer: str) -> None:
        """Keep the complete turn: its words, and the reference if this turn started or extended it.

        A closed or forgotten session keeps nothing.
        """
        if self._sessions is not None:
            turn = (Message("user", question), Message("assistant", answer))
            self._sessions._keep(self, turn, self._synthesizer, self._reference)

    def close(self) -> None:
        """Close the session. A second call does nothing."""
        sessions, self._sessions = self._sessions, None
        if sessions is not None:
            sessions._leave(self)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class Sessions:
    """Keeps at most `limit` sessions, each for `ttl_s` seconds after its last turn, with `history_tokens` of history.

    Together they take at most `memory_bytes`. Beyond a limit the subject that has most loses its least recently used
    session, so that no subject can take the sessions of others. Thread-safe. `clock` counts seconds.
    """

    def __init__(
        self,
        limit: int,
        ttl_s: float,
        history_tokens: int,
        clock: Callable[[], float] = time.monotonic,
        *,
        memory_bytes: int = 256_000_000,
    ) -> None:
        self._limit = limit
        self._memory_bytes = memory_bytes
        self._taken_bytes = 0
        self._ttl_s = ttl_s
        self._history_tokens = history_tokens
        self._clock = clock
        self._records: OrderedDict[bytes, _Record] = OrderedDict()  # by the hash of the id; least recently used first
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    @property
    def taken_bytes(self) -> int:
        """The memory that the sessions take."""
        return self._taken_bytes

    def open(self, session_id: str | None, owner: str, subject: str | None = None) -> Session:
        """Open a session for one turn; a new one for None, which counts for `subject` (None: the owner).

        The turn closes it.

        Raises:
            NotFound: the id is unknown, expired, or another owner's.
            SessionBusy: another turn of the session runs.
            ServerBusy: each session has a turn running, so that none can give way to a new one.
        """
        with self._lock:
            self._drop_expired()
            if session_id is None:
                return self._new(owner, owner if subject is None else subject)
            record = self._find(session_id, owner)
            if record.in_turn:
                raise SessionBusy("another turn of this session still runs: wait for its answer", param="session_id")
            record.in_turn = True
            return Session(session_id, record, self)

    def forget(self, session_id: str, owner: str) -> None:
        """Forget a session at once; a running turn of it keeps nothing. Raises NotFound like `open`."""
        with self._lock:
            self._drop_expired()
            self._find(session_id, owner)
            self._remove(_digest(session_id))

    def clear(self) -> None:
        """Forget every session."""
        with self._lock:
            for key in list(self._records):
                self._remove(key)

    def sweep(self) -> None:
        """Forget the expired sessions."""
        with self._lock:
            self._drop_expired()

    def start_sweeping(self) -> None:
        """Sweep in a thread until `close`, so that sessions expire without a request, too."""
        threading.Thread(target=self._sweep_until_closed, name="sweep-sessions", daemon=True).start()

    def close(self) -> None:
        """Forget every session and end the thread."""
        self._closed.set()
        self.clear()

    def _sweep_until_closed(self) -> None:
        while not self._closed.wait(min(SWEEP_S, self._ttl_s / 2.0)):
            self.sweep()

    def _new(self, owner: str, subject: str) -> Session:
        session_id = secrets.token_urlsafe(ID_BYTES)
        record = self._records[_digest(session_id)] = _Record(owner, subject, self._clock())
        self._taken_bytes += record.size_bytes
        if len(self._records) > self._limit and not self._drop_one(lambda record: 1):
            self._remove(_digest(session_id))
            raise ServerBusy("every session has a turn running; try again shortly", retry_after_s=5)
        return Session(session_id, record, self)

    def _drop_one(self, weight: Callable[[_Record], int]) -> bool:
        """Forget the least recently used idle session of the subject with most `weight`; return whether one was idle.

        A subject whose sessions all have a turn running gives way to the next one.
        """
        weights: Counter[str] = Counter()
        for record in self._records.values():
            weights[record.subject] += weight(record)
        idle = [key for key, record in self._records.items() if not record.in_turn]
        if idle:
            self._remove(max(idle, key=lambda key: weights[self._records[key].subject]))  # the first one of several
        return bool(idle)

    def _drop_above_memory(self) -> None:
        while self._taken_bytes > self._memory_bytes and self._drop_one(lambda record: record.size_bytes):
            pass

    def _remove(self, key: bytes) -> None:
        record = self._records.pop(key)
        self._taken_bytes -= record.size_bytes
        record.forget()

    def _find(self, session_id: str, owner: str) -> _Record:
        # The time of a look-up by hash reveals nothing about any id, and the owners are compared in constant time, even
        # if there is no such session.
        record = self._records.get(_digest(session_id))
        is_owner = hmac.compare_digest(record.owner if record else owner_of("nobody"), owner)
        if record is None or not is_owner:
            raise NotFound("there is no such session: leave session_id out to start one", param="session_id")
        return record

    def _drop_expired(self) -> None:
        now = self._clock()
        old = itertools.takewhile(lambda entry: now - entry[1].used_at >= self._ttl_s, self._records.items())
        for key in [key for key, record in old if not record.in_turn]:
            self._remove(key)

    def _keep(self, session: Session, turn: Turn, synthesizer: Synthesizer | None, reference: Reference | None) -> None:
        with self._lock:
            record = self._records.get(_digest(session.id))
            if record is None:
                return  # forgotten meanwhile
            record.turns = last_turns((*record.turns, turn), self._history_tokens)
            if reference is not None and synthesizer is not None:
                record.references[synthesizer] = reference
            self._taken_bytes -= record.size_bytes
            record.measure()
            self._taken_bytes += record.size_bytes
            self._drop_above_memory()

    def _leave(self, session: Session) -> None:
        with self._lock:
            session._record.in_turn = False
            session._record.used_at = self._clock()
            if _digest(session.id) in self._records:
                self._records.move_to_end(_digest(session.id))
            self._drop_above_memory()


def _digest(session_id: str) -> bytes:
    return hashlib.sha256(session_id.encode()).digest()
