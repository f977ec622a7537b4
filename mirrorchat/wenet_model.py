"""The U2++ network of WeNet in plain PyTorch, with WeNet's module and parameter names and its runtime methods.

A conformer encoder (Gulati et al., arXiv 2005.08100) that can be read whole or in chunks, a CTC layer, and a
transformer decoder in each direction over the text (U2++: Wu et al., arXiv 2106.05642; WeNet 2.0: Zhang et al.,
arXiv 2203.15455). `torch.jit.script` turns it into what WeNet's releases hold in `final.zip`.

Shapes: B utterances, T feature frames (10 ms), F mel bins, S encoder frames (40 ms), D the model's width, H attention
heads, N hypotheses, U units of text, V the vocabulary. Masks are true where something may be seen.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class U2Config:
    """The sizes of a network. `sos` and `eos` are unit numbers; WeNet's older recipes use the last unit for both."""

    vocabulary: int
    sos: int
    eos: int
    bins: int = 80
    width: int = 256
    heads: int = 4
    encoder_units: int = 2048
    encoder_blocks: int = 12
    kernel: int = 8
    decoder_heads: int = 4
    decoder_units: int = 2048
    decoder_blocks: int = 3
    reverse_blocks: int = 3
    dropout: float = 0.1


class GlobalCMVN(nn.Module):
    """Subtracts the training set's mean of each mel bin and multiplies by its inverse standard deviation."""

    mean: Tensor
    istd: Tensor

    def __init__(self, mean: Tensor, istd: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("istd", istd)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.istd


class PositionalEncoding(nn.Module):
    """The sine and cosine table of Vaswani et al. (arXiv 1706.03762), worked out for the positions that are asked for.

    WeNet stores a table of 5,000 positions; the values are the same, without its limit of 200 s and its megabytes.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.scale = math.sqrt(width)
        self.dropout = nn.Dropout(dropout)

    def table(self, offset: int, size: int, like: Tensor) -> Tensor:
        """Return positions `offset` to `offset + size`: (1, size, D), in the device and type of `like`."""
        positions = torch.arange(offset, offset + size, dtype=torch.float32, device=like.device)
        steps = torch.arange(0, self.width, 2, dtype=torch.float32, device=like.device)
        angles = positions.unsqueeze(1) * torch.exp(steps * -(math.log(10000.0) / self.width))
        return torch.stack((torch.sin(angles), torch.cos(angles)), dim=-1).flatten(1).unsqueeze(0).to(like.dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x * self.scale + self.table(0, x.size(1), x))
        return x


class RelPositionalEncoding(PositionalEncoding):
    """Scales the input and leaves the positions to the attention (Transformer-XL, arXiv 1901.02860)."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x * self.scale)
        return x


class Conv2dSubsampling4(nn.Module):
    """Two strided convolutions: (B, T, F) to (B, S, D) with S = ((T - 1) // 2 - 1) // 2."""

    def __init__(self, bins: int, width: int, dropout: float) -> None:
        super().__init__()
        # Each output frame sees 7 feature frames, 4 after those that the one before it sees.
        self.subsampling_rate = 4
        self.right_context = 6
        self.conv = nn.Sequential(nn.Conv2d(1, width, 3, 2), nn.ReLU(), nn.Conv2d(width, width, 3, 2), nn.ReLU())
        self.out = nn.Sequential(nn.Linear(width * (((bins - 1) // 2 - 1) // 2), width))
        self.pos_enc = RelPositionalEncoding(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x.unsqueeze(1))
        x = self.pos_enc(self.out(x.transpose(1, 2).flatten(2)))
        return x


class MultiHeadedAttention(nn.Module):
    """Scaled dot-product attention."""

    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.linear_q = nn.Linear(width, width)
        self.linear_k = nn.Linear(width, width)
        self.linear_v = nn.Linear(width, width)
        self.linear_out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def split(self, x: Tensor) -> Tensor:
        """Return (B, U, D) as (B, H, U, D / H)."""
        return x.view(x.size(0), x.size(1), self.heads, self.head_width).transpose(1, 2)

    def attend(self, scores: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        """Weigh `values` (B, H, U2, D / H) by `scores` (B, H, U1, U2); an empty mask (0, 0, 0) hides nothing."""
        if mask.size(2) > 0:
            hidden = ~mask.unsqueeze(1)
            # A row that may see nothing (padding) gives zeros rather than not-a-number.
            weights = torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1).masked_fill(hidden, 0.0)
        else:
            weights = torch.softmax(scores, dim=-1)
        mixed: Tensor = self.linear_out(torch.matmul(self.dropout(weights), values).transpose(1, 2).flatten(2))
        return mixed

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.split(self.linear_q(query)), self.split(self.linear_k(memory)), self.split(self.linear_v(memory))
        return self.attend(torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.head_width), v, mask)


class RelPositionMultiHeadedAttention(MultiHeadedAttention):
    """Self-attention with learned position terms and a cache of past keys and values.

    As in WeNet the position term is not shifted: it scores the position of each key, not its distance.
    """

    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__(heads, width, dropout)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_width))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward_cached(self, x: Tensor, mask: Tensor, positions: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from `x` (B, S, D) to the cache and itself.

        `positions` (1, cached + S, D) are the keys' positions; `cache` is (1, H, cached, 2 D / H), or empty. Returns
        the output and the cache with the new keys and values at its end.
        """
        q, k, v = self.split(self.linear_q(x)), self.split(self.linear_k(x)), self.split(self.linear_v(x))
        if cache.size(0) > 0:
            past_k, past_v = torch.split(cache, self.head_width, dim=-1)
            k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        p = self.split(self.linear_pos(positions))
        by_content = torch.matmul(q + self.pos_bias_u.unsqueeze(1), k.transpose(-2, -1))
        by_position = torch.matmul(q + self.pos_bias_v.unsqueeze(1), p.transpose(-2, -1))
        scores = (by_content + by_position) / math.sqrt(self.head_width)
        return self.attend(scores, v, mask), torch.cat((k, v), dim=-1)


class PositionwiseFeedForward(nn.Module):
    def __init__(self, width: int, units: int, dropout: float, activation: nn.Module) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, units)
        self.activation = activation
        self.dropout = nn.Dropout(dropout)
        self.w_2 = nn.Linear(units, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.w_2(self.dropout(self.activation(self.w_1(x))))
        return x


class ConvolutionModule(nn.Module):
    """The conformer's convolution, causal: frame i sees frames i - kernel + 1 to i, the earliest from the cache."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.lorder = kernel - 1
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        self.depthwise_conv = nn.Conv1d(width, width, kernel, groups=width)
        self.norm = nn.LayerNorm(width)
        self.activation = nn.SiLU()
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve `x` (B, S, D). `mask` is (B, 1, S) or empty, `cache` (B, D, kernel - 1) or empty."""
        x = x.transpose(1, 2)
        if mask.size(2) > 0:
            x = x.masked_fill(~mask, 0.0)
        x = nn.functional.pad(x, (self.lorder, 0)) if cache.size(2) == 0 else torch.cat((cache, x), dim=2)
        new_cache = x[:, :, x.size(2) - self.lorder :]
        x = self.depthwise_conv(nn.functional.glu(self.pointwise_conv1(x), dim=1))
        x = self.activation(self.norm(x.transpose(1, 2)).transpose(1, 2))
        x = self.pointwise_conv2(x)
        if mask.size(2) > 0:
            x = x.masked_fill(~mask, 0.0)
        return x.transpose(1, 2), new_cache


class ConformerEncoderLayer(nn.Module):
    """Half a feed-forward, self-attention, convolution, half a feed-forward: each behind a norm, round a shortcut."""

    def __init__(self, config: U2Config) -> None:
        super().__init__()
        width, units, dropout = config.width, config.encoder_units, config.dropout
        self.self_attn = RelPositionMultiHeadedAttention(config.heads, width, dropout)
        self.feed_forward = PositionwiseFeedForward(width, units, dropout, nn.SiLU())
        self.feed_forward_macaron = PositionwiseFeedForward(width, units, dropout, nn.SiLU())
        self.conv_module = ConvolutionModule(width, config.kernel)
        self.norm_ff = nn.LayerNorm(width)
        self.norm_mha = nn.LayerNorm(width)
        self.norm_ff_macaron = nn.LayerNorm(width)
        self.norm_conv = nn.LayerNorm(width)
        self.norm_final = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, pad_mask: Tensor, att_cache: Tensor, cnn_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer's output (B, S, D) and its new attention and convolution caches."""
        x = x + 0.5 * self.dropout(self.feed_forward_macaron(self.norm_ff_macaron(x)))
        seen, att_cache = self.self_attn.forward_cached(self.norm_mha(x), mask, positions, att_cache)
        x = x + self.dropout(seen)
        heard, cnn_cache = self.conv_module(self.norm_conv(x), pad_mask, cnn_cache)
        x = x + self.dropout(heard)
        x = x + 0.5 * self.dropout(self.feed_forward(self.norm_ff(x)))
        return self.norm_final(x), att_cache, cnn_cache


class ConformerEncoder(nn.Module):
    def __init__(self, config: U2Config, global_cmvn: GlobalCMVN) -> None:
        super().__init__()
        self.global_cmvn = global_cmvn
        self.embed = Conv2dSubsampling4(config.bins, config.width, config.dropout)
        self.encoders = nn.ModuleList([ConformerEncoderLayer(config) for _ in range(config.encoder_blocks)])
        self.after_norm = nn.LayerNorm(config.width)

    def forward(self, x: Tensor, lengths: Tensor, chunk: int = -1, left_chunks: int = -1) -> tuple[Tensor, Tensor]:
        """Encode a padded batch of features.

        `x` is (B, T, F) float32, `lengths` (B) its frames. With `chunk` above 0 a frame sees its own chunk of so many
        encoder frames and `left_chunks` before it (below 0: all of them), as it does in `forward_chunk`. Returns
        (B, S, D) and the mask (B, 1, S) of the frames that are not padding.
        """
        mask = length_mask(lengths, x.size(1)).unsqueeze(1)[:, :, 2::2][:, :, 2::2]
        x = self.embed(self.global_cmvn(x))
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
        """Encode one chunk of one utterance; see `U2Model.forward_encoder_chunk`."""
        x = self.embed(self.global_cmvn(x))
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


class DecoderLayer(nn.Module):
    def __init__(self, config: U2Config) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.self_attn = MultiHeadedAttention(config.decoder_heads, width, dropout)
        self.src_attn = MultiHeadedAttention(config.decoder_heads, width, dropout)
        self.feed_forward = PositionwiseFeedForward(width, config.decoder_units, dropout, nn.ReLU())
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        query = self.norm1(x)
        x = x + self.dropout(self.self_attn(query, query, mask))
        x = x + self.dropout(self.src_attn(self.norm2(x), memory, memory_mask))
        x = x + self.dropout(self.feed_forward(self.norm3(x)))
        return x


class TransformerDecoder(nn.Module):
    """Scores a text from left to right, given the encoder's output."""

    def __init__(self, config: U2Config, blocks: int) -> None:
        super().__init__()
        embedding = nn.Embedding(config.vocabulary, config.width)
        self.embed = nn.Sequential(embedding, PositionalEncoding(config.width, config.dropout))
        self.decoders = nn.ModuleList([DecoderLayer(config) for _ in range(blocks)])
        self.after_norm = nn.LayerNorm(config.width)
        self.output_layer = nn.Linear(config.width, config.vocabulary)

    def forward(self, memory: Tensor, memory_mask: Tensor, units: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits (N, U, V) of the unit after each of `units` (N, U) int64, of which `lengths` count."""
        size = units.size(1)
        past = chunk_mask(size, 1, -1, units.device)
        mask = length_mask(lengths, size).unsqueeze(1) & past.unsqueeze(0)
        x: Tensor = self.embed(units)
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        x = self.output_layer(self.after_norm(x))
        return x


class BiTransformerDecoder(nn.Module):
    """Two decoders: `left_decoder` reads the text forwards, `right_decoder` backwards."""

    def __init__(self, config: U2Config) -> None:
        super().__init__()
        self.left_decoder = TransformerDecoder(config, config.decoder_blocks)
        self.right_decoder = TransformerDecoder(config, config.reverse_blocks)

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor,
        units: Tensor,
        lengths: Tensor,
        reverse: Tensor,
        reverse_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Return both decoders' logits (N, U, V); the second is a scalar 0 when `reverse_weight` is not above 0."""
        left = self.left_decoder(memory, memory_mask, units, lengths)
        right = torch.zeros([], dtype=left.dtype, device=left.device)
        if reverse_weight > 0.0:
            right = self.right_decoder(memory, memory_mask, reverse, lengths)
        return left, right


class CTC(nn.Module):
    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(width, vocabulary)

    def log_softmax(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.ctc_lo(x), dim=-1)


class U2Model(nn.Module):
    """A whole recogniser, with the methods that WeNet's runtime calls on a released `final.zip`."""

    def __init__(self, config: U2Config, global_cmvn: GlobalCMVN) -> None:
        super().__init__()
        self.sos = config.sos
        self.eos = config.eos
        self.encoder = ConformerEncoder(config, global_cmvn)
        self.decoder = BiTransformerDecoder(config)
        self.ctc = CTC(config.width, config.vocabulary)

    @torch.jit.export
    def subsampling_rate(self) -> int:
        """Return the feature frames in one encoder frame."""
        return self.encoder.embed.subsampling_rate

    @torch.jit.export
    def right_context(self) -> int:
        """Return the feature frames that an encoder frame needs after its first."""
        return self.encoder.embed.right_context

    @torch.jit.export
    def sos_symbol(self) -> int:
        return self.sos

    @torch.jit.export
    def eos_symbol(self) -> int:
        return self.eos

    @torch.jit.export
    def is_bidirectional_decoder(self) -> bool:
        return True

    @torch.jit.export
    def forward_encoder_chunk(
        self,
        xs: Tensor,
        offset: int,
        required_cache_size: int,
        # Defaults that WeNet's callers rely on; TorchScript stores them, and nothing writes to them.
        att_cache: Tensor = torch.zeros(0, 0, 0, 0),  # noqa: B008
        cnn_cache: Tensor = torch.zeros(0, 0, 0, 0),  # noqa: B008
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Encode one chunk of one utterance, or all of it.

        `xs` is (1, T, F) with T at least `right_context() + 1`; a chunk of C encoder frames needs
        `(C - 1) * subsampling_rate() + right_context() + 1` feature frames and starts C * subsampling_rate() after the
        last one. `offset` counts the encoder frames before it. `required_cache_size` encoder frames are kept for the
        next chunk (below 0: all). Caches are (layers, H, cached, 2 D / H) and (layers, 1, D, kernel - 1), empty at the
        start. Returns the output (1, S, D) and both caches.
        """
        return self.encoder.forward_chunk(xs, offset, required_cache_size, att_cache, cnn_cache)

    @torch.jit.export
    def ctc_activation(self, xs: Tensor) -> Tensor:
        """Return the CTC log probabilities (1, S, V) of encoder output (1, S, D)."""
        return self.ctc.log_softmax(xs)

    @torch.jit.export
    def forward_attention_decoder(
        self, hyps: Tensor, hyps_lens: Tensor, encoder_out: Tensor, reverse_weight: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """Score hypotheses for rescoring.

        `hyps` (N, U) int64 start with `sos` and are padded at will after `hyps_lens` (N) units, sos counted;
        `encoder_out` is (1, S, D). Returns the log probabilities (N, U, V) of the next unit reading forwards, and of
        the text reversed (a scalar when `reverse_weight` is 0).
        """
        memory = encoder_out.expand(hyps.size(0), -1, -1)
        everything = torch.ones((0, 0, 0), dtype=torch.bool, device=hyps.device)
        backwards = reverse_units(hyps, hyps_lens, self.eos)
        left, right = self.decoder(memory, everything, hyps, hyps_lens, backwards, reverse_weight)
        if reverse_weight > 0.0:
            right = torch.log_softmax(right, dim=-1)
        return torch.log_softmax(left, dim=-1), right


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size), true before each length."""
    return torch.arange(size, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)


def chunk_mask(size: int, chunk: int, left_chunks: int, device: torch.device) -> Tensor:
    """Return (size, size): whether row's frame may see column's, by chunks of `chunk` (1: the past and itself)."""
    index = torch.div(torch.arange(size, device=device), chunk, rounding_mode="floor")
    row, column = index.unsqueeze(1), index.unsqueeze(0)
    seen = column <= row
    if left_chunks >= 0:
        seen = seen & (column >= row - left_chunks)
    return seen


def reverse_units(hyps: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """Return `hyps` (N, U), each starting with sos and `lengths` long, with what follows sos in reverse order."""
    place = torch.arange(hyps.size(1), device=hyps.device).unsqueeze(0)
    inside = place < lengths.unsqueeze(1)
    source = torch.where(inside & (place > 0), lengths.unsqueeze(1) - place, torch.zeros_like(place))
    return torch.gather(hyps, 1, source).masked_fill(~inside, padding)
