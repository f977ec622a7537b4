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
    reason: FinishReason | None = None
    pausing: bool = False  # it will be preempted as soon as all its steps have been read

    @property
    def order(self) -> tuple[int, int]:
        return (self.utterance.request.priority, self.ticket)

    @property
    def may_go_on(self) -> bool:
        """Return whether its next token may be launched."""
        return not (self.utterance.full or self.pausing) and self.launched < self.max_tokens

    @property
    def settled(self) -> bool:
        """Return whether all its launched steps have been read."""
        return self.launched == len(self.utterance.tokens)

    def yields_to(self, other: "DecodeSequence") -> bool:
        """Return whether `other` may preempt it: its consumer has fallen behind, or `other` is more urgent."""
        return self.utterance.full or self.utterance.request.priority > other.utterance.request.priority


@dataclass
class Schedule:
    """The waiting sequences, and the running ones, which have a KV-cache slot. The engine's condition guards it."""

    free_slots: list[int]
    waiting: list[DecodeSequence] = field(default_factory=list)
    running: list[DecodeSequence] = field(default_factory=list)

    def everyone(self) -> list[DecodeSequence]:
        return [*self.waiting, *self.running]

    def remove(self, sequence: DecodeSequence) -> None:
        """Remove `sequence` and free its slot."""
        for group in (self.waiting, self.running):
            if sequence in group:
                group.remove(sequence)
        if sequence.slot is not None:
            self.free_slots.append(sequence.slot)
            sequence.slot = None

    def next_to_join(self) -> DecodeSequence | None:
        """Return the most urgent waiting sequence whose queue is not full."""
        return min((s for s in self.waiting if not s.utterance.full), key=lambda s: s.order, default=None)

    def preempted_by(self, sequence: DecodeSequence) -> DecodeSequence | None:
        """Return the running sequence for `sequence` to preempt: one with a full queue, or else the least urgent."""
        candidates = (s for s in self.running if s.yields_to(sequence))
        return max(candidates, key=lambda s: (s.utterance.full, s.order), default=None)
