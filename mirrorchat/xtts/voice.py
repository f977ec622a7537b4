"""The voice of XTTS, its format as bytes, and the comparison of speakers."""

import json
from dataclasses import dataclass

import numpy as np
import safetensors
import safetensors.torch
import torch

from mirrorchat.engines import SpeakerEmbedding, Voice, VoiceKind
from mirrorchat.xtts.checkpoint import Speaker

# XTTS's speaker encoder is H/ASP (Heo et al. 2020, "Clova baseline system for the VoxCeleb speaker recognition
# challenge"), a ResNet trained to separate speakers by the cosine. Networks of this kind have the fewest errors near
# 0.25 to 0.35, and utterances of one speaker are mostly above 0.6. The limits lie on both sides: to take another
# speaker for the same one spoils the voice, and must be rare; not to recognize a speaker costs little.
SAME_FROM, DIFFERENT_TO = 0.6, 0.25


@dataclass(frozen=True, eq=False)
class XttsVoice(Voice):
    """The conditioning on a speaker: `gpt_cond_latent` (1, 32, 1024) and `speaker_embedding` (1, 512, 1).

    Both are float32 on the CPU and never change. Two voices are equal if their bytes are equal.
    """

    gpt_cond_latent: torch.Tensor
    speaker_embedding: torch.Tensor

    def to_bytes(self) -> bytes:
        """Return the voice as a safetensors file of about 130 kB."""
        tensors = {"gpt_cond_latent": self.gpt_cond_latent, "speaker_embedding": self.speaker_embedding}
        about = json.dumps([self.kind.value, self.reason])  # one entry, because safetensors writes several in any order
        data: bytes = safetensors.torch.save(
            {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata={"about": about}
        )
        return data

    @classmethod
    def from_bytes(cls, data: bytes) -> "XttsVoice":
        """Return the voice that `to_bytes` wrote. Raises ValueError for any other `data`."""
        try:
            tensors = safetensors.torch.load(data)
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            kind, reason = json.loads(header["__metadata__"]["about"])
            return cls(VoiceKind(kind), str(reason), tensors["gpt_cond_latent"], tensors["speaker_embedding"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError("these bytes are not an XTTS voice") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, XttsVoice) and self.to_bytes() == other.to_bytes()

    def __hash__(self) -> int:
        return hash(self.to_bytes())


def built_in_voice(name: str, speaker: Speaker) -> XttsVoice:
    """Return the voice of a studio speaker that comes with the model: neutral, since it is not that of an asker."""
    reason = f"the built-in voice {name}".encode("ascii", "replace").decode()
    return XttsVoice(VoiceKind.NEUTRAL, reason, speaker.gpt_cond_latent, speaker.speaker_embedding)


def similarity(first: SpeakerEmbedding, second: SpeakerEmbedding) -> float:
    """Return the cosine of two speaker embeddings, from -1 to 1; 0 if one of them is all zeros."""
    norm = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / norm if norm else 0.0
