"""The voice of an asker for the small synthesizer: the profile of the tint, and a base voice for each language."""

import json
from dataclasses import dataclass, field

import numpy as np

from mirrorchat.embedded.voice_tint import PROFILE_SIZE, Array, Profile
from mirrorchat.engines import Language, Voice, VoiceKind
from mirrorchat.small.voices_mixture import COMPONENTS, DIMENSIONS

_PROFILE_BYTES = 8 * PROFILE_SIZE
_SHIFT_BYTES = 8 * COMPONENTS * DIMENSIONS
_NAME_LIMIT_CHARS = 100


@dataclass(frozen=True, eq=False)
class AdaptedBase:
    """The name of the base voice nearest to the asker, and how far its mixture moves to the asker's: (12, 23)."""

    name: str
    shift: Array


@dataclass(frozen=True)
class SmallVoice(Voice):
    """A voice of the small synthesizer, 18 kB. Without a profile it is neutral, and `bases` is empty."""

    profile: Profile | None = field(default=None, compare=False)
    bases: dict[Language, AdaptedBase] = field(default_factory=dict, compare=False)
    _packed: bytes = field(default=b"", init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_packed", self._pack())

    def _pack(self) -> bytes:
        names = {language.value: base.name for language, base in self.bases.items()}
        head = {"kind": self.kind.value, "reason": self.reason, "bases": names}
        numbers = [base.shift.astype("<f8").tobytes() for base in self.bases.values()]
        profile = self.profile.to_bytes() if self.profile else b""
        return b"".join([json.dumps(head).encode(), b"\n", profile, *numbers])

    def to_bytes(self) -> bytes:
        """Return the voice as one line of JSON, the profile, and the shifts in the order of the JSON's languages."""
        return self._packed

    @classmethod
    def from_bytes(cls, data: bytes) -> "SmallVoice":
        """Return the voice that `to_bytes` wrote. Raises ValueError for any other bytes."""
        head, _, packed = data.partition(b"\n")
        try:
            fields = json.loads(head)
            kind, reason = VoiceKind(fields["kind"]), str(fields["reason"])
            names = {Language(language): str(name)[:_NAME_LIMIT_CHARS] for language, name in fields["bases"].items()}
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("not a voice") from error
        if not names and not packed:
            return cls(kind, reason)
        profile = Profile.from_bytes(packed[:_PROFILE_BYTES])
        return cls(kind, reason, profile, _unpack_bases(names, packed[_PROFILE_BYTES:]))


def _unpack_bases(names: dict[Language, str], packed: bytes) -> dict[Language, AdaptedBase]:
    if len(packed) != len(names) * _SHIFT_BYTES:
        raise ValueError("a voice of another size")
    shifts = np.frombuffer(packed, "<f8").reshape(len(names), COMPONENTS, DIMENSIONS)
    if not np.isfinite(shifts).all():
        raise ValueError("a voice that holds numbers that are not finite")
    return {language: AdaptedBase(name, shift) for (language, name), shift in zip(names.items(), shifts, strict=True)}
