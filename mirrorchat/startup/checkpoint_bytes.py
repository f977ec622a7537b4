"""How much memory a checkpoint takes in each mode, by the shapes of its tensors; the numbers in them are not read.

What the engines keep was read in their code; what they need beyond that, while they load and while they compute, was
measured on the CPU with random weights of the real size (the comments say where). On a GPU nothing of it was measured:
there was none.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mirrorchat.asr import WenetWeights
from mirrorchat.hardware.native_layers import PackedLinears
from mirrorchat.wenet import checkpoint as wenet_checkpoint
from mirrorchat.wenet.batch import U2Batches
from mirrorchat.wenet.features import BINS
from mirrorchat.xtts.checkpoint import read_weights
from mirrorchat.xtts.cuda_graph import LENGTH_STEP
from mirrorchat.xtts.decode import CONDITIONING_POSITIONS, VOICES_KEPT
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.vocoder import BATCH_MOST, MOST_FRAMES

FLOAT32 = 4
XTTS_BYTES = {WeightMode.FP32: 4, WeightMode.FP16W: 2, WeightMode.INT8: 1, WeightMode.BF16: 2, WeightMode.FP16: 2}
WENET_BYTES = {WenetWeights.FP32: 4, WenetWeights.INT8: 1, WenetWeights.BF16: 2, WenetWeights.FP16: 2}
ALIVE = 4  # of the vocoder's largest activations are in memory at once: its input, a sum, two of a residual block
CONTEXT_FRAMES = 13  # of a window on either side
CPU_WORK = 4  # times the vocoder's weights: 0.35 GB in float32 and 0.2 GB in bfloat16 for 8 sentences at once
# Of the copies that WeNet's weights are packed from, what the C library's allocator keeps after they are freed:
# 0.29 GB of 0.49 (and 0.62 of 0.98 with torch's quantization), as much again for a second model.
RETAINED = 0.6
GRAPH_BYTES = 16_000_000  # of a captured step: not measured; its memory comes in segments of 2 and 20 MB
MODULES = "gpt.conditioning_", "hifigan_decoder.speaker_encoder.", "gpt.text_head."  # in float32 in every mode
EMBEDDINGS = "gpt.text_embedding.", "gpt.text_pos_embedding.", "gpt.mel_embedding.", "gpt.mel_pos_embedding."


@dataclass(frozen=True)
class Bytes:
    """What one part takes: `kept` as long as it is there, more while it is `loading`, more while it is at `work`."""

    kept: int
    loading: int = 0
    work: int = 0


@dataclass(frozen=True)
class XttsBytes:
    """The sizes of an XTTS checkpoint. `matrices` are (inputs, outputs) of the GPT's layers and its head, the last."""

    matrices: tuple[tuple[int, int], ...]
    layers: int
    width: int
    positions: int  # of the longest sequence
    modules: int  # numbers in what stays in float32
    embeddings: int
    vocoder: int
    activation: int  # numbers for each frame in the vocoder's largest activation
    converted: int  # bytes that are made of weights stored in another type than float32

    @classmethod
    def read(cls, folder: Path) -> "XttsBytes":
        """Return the sizes of the checkpoint in `folder`. Raises what `read_weights` does, KeyError, IndexError."""
        return cls.of(read_weights(folder))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "XttsBytes":
        """Return the sizes that `weights` have. Raises KeyError, IndexError where they are not XTTS's."""
        blocks = {name: tensor.shape for name, tensor in weights.items() if name.startswith("gpt.gpt.h.")}
        head = weights["gpt.mel_head.weight"].shape
        text, audio = (len(weights[f"gpt.{kind}_pos_embedding.emb.weight"]) for kind in ("text", "mel"))
        return cls(
            matrices=(*((shape[0], shape[1]) for shape in blocks.values() if len(shape) == 2), (head[1], head[0])),
            layers=len({name.split(".")[3] for name in blocks}),
            width=head[1],
            # The tables have 3 positions more than a text may take, which gets 2 of them, and 6 more than an answer.
            positions=CONDITIONING_POSITIONS + (text - 3) + 2 + (audio - 6),
            modules=_numbers(weights, MODULES),
            embeddings=_numbers(weights, EMBEDDINGS),
            vocoder=_numbers(weights, ("hifigan_decoder.waveform_decoder.",)),
            activation=_largest_activation(weights),
            converted=sum(w.numel() * FLOAT32 for w in weights.values() if w.element_size() < FLOAT32),
        )

    def row_bytes(self, mode: WeightMode, *, gpu: bool) -> int:
        """Return the bytes of the keys and values of one sequence. On a GPU it has a position for idle rows."""
        return self._position_bytes(mode) * (self.positions + gpu)

    def _position_bytes(self, mode: WeightMode) -> int:
        itemsize = 2 if mode in (WeightMode.INT8, WeightMode.BF16, WeightMode.FP16) else FLOAT32
        return self.layers * 2 * self.width * itemsize

    def gpt(self, mode: WeightMode, *, gpu: bool) -> Bytes:
        """Return what the GPT's layers take."""
        plain = sum(inputs * outputs for inputs, outputs in self.matrices)
        if mode in (WeightMode.FP16W, WeightMode.INT8):
            kept = sum(PackedLinears.room_for(*shape, XTTS_BYTES[mode]) for shape in self.matrices)
        else:
            kept = plain * XTTS_BYTES[mode]
        one = max(inputs * outputs for inputs, outputs in self.matrices) * FLOAT32  # is there in both forms at a time
        return Bytes(kept, one + (0 if gpu else self.converted))

    def voices(self, *, gpu: bool) -> Bytes:
        """Return what the encoders of voices and the embeddings take; a GPU has the embeddings twice."""
        return Bytes((self.modules + self.embeddings * (2 if gpu else 1)) * FLOAT32)

    def vocoder_bytes(self, mode: WeightMode, *, gpu: bool) -> Bytes:
        """Return what the vocoder takes: a copy of its weights, the original while it loads."""
        itemsize = 2 if mode is WeightMode.INT8 else FLOAT32
        window = (MOST_FRAMES + 2 * CONTEXT_FRAMES) * self.activation * FLOAT32
        work = BATCH_MOST * window * ALIVE if gpu else max(window * ALIVE, CPU_WORK * self.vocoder * itemsize)
        return Bytes(self.vocoder * itemsize, self.vocoder * FLOAT32, work)

    def cache(self, mode: WeightMode, rows: int, *, gpu: bool) -> Bytes:
        """Return what keys and values of `rows` sequences and of the voices take; on a GPU with the captured steps."""
        voices = VOICES_KEPT * CONDITIONING_POSITIONS * self._position_bytes(mode)
        sizes = (rows - 1).bit_length() + 1  # 1, 2, 4, ... rows
        graphs = sizes * -(-self.positions // LENGTH_STEP) * GRAPH_BYTES if gpu else 0
        return Bytes(rows * self.row_bytes(mode, gpu=gpu) + voices + graphs)


@dataclass(frozen=True)
class WenetBytes:
    """The sizes of a WeNet checkpoint. `matrices` counts the numbers that have 8 bits in int8, `others` the rest."""

    matrices: int
    others: int
    width: int
    inner: int  # of the feed-forward layers
    convolved: bool  # the subsampling is by convolutions

    @classmethod
    def read(cls, folder: Path) -> "WenetBytes":
        """Return the sizes of the checkpoint in `folder`. Raises ConfigurationError, KeyError."""
        return cls.of(wenet_checkpoint.read_weights(wenet_checkpoint.weights_path(folder)))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "WenetBytes":
        """Return the sizes that `weights` have. Raises KeyError where they are not WeNet's."""
        packed = {name for name, tensor in weights.items() if tensor.dim() > 1 and ".embed.0." not in name}
        inner = [len(tensor) for name, tensor in weights.items() if name.endswith("feed_forward.w_1.weight")]
        return cls(
            matrices=sum(weights[name].numel() for name in packed),
            others=sum(tensor.numel() for name, tensor in weights.items() if name not in packed),
            width=weights["ctc.ctc_lo.weight"].shape[1],
            inner=max(inner, default=0),
            convolved="encoder.embed.conv.0.weight" in weights,
        )

    def bytes_in(self, kept_as: WenetWeights, *, gpu: bool, native: bool) -> Bytes:
        """Return what a recognizer takes with weights `kept_as`; `native` where the C++ library computes int8.

        On the CPU weights are copied from their file before they are packed. torch's quantization copies them again.
        """
        itemsize = WENET_BYTES[kept_as]
        rest = self.others * (itemsize if gpu else FLOAT32)
        whole = (self.matrices + self.others) * FLOAT32
        copies = 0 if gpu or kept_as is not WenetWeights.INT8 else whole * (1 if native else 2)
        retained = round(RETAINED * copies)
        in_library = kept_as is WenetWeights.INT8 and native
        work = self._work(itemsize if gpu else FLOAT32, in_library)
        return Bytes(self.matrices * itemsize + rest + retained, copies - retained, work)

    def _work(self, itemsize: int, in_library: bool) -> int:
        """Return what a full batch needs. Measured at width 512: 0.70 GB with torch, 0.07 GB with the library."""
        feed_forward = 4 * (U2Batches.frames // 4) * self.inner * itemsize
        if in_library or not self.convolved:
            return feed_forward
        first = (U2Batches.frames // 2) * ((BINS - 1) // 2) * self.width * itemsize  # and what its rectifier gives
        return 2 * first + feed_forward


def runtime_bytes(path: Path) -> Bytes:
    """Return what WeNet's runtime format takes: its tensors are the file, which is whole in memory while it is read."""
    size = path.stat().st_size
    return Bytes(size, size, size)


def _numbers(weights: Mapping[str, Tensor], prefixes: Iterable[str]) -> int:
    return sum(tensor.numel() for name, tensor in weights.items() if name.startswith(tuple(prefixes)))


def _largest_activation(weights: Mapping[str, Tensor]) -> int:
    """Return the numbers that a frame becomes where it is largest. Kernels of upsamplings are two strides wide."""
    decoder = "hifigan_decoder.waveform_decoder"
    sizes, stretched = [len(weights[f"{decoder}.conv_pre.weight"])], 1
    for index in range(len(weights)):
        up = weights.get(f"{decoder}.ups.{index}.parametrizations.weight.original1")
        if up is None:
            break
        stretched *= up.shape[2] // 2
        sizes.append(up.shape[1] * stretched)
    return max(sizes)
