"""A voice as XTTS knows it, which can be kept as bytes."""

import json
from dataclasses import dataclass

import safetensors
import safetensors.torch
import torch

from mirrorchat.engines import Voice, VoiceKind


@dataclass(frozen=True, eq=False)
class XttsVoice(Voice):
    """XTTS's conditioning on a speaker: `gpt_cond_latent` (1, 32, 1024), `speaker_embedding` (1, 512, 1).

    Both float32 on the CPU, never written to. Two voices are equal when their bytes are.
    """

    gpt_cond_latent: torch.Tensor
    speaker_embedding: torch.Tensor

    def to_bytes(self) -> bytes:
        """Return the voice as a safetensors file of about 130 kB."""
        tensors = {"gpt_cond_latent": self.gpt_cond_latent, "speaker_embedding": self.speaker_embedding}
        about = json.dumps([self.kind.value, self.reason])  # one entry: safetensors writes several in any order
        data: bytes = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"about": about}
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "XttsVoice":
        """Return the voice that `to_bytes` wrote. Raises ValueError when `data` is something else."""
        try:
            tensors = safetensors.torch.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            kind, reason = json.loads(header["__metadata__"]["about"])
            return cls(VoiceKind(kind), reason, tensors["gpt_cond_latent"], tensors["speaker_embedding"])
        except (safetensors.SafetensorError, KeyError, ValueError) as error:
            raise ValueError("these bytes are not an XTTS voice") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, XttsVoice) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())
