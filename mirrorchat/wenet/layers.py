"""The layers of WeNet's networks in plain PyTorch, with the module and parameter names of WeNet.

These are positional encodings (Vaswani et al., arXiv 1706.03762), attention with and without position terms (Dai et
al., arXiv 1901.02860), and the convolution of the conformer (Gulati et al., arXiv 2005.08100). `torch.jit.script`
compiles all of them.

Shapes: B utterances, S encoder frames, U text tokens, D model width, H attention heads. A mask is true at the positions
that may be attended to; a mask of shape (0, 0, 0) hides nothing. Softmax is always computed in float32.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"swish": nn.SiLU, "relu": nn.ReLU, "gelu": nn.GELU}


def length_mask(lengths: Tensor, size: int) -> Tensor:
    """Return (B, size), true at the positions before each length."""
    return torch.arange(size, device=lengths.device).unsqueeze(0) < lengths.unsqueeze(1)


def chunk_mask(size: int, chunk: int, left_chunks: int, device: torch.device) -> Tensor:
    """Return (size, size): whether the row's frame may attend to the column's, in chunks of `chunk` frames.

    Chunks of 1 frame give the causal mask: each frame attends to the past and to itself.
    """
    index = torch.div(torch.arange(size, device=device), chunk, rounding_mode="floor")
    row, column = index.unsqueeze(1), index.unsqueeze(0)
    seen = column <= row
    if left_chunks >= 0:
        seen = seen & (column >= row - left_chunks)
    return seen


class PositionalEncoding(nn.Module):
    """`abs_pos`: adds the sine and cosine table of Vaswani et al., which is computed for the needed positions.

    WeNet stores a table of 5,000 positions. The values are the same, without the limit of 200 s and without the memory.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        self.scale = math.sqrt(width)
        self.dropout = nn.Dropout(dropout)

    def table(self, offset: int, size: int, like: Tensor) -> Tensor:
        """Return the encoding (1, size, D) of positions `offset` to `offset + size`, with device and type of `like`."""
        positions = torch.arange(offset, offset + size, dtype=torch.float32, device=like.device)
        steps = torch.arange(0, self.width, 2, dtype=torch.float32, device=like.device)
        angles = positions.unsqueeze(1) * torch.exp(steps * -(math.log(10000.0) / self.width))
        return torch.stack((torch.sin(angles), torch.cos(angles)), dim=-1).flatten(1).unsqueeze(0).to(like.dtype)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.dropout(x * self.scale + self.table(offset, x.size(1), x))
        return x


class RelPositionalEncoding(PositionalEncoding):
    """`rel_pos`: scales the input; the attention adds the positions (Transformer-XL, arXiv 1901.02860)."""

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.dropout(x * self.scale)
        return x


class NoPositionalEncoding(PositionalEncoding):
    """`no_pos`: neither scales the input nor adds positions; the attention gets zeros."""

    def table(self, offset: int, size: int, like: Tensor) -> Tensor:
        """Return zeros (1, size, D)."""
        return torch.zeros((1, size, self.width), dtype=like.dtype, device=like.device)

    def forward(self, x: Tensor, offset: int = 0) -> Tensor:
        x = self.dropout(x)
        return x


POSITIONS: dict[str, type[PositionalEncoding]] = {
    "rel_pos": RelPositionalEncoding,
    "abs_pos": PositionalEncoding,
    "no_pos": NoPositionalEncoding,
}


class MultiHeadedAttention(nn.Module):
    """`selfattn`: scaled dot-product attention."""

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
        """Average `values` (B or 1, H, U2, D / H) with the softmax of `scores` (B, H, U1, U2).

        `mask` (B, U1 or 1, U2) is true for the values that count.
        """
        scores = scores.float()
        if mask.size(2) > 0:
            hidden = ~mask.unsqueeze(1)
            # A row without any allowed position, which is padding, gives zeros instead of NaN.
            weights = torch.softmax(scores.masked_fill(hidden, -math.inf), dim=-1).masked_fill(hidden, 0.0)
        else:
            weights = torch.softmax(scores, dim=-1)
        seen = torch.matmul(self.dropout(weights.to(values.dtype)), values)
        mixed: Tensor = self.linear_out(seen.transpose(1, 2).flatten(2))
        return mixed

    def forward(self, query: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Attend from `query` (B, U, D) to `memory` (B, U2, D), or to one shared memory (1, U2, D)."""
        q, k, v = self.split(self.linear_q(query)), self.split(self.linear_k(memory)), self.split(self.linear_v(memory))
        return self.attend(torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(self.head_width), v, mask)

    def keys_and_values(self, x: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values (B, H, cached + S, D / H): those of `cache`, then those of `x` (B, S, D)."""
        k, v = self.split(self.linear_k(x)), self.split(self.linear_v(x))
        if cache.size(0) > 0:
            past_k, past_v = torch.split(cache, self.head_width, dim=-1)
            k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        return k, v

    def forward_cached(self, x: Tensor, mask: Tensor, positions: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from `x` (B, S, D) to the cache and to `x` itself.

        `positions` (1, cached + S, D) are the positions of the keys, which this kind of attention does not use; `cache`
        is (1, H, cached, 2 D / H) or empty. Returns the output, and the cache extended by the new keys and values.
        """
        k, v = self.keys_and_values(x, cache)
        scores = torch.matmul(self.split(self.linear_q(x)), k.transpose(-2, -1)) / math.sqrt(self.head_width)
        return self.attend(scores, v, mask), torch.cat((k, v), dim=-1)


class RelPositionMultiHeadedAttention(MultiHeadedAttention):
    """`rel_selfattn`: self-attention with learned position terms.

    As in WeNet, the position term is not shifted: it scores the position of each key, not its distance to the query.
    """

    def __init__(self, heads: int, width: int, dropout: float) -> None:
        super().__init__(heads, width, dropout)
        self.linear_pos = nn.Linear(width, width, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(heads, self.head_width))
        self.pos_bias_v = nn.Parameter(torch.zeros(heads, self.head_width))
        nn.init.xavier_uniform_(self.pos_bias_u)
        nn.init.xavier_uniform_(self.pos_bias_v)

    def forward_cached(self, x: Tensor, mask: Tensor, positions: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Attend from `x` (B, S, D) to the cache and to `x`, by content and by `positions` (1, cached + S, D)."""
        k, v = self.keys_and_values(x, cache)
        q, p = self.split(self.linear_q(x)), self.split(self.linear_pos(positions))
        by_content = torch.matmul(q + self.pos_bias_u.unsqueeze(1), k.transpose(-2, -1))
        by_position = torch.matmul(q + self.pos_bias_v.unsqueeze(1), p.transpose(-2, -1))
        scores = (by_content + by_position) / math.sqrt(self.head_width)
        return self.attend(scores, v, mask), torch.cat((k, v), dim=-1)


class _AsFloat32(nn.Module):
    """The parametrization of a weight that is kept with 16 bits."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.float()


def keep_in_half(model: nn.Module) -> None:
    """Keep the weights of `model`, which is in float32, in float16; it still computes in float32."""
    kept = [each for each in model.modules() if isinstance(each, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Embedding)]
    for module in kept:
        module.weight = nn.Parameter(module.weight.half(), requires_grad=False)
        register_parametrization(module, "weight", _AsFloat32(), unsafe=True)  # unsafe: the type changes


ATTENTIONS: dict[str, type[MultiHeadedAttention]] = {
    "rel_selfattn": RelPositionMultiHeadedAttention,
    "selfattn": MultiHeadedAttention,
}


class PositionwiseFeedForward(nn.Module):
    def __init__(self, width: int, hidden: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.w_1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]()
        self.dropout = nn.Dropout(dropout)
        self.w_2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.w_2(self.dropout(self.activation(self.w_1(x))))
        return x


class ConvolutionModule(nn.Module):
    """The convolution module of the conformer.

    A causal one computes frame i from frames i - kernel + 1 to i; the cache has the frames before the chunk. Any other
    one uses as many frames before as after frame i, has an odd `kernel` and has no cache.
    """

    def __init__(self, width: int, kernel: int, activation: str, norm: str, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.lorder = kernel - 1 if causal else 0
        self.use_layer_norm = norm == "layer_norm"
        self.pointwise_conv1 = nn.Conv1d(width, 2 * width, 1)
        padding = 0 if causal else (kernel - 1) // 2
        self.depthwise_conv = nn.Conv1d(width, width, kernel, groups=width, padding=padding)
        self.norm = nn.LayerNorm(width) if self.use_layer_norm else nn.BatchNorm1d(width)
        self.activation = ACTIVATIONS[activation]()
        self.pointwise_conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor, mask: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve `x` (B, S, D). `mask` is (B, 1, S) or empty, `cache` (B, D, kernel - 1) or empty."""
        x = x.transpose(1, 2)
        if self.causal:
            x = nn.functional.pad(x, (self.lorder, 0)) if cache.size(2) == 0 else torch.cat((cache, x), dim=2)
        new_cache = x[:, :, x.size(2) - self.lorder :] if self.causal else x.new_zeros((0, 0, 0))
        x = nn.functional.glu(self.pointwise_conv1(x), dim=1)
        if mask.size(2) > 0 and not self.causal:
            # The gate has a bias, so padding must be zeroed here, or it would change the last frames of the utterance.
            x = x.masked_fill(~mask, 0.0)
        x = self.depthwise_conv(x)
        x = self.norm(x.transpose(1, 2)).transpose(1, 2) if self.use_layer_norm else self.norm(x)
        x = self.pointwise_conv2(self.activation(x))
        if mask.size(2) > 0:
            x = x.masked_fill(~mask, 0.0)
        return x.transpose(1, 2), new_cache
