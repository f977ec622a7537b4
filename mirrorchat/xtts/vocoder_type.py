"""The type in which the vocoder computes: on a GPU float16, if the activations of this checkpoint stay in its range."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mirrorchat.hardware.devices import gpu_weights
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.vocoder import StreamingVocoder

if TYPE_CHECKING:
    from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder

LOUD = 4.0  # times usual latents: the reserve for what latents of real speech do
ERROR_MOST = 1e-5  # of the energy: a signal-to-noise ratio of 50 dB
LATENTS = 24  # 1.1 s of speech
VOICES = 2


def make_vocoder(decoder: "HifiDecoder", mode: WeightMode, final_norm: nn.LayerNorm) -> StreamingVocoder:
    """Return the vocoder with the weights of `decoder`, on their device.

    On a CPU it computes in float32, but with weights in `int8`, the fastest mode, in bfloat16. On a GPU it computes in
    float16. In float32 it computes where float16 is slow, and with weights whose activations leave float16's range,
    which is tried here with latents like those of `final_norm`, the GPT's last layer. It has the same samples within
    50 dB then, for latents that are louder than usual, too.
    """
    device = next(decoder.waveform_decoder.parameters()).device
    if device.type != "cuda":
        return StreamingVocoder(decoder, dtype=torch.bfloat16 if mode is WeightMode.INT8 else torch.float32)
    exact = StreamingVocoder(decoder)
    if gpu_weights(device) == "fp16w":
        return exact
    half = StreamingVocoder(decoder, dtype=torch.float16)
    return half if _agree(half, exact, final_norm) else exact


def remark_on_type(vocoder: StreamingVocoder, device: torch.device) -> str:
    """Return what users should know of the vocoder's type, "" if it is the usual one of `device`."""
    if device.type != "cuda" or vocoder.dtype is torch.float16 or gpu_weights(device) == "fp16w":
        return ""
    type_of_products = "TF32" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return f"its vocoder computes in {type_of_products}, since its numbers leave the range of float16"


def _agree(half: StreamingVocoder, exact: StreamingVocoder, final_norm: nn.LayerNorm) -> bool:
    random = torch.Generator().manual_seed(0)
    weight, bias = final_norm.weight.detach().cpu(), final_norm.bias.detach().cpu()
    for _ in range(VOICES):
        embedding = torch.nn.functional.normalize(torch.randn(1, 512, 1, generator=random), dim=1)
        latents = torch.randn(LATENTS, len(weight), generator=random) * weight + bias
        if not all(_same(half, exact, scale * latents, embedding) for scale in (1.0, LOUD)):
            return False
    return True


def _same(half: StreamingVocoder, exact: StreamingVocoder, latents: Tensor, embedding: Tensor) -> bool:
    found, expected = half.vocode(latents, embedding), exact.vocode(latents, embedding)
    with np.errstate(invalid="ignore"):  # NaN and infinity, which are not the same
        return bool(np.square(found - expected).sum() <= ERROR_MOST * np.square(expected).sum())
