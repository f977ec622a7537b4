"""XTTS's GPT for decoding: a static KV cache, and a decode step in which every sequence has its own position.

The design, a preallocated cache and one fixed step, is that of gpt-fast (pytorch-labs). Every sequence has its own slot
of the cache and attends to exactly its own positions, so the other sequences of a batch do not change its result (on a
GPU only its rounding).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.devices import uploaded
from mirrorchat.xtts.linear import Linear, WeightMode, make_linear
from mirrorchat.xtts.model import Network


@dataclass(frozen=True)
class Norm:
    """A layer norm, computed in float32, with a result of the type `dtype`."""

    weight: Tensor
    bias: Tensor
    eps: float
    dtype: torch.dtype

    def __call__(self, x: Tensor) -> Tensor:
        return torch.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps).to(self.dtype)


@dataclass(frozen=True)
class Block:
    """One layer of the transformer. Its branches have the mode's type, and the sums of its outputs are float32."""

    attention_norm: Norm
    qkv: Linear
    attention_out: Linear
    mlp_norm: Norm
    mlp_in: Linear
    mlp_out: Linear

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Return the block's output (n, D) from its input `x` (n, D), both float32, and the attention's result (n, D).

        An addition converts 16 bits to float32 by itself, without another kernel of the GPU.
        """
        x = x + self.attention_out(attended)
        return x.add_(self.mlp_out(F.gelu(self.mlp_in(self.mlp_norm(x)), approximate="tanh")))


class Cache:
    """The KV cache: `slots` slots of `positions` positions, (slots, layers, 2, heads, positions, D / heads).

    It has the type `gpt.cache_dtype` and is allocated once. On a CPU the operating system provides the memory only when
    a position is first written.
    """

    def __init__(self, slots: int, positions: int, gpt: "GptInputs") -> None:
        self.slots = slots
        self.positions = positions
        device = gpt.mel_embedding.device
        shape = (slots, *gpt.cache_shape(positions))
        if device.type == "cpu":  # not initialized, so that it takes no memory yet
            self.data = torch.empty(shape, dtype=gpt.cache_dtype)
        else:  # a captured step multiplies values beyond a sequence's end by 0, so they must not be NaN
            self.data = torch.zeros(shape, dtype=gpt.cache_dtype, device=device)

    def filled(self, slot: int, count: int) -> tuple[Tensor, ...]:
        """Return views of the first `count` positions of `slot`: keys and values of layer 0, of layer 1, ...

        Each view is (1, heads, count, D / heads).
        """
        return self.data[slot, :, :, :, :count].flatten(0, 1).unsqueeze(1).unbind(0)

    def at(self, slot: int, position: int) -> tuple[Tensor, ...]:
        """Return a view (2, heads, D / heads) for each layer of the keys and values at one position of `slot`."""
        return self.data[slot, :, :, :, position].unbind(0)

    def load(self, slot: int, saved: Tensor) -> None:
        """Copy the result of `save` to the start of `slot`."""
        self.data[slot, :, :, :, : saved.shape[3]] = saved

    def save(self, slot: int, count: int) -> Tensor:
        """Return a copy of the first `count` positions of `slot`: (layers, 2, heads, count, D / heads)."""
        return self.data[slot, :, :, :, :count].clone()


class GptInputs:
    """The common part of every GPT: sizes, special tokens, and the embeddings of its inputs (float32)."""

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
        self.text_limit = int(network.config.model_args.gpt_max_text_tokens) - 1  # stock XTTS asks for fewer
        self.token_limit: int = gpt.max_gen_mel_tokens
        self.text_embedding = _kept(gpt.text_embedding, device)
        self.text_positions = _kept(gpt.text_pos_embedding.emb, device)
        self.mel_embedding = _kept(gpt.mel_embedding, device)
        self.mel_positions = _kept(gpt.mel_pos_embedding.emb, device)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Return the type of keys and values in the cache, which is that of torch's computation."""
        return self.mode.dtype

    def cache_shape(self, positions: int) -> tuple[int, ...]:
        """Return the shape of one slot of the cache: (layers, 2, heads, positions, D / heads)."""
        return (self.layers, 2, self.heads, positions, self.width // self.heads)

    def text_prefix(self, text_ids: Sequence[int]) -> Tensor:
        """Return the inputs (n + 3, D) after the conditioning prefix.

        They are the start of the text, `text_ids` (n), the stop of the text and the start of the audio.
        """
        ids = torch.tensor([self.start_text_token, *text_ids, self.stop_text_token])
        text = self.text_embedding[uploaded(ids, self.text_embedding.device)] + self.text_positions[: len(ids)]
        start = self.mel_embedding[self.start_token : self.start_token + 1] + self.mel_positions[:1]
        return torch.cat([text, start])

    def audio_inputs(self, tokens: Sequence[int], places: Sequence[int]) -> Tensor:
        """Return the inputs (n, D) for `tokens` with the indices `places` in their sequences (0 is the start token)."""
        device = self.mel_embedding.device
        embedded = self.mel_embedding[uploaded(torch.tensor(tokens), device)]
        return embedded.add_(self.mel_positions[uploaded(torch.tensor(places), device)])


class TorchGpt(GptInputs):
    """The GPT of `network` in torch, with its weights in `mode` on `device`.

    In all modes but `fp32` it shares only the embeddings with `network`, whose `gpt.gpt` may be dropped. Raises
    ConfigurationError if `device` cannot compute in `mode`.
    """

    def __init__(self, network: Network, mode: WeightMode, device: torch.device) -> None:
        check_mode(mode, device)
        super().__init__(network, mode, device)
        gpt = network.gpt
        self.blocks = [_block(layer, mode, device) for layer in gpt.gpt.h]
        self._norms = [_norm(norm, torch.float32, device) for norm in (gpt.gpt.ln_f, gpt.final_norm)]
        weight, bias = gpt.mel_head.weight.to(device), gpt.mel_head.bias.to(device)
        # On a GPU the scores stay in float32; the matrix is 0.3 % of the weights.
        head_mode = WeightMode.FP32 if mode in (WeightMode.BF16, WeightMode.FP16) else mode
        self._head = make_linear(weight, bias, head_mode)

    @torch.inference_mode()
    def prefill(self, x: Tensor, cache: Cache, slot: int, past: int) -> Tensor:
        """Run the inputs `x` (n, D) after `past` positions of `slot`; return the output (n, D) of the last layer."""
        count = len(x)
        mask = torch.ones(count, past + count, dtype=torch.bool, device=x.device).tril_(past)
        views = cache.filled(slot, past + count)
        for index, block in enumerate(self.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(count, 3, self.heads, -1)
            query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1)
            keys, values = views[2 * index], views[2 * index + 1]
            keys[:, :, past:] = key
            values[:, :, past:] = value
            found = F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
            x = block.finish(x, found[0].transpose(0, 1).reshape(count, self.width))
        return x

    @torch.inference_mode()
    def step(self, x: Tensor, cache: Cache, slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Run one input for each sequence, `x` (n, D), at `positions` of `slots`; return the last layer's output."""
        count = len(x)
        filled = [cache.filled(slot, position + 1) for slot, position in zip(slots, positions, strict=True)]
        new = [cache.at(slot, position) for slot, position in zip(slots, positions, strict=True)]
        for index, block in enumerate(self.blocks):
            qkv = block.qkv(block.attention_norm(x)).view(count, 3, self.heads, 1, -1)
            found = []
            for item, views, places in zip(qkv.unbind(0), filled, new, strict=True):
                places[index].copy_(item[1:, :, 0])
                found.append(
                    F.scaled_dot_product_attention(item[:1], views[2 * index], views[2 * index + 1]).reshape(1, -1)
                )
            x = block.finish(x, found[0] if count == 1 else torch.cat(found))
        return x

    @torch.inference_mode()
    def latents_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (n, D) for the vocoder and the next token's scores (n, tokens) for the last output `x`."""
        for norm in self._norms:
            x = norm(x)
        return x, self._head(x)


def check_mode(mode: WeightMode, device: torch.device) -> None:
    """Raise ConfigurationError if weights of `mode` do not run on `device`."""
    on_gpu = device.type == "cuda"
    if mode in ((WeightMode.INT8,) if on_gpu else (WeightMode.BF16, WeightMode.FP16)):
        choices = "fp32, fp16w, bf16 or fp16" if on_gpu else "fp32, fp16w or int8"
        raise ConfigurationError(f"weights in {mode} cannot be used on {device}; choose {choices}")


def _kept(embedding: torch.nn.Embedding, device: torch.device) -> Tensor:
    return embedding.weight.detach().to(device)


def _norm(norm: torch.nn.LayerNorm, dtype: torch.dtype, device: torch.device) -> Norm:
    return Norm(norm.weight.detach().to(device), norm.bias.detach().to(device), norm.eps, dtype)


def _block(layer: torch.nn.Module, mode: WeightMode, device: torch.device) -> Block:
    """Return the block of a GPT-2 `layer`, whose matrices are (inputs, outputs)."""

    def linear(part: torch.nn.Module) -> Linear:
        weight, bias = part.get_parameter("weight"), part.get_parameter("bias")
        return make_linear(weight.detach().t().to(device), bias.detach().to(device), mode)

    parts = {name: layer.get_submodule(name) for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    norms = [layer.get_submodule(name) for name in ("ln_1", "ln_2")]
    first, second = (_norm(norm, mode.dtype, device) for norm in norms if isinstance(norm, torch.nn.LayerNorm))
    return Block(
        first,
        linear(parts["attn.c_attn"]),
        linear(parts["attn.c_proj"]),
        second,
        linear(parts["mlp.c_fc"]),
        linear(parts["mlp.c_proj"]),
    )
