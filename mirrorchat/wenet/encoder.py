"""WeNet's encoders in plain PyTorch, with the module and parameter names of WeNet.

An encoder has strided convolutions and then the layers of a conformer (Gulati et al., arXiv 2005.08100) or of a
transformer. It encodes whole utterances in padded batches, or one utterance in chunks with caches (U2: Zhang et al.,
arXiv 2012.05481). `torch.jit.script` compiles it.

Shapes: B utterances, T feature frames (10 ms), F mel bins, S encoder frames (40, 60 or 80 ms), D model width, H
attention heads. A mask is true at the positions that may be attended to. The encoder computes in the type of its
weights. Features and CMVN stay float32, because half precision would round the means too much.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mirrorchat.wenet.layers import (
    ACTIVATIONS,
    ATTENTIONS,
    POSITIONS,
    ConvolutionModule,
    PositionalEncoding,
    PositionwiseFeedForward,
    chunk_mask,
    length_mask,
)

ENCODERS = ("conformer", "transformer")
DECODERS = ("bitransformer", "transformer")
CONVOLUTION_NORMS = ("layer_norm", "batch_norm")


@dataclass(frozen=True)
class U2Config:
    """The kind and sizes of a network; the kinds have WeNet's names.

    `sos`, `eos` and `blank` are token numbers; WeNet's older recipes use the last token for both sos and eos. `kernel`,
    `macaron` and the fields that begin with `convolution` belong to the conformer. A network with `static_chunk` above
    0 and without `dynamic_chunk` always encodes in chunks of `static_chunk` encoder frames, as in training; a network
    with neither cannot use chunks. Raises ValueError, naming the field, if no network has these values.
    """

    vocabulary: int
    sos: int
    eos: int
    blank: int = 0
    bins: int = 80
    width: int = 256
    encoder: str = "conformer"
    subsampling: str = "conv2d"
    positions: str = "rel_pos"
    attention: str = "rel_selfattn"
    activation: str = "swish"
    heads: int = 4
    encoder_units: int = 2048
    encoder_blocks: int = 12
    macaron: bool = True
    convolution: bool = True
    convolution_norm: str = "layer_norm"
    kernel: int = 8
    causal: bool = True
    static_chunk: int = 0
    dynamic_chunk: bool = True
    decoder: str = "bitransformer"
    decoder_activation: str = "relu"
    decoder_heads: int = 4
    decoder_units: int = 2048
    decoder_blocks: int = 3
    reverse_blocks: int = 3
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} is {getattr(self, field)!r}, which is not one of {', '.join(choices)}")
        for field in ("heads", "decoder_heads"):
            if self.width % getattr(self, field):
                raise ValueError(f"{field} ({getattr(self, field)}) does not divide width ({self.width})")
        if self.uses_convolution and not self.causal and self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}; a convolution that is not causal needs an odd one")
        if not all(0 <= token < self.vocabulary for token in (self.sos, self.eos, self.blank)):
            raise ValueError(f"sos, eos and blank must be tokens, which are numbered below {self.vocabulary}")

    @property
    def uses_convolution(self) -> bool:
        """Whether the layers have a convolution module."""
        return self.encoder == "conformer" and self.convolution

    @property
    def knows_chunks(self) -> bool:
        """Whether the network was trained with attention that is limited to chunks."""
        return self.dynamic_chunk or self.static_chunk > 0

    @property
    def streams(self) -> bool:
        """Whether `forward_chunk` can encode an utterance chunk by chunk."""
        return self.knows_chunks and (self.causal or not self.uses_convolution)


class GlobalCMVN(nn.Module):
    """Subtracts the mean of each mel bin and multiplies by its inverse standard deviation, both of the training set.

    Both stay float32 when the weights are converted.
    """

    mean: Tensor
    istd: Tensor

    def __init__(self, mean: Tensor, istd: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("istd", istd)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "GlobalCMVN":
        """Move the statistics to another device, but do not convert their type."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.istd


class Conv2dSubsampling(nn.Module):
    """Strided convolutions over time and bins: (B, T, F) to (B, S, D).

    `layers` has the (kernel, stride) of each convolution. Output frame i needs the feature frames from i *
    `subsampling_rate` to i * `subsampling_rate` + `right_context`.
    """

    def __init__(self, bins: int, width: int, layers: Sequence[tuple[int, int]], pos_enc: PositionalEncoding) -> None:
        super().__init__()
        self.subsampling_rate = 1
        self.right_context = 0
        modules: list[nn.Module] = []
        for kernel, stride in layers:
            modules += [nn.Conv2d(width if modules else 1, width, kernel, stride), nn.ReLU()]
            bins = (bins - kernel) // stride + 1
            self.right_context += (kernel - 1) * self.subsampling_rate
            self.subsampling_rate *= stride
        self.conv = nn.Sequential(*modules)
        self.stacked_width = width * bins
        self.pos_enc = pos_enc

    def convolve(self, x: Tensor) -> Tensor:
        """Return (B, S, stacked_width)."""
        x = self.conv(x.unsqueeze(1)).transpose(1, 2).flatten(2)
        return x

    def subsample_mask(self, mask: Tensor) -> Tensor:
        """Return which output frames (B, 1, S) come from no padding; `mask` (B, 1, T) is true outside the padding."""
        return mask[:, :, self.right_context :: self.subsampling_rate]


class Conv2dSubsampling4(Conv2dSubsampling):
    """`conv2d`: S = ((T - 1) // 2 - 1) // 2."""

    def __init__(self, bins: int, width: int, pos_enc: PositionalEncoding) -> None:
        super().__init__(bins, width, [(3, 2), (3, 2)], pos_enc)
        self.out = nn.Sequential(nn.Linear(self.stacked_width, width))

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.pos_enc(self.out(self.convolve(x)), offset)
        return x


class Conv2dSubsampling6(Conv2dSubsampling):
    """`conv2d6`: S = ((T - 1) // 2 - 2) // 3."""

    def __init__(self, bins: int, width: int, pos_enc: PositionalEncoding) -> None:
        super().__init__(bins, width, [(3, 2), (5, 3)], pos_enc)
        self.linear = nn.Linear(self.stacked_width, width)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.pos_enc(self.linear(self.convolve(x)), offset)
        return x


class Conv2dSubsampling8(Conv2dSubsampling):
    """`conv2d8`: S = (((T - 1) // 2 - 1) // 2 - 1) // 2."""

    def __init__(self, bins: int, width: int, pos_enc: PositionalEncoding) -> None:
        super().__init__(bins, width, [(3, 2), (3, 2), (3, 2)], pos_enc)
        self.linear = nn.Linear(self.stacked_width, width)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.pos_enc(self.linear(self.convolve(x)), offset)
        return x


SUBSAMPLINGS: dict[str, type[Conv2dSubsampling4] | type[Conv2dSubsampling6] | type[Conv2dSubsampling8]] = {
    "conv2d": Conv2dSubsampling4,
    "conv2d6": Conv2dSubsampling6,
    "conv2d8": Conv2dSubsampling8,
}
_CHOICES: dict[str, Sequence[str]] = {
    "encoder": ENCODERS,
    "subsampling": tuple(SUBSAMPLINGS),
    "positions": tuple(POSITIONS),
    "attention": tuple(ATTENTIONS),
    "activation": tuple(ACTIVATIONS),
    "convolution_norm": CONVOLUTION_NORMS,
    "decoder": DECODERS,
    "decoder_activation": tuple(ACTIVATIONS),
}


class ConformerEncoderLayer(nn.Module):
    """A conformer layer: half a feed-forward, self-attention, convolution, half a feed-forward.

    Every part has a norm before it and a residual connection around it. A network without `macaron` has no first
    feed-forward and a whole last one. A network without `convolution` has no final norm either.
    """

    def __init__(self, config: U2Config) -> None:
        super().__init__()
        width, hidden, dropout = config.width, config.encoder_units, config.dropout
        self.self_attn = ATTENTIONS[config.attention](config.heads, width, dropout)
        self.feed_forward = PositionwiseFeedForward(width, hidden, dropout, config.activation)
        self.norm_ff = nn.LayerNorm(width)
        self.norm_mha = nn.LayerNorm(width)
        self.feed_forward_macaron: PositionwiseFeedForward | None = None
        self.share = 1.0
        if config.macaron:
            self.feed_forward_macaron = PositionwiseFeedForward(width, hidden, dropout, config.activation)
            self.norm_ff_macaron = nn.LayerNorm(width)
            self.share = 0.5
        self.conv_module: ConvolutionModule | None = None
        if config.convolution:
            self.conv_module = ConvolutionModule(
                width, config.kernel, config.activation, config.convolution_norm, config.causal
            )
            self.norm_conv = nn.LayerNorm(width)
            self.norm_final = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, pad_mask: Tensor, att_cache: Tensor, cnn_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's output (B, S, D) and its new attention and convolution caches."""
        if self.feed_forward_macaron is not None:
            x = x + self.share * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        seen, att_cache = self.self_attn.forward_cached(self.norm_mha(x), mask, positions, att_cache)
        x = x + self.dropout(seen)
        if self.conv_module is not None:
            heard, cnn_cache = self.conv_module(self.norm_conv(x), pad_mask, cnn_cache)
            x = x + self.dropout(heard)
        x = x + self.share * self.dropout(self.feed_forward(self.norm_ff(x)))
        if self.conv_module is not None:
            x = self.norm_final(x)
        return x, att_cache, cnn_cache


class TransformerEncoderLayer(nn.Module):
    """A transformer layer: self-attention and a feed-forward, each with a norm before it and a residual connection."""

    def __init__(self, config: U2Config) -> None:
        super().__init__()
        self.self_attn = ATTENTIONS[config.attention](config.heads, config.width, config.dropout)
        self.feed_forward = PositionwiseFeedForward(
            config.width, config.encoder_units, config.dropout, config.activation
        )
        self.norm1 = nn.LayerNorm(config.width)
        self.norm2 = nn.LayerNorm(config.width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, pad_mask: Tensor, att_cache: Tensor, cnn_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's output (B, S, D), its new attention cache, and the unchanged convolution cache."""
        seen, att_cache = self.self_attn.forward_cached(self.norm1(x), mask, positions, att_cache)
        x = x + self.dropout(seen)
        x = x + self.dropout(self.feed_forward(self.norm2(x)))
        return x, att_cache, cnn_cache


class Encoder(nn.Module):
    def __init__(self, config: U2Config, global_cmvn: GlobalCMVN | None) -> None:
        super().__init__()
        self.bins = config.bins
        self.knows_chunks = config.knows_chunks
        self.streams = config.streams
        self.fixed_chunk = 0 if config.dynamic_chunk else config.static_chunk
        self.global_cmvn = global_cmvn
        pos_enc = POSITIONS[config.positions](config.width, config.dropout)
        self.embed = SUBSAMPLINGS[config.subsampling](config.bins, config.width, pos_enc)
        layer = ConformerEncoderLayer if config.encoder == "conformer" else TransformerEncoderLayer
        self.encoders = nn.ModuleList([layer(config) for _ in range(config.encoder_blocks)])
        self.after_norm = nn.LayerNorm(config.width)

    def normalized(self, x: Tensor) -> Tensor:
        """Return the features (B, T, F) after CMVN, in the type of the weights."""
        if self.global_cmvn is not None:
            x = self.global_cmvn(x)
        return x.to(self.after_norm.weight.dtype)

    def forward(self, x: Tensor, lengths: Tensor, chunk: int = -1, left_chunks: int = -1) -> tuple[Tensor, Tensor]:
        """Encode a padded batch of features; the padding does not change the output of an utterance.

        `x` is (B, T, F) float32 and `lengths` (B) has its numbers of frames. With `chunk` above 0 a frame attends to
        its own chunk of `chunk` encoder frames and to `left_chunks` chunks before it (below 0: all of them), as in
        `forward_chunk`. A network with one static chunk size always uses that size.

        Returns the output (B, S, D) and the mask (B, 1, S) of the frames that are not padding. Raises ValueError for a
        `chunk` if the network was not trained with chunks.
        """
        if chunk > 0 and not self.knows_chunks:
            raise ValueError("this model was not trained to be read in chunks")
        if self.fixed_chunk > 0:
            chunk = self.fixed_chunk
        mask = self.embed.subsample_mask(length_mask(lengths, x.size(1)).unsqueeze(1))
        x = self.embed(self.normalized(x))
        seen = mask
        if chunk > 0:
            seen = mask & chunk_mask(x.size(1), chunk, left_chunks, x.device).unsqueeze(0)
        positions = self.embed.pos_enc.table(0, x.size(1), x)
        no_att_cache = torch.zeros((0, 0, 0, 0), dtype=x.dtype, device=x.device)
        no_cnn_cache = torch.zeros((0, 0, 0), dtype=x.dtype, device=x.device)
        for layer in self.encoders:
            x, _, _ = layer(x, seen, positions, mask, no_att_cache, no_cnn_cache)
        return self.after_norm(x), mask

    def forward_chunk(
        self, x: Tensor, offset: int, required_cache_size: int, att_cache: Tensor, cnn_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one chunk of an utterance; see `U2Model.forward_encoder_chunk`."""
        if offset > 0 and not self.streams:
            raise ValueError("this model cannot be read in chunks: it was trained to attend to later frames")
        x = self.embed(self.normalized(x), offset)
        cached = att_cache.size(2)
        keys = cached + x.size(1)
        positions = self.embed.pos_enc.table(offset - cached, keys, x)
        keep_from = 0 if required_cache_size < 0 else max(keys - required_cache_size, 0)
        everything = torch.ones((0, 0, 0), dtype=torch.bool, device=x.device)
        att_caches: list[Tensor] = []
        cnn_caches: list[Tensor] = []
        for i, layer in enumerate(self.encoders):
            layer_att = att_cache[i : i + 1] if att_cache.size(0) > 0 else att_cache
            layer_cnn = cnn_cache[i] if cnn_cache.size(0) > 0 else cnn_cache.flatten(0, 1)
            x, layer_att, layer_cnn = layer(x, everything, positions, everything, layer_att, layer_cnn)
            att_caches.append(layer_att[:, :, keep_from:])
            cnn_caches.append(layer_cnn.unsqueeze(0))
        return self.after_norm(x), torch.cat(att_caches), torch.cat(cnn_caches)
