"""Streaming recognition: the encoder computes chunk by chunk with caches, and the CTC search continues with each chunk.

A chunk has 16 encoder frames and attends to all frames before it, as in WeNet's simulation of streaming
(`simulate_streaming`, `decoding_chunk_size` 16, `num_decoding_left_chunks` -1; U2: Zhang et al., arXiv 2012.05481).
Attention rescoring chooses one of the n-best hypotheses at the end. All of them begin with the stable prefix.
"""

from contextlib import AbstractContextManager, nullcontext

import torch

from mirrorchat.hardware.devices import uploaded
from mirrorchat.wenet.ctc.search import ContextGraph, FloatArray, Hypothesis, PrefixBeamSearch
from mirrorchat.wenet.features import FRAME_SHIFT_S
from mirrorchat.wenet.frame_scores import FrameScores
from mirrorchat.wenet.model import U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

CHUNK = 16  # encoder frames: 0.64 s if a frame is 40 ms
ALL = -1

Network = torch.jit.ScriptModule | U2Model


def reads_chunks(model: Network) -> bool:
    """Return whether the network can stream: it was trained with chunks and no convolution needs later frames.

    In WeNet's runtime format the attributes of the modules tell this.
    """
    if isinstance(model, U2Model):
        return model.encoder.streams
    encoder = model.encoder
    if hasattr(encoder, "streams"):  # our own network as TorchScript
        return bool(encoder.streams)
    convolutions = [module for name, module in model.named_modules() if name.endswith(".conv_module")]
    if any(int(getattr(each, "lorder", 0)) == 0 for each in convolutions):
        return False
    if not hasattr(encoder, "use_dynamic_chunk"):
        return bool(convolutions)  # a causal convolution has no other purpose
    return bool(encoder.use_dynamic_chunk) or int(encoder.static_chunk_size) > 0


class ChunkReader:
    """The streaming state of one utterance: the caches, the encoder's output and the search.

    A chunk has `chunk` encoder frames and attends to `left_chunks` chunks before it (ALL: all of them). A network with
    one static chunk size always uses that size. The state lies on the model's device; `device_lock` is held while that
    computes, and not during the search. Only the engine's thread uses it.
    """

    def __init__(
        self,
        model: Network,
        *,
        graph: ContextGraph | None = None,
        chunk: int = CHUNK,
        left_chunks: int = ALL,
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._model = model
        self._device_lock = device_lock or nullcontext()
        like = torch.zeros(0)
        if isinstance(model, U2Model):
            like = model.encoder.after_norm.weight
            chunk = model.encoder.fixed_chunk or chunk
        self._device = like.device
        self._caches = (like.new_zeros((0, 0, 0, 0)), like.new_zeros((0, 0, 0, 0)))
        self._kept = chunk * left_chunks
        self._encoded: list[torch.Tensor] = []
        self._search = PrefixBeamSearch(graph=graph)
        rate = int(model.subsampling_rate())
        self.frames = 0  # encoder frames so far
        self.frame_s = rate * FRAME_SHIFT_S
        self.stride = chunk * rate  # feature frames between the starts of two chunks
        self.shortest = int(model.right_context()) + 1  # feature frames of the first encoder frame
        self.window = self.stride - rate + self.shortest  # feature frames of a whole chunk

    def read(self, features: FloatArray) -> None:
        """Encode and search the next chunk, whose features are (T, 80), T from `shortest` to `window`.

        A chunk with T below `window` must be the last one.
        """
        xs = torch.from_numpy(features).unsqueeze(0)
        with self._device_lock:
            xs = uploaded(xs, self._device)
            encoded, *caches = self._model.forward_encoder_chunk(xs, self.frames, self._kept, *self._caches)
            scores = FrameScores.fetched(self._model.ctc_activation(encoded)[0])
        self._search.advance(scores.for_search())
        self._caches = (caches[0], caches[1])
        self._encoded.append(encoded)
        self.frames += encoded.size(1)

    def hypotheses(self) -> list[Hypothesis]:
        """Return the n-best hypotheses so far, best first."""
        return self._search.hypotheses()

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the tokens with which every later hypothesis begins, and the rescored one, too."""
        return self._search.stable_prefix()

    def encoded(self) -> torch.Tensor:
        """Return the encoder's output (1, S, D) so far, on its device. Raises ValueError before the first chunk."""
        if not self._encoded:
            raise ValueError("no chunk has been read")
        return torch.cat(self._encoded, dim=1)

    def rescored(self) -> Hypothesis:
        """Return the hypothesis that attention rescoring chooses. Raises ValueError before the first chunk."""
        hypotheses = self.hypotheses()
        with self._device_lock:
            return attention_rescoring(self._model, hypotheses, self.encoded())
