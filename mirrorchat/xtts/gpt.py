"""XTTS's GPT for decoding: a static cache of keys and values, and a step in which every sequence is at its own place.

The loop's shape (preallocated cache, one fixed step) is gpt-fast's. A sequence's rows of the cache are its own, and
each attends over exactly the positions it has, so neighbours in a batch have no part in its result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.errors import ConfigurationError
from mirrorchat.xtts.linear import Linear, WeightMode, make_linear
from mirrorchat.xtts.model import Network


@dataclass(frozen=True)
class Norm:
    """A layer norm, always in float32."""

    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class Block:
    """One of the transformer's layers."""

    attention_norm: Norm
    qkv: Linear
    attention_out: Linear
    mlp_norm: Norm
    mlp_in: Linear
    mlp_out: Linear

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output (n, D) from its input `x` (n, D) and what attention found for it (n, D)."""
        x = x + self.attention_out(attended)
        return x.add_(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")))


class Cache:
    """Keys and values of `rows` sequences at `positions` each: (rows, layers, 2, heads, positions, D / heads).

    Of the type `gpt.cache_dtype`. Allocated once. On a CPU the system gives it memory only as positions are first
    written.
    """

    def __init__(self, rows: int, positions: int, gpt: "GptInputs") -> None:
        self.rows = rows
        self.positions = positions
        device = gpt.mel_embedding.device
        shape = (rows, *gpt.cache_shape(positions))
        if device.type == "cpu":  # not written to, so that the system gives no memory yet
            self.data = torch.empty(shape, dtype=gpt.cache_dtype)
        else:  # a captured step multiplies what lies beyond a sequence's end by 0, which must not be NaN
            self.data = torch.zeros(shape, dtype=gpt.cache_dtype, device=device)

    def filled(self, row: int, count: int) -> tuple[Tensor, ...]:
        """Return views of the first `count` positions of `row`: keys, values of layer 0, of layer 1, ...

        Each (1, heads, count, D / heads).
        """
        return self.data[row, :, :, :, :count].flatten(0, 1).unsqueeze(1).unbind(0)

    def at(self, row: int, position: int) -> tuple[Tensor, ...]:
        """Return a view (2, heads, D / heads) for each layer of the keys and values at one position of `row`."""
        return self.data[row, :, :, :, position].unbind(0)

    def load(self, row: int, saved: Tensor) -> None:
        """Put what `save` returned at the start of `row`."""
        self.data[row, :, :, :, : saved.shape[3]] = saved

    def save(self, row: int, count: int) -> Tensor:
        """Return a copy of the first `count` positions of `row`: (layers, 2, heads, count, D / heads)."""
        return self.data[row, :, :, :, :count].clone()


class GptInputs:
    """What every GPT has: its sizes, its special tokens, and the embeddings that make its inputs (float32)."""

    def __init__(self, network: Network, mode: WeightMode, device: torch.device) -> None:
        gpt = network.gpt
        self.mode = mode
        self.width: int = gpt.model_dim
        self.heads: int = gpt.heads
        self.layers: int = gpt.layers
        self.start_token: int = gpt.start_audio_token
        self.stop_token: int = gpt.stop_audio_token
        self.start_text_token: int = gpt.start_text_token
        self.stop_text_token: int = gpt.stop_text_token
        self.audio_tokens: int = gpt.num_audio_tokens
        self.text_tokens: int = gpt.number_text_tokens
        self.text_limit = int(network.config.model_args.gpt_max_text_tokens) - 1  # stock asks for fewer than the limit
        self.token_limit: int = gpt.max_gen_mel_tokens
        self.text_embedding = _kept(gpt.text_embedding, device)
        self.text_positions = _kept(gpt.text_pos_embedding.emb, device)
        self.mel_embedding = _kept(gpt.mel_embedding, device)
        self.mel_positions = _kept(gpt.mel_pos_embedding.emb, device)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Return the type of keys and values in the cache: the one that torch computes in."""
        return self.mode.dtype

    def cache_shape(self, positions: int) -> tuple[int, ...]:
        """Return the shape of one sequence's cache: (layers, 2, heads, positions, D / heads)."""
        return (self.layers, 2, self.heads, positions, self.width // self.heads)

    def text_prefix(self, text_ids: Sequence[int]) -> Tensor:
        """Return what follows the voice: start, `text_ids` (n) and stop of the text, start of the audio. (n + 3, D)."""
        device = self.text_embedding.device
        ids = torch.tensor([self.start_text_token, *text_ids, self.stop_text_token], device=device)
        text = self.text_embedding[ids] + self.text_positions[: len(ids)]
        return torch.cat([text, self.audio_inputs([self.start_token], [0])])

    def audio_inputs(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Return the inputs (n, D) for `tokens`, each the one at `places` in its sequence (0 is the start token)."""
        device = self.mel_embedding.device
        embedded = self.mel_embedding[torch.tensor(tokens, device=device)]
        return embedded.add_(self.mel_positions[torch.tensor(places, device=device)])


class TorchGpt(GptInputs):
    """The GPT of `network` in torch, with its weights kept in `mode` on `device`.

    In the modes other than `fp32`, nothing here refers to the weights of `network` in float32 except the embeddings;
    its `gpt.gpt` may be dropped. Raises ConfigurationError where `device` cannot compute in `mode`.
    """

    def __init__(self, network: Network, mode: WeightMode, device: torch.device) -> None:
        check_mode(mode, device)
        super().__init__(network, mode, device)
        gpt = network.gpt
        self.blocks = [_block(layer, mode, device) for layer in gpt.gpt.h]
        self._norms = (_norm(gpt.gpt.ln_f, device), _norm(gpt.final_norm, device))
        weight, bias = gpt.mel_head.weight.to(device), gpt.mel_head.bias.to(device)
        # On a GPU the scores stay in float32; the matrix is 0.3 % of the weights.
        head_mode = WeightMode.FP32 if mode in (WeightMode.BF16, WeightMode.FP16) else mode
        self._head = make_linear(weight, bias, head_mode)

    @torch.inference_mode()
    def prefill(self, x: Tensor, cache: Cache, row: int, past: int) -> Tensor:
        """Run inputs `x` (n, D) that follow `past` positions of `row`; return their last layer's output (n, D)."""
        count = len(x)
        mask = torch.ones(count, past + count, dtype=torch.bool, device=x.device).tril_(past)
        views = cache.filled(row, past + count)
        for index, block in enumerate(self.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(count, 3, self.heads, -1).to(self.mode.dtype)
            query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1)
            keys, values = views[2 * index], views[2 * index + 1]
            keys[:, :, past:] = key
            values[:, :, past:] = value
            found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            x = block.finish(x, found[0].transpose(0, 1).reshape(count, self.width).float())
        return x

    @torch.inference_mode()
    def step(self, x: Tensor, cache: Cache, rows: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Run one input for each sequence, `x` (n, D), at `positions` of `rows`; return the last layer's output."""
        count = len(x)
        filled = [cache.filled(row, position + 1) for row, position in zip(rows, positions, strict=True)]
        new = [cache.at(row, position) for row, position in zip(rows, positions, strict=True)]
        for index, block in enumerate(self.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(count, 3, self.heads, 1, -1).to(self.mode.dtype)
            found = []
            for item, views, places in zip(qkv.unbind(0), filled, new, strict=True):
                places[index].copy_(item[1:, :, 0])
                found.append(
                    F.scaled_dot_product_attention(item[:1], views[2 * index], views[2 * index + 1]).reshape(1, -1)
                )
            x = block.finish(x, (found[0] if count == 1 else torch.cat(found)).float())
        return x

    @torch.inference_mode()
    def latents_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (n, D) for the vocoder and the next token's scores (n, tokens) from the last output."""
        for norm in self._norms:
            x = norm(x)
        return x, self._head(x)


def check_mode(mode: WeightMode, device: torch.device) -> None:
    """Raise ConfigurationError when weights of `mode` are not for `device`."""
    on_gpu = mode in (WeightMode.BF16, WeightMode.FP16)
    if mode is not WeightMode.FP32 and on_gpu != (device.type == "cuda"):
        choices = "fp32, bf16 or fp16" if device.type == "cuda" else "fp32, fp16w or int8"
        raise ConfigurationError(f"weights in {mode} cannot be used on {device}; choose {choices}")


def _kept(embedding: torch.nn.Embedding, device: torch.device) -> Tensor:
    return embedding.weight.detach().to(device)


def _norm(norm: torch.nn.LayerNorm, device: torch.device) -> Norm:
    return Norm(norm.weight.detach().to(device), norm.bias.detach().to(device), norm.eps)


def _block(layer: torch.nn.Module, mode: WeightMode, device: torch.device) -> Block:
    """Return the block of a GPT-2 `layer`, whose matrices are (inputs, outputs)."""

    def linear(part: torch.nn.Module) -> Linear:
        weight, bias = part.get_parameter("weight"), part.get_parameter("bias")
        return make_linear(weight.detach().t().to(device), bias.detach().to(device), mode)

    parts = {name: layer.get_submodule(name) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    norms = [layer.get_submodule(name) for name in ("ln_1", "ln_2")]
    first, second = (_norm(norm, device) for norm in norms if isinstance(norm, torch.nn.LayerNorm))
    return Block(
        first,
        linear(parts["attn.c_attn"]),
        linear(parts["attn.c_proj"]),
        second,
        linear(parts["mlp.c_fc"]),
        linear(parts["mlp.c_proj"]),
    )
