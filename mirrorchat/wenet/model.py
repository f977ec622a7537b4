"""The U2 and U2++ networks of WeNet in plain PyTorch, with the parameter names and runtime methods of WeNet.

A network has an encoder (`wenet/encoder.py`), a CTC layer and an attention decoder. U2 has one transformer decoder
(Zhang et al., arXiv 2012.05481); U2++ has one for each direction of the text (Wu et al., arXiv 2106.05642; WeNet 2.0:
Zhang et al., arXiv 2203.15455). `torch.jit.script` turns a network into the format of WeNet's released `final.zip`.

Shapes: S encoder frames, T feature frames (10 ms), F mel bins, D model width, H attention heads, N hypotheses, U text
tokens, V tokens of the vocabulary. A mask is true at the positions that may be attended to.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mirrorchat.wenet.encoder import Encoder, GlobalCMVN, U2Config
from mirrorchat.wenet.layers import (
    MultiHeadedAttention,
    PositionalEncoding,
    PositionwiseFeedForward,
    chunk_mask,
    length_mask,
)

__all__ = ["GlobalCMVN", "U2Config", "U2Model", "chunk_mask", "length_mask", "reverse_tokens"]


class DecoderLayer(nn.Module):
    def __init__(self, config: U2Config) -> None:
        super().__init__()
        width, dropout = config.width, config.dropout
        self.self_attn = MultiHeadedAttention(config.decoder_heads, width, dropout)
        self.src_attn = MultiHeadedAttention(config.decoder_heads, width, dropout)
        self.feed_forward = PositionwiseFeedForward(width, config.decoder_units, dropout, config.decoder_activation)
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
    """The attention decoder for one direction: it scores a text from left to right, given the encoder's output."""

    def __init__(self, config: U2Config, blocks: int) -> None:
        super().__init__()
        embedding = nn.Embedding(config.vocabulary, config.width)
        self.embed = nn.Sequential(embedding, PositionalEncoding(config.width, config.dropout))
        self.decoders = nn.ModuleList([DecoderLayer(config) for _ in range(blocks)])
        self.after_norm = nn.LayerNorm(config.width)
        self.output_layer = nn.Linear(config.width, config.vocabulary)

    def logits(self, memory: Tensor, memory_mask: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the logits (N, U, V) of the token after each of `tokens` (N, U) int64; `lengths` of them count."""
        size = tokens.size(1)
        past = chunk_mask(size, 1, -1, tokens.device)
        mask = length_mask(lengths, size).unsqueeze(1) & past.unsqueeze(0)
        x: Tensor = self.embed(tokens)
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        x = self.output_layer(self.after_norm(x))
        return x

    def hidden_at(self, memory: Tensor, memory_mask: Tensor, tokens: Tensor, places: Tensor, mask: Tensor) -> Tensor:
        """Return the input (N, U, D) of `output_layer` for `tokens` (N, U) int64 that may belong to several texts.

        `places` (N, U) int64 are the positions of the tokens in their texts, with sos at 0. `mask` (N, U, U) is true
        for the tokens that precede a token in its text, and for the token itself.
        """
        embedding, positions = self.embed[0], self.embed[1]
        assert isinstance(positions, PositionalEncoding)
        x: Tensor = embedding(tokens) * positions.scale
        x = x + positions.table(0, tokens.size(1), x)[0, places]  # no place is beyond the number of tokens
        for layer in self.decoders:
            x = layer(x, mask, memory, memory_mask)
        hidden: Tensor = self.after_norm(x)
        return hidden

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        reverse: Tensor,
        reverse_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Return the logits (N, U, V), and a scalar 0 for the missing backward direction."""
        left = self.logits(memory, memory_mask, tokens, lengths)
        return left, torch.zeros([], dtype=left.dtype, device=left.device)


class BiTransformerDecoder(nn.Module):
    """The two attention decoders of U2++: `left_decoder` reads the text forwards, `right_decoder` backwards."""

    def __init__(self, config: U2Config) -> None:
        super().__init__()
        self.left_decoder = TransformerDecoder(config, config.decoder_blocks)
        self.right_decoder = TransformerDecoder(config, config.reverse_blocks)

    def forward(
        self,
        memory: Tensor,
        memory_mask: Tensor,
        tokens: Tensor,
        lengths: Tensor,
        reverse: Tensor,
        reverse_weight: float,
    ) -> tuple[Tensor, Tensor]:
        """Return both decoders' logits (N, U, V); the second is a scalar 0 unless `reverse_weight` is above 0."""
        left = self.left_decoder.logits(memory, memory_mask, tokens, lengths)
        right = torch.zeros([], dtype=left.dtype, device=left.device)
        if reverse_weight > 0.0:
            right = self.right_decoder.logits(memory, memory_mask, reverse, lengths)
        return left, right


class CTC(nn.Module):
    """The CTC layer. It stays float32 when the weights are converted: with 16 bits many tokens would score the same."""

    def __init__(self, width: int, vocabulary: int) -> None:
        super().__init__()
        self.ctc_lo = nn.Linear(width, vocabulary)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CTC":
        """Move the layer to another device, but do not convert its type."""
        super()._apply(lambda tensor: tensor.to(fn(tensor).device), recurse)  # type: ignore[no-untyped-call]
        return self

    def log_softmax(self, x: Tensor) -> Tensor:
        return torch.log_softmax(self.ctc_lo(x.float()), dim=-1)


class U2Model(nn.Module):
    """A whole network, with the methods that WeNet's runtime calls on a released `final.zip`."""

    def __init__(self, config: U2Config, global_cmvn: GlobalCMVN | None) -> None:
        super().__init__()
        self.sos = config.sos
        self.eos = config.eos
        self.bidirectional = config.decoder == "bitransformer"
        self.encoder = Encoder(config, global_cmvn)
        self.decoder: BiTransformerDecoder | TransformerDecoder
        if self.bidirectional:
            self.decoder = BiTransformerDecoder(config)
        else:
            self.decoder = TransformerDecoder(config, config.decoder_blocks)
        self.ctc = CTC(config.width, config.vocabulary)

    @torch.jit.export
    def subsampling_rate(self) -> int:
        """Return the number of feature frames in one encoder frame."""
        return self.encoder.embed.subsampling_rate

    @torch.jit.export
    def right_context(self) -> int:
        """Return the number of feature frames that an encoder frame needs after its first one."""
        return self.encoder.embed.right_context

    @torch.jit.export
    def sos_symbol(self) -> int:
        return self.sos

    @torch.jit.export
    def eos_symbol(self) -> int:
        return self.eos

    @torch.jit.export
    def is_bidirectional_decoder(self) -> bool:
        return self.bidirectional

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
        """Encode one chunk of an utterance, or the whole utterance.

        `xs` is (1, T, F) with T at least `right_context() + 1`. A chunk of C encoder frames needs
        `(C - 1) * subsampling_rate() + right_context() + 1` feature frames; the next chunk starts C *
        subsampling_rate() feature frames later. `offset` is the number of encoder frames before the chunk.
        `required_cache_size` encoder frames are kept for the next chunk (below 0: all). The caches are
        (layers, H, cached, 2 D / H) and (layers, 1, D, kernel - 1), empty at the start; the second one stays empty if
        no convolution is causal.

        Returns the output (1, S, D) and both caches. Raises ValueError for an `offset` above 0 if the network cannot
        stream (`U2Config.streams`).
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
        """Score hypotheses for attention rescoring.

        `hyps` (N, U) int64 start with `sos` and have any padding after `hyps_lens` (N) tokens, including sos;
        `encoder_out` is (1, S, D). Returns the log probabilities (N, U, V) of the next token in the text, and in the
        reversed text (a scalar if `reverse_weight` is 0 or there is no backward decoder).
        """
        everything = torch.ones((0, 0, 0), dtype=torch.bool, device=hyps.device)
        backwards = reverse_tokens(hyps, hyps_lens, self.eos)
        left, right = self.decoder(encoder_out, everything, hyps, hyps_lens, backwards, reverse_weight)
        if self.bidirectional and reverse_weight > 0.0:
            right = torch.log_softmax(right, dim=-1)
        return torch.log_softmax(left, dim=-1), right


def reverse_tokens(hyps: Tensor, lengths: Tensor, padding: int) -> Tensor:
    """Return `hyps` (N, U), which start with sos and are `lengths` long, with the tokens after sos reversed."""
    place = torch.arange(hyps.size(1), device=hyps.device).unsqueeze(0)
    inside = place < lengths.unsqueeze(1)
    source = torch.where(inside & (place > 0), lengths.unsqueeze(1) - place, torch.zeros_like(place))
    return torch.gather(hyps, 1, source).masked_fill(~inside, padding)
