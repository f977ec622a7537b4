"""The schedule of the decode engine: the sequences that wait and run, and the sequence that another one may preempt."""

from dataclasses import dataclass, field

from mirrorchat.xtts.steps import Restore
from mirrorchat.xtts.utterance import FinishReason, Utterance
from mirrorchat.xtts.vocoder import VocoderStream


@dataclass(eq=False)
class DecodeSequence:
    """The engine's state of an utterance. `launched` counts its tokens, including those that were not read yet."""

    utterance: Utterance
    ticket: int
    max_tokens: int
    stream: VocoderStream | None = None  # after the sequence has joined the batch
    slot: int | None = None
    launched: int = 0
    restore: Restore | None = None  # after preemption: puts the saved state into a slot
    latents_needed: int = 1  # new latents that the vocoder needs for more samples
    vocoded: int = 0  # latents that the vocoder has
    in_vocoder: bool = False  # it computes samples for this sequence
    reason: FinishReason | None = None
    pausing: bool = False  # it will be preempted as soon as all its steps have been read
    savable: bool = True  # there may be memory for the contents of its slot

    @property
    def order(self) -> tuple[int, int]:
        return (self.utterance.request.priority, self.ticket)

    @property
    def may_go_on(self) -> bool:
        """Return whether its next token may be launched."""
        return self.reason is None and not (self.utterance.full or self.pausing) and self.launched < self.max_tokens

    @property
    def vocoding_due(self) -> bool:
        """Return whether its new latents give samples, or are the last ones."""
        new = len(self.utterance.latents) - self.vocoded
        return self.reason is not None or (new > 0 and new >= self.latents_needed)

    @property
    def settled(self) -> bool:
        """Return whether all its launched steps have been read."""
        return self.launched == len(self.utterance.tokens)

    def yields_to(self, other: "DecodeSequence") -> bool:
        """Return whether `other` may preempt it: its consumer has fallen behind, or `other` is more urgent."""
        less_urgent = self.utterance.request.priority > other.utterance.request.priority
        return self.savable and self.reason is None and (self.utterance.full or less_urgent)


@dataclass
class Schedule:
    """The sequences of the engine, whose condition guards it.

    The running ones have a KV-cache slot. The vocoder computes the last samples of the finishing ones.
    """

    free_slots: list[int]
    waiting: list[DecodeSequence] = field(default_factory=list)
    running: list[DecodeSequence] = field(default_factory=list)
    finishing: list[DecodeSequence] = field(default_factory=list)

    def everyone(self) -> list[DecodeSequence]:
        return [*self.waiting, *self.running, *self.finishing]

    def take_slot(self) -> int:
        """Return the lowest free slot: a captured step computes all slots up to the highest one in use."""
        slot = min(self.free_slots)
        self.free_slots.remove(slot)
        return slot

    def move_down(self) -> tuple[int, int] | None:
        """Give the sequence in the highest slot the lowest free one, if steps of half the size are then enough.

        Return its old slot and its new one, or None if all sequences are as low as necessary.
        """
        slots = [sequence.slot for sequence in self.running if sequence.slot is not None]
        highest = max(slots, default=0)
        if not slots or highest < 1 << (len(slots) - 1).bit_length():  # the size of the smallest step for so many
            return None
        lowest = self.take_slot()
        self.running[slots.index(highest)].slot = lowest
        self.free_slots.append(highest)
        return highest, lowest

    def saved_beside(self, sequence: DecodeSequence) -> int:
        """Return the number of preempted sequences whose state is saved, without `sequence`."""
        return sum(other.restore is not None and other is not sequence for other in self.waiting)

    def remove(self, sequence: DecodeSequence) -> None:
        """Remove `sequence` and free its slot. There may be memory again to save the others' slots."""
        for group in (self.waiting, self.running, self.finishing):
            if sequence in group:
                group.remove(sequence)
        if sequence.slot is not None:
            self.free_slots.append(sequence.slot)
            sequence.slot = None
        for other in self.running:
            other.savable = True

    def finish(self, sequence: DecodeSequence) -> None:
        """Free the slot of `sequence`, which has all its tokens."""
        self.remove(sequence)
        self.finishing.append(sequence)

    def next_to_join(self) -> DecodeSequence | None:
        """Return the most urgent waiting sequence whose queue is not full."""
        return min((s for s in self.waiting if not s.utterance.full), key=lambda s: s.order, default=None)

    def preempted_by(self, sequence: DecodeSequence) -> DecodeSequence | None:
        """Return the running sequence for `sequence` to preempt: one with a full queue, or else the least urgent."""
        candidates = (s for s in self.running if s.yields_to(sequence))
        return max(candidates, key=lambda s: (s.utterance.full, s.order), default=None)
