"""The memory that a checkpoint takes in each mode, computed from the shapes of its tensors.

The code of the engines states what they keep. What they need beyond that, while they load and while they compute, was
measured on the CPU with random weights of the real size (the comments say where). Nothing was measured on a GPU.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mirrorchat.asr import WenetWeights
from mirrorchat.hardware.native_layers import PackedLinears
from mirrorchat.startup.memory_small import Bytes
from mirrorchat.wenet import checkpoint as wenet_checkpoint
from mirrorchat.wenet.batch import U2Batches
from mirrorchat.wenet.features import BINS
from mirrorchat.xtts.checkpoint import read_weights
from mirrorchat.xtts.cuda_graph import LENGTH_STEP
from mirrorchat.xtts.decode import CONDITIONING_POSITIONS, PREFIXES_KEPT
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.vocoder import BATCH_MOST, MOST_FRAMES

FLOAT32 = 4
XTTS_BYTES = {WeightMode.FP32: 4, WeightMode.FP16W: 2, WeightMode.INT8: 1, WeightMode.BF16: 2, WeightMode.FP16: 2}
WENET_BYTES = dict.fromkeys(WenetWeights, 2) | {WenetWeights.FP32: 4, WenetWeights.INT8: 1}
ALIVE = 4  # largest activations of the vocoder in memory at once: its input, a sum, two of a residual block
CONTEXT_FRAMES = 13  # on each side of a window
CPU_WORK = 4  # times the vocoder's weights: 0.35 GB in float32 and 0.2 GB in bfloat16 for 8 sentences at once
# The share of the copies of WeNet's weights that the C library's allocator keeps after they are freed: 0.29 GB of 0.49
# (and 0.62 of 0.98 with torch's quantization), as much again for a second model.
RETAINED = 0.6
# Of a captured CUDA graph and its kernels' arguments, and of the memory that all graphs share. Not measured on a GPU.
GRAPH_BYTES, GRAPHS_POOL_BYTES = 4_000_000, 64_000_000
VOICE_BYTES = 200_000_000  # for the activations of 30 s in the speaker encoder, four of 25 MB, and for the prefix
MODULES = "gpt.conditioning_", "hifigan_decoder.speaker_encoder.", "gpt.text_head."  # in float32 in every mode
EMBEDDINGS = "gpt.text_embedding.", "gpt.text_pos_embedding.", "gpt.mel_embedding.", "gpt.mel_pos_embedding."


@dataclass(frozen=True)
class XttsBytes:
    """The sizes of an XTTS checkpoint. `matrices` are (inputs, outputs) of the GPT's layers and, last, of its head."""

    matrices: tuple[tuple[int, int], ...]
    layers: int
    width: int
    positions: int  # of the longest sequence
    modules: int  # numbers in the modules that stay in float32
    embeddings: int
    vocoder: int
    activation: int  # numbers per frame in the vocoder's largest activation
    converted: int  # bytes in float32 of the weights that are stored in another type

    @classmethod
    def read(cls, folder: Path) -> "XttsBytes":
        """Return the sizes of the checkpoint in `folder`. Raises as `of` and `read_weights` do."""
        return cls.of(read_weights(folder))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "XttsBytes":
        """Return the sizes of `weights`. Raises KeyError or IndexError if they are not XTTS's."""
        blocks = {name: tensor.shape for name, tensor in weights.items() if name.startswith("gpt.gpt.h.")}
        head = weights["gpt.mel_head.weight"].shape
        text, audio = (len(weights[f"gpt.{kind}_pos_embedding.emb.weight"]) for kind in ("text", "mel"))
        return cls(
            matrices=(*((shape[0], shape[1]) for shape in blocks.values() if len(shape) == 2), (head[1], head[0])),
            layers=len({name.split(".")[3] for name in blocks}),
            width=head[1],
            # The tables have 3 positions more than the longest text, which uses 2 of them, and 6 more than its audio.
            positions=CONDITIONING_POSITIONS + (text - 3) + 2 + (audio - 6),
            modules=_numbers(weights, MODULES),
            embeddings=_numbers(weights, EMBEDDINGS),
            vocoder=_numbers(weights, ("hifigan_decoder.waveform_decoder.",)),
            activation=_largest_activation(weights),
            converted=sum(w.numel() * FLOAT32 for w in weights.values() if w.element_size() < FLOAT32),
        )

    def slot_bytes(self, mode: WeightMode, *, gpu: bool) -> int:
        """Return the bytes of one slot of the KV cache. On a GPU it has one position more, for idle slots."""
        return self._position_bytes(mode) * (self.positions + gpu)

    def _position_bytes(self, mode: WeightMode) -> int:
        itemsize = 2 if mode in (WeightMode.INT8, WeightMode.BF16, WeightMode.FP16) else FLOAT32
        return self.layers * 2 * self.width * itemsize

    def gpt(self, mode: WeightMode, *, gpu: bool) -> Bytes:
        """Return the memory of the GPT's layers."""
        plain = sum(inputs * outputs for inputs, outputs in self.matrices)
        if mode in (WeightMode.FP16W, WeightMode.INT8) and not gpu:
            kept = sum(PackedLinears.room_for(*shape, XTTS_BYTES[mode]) for shape in self.matrices)
        else:
            kept = plain * XTTS_BYTES[mode]
        one = max(inputs * outputs for inputs, outputs in self.matrices) * FLOAT32  # briefly in both formats
        return Bytes(kept, one + (0 if gpu else self.converted))

    def voices(self, *, gpu: bool) -> Bytes:
        """Return the memory of the voice encoders and the embeddings; a GPU has the embeddings twice."""
        return Bytes((self.modules + self.embeddings * (2 if gpu else 1)) * FLOAT32, work=VOICE_BYTES if gpu else 0)

    def vocoder_bytes(self, mode: WeightMode, *, gpu: bool) -> Bytes:
        """Return the memory of the vocoder: a copy of its weights, and the original during loading."""
        itemsize = 2 if mode is WeightMode.INT8 else FLOAT32
        window = (MOST_FRAMES + 2 * CONTEXT_FRAMES) * self.activation * FLOAT32
        work = BATCH_MOST * window * ALIVE if gpu else max(window * ALIVE, CPU_WORK * self.vocoder * itemsize)
        return Bytes(self.vocoder * itemsize, self.vocoder * FLOAT32, work)

    def cache(self, mode: WeightMode, slots: int, *, gpu: bool) -> Bytes:
        """Return the memory of a KV cache with `slots` slots, and of the voices' prefixes.

        On a GPU each slot has random numbers as well, and as many slots of preempted sequences may be saved.
        """
        voices = PREFIXES_KEPT * CONDITIONING_POSITIONS * self._position_bytes(mode)
        numbers = self.positions * self.matrices[-1][1] * FLOAT32 if gpu else 0  # one for each token of the vocabulary
        slot = self.slot_bytes(mode, gpu=gpu) + numbers
        return Bytes(slots * slot + voices, work=slots * slot if gpu else 0)

    def graphs(self, slots: int) -> Bytes:
        """Return the memory of the CUDA graphs of a GPU: one for 1, 2, 4, ... slots and each length."""
        sizes = (slots - 1).bit_length() + 1
        return Bytes(sizes * -(-self.positions // LENGTH_STEP) * GRAPH_BYTES + GRAPHS_POOL_BYTES)


@dataclass(frozen=True)
class WenetBytes:
    """The sizes of a WeNet checkpoint. `matrices` counts the numbers that int8 keeps in 8 bits, `others` the rest."""

    matrices: int
    others: int
    width: int
    inner: int  # of the feed-forward layers
    convolved: bool  # convolutions do the subsampling
    vocabulary: int

    @classmethod
    def read(cls, folder: Path) -> "WenetBytes":
        """Return the sizes of the checkpoint in `folder`. Raises ConfigurationError and KeyError."""
        return cls.of(wenet_checkpoint.read_weights(wenet_checkpoint.weights_path(folder)))

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "WenetBytes":
        """Return the sizes of `weights`. Raises KeyError if they are not WeNet's."""
        packed = {name for name, tensor in weights.items() if tensor.dim() > 1 and ".embed.0." not in name}
        inner = [len(tensor) for name, tensor in weights.items() if name.endswith("feed_forward.w_1.weight")]
        return cls(
            matrices=sum(weights[name].numel() for name in packed),
            others=sum(tensor.numel() for name, tensor in weights.items() if name not in packed),
            width=weights["ctc.ctc_lo.weight"].shape[1],
            inner=max(inner, default=0),
            convolved="encoder.embed.conv.0.weight" in weights,
            vocabulary=len(weights["ctc.ctc_lo.weight"]),
        )

    def bytes_in(self, kept_as: WenetWeights, *, gpu: bool, native: bool) -> Bytes:
        """Return the memory of a recognizer with weights in `kept_as`; `native` if the C++ library computes int8.

        On the CPU the weights are copied from their file before they are packed. torch's quantization copies them
        again.
        """
        itemsize = WENET_BYTES[kept_as]
        rest = self.others * (itemsize if gpu else FLOAT32)
        if gpu:
            rest += self.vocabulary * self.width * (FLOAT32 - itemsize)  # the CTC layer stays in float32
        whole = (self.matrices + self.others) * FLOAT32
        copies = 0 if gpu or kept_as is not WenetWeights.INT8 else whole * (1 if native else 2)
        retained = round(RETAINED * copies)
        in_library = kept_as is WenetWeights.INT8 and native
        work = self._work(itemsize if gpu and kept_as is not WenetWeights.FP16W else FLOAT32, in_library)
        if gpu:
            work += 2 * (U2Batches.frames // 4) * self.vocabulary * FLOAT32  # scores, and their logarithms
        return Bytes(self.matrices * itemsize + rest + retained, copies - retained, work)

    def _work(self, itemsize: int, in_library: bool) -> int:
        """Return the memory for a full batch. Measured at width 512: 0.70 GB with torch, 0.07 GB with the library."""
        feed_forward = 4 * (U2Batches.frames // 4) * self.inner * itemsize
        if in_library or not self.convolved:
            return feed_forward
        first = (U2Batches.frames // 2) * ((BINS - 1) // 2) * self.width * itemsize  # its rectifier gives as much again
        return 2 * first + feed_forward


def runtime_bytes(path: Path) -> Bytes:
    """Return the memory of WeNet's runtime format. Its tensors are the file, which is read into memory as a whole."""
    size = path.stat().st_size
    return Bytes(size, size, size)


def _numbers(weights: Mapping[str, Tensor], prefixes: Iterable[str]) -> int:
    return sum(tensor.numel() for name, tensor in weights.items() if name.startswith(tuple(prefixes)))


def _largest_activation(weights: Mapping[str, Tensor]) -> int:
    """Return the numbers per frame in the largest activation. The kernels of upsamplings are two strides wide."""
    decoder = "hifigan_decoder.waveform_decoder"
    sizes, stretched = [len(weights[f"{decoder}.conv_pre.weight"])], 1
    for index in range(len(weights)):
        up = weights.get(f"{decoder}.ups.{index}.parametrizations.weight.original1")
        if up is None:
            break
        stretched *= up.shape[2] // 2
        sizes.append(up.shape[1] * stretched)
    return max(sizes)
