"""Admission control: a bounded number of concurrent turns, a bounded queue before them, and a way to cancel every turn.

A caller gets a slot at once when one is free, and waits in the queue otherwise. A slot is free when

- fewer than `max_turns` turns run, and not too much native work outlives turns that have ended (`MAX_ORPHANS`);
- playback holds: with one caller more, each would still get speech faster than it plays (turn/playback.py).

A request is rejected immediately (503 with Retry-After) if the queue is full or if its predicted completion time
exceeds its deadline. The prediction uses the running mean of the turns' lengths and the number of callers ahead. One
slot is assumed to come free every (mean turn length / slots) seconds, and a turn then takes the mean length.
TURN_MARGIN allows for their unevenness.

Tenants (a key and an address) are served fairly: the queue goes round them, one turn each, and passes over a tenant
that holds its share of the slots already (the slots divided by the tenants, rounded up) while another one waits. When
the queue is full, the tenant with the most queued turns loses its newest one, provided the newcomer's tenant has at
least two fewer. Where `turns_per_key` is set, no rate-limit subject (a key, or an address where there are no keys) has
more turns than that, queued ones included.

It owns no thread: the thread that frees a slot or reports speech grants the slots to the queue.
"""

import enum
import math
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.errors import ClientGone, DeadlineExceeded, MirrorChatError, ServerBusy, ShuttingDown, TooManyTurns
from mirrorchat.turn.playback import Meter, Playback

TURN_MARGIN = 1.15  # of the predicted time until an answer is whole: turns of one question differ by a tenth
TYPICAL_TURN_S = 5.0  # the predicted length of a turn until turns have ended
# Speech for each other caller; measured with XTTS on two cores: less gives underruns at four callers.
PREBUFFER_PER_CALLER_S = 0.85
SLOW_RATE = 2.0  # seconds of speech a second for one caller: below it an answer starts with SLOW_PREBUFFER_S
SLOW_PREBUFFER_S = 1.6  # XTTS at a rate of 1.4 (two cores without AMX) has 0.7 to 1.3 s of underruns without it
UNBUFFERED_RATE = 4.0  # seconds of speech a second for each caller; from there on no prebuffer is needed
SMOOTHING = 0.2  # weight of the newest turn, after the first few, in the running mean of their length
RETRY_LIMIT_S = 60
SHUTDOWN_RETRY_S = 10
MAX_ORPHANS = 2  # ended turns whose native calls still run, for each of `max_turns`


class Refusal(enum.StrEnum):
    """The reason why a caller was not admitted."""

    QUEUE_FULL = "queue_full"
    WAIT_TOO_LONG = "wait_too_long"
    FAIR_SHARE = "fair_share"
    KEYS_TURNS = "turns_per_key"
    SHUTTING_DOWN = "shutting_down"
    DEADLINE = "deadline"
    HUNG_UP = "hung_up"


class Slot:
    """One admitted turn. The request and each helper that works for it hold the slot; the last `release` frees it.

    A turn that has ended, for any reason, releases its slot early: the slot is free at once, although a helper may
    still be in a native call that nothing can interrupt. The number of such orphaned turns is bounded.
    """

    def __init__(self, admission: "Admission", ticket: "Ticket", waited_s: float) -> None:
        self.context = ticket.context
        self.waited_s = waited_s
        self.tenant = ticket.tenant
        self.subject = ticket.subject
        self.holders = 1  # guarded by the admission's lock
        self._admission = admission
        self._meter = Meter(admission.playback, admission.clock)

    def hold(self) -> None:
        """Add a holder, who must call `release` once."""
        self._admission._hold(self, 1)

    def release(self) -> None:
        """Remove a holder; without holders the slot is free."""
        self._admission._hold(self, -1)

    def release_early(self) -> None:
        """Free the slot now; its holders must still release it. A free slot stays free."""
        self._admission._release_early(self)

    @property
    def prebuffer_s(self) -> float:
        """Return how many seconds of speech to buffer before playback starts.

        Other turns' recognition, prefill and decode steps interleave with this one's, most at the start. An engine that
        is little faster than playback is late with the first chunks of even a single caller; a far faster one needs no
        buffer. An engine of unknown speed counts as slow: a fast one fills the buffer at once.
        """
        playback, running = self._admission.playback, self._admission.running
        rate, alone = playback.rate(running), playback.rate(1)
        if rate is not None and rate >= UNBUFFERED_RATE:
            return 0.0
        own_s = SLOW_PREBUFFER_S if alone is None or alone < SLOW_RATE else 0.0
        return own_s + PREBUFFER_PER_CALLER_S * max(0, running - 1)

    def speed(self, language: Language) -> float | None:
        """Return the seconds of speech per second that a caller got lately in `language`; None while unknown."""
        return self._admission.playback.speed(language)

    def measure(self, pieces: Iterable[Audio], language: Language | None = None) -> Iterator[Audio]:
        """Yield the pieces of one sentence as the synthesizer makes them, and measure its speed."""
        yield from self._meter.measure(pieces, language)
        self._admission.serve()

    def __enter__(self) -> "Slot":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


@dataclass(eq=False)
class Ticket:
    """A request for a slot, made at `applied_at` (clock). `granted` will hold the slot or an error."""

    tenant: str
    context: Context
    applied_at: float
    subject: str = ""
    granted: "Future[Slot]" = field(default_factory=Future)

    @property
    def slot(self) -> Slot | None:
        """Return the slot if it has been granted, else None."""
        done = self.granted.done() and self.granted.exception() is None
        return self.granted.result() if done else None


@dataclass(frozen=True)
class AdmissionStats:
    """The state of the admission.

    running: the turns that run.
    slots: the turns that may run concurrently, as playback now allows.
    waiting: the callers in the queue.
    orphans: the turns that have ended, but whose native calls still run.
    refusals: the callers that were not admitted since the start, by reason.
    """

    running: int
    slots: int
    waiting: int
    orphans: int
    refusals: dict[Refusal, int]


class Admission:
    """Admits at most `max_turns` concurrent turns; up to `max_waiting` callers wait. Thread-safe; owns no thread.

    admission = Admission(max_turns=4, max_waiting=8)
    with admission.acquire(Context.after(100.0), tenant="key address", subject="key") as slot:
        ...  # the turn; slot.context ends it early
    """

    def __init__(
        self,
        max_turns: int,
        max_waiting: int = 0,
        *,
        turns_per_key: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_turns = max_turns
        self.max_waiting = max_waiting
        self.turns_per_key = turns_per_key
        self.playback = Playback(clock)
        self.clock = clock
        self._slots: dict[Slot, float] = {}  # with the times of admission
        self._orphans: set[Slot] = set()
        self._turns: weakref.WeakSet[Slot] = weakref.WeakSet()  # also orphans, and turns whose speech is being sent
        self._waiting: OrderedDict[str, deque[Ticket]] = OrderedDict()  # by tenant, the next one's first
        self._turn_s = TYPICAL_TURN_S  # the mean length of the turns that have `_ended`
        self._ended = 0
        self.closed = False  # whether no turn is admitted any more
        self._refusals: Counter[Refusal] = Counter()
        self._lock = threading.RLock()  # a signal handler may interrupt the thread that holds it

    def acquire(self, context: Context, *, tenant: str = "", subject: str = "") -> Slot:
        """Return a slot for one turn; wait in the queue if none is free.

        Arguments:
            context: ends the wait early, and later the turn.
            tenant: the queue is fair between tenants: a key and an address.
            subject: the rate-limit subject of `turns_per_key`: a key, or an address where there are no keys.

        Raises:
            ServerBusy: the queue is full, the answer would come too late, or a newcomer displaced this caller; with
                the seconds in `retry_after_s`.
            TooManyTurns: `subject` has `turns_per_key` turns already.
            ShuttingDown: no turn is admitted any more.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        ticket = self.apply(context, tenant, subject)
        try:
            while True:
                try:
                    return context.wait(ticket.granted, timeout_s=self.playback.forgets_in_s())
                except TimeoutError:
                    self.serve()  # old measurements are forgotten: playback may allow more callers
        except BaseException as error:
            self._count_end_of_wait(error)
            self.withdraw(ticket)
            raise

    def apply(self, context: Context, tenant: str = "", subject: str = "") -> Ticket:
        """Request a slot without waiting for it. Raises ServerBusy, TooManyTurns or ShuttingDown."""
        with self._lock:
            if self.closed:
                self._refusals[Refusal.SHUTTING_DOWN] += 1
                raise ShuttingDown("the server is shutting down", retry_after_s=SHUTDOWN_RETRY_S)
            self._check_turns_of(subject)
            ticket = Ticket(tenant, context, self.clock(), subject)
            self._serve()
            if self._has_room():
                self._admit(ticket)
            else:
                self._queue(ticket)
            return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Leave the queue, or release the slot if it has been granted."""
        with self._lock:
            tickets = self._waiting.get(ticket.tenant, deque())
            if ticket in tickets:
                tickets.remove(ticket)
                self._forget_idle(ticket.tenant)
        if ticket.slot is not None:
            ticket.slot.release()

    def serve(self) -> None:
        """Grant the free slots to the queue."""
        with self._lock:
            self._serve()

    @property
    def running(self) -> int:
        """Return the number of slots in use."""
        with self._lock:
            return len(self._slots)

    def stats(self) -> AdmissionStats:
        """Return the present numbers."""
        with self._lock:
            slots, orphans = len(self._slots), len(self._orphans)
            refusals = {reason: self._refusals[reason] for reason in Refusal}
            return AdmissionStats(slots, self._limit(), self._queued(), orphans, refusals)

    def stop_admission(self, reason: MirrorChatError) -> None:
        """Reject new turns, and end every wait with `reason`; running turns go on."""
        with self._lock:
            self.closed = True
            for ticket in [ticket for tickets in self._waiting.values() for ticket in tickets]:
                self._refusals[Refusal.SHUTTING_DOWN] += 1
                ticket.granted.set_exception(reason)
            self._waiting.clear()

    def end_all(self, reason: MirrorChatError) -> None:
        """Reject new turns, and end every turn with `reason`, even one whose slot is free again."""
        self.stop_admission(reason)
        with self._lock:
            turns = list(self._turns)
        for slot in turns:
            slot.context.cancel(reason)

    def _count_end_of_wait(self, error: BaseException) -> None:
        """Count a wait that the caller's own context ended."""
        ends = ((DeadlineExceeded, Refusal.DEADLINE), (ClientGone, Refusal.HUNG_UP))
        with self._lock:
            self._refusals.update(refusal for kind, refusal in ends if isinstance(error, kind))

    # The methods below run with the lock held, except `_hold` and `_release_early`.

    def _check_turns_of(self, subject: str) -> None:
        turns = sum(slot.subject == subject for slot in self._slots)
        turns += sum(ticket.subject == subject for tickets in self._waiting.values() for ticket in tickets)
        if self.turns_per_key and turns >= self.turns_per_key:
            self._refusals[Refusal.KEYS_TURNS] += 1
            raise TooManyTurns(
                f"{turns} of your turns are running or queued, which is the limit",
                retry_after_s=min(RETRY_LIMIT_S, max(1, math.ceil(self._turn_s))),
            )

    def _has_room(self) -> bool:
        running = len(self._slots)
        orphan_room = len(self._orphans) < MAX_ORPHANS * self.max_turns
        return running < self.max_turns and orphan_room and self.playback.allows(running + 1)

    def _limit(self) -> int:
        return self.playback.limit(self.max_turns)

    def _queued(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _serve(self) -> None:
        while self._waiting and self._has_room():
            self._admit(self._next())

    def _admit(self, ticket: Ticket) -> None:
        now = self.clock()
        slot = Slot(self, ticket, now - ticket.applied_at)
        self._slots[slot] = now
        self._turns.add(slot)
        ticket.granted.set_result(slot)

    def _next(self) -> Ticket:
        """Remove and return the next ticket: that of the next tenant that holds less than its share."""
        held = Counter(slot.tenant for slot in self._slots)
        share = math.ceil(self.max_turns / len(held.keys() | self._waiting.keys()))
        tenant = next((tenant for tenant in self._waiting if held[tenant] < share), next(iter(self._waiting)))
        ticket = self._waiting[tenant].popleft()
        self._waiting.move_to_end(tenant)
        self._forget_idle(tenant)
        return ticket

    def _forget_idle(self, tenant: str) -> None:
        if not self._waiting[tenant]:
            del self._waiting[tenant]

    def _queue(self, ticket: Ticket) -> None:
        """Add `ticket` to the queue. Raises ServerBusy if the queue is full or the answer would come too late."""
        wait_s = self._predicted_wait_s(ticket.tenant)
        whole_s = TURN_MARGIN * (wait_s + self._turn_s)
        if self.max_waiting and whole_s > ticket.context.deadline - self.clock():
            raise self._busy(Refusal.WAIT_TOO_LONG, "a slot would come too late for this request", wait_s)
        if self._queued() >= self.max_waiting and not self._displace_for(ticket.tenant):
            raise self._busy(Refusal.QUEUE_FULL, f"the server is answering {len(self._slots)} callers already", wait_s)
        self._waiting.setdefault(ticket.tenant, deque()).append(ticket)

    def _displace_for(self, tenant: str) -> bool:
        """Reject the newest ticket of the tenant with the most queued turns if that is fair; return whether it is."""
        greedy = max(self._waiting, key=lambda tenant: len(self._waiting[tenant]), default=tenant)
        if len(self._waiting.get(greedy, ())) < len(self._waiting.get(tenant, ())) + 2:
            return False
        ticket = self._waiting[greedy].pop()
        busy = self._busy(Refusal.FAIR_SHARE, "others wait as well", self._predicted_wait_s(greedy))
        ticket.granted.set_exception(busy)
        return True

    def _predicted_wait_s(self, tenant: str) -> float:
        """Predict the wait of a further ticket of `tenant`: behind its own ones and as many of each other tenant."""
        own = len(self._waiting.get(tenant, ()))
        others = sum(min(len(tickets), own + 1) for other, tickets in self._waiting.items() if other != tenant)
        return (own + others + 1) * self._turn_s / self._limit()

    def _busy(self, refusal: Refusal, message: str, wait_s: float) -> ServerBusy:
        self._refusals[refusal] += 1
        retry_after_s = min(RETRY_LIMIT_S, max(1, math.ceil(wait_s)))
        return ServerBusy(f"{message}; try again shortly", retry_after_s=retry_after_s)

    def _hold(self, slot: Slot, change: int) -> None:
        with self._lock:
            slot.holders += change
            if not slot.holders:
                self._free(slot)
                self._orphans.discard(slot)
                self._serve()

    def _release_early(self, slot: Slot) -> None:
        with self._lock:
            if slot in self._slots:
                self._free(slot)
                self._orphans.add(slot)
                self._serve()

    def _free(self, slot: Slot) -> None:
        admitted_at = self._slots.pop(slot, None)
        if admitted_at is not None:
            self._ended += 1
            self._turn_s += max(SMOOTHING, 1 / self._ended) * (self.clock() - admitted_at - self._turn_s)
