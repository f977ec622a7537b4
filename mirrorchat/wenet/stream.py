"""Speech through WeNet's encoder chunk by chunk, with its caches, and a search that goes on.

A chunk is 16 encoder frames and sees all before it, as in WeNet's simulation of streaming (`simulate_streaming`,
`decoding_chunk_size` 16, `num_decoding_left_chunks` -1; U2: arXiv 2012.05481). At the end the attention decoders choose
among the search's readings, which all begin with what was stable before.
"""

import torch

from mirrorchat.wenet.ctc.search import ContextGraph, FloatArray, Hypothesis, PrefixBeamSearch
from mirrorchat.wenet.features import FRAME_SHIFT_S
from mirrorchat.wenet.model import U2Model
from mirrorchat.wenet.rescoring import attention_rescoring

CHUNK = 16  # encoder frames: 0.64 s where one is 40 ms
ALL = -1

Network = torch.jit.ScriptModule | U2Model


def reads_chunks(model: Network) -> bool:
    """Tell whether the network can be read piece by piece: trained so, and with no convolution that hears ahead.

    WeNet's runtime format says so in the attributes of its modules.
    """
    if isinstance(model, U2Model):
        return model.encoder.streams
    encoder = model.encoder
    if hasattr(encoder, "streams"):  # a network of ours as TorchScript
        return bool(encoder.streams)
    convolutions = [module for name, module in model.named_modules() if name.endswith(".conv_module")]
    if any(int(getattr(each, "lorder", 0)) == 0 for each in convolutions):
        return False
    if not hasattr(encoder, "use_dynamic_chunk"):
        return bool(convolutions)  # a causal one is there for nothing else
    return bool(encoder.use_dynamic_chunk) or int(encoder.static_chunk_size) > 0


class ChunkReader:
    """One utterance, read in chunks of `chunk` encoder frames that see `left_chunks` before them (ALL: all).

    What it holds lies on the model's device. Not thread-safe: for the engine's thread. A network of one static chunk is
    read in that one.
    """

    def __init__(
        self, model: Network, *, graph: ContextGraph | None = None, chunk: int = CHUNK, left_chunks: int = ALL
    ) -> None:
        self._model = model
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
        self.stride = chunk * rate  # feature frames from one chunk to the next
        self.shortest = int(model.right_context()) + 1  # feature frames that give an encoder frame
        self.window = self.stride - rate + self.shortest  # feature frames that a whole chunk needs

    def read(self, features: FloatArray) -> None:
        """Read the next chunk's features (T, 80), T from `shortest` to `window`; less than that ends the utterance."""
        xs = torch.from_numpy(features).unsqueeze(0).to(self._device)
        encoded, *caches = self._model.forward_encoder_chunk(xs, self.frames, self._kept, *self._caches)
        self._search.advance(self._model.ctc_activation(encoded)[0].float().cpu().numpy())
        self._caches = (caches[0], caches[1])
        self._encoded.append(encoded)
        self.frames += encoded.size(1)

    def hypotheses(self) -> list[Hypothesis]:
        """Return the best readings of what was read, best first."""
        return self._search.hypotheses()

    def stable_prefix(self) -> tuple[int, ...]:
        """Return the tokens with which every later reading begins, `rescored` too."""
        return self._search.stable_prefix()

    def encoded(self) -> torch.Tensor:
        """Return the encoder's output (1, S, D) so far, on its device. Raises ValueError where nothing was read."""
        if not self._encoded:
            raise ValueError("no chunk has been read")
        return torch.cat(self._encoded, dim=1)

    def rescored(self) -> Hypothesis:
        """Return the reading that the attention decoders choose. Raises ValueError where nothing was read."""
        return attention_rescoring(self._model, self.hypotheses(), self.encoded())
