"""The layers of WeNet's networks with 8-bit weights, computed by the C++ library (native/wenet.cpp).

Each layer is built from a layer of `wenet/layers.py`, `wenet/encoder.py` or `wenet/model.py`, computes the same and
replaces it. Weights have 8 bits and a scale for each output, activations have 8 bits and a scale for each row, and sums
are exact. PyTorch computes the attention itself, in float32.
"""

import ctypes
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mirrorchat.hardware import native
from mirrorchat.hardware.native_layers import DEPTH, Int, LinearFields, NormFields, PackedLinears, Pointer, at
from mirrorchat.wenet.encoder import ConformerEncoderLayer, TransformerEncoderLayer
from mirrorchat.wenet.layers import (
    ConvolutionModule,
    MultiHeadedAttention,
    PositionwiseFeedForward,
    RelPositionMultiHeadedAttention,
)
from mirrorchat.wenet.model import DecoderLayer

LANES = 16  # the width of a network must be a multiple of it
BAND = 6  # frames of the second convolution at once: their input from the first one stays in the CPU's cache
ACTIVATIONS: dict[type[nn.Module], int] = {nn.ReLU: 1, nn.SiLU: 2, nn.GELU: 3}  # as native/wenet.cpp numbers them
GATE = 4


class _ProductFields(ctypes.Structure):
    _fields_ = [("linear", LinearFields), ("inputs", Int), ("outputs", Int), ("norm", Pointer), ("activation", Int)]


class _DepthwiseFields(ctypes.Structure):
    _fields_ = [
        *((name, Int) for name in ("width", "kernel", "before")),
        *((name, Pointer) for name in ("weight", "bias", "norm")),
        ("activation", Int),
    ]


class _FirstConvolutionFields(ctypes.Structure):
    _fields_ = [
        *((name, Int) for name in ("bins", "channels", "kernel", "stride", "bins_out")),
        *((name, Pointer) for name in ("weight", "bias")),
    ]


class Backend:
    """The library, the packed weights of one network, and the threads that compute with them.

    Thread-safe: one call computes at a time.
    """

    def __init__(self, library: native.Library, threads: int, size: int) -> None:
        self.functions = library.functions
        self.team = native.Team(library, threads)
        self.linears = PackedLinears(library, self.team, planes=1, room=size)
        create = self.functions.wenet_create
        create.restype = Pointer
        self.pointer = create(Pointer(self.team.pointer))
        if self.pointer is None:
            raise MemoryError("too little memory for WeNet's network")

    def __del__(self) -> None:
        self.functions.wenet_destroy(Pointer(self.pointer))


class Norm:
    """The weights of a layer normalization, in memory that the library reads."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        self._kept = norm.weight.detach().clone(), norm.bias.detach().clone()
        self.fields = NormFields(*(each.data_ptr() for each in self._kept), norm.eps)
        self.address = ctypes.addressof(self.fields)


class Product:
    """One or more linear layers with the same input, as one matrix product.

    It may have a norm before it and an activation after it.
    """

    def __init__(
        self,
        backend: Backend,
        layers: Sequence[nn.Module],
        *,
        norm: nn.LayerNorm | None = None,
        activation: nn.Module | None = None,
    ) -> None:
        matrices = [layer.get_parameter("weight").detach().flatten(1) for layer in layers]
        biases = [
            torch.zeros(len(matrix)) if layer.bias is None else layer.get_parameter("bias").detach()
            for layer, matrix in zip(layers, matrices, strict=True)
        ]
        number = 0 if activation is None else ACTIVATIONS[type(activation)]
        self._pack(backend, matrices, torch.cat(biases), norm, number)

    @classmethod
    def of_matrix(cls, backend: Backend, matrix: Tensor, bias: Tensor, activation: int = 0) -> "Product":
        """Return the product with `matrix` (outputs, inputs) and `bias` (outputs,)."""
        product = cls.__new__(cls)
        product._pack(backend, [matrix], bias, None, activation)
        return product

    @classmethod
    def gated(cls, backend: Backend, layer: nn.Conv1d, norm: nn.LayerNorm) -> "Product":
        """Return the product of `layer`, a convolution with kernel 1, with a gated linear unit after it.

        The library expects 16 values, then the 16 gates of these values, and so on.
        """
        matrix, bias = layer.weight.detach()[:, :, 0], layer.get_parameter("bias").detach()
        order = torch.arange(len(matrix)).view(2, -1, LANES).transpose(0, 1).flatten()
        product = cls.__new__(cls)
        with native.mapped_in(matrix):
            product._pack(backend, [matrix[order]], bias[order], norm, GATE)
        product.outputs = product._fields.outputs = len(matrix) // 2
        return product

    def _pack(
        self, backend: Backend, matrices: Sequence[Tensor], bias: Tensor, norm: nn.LayerNorm | None, activation: int
    ) -> None:
        self._backend = backend
        inputs = matrices[0].shape[1]
        self.outputs = len(bias)
        packed = torch.zeros(whole(inputs), self.outputs)
        first = 0
        for matrix in matrices:
            with native.mapped_in(matrix):
                packed[:inputs, first : first + len(matrix)] = matrix.t()
            first += len(matrix)
        linear = backend.linears.add(packed, bias)
        self._norm = None if norm is None else Norm(norm)
        address = None if self._norm is None else self._norm.address
        self._fields = _ProductFields(linear, inputs, self.outputs, address, activation)
        self.reference = ctypes.byref(self._fields)

    def without_norm(self) -> "Product":
        """Return the same product for an input that has already been normalized."""
        product = Product.__new__(Product)
        product._backend, product.outputs, product._norm = self._backend, self.outputs, None
        fields = self._fields
        product._fields = _ProductFields(fields.linear, fields.inputs, fields.outputs, None, fields.activation)
        product.reference = ctypes.byref(product._fields)
        return product

    def __call__(self, x: Tensor) -> Tensor:
        """Return (..., outputs) for `x` (..., inputs) float32."""
        out = torch.empty(*x.shape[:-1], self.outputs)
        self._multiply(x, 0.0, out)
        return out

    def add(self, x: Tensor, to: Tensor) -> None:
        """Add the product with `x` (..., inputs) to `to` (..., outputs), which is contiguous."""
        self._multiply(x, 1.0, to)

    def _multiply(self, x: Tensor, share: float, out: Tensor) -> None:
        x = x.contiguous()
        count = x.numel() // x.shape[-1]
        done = self._backend.functions.wenet_multiply(
            Pointer(self._backend.pointer), self.reference, at(x), Int(count), ctypes.c_double(share), at(out)
        )
        check(done)


class FeedForward:
    """A residual feed-forward: x + `share` * `layer`(`norm`(x))."""

    def __init__(self, backend: Backend, layer: PositionwiseFeedForward, norm: nn.LayerNorm, share: float) -> None:
        self._backend, self._share = backend, ctypes.c_double(share)
        self._first = Product(backend, [layer.w_1], norm=norm, activation=layer.activation)
        self._second = Product(backend, [layer.w_2])

    def add(self, x: Tensor) -> None:
        """Change `x` (..., D), which is contiguous, in place."""
        done = self._backend.functions.wenet_feed_forward(
            Pointer(self._backend.pointer),
            self._first.reference,
            self._second.reference,
            at(x),
            Int(x.numel() // x.shape[-1]),
            self._share,
            at(x),
        )
        check(done)


class Linear(nn.Module):
    """A linear layer."""

    def __init__(self, backend: Backend, layer: nn.Linear) -> None:
        super().__init__()
        self._product = Product(backend, [layer])

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x)


def attend(q: Tensor, k: Tensor, v: Tensor, by_key: Tensor | None, mask: Tensor) -> Tensor:
    """Return the attention (B, U, D) of queries (B, H, U, D / H) over keys and values (B or 1, H, U2, D / H).

    `by_key` (B, H, 1, U2) is added to the scores of each query. `mask` (B, U or 1, U2) is true for the keys that count;
    a mask of shape (0, 0, 0) hides nothing. A query without any key gets zeros.
    """
    k, v = k.expand(q.shape[0], -1, -1, -1), v.expand(q.shape[0], -1, -1, -1)
    if mask.size(2) > 0:
        hidden = ~mask.unsqueeze(1)
        if by_key is None:
            by_key = torch.zeros(1, 1, 1, 1)
        by_key = by_key.masked_fill(hidden, -math.inf)
    seen = F.scaled_dot_product_attention(q, k, v, attn_mask=by_key)
    if mask.size(1) > 1:  # some of the queries are padding
        seen = seen.masked_fill(~mask.any(dim=2)[:, None, :, None], 0.0)
    return seen.transpose(1, 2).flatten(2)


class SelfAttention:
    """A residual self-attention: x + `layer`(`norm`(x))."""

    def __init__(self, backend: Backend, layer: MultiHeadedAttention, norm: nn.LayerNorm) -> None:
        self._heads, self._scale = layer.heads, 1.0 / math.sqrt(layer.head_width)
        self._qkv = Product(backend, [layer.linear_q, layer.linear_k, layer.linear_v], norm=norm)
        self._out = Product(backend, [layer.linear_out])
        self._position: Product | None = None
        if isinstance(layer, RelPositionMultiHeadedAttention):
            self._position = Product(backend, [layer.linear_pos])
            self._content_bias = layer.pos_bias_u.detach().unsqueeze(2).clone()  # (H, D / H, 1)
            self._position_bias = layer.pos_bias_v.detach().unsqueeze(2).clone()

    def add(self, x: Tensor, mask: Tensor, positions: Tensor | None, cache: Tensor | None) -> Tensor | None:
        """Change `x` (B, U, D), which is contiguous, in place.

        `positions` (1, cached + U, D) are the positions of the keys, for attention that uses them. `cache` is
        (1, H, cached, 2 D / H), empty or None. Returns the cache extended by the new keys and values, None without one.
        """
        q, k, v = split(self._qkv(x), 3, self._heads)
        if cache is not None and cache.size(0) > 0:
            past_k, past_v = cache.chunk(2, dim=-1)
            k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
        by_key, keys = None, k
        if self._position is not None and positions is not None:
            # (q + u) k + (q + v) p = q (k + p) + u k + v p
            (p,) = split(self._position(positions), 1, self._heads)
            by_key = (torch.matmul(k, self._content_bias) + torch.matmul(p, self._position_bias)).transpose(2, 3)
            keys, by_key = k + p, by_key * self._scale
        self._out.add(attend(q, keys, v, by_key, mask), x)
        return None if cache is None else torch.cat((k, v), dim=-1)


class SourceAttention:
    """A residual attention to the encoder's output: x + `layer`(`norm`(x), memory)."""

    def __init__(self, backend: Backend, layer: MultiHeadedAttention, norm: nn.LayerNorm) -> None:
        self._heads = layer.heads
        self._q = Product(backend, [layer.linear_q], norm=norm)
        self._kv = Product(backend, [layer.linear_k, layer.linear_v])
        self._out = Product(backend, [layer.linear_out])

    def add(self, x: Tensor, memory: Tensor, mask: Tensor) -> None:
        """Change `x` (N, U, D), which is contiguous, in place; `memory` is (N or 1, S, D)."""
        (q,) = split(self._q(x), 1, self._heads)
        k, v = split(self._kv(memory), 2, self._heads)
        self._out.add(attend(q, k, v, None, mask), x)


class Convolution:
    """A residual convolution module: x + `layer`(`norm`(x))."""

    def __init__(self, backend: Backend, layer: ConvolutionModule, norm: nn.LayerNorm) -> None:
        self._functions, self._team, self._norm, self._causal = backend.functions, backend.team, norm, layer.causal
        self._first = Product.gated(backend, layer.pointwise_conv1, norm)
        self._first_of_normed = self._first.without_norm()
        self._second = Product(backend, [layer.pointwise_conv2])
        self._context = layer.lorder
        gates = layer.pointwise_conv1.get_parameter("bias").detach()
        self._silence = F.glu(gates, dim=0).repeat(layer.lorder, 1)  # of `_first`, for zeros
        weight = layer.depthwise_conv.weight.detach()[:, 0].t()  # (kernel, D)
        bias = layer.depthwise_conv.get_parameter("bias").detach()
        self._inner_norm = Norm(layer.norm) if isinstance(layer.norm, nn.LayerNorm) else None
        if isinstance(layer.norm, nn.BatchNorm1d):
            weight, bias = folded(layer.norm, weight, bias)
        self._kept = weight.contiguous().clone(), bias.clone()
        kernel, width = weight.shape
        self._fields = _DepthwiseFields(
            width,
            kernel,
            layer.lorder if layer.causal else (kernel - 1) // 2,
            *(each.data_ptr() for each in self._kept),
            None if self._inner_norm is None else self._inner_norm.address,
            ACTIVATIONS[type(layer.activation)],
        )

    def add(self, x: Tensor, mask: Tensor, cache: Tensor) -> Tensor:
        """Change `x` (B, S, D), which is contiguous, in place.

        `mask` is (B, 1, S), or empty if `x` is a chunk. Then `cache`, (1, D, kernel - 1) or empty, is the input of the
        layer before the chunk. Returns the cache for the next chunk.
        """
        earlier = self._silence if self._causal else None
        in_chunks = mask.size(2) == 0
        if in_chunks and self._causal:
            before = cache if cache.size(2) > 0 else x.new_zeros((1, x.shape[2], self._context))
            earlier = self._first_of_normed(before[0].t()) if cache.size(2) > 0 else earlier
            cache = torch.cat((before, self._norm(x).transpose(1, 2)), dim=2)[:, :, x.shape[1] :]
        gated = self._first(x)
        if not in_chunks and not self._causal:
            gated = gated.masked_fill(~mask.transpose(1, 2), 0.0)
        heard = torch.empty_like(gated)
        self._functions.wenet_depthwise(
            Pointer(self._team.pointer),
            ctypes.byref(self._fields),
            at(gated),
            None if earlier is None else at(earlier),
            *map(Int, x.shape[:2]),
            at(heard),
        )
        self._second.add(heard, x)
        return cache if self._causal else x.new_zeros((0, 0, 0))


class EncoderLayer(nn.Module):
    """A layer of a conformer or transformer encoder. It overwrites its input."""

    def __init__(self, backend: Backend, layer: ConformerEncoderLayer | TransformerEncoderLayer) -> None:
        super().__init__()
        self._macaron: FeedForward | None = None
        self._convolution: Convolution | None = None
        self.norm_final: nn.Module = nn.Identity()
        if isinstance(layer, ConformerEncoderLayer):
            norms = layer.norm_mha, layer.norm_ff
            share = layer.share
            if layer.feed_forward_macaron is not None:
                self._macaron = FeedForward(backend, layer.feed_forward_macaron, layer.norm_ff_macaron, share)
            if layer.conv_module is not None:
                self._convolution = Convolution(backend, layer.conv_module, layer.norm_conv)
                self.norm_final = layer.norm_final
        else:
            norms, share = (layer.norm1, layer.norm2), 1.0
        self._attention = SelfAttention(backend, layer.self_attn, norms[0])
        self._feed_forward = FeedForward(backend, layer.feed_forward, norms[1], share)

    def forward(
        self, x: Tensor, mask: Tensor, positions: Tensor, pad_mask: Tensor, att_cache: Tensor, cnn_cache: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        if self._macaron is not None:
            self._macaron.add(x)
        kept = self._attention.add(x, mask, positions, att_cache if mask.size(2) == 0 else None)
        if self._convolution is not None:
            cnn_cache = self._convolution.add(x, pad_mask, cnn_cache)
        self._feed_forward.add(x)
        return self.norm_final(x), att_cache if kept is None else kept, cnn_cache


class TextLayer(nn.Module):
    """A layer of an attention decoder. It overwrites its input."""

    def __init__(self, backend: Backend, layer: DecoderLayer) -> None:
        super().__init__()
        self._self_attention = SelfAttention(backend, layer.self_attn, layer.norm1)
        self._source_attention = SourceAttention(backend, layer.src_attn, layer.norm2)
        self._feed_forward = FeedForward(backend, layer.feed_forward, layer.norm3, 1.0)

    def forward(self, x: Tensor, mask: Tensor, memory: Tensor, memory_mask: Tensor) -> Tensor:
        x = x.contiguous()
        self._self_attention.add(x, mask, None, None)
        self._source_attention.add(x, memory, memory_mask)
        self._feed_forward.add(x)
        return x


class Subsampling(nn.Module):
    """The convolutions of the subsampling with their ReLU: (B, 1, T, F) to (B, F D, S, 1), bins before channels."""

    def __init__(self, backend: Backend, layers: nn.Sequential, bins: int) -> None:
        super().__init__()
        self._backend = backend
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        self._sizes = [(layer.kernel_size[0], layer.stride[0]) for layer in convolutions]
        self._width = convolutions[0].out_channels
        weight, bias = convolutions[0].weight.detach(), convolutions[0].get_parameter("bias").detach()
        self._kept = weight[:, 0].permute(1, 2, 0).contiguous().clone(), bias.clone()
        kernel, stride = self._sizes[0]
        self._first = _FirstConvolutionFields(
            bins, self._width, kernel, stride, out_of(bins, kernel, stride), *(each.data_ptr() for each in self._kept)
        )
        self._products = [
            Product.of_matrix(
                backend,
                layer.weight.detach().permute(0, 2, 3, 1).flatten(1),
                layer.get_parameter("bias").detach(),
                ACTIVATIONS[nn.ReLU],
            )
            for layer in convolutions[1:]
        ]

    def forward(self, x: Tensor) -> Tensor:
        heard = torch.stack([self._hear(each.contiguous()) for each in x[:, 0]])
        return heard.transpose(1, 2).unsqueeze(3)

    def _hear(self, x: Tensor) -> Tensor:
        """Return (S, F D) for the features (T, F) of one utterance."""
        (kernel, stride), (second, step) = self._sizes[:2]
        bins = self._first.bins_out
        times = out_of(out_of(len(x), kernel, stride), second, step)
        out = torch.empty(times, out_of(bins, second, step), self._width)
        band = torch.empty((BAND - 1) * step + second, bins, self._width)
        for start in range(0, times, BAND):
            some = min(BAND, times - start)
            self._backend.functions.wenet_first_convolution(
                Pointer(self._backend.team.pointer),
                ctypes.byref(self._first),
                at(x[start * step * stride :]),
                Int((some - 1) * step + second),
                at(band),
            )
            self._convolve(0, band, out[start : start + some])
        for index, (kernel, stride) in enumerate(self._sizes[2:], 1):
            x, shape = out, [out_of(each, kernel, stride) for each in out.shape[:2]]
            out = torch.empty(*shape, self._width)
            self._convolve(index, x, out)
        return out.flatten(1)

    def _convolve(self, index: int, x: Tensor, out: Tensor) -> None:
        sizes = (*x.shape[1:], *self._sizes[index + 1], *out.shape[:2])
        product = self._products[index].reference
        done = self._backend.functions.wenet_convolve(
            Pointer(self._backend.pointer), product, at(x), *map(Int, sizes), at(out)
        )
        check(done)


def after_subsampling(backend: Backend, layer: nn.Linear, width: int) -> Linear:
    """Return `layer`, which expects channels before bins, for the output of `Subsampling`, which has bins first."""
    matrix = layer.weight.detach()
    replaced = nn.Linear(1, 1)
    replaced.weight = nn.Parameter(matrix.view(len(matrix), width, -1).transpose(1, 2).flatten(1))
    replaced.bias = layer.bias
    return Linear(backend, replaced)


def split(x: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """Split `x` (B, U, parts * D) into parts of (B, H, U, D / H)."""
    return x.view(*x.shape[:2], parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


def folded(norm: nn.BatchNorm1d, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return a depthwise convolution's weights (kernel, D) and bias (D,) with the `norm` after it folded in."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
    return weight * scale, (bias - norm.running_mean) * scale + norm.bias.detach()


def whole(inputs: int) -> int:
    """Return the number of inputs of a packed product: `inputs`, rounded up to a multiple of DEPTH."""
    return -(-inputs // DEPTH) * DEPTH


def out_of(size: int, kernel: int, stride: int) -> int:
    """Return the output size of a convolution over `size` positions."""
    return (size - kernel) // stride + 1


def check(failed: int) -> None:
    """Raise MemoryError if the library reports that it failed."""
    if failed:
        raise MemoryError("too little memory for WeNet's network")
