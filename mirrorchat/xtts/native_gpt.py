"""XTTS's GPT for CPUs with AVX512-VNNI: weights in 8-bit planes, and a decode step as one call into C++.

native/gpt.cpp describes the computation. The mode `int8` has one plane of weights and a KV cache in half precision. The
mode `fp16w` has two planes, which keep 16 bits of each weight, and a cache in float32.
"""

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from mirrorchat.hardware import native
from mirrorchat.hardware.native_layers import Int, LinearFields, NormFields, PackedLinears, Pointer, at
from mirrorchat.xtts.gpt import Cache, GptInputs, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network


class _Layer(ctypes.Structure):
    _fields_ = [
        *((name, NormFields) for name in ("attention_norm", "mlp_norm")),
        *((name, LinearFields) for name in ("qkv", "attention_out", "mlp_in", "mlp_out")),
    ]


class _Model(ctypes.Structure):
    _fields_ = [
        *((name, Int) for name in ("width", "heads", "layers")),
        ("layer", ctypes.POINTER(_Layer)),
        ("last_norms", ctypes.POINTER(NormFields)),
        ("head", LinearFields),
    ]


class _CacheView(ctypes.Structure):
    _fields_ = [
        ("data", Pointer),
        *((name, Int) for name in ("slot_stride", "layer_stride", "part_stride", "head_stride", "half")),
    ]


class NativeGpt(GptInputs):
    """The GPT of `network` on the CPU with weights in `mode`, fp16w or int8, computed by `threads` threads.

    It does not refer to the layers of `network`, whose `gpt.gpt` may be dropped. One thread may use it at a time. The
    results of a sequence are the same to the last bit in any batch.
    """

    def __init__(self, network: Network, mode: WeightMode, library: native.Library, threads: int) -> None:
        super().__init__(network, mode, torch.device("cpu"))
        self._library = library
        self._team = native.Team(library, threads)
        planes = 2 if mode is WeightMode.FP16W else 1
        layers, head = network.gpt.gpt.h, network.gpt.mel_head
        shapes = [tuple(p.shape) for p in layers.parameters() if p.dim() == 2] + [tuple(head.weight.t().shape)]
        room = sum(PackedLinears.room_for(inputs, outputs, planes) for inputs, outputs in shapes)
        self._linears = PackedLinears(library, self._team, planes=planes, room=room)
        self._kept: list[Tensor] = []
        self._layers = (_Layer * len(layers))(*map(self._layer, layers))
        norms = (network.gpt.gpt.ln_f, network.gpt.final_norm)
        self._norms = (NormFields * 2)(*map(self._norm, norms))
        packed_head = self._linears.add(head.weight.detach().t(), head.bias.detach())
        self._scores = packed_head.outputs
        model = _Model(self.width, self.heads, len(layers), self._layers, self._norms, packed_head)
        self._model = _Handle(library, self._team, model)

    @property
    def cache_dtype(self) -> torch.dtype:
        """Return float16 for int8: every step reads the cache, and float16 is far more exact than the weights."""
        return torch.float16 if self.mode is WeightMode.INT8 else torch.float32

    @torch.inference_mode()
    def prefill(self, x: Tensor, cache: Cache, slot: int, past: int) -> Tensor:
        """Run the inputs `x` (n, D) after `past` positions of `slot`; return the output (n, D) of the last layer."""
        return self.step(x, cache, [slot] * len(x), range(past, past + len(x)))

    @torch.inference_mode()
    def step(self, x: Tensor, cache: Cache, slots: Sequence[int], positions: Sequence[int]) -> Tensor:
        """Run one input for each place, `x` (n, D), at `positions` of `slots`; return the output of the last layer.

        Input and output are (n, D) float32; the cache is in float32 or float16. Raises ValueError for places outside
        the cache, and MemoryError.
        """
        places = zip(slots, positions, strict=True)
        if not all(0 <= slot < cache.slots and 0 <= position < cache.positions for slot, position in places):
            raise ValueError(f"slots {list(slots)} at {list(positions)} are outside the cache")
        if x.shape != (len(slots), self.width) or not len(slots):
            raise ValueError(f"inputs of shape {tuple(x.shape)} for {len(slots)} places")
        out = x.to(torch.float32, copy=True).contiguous()
        view = _CacheView(cache.data.data_ptr(), *cache.data.stride()[:4], cache.data.dtype == torch.float16)
        count = len(slots)
        failed = self._library.functions.gpt_forward(
            self._model.pointer,
            at(out),
            Int(count),
            (Int * count)(*slots),
            (Int * count)(*positions),
            ctypes.byref(view),
        )
        _check_memory(failed)
        return out

    @torch.inference_mode()
    def latents_and_scores(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the latents (n, D) for the vocoder and the next token's scores (n, tokens) for the last output `x`."""
        x = x.contiguous()
        latents, scores = torch.empty_like(x), torch.empty(len(x), self._scores)
        failed = self._library.functions.gpt_finish(self._model.pointer, at(x), Int(len(x)), at(latents), at(scores))
        _check_memory(failed)
        return latents, scores[:, : self.audio_tokens]

    def _layer(self, layer: torch.nn.Module) -> _Layer:
        """Return a packed GPT-2 `layer`, whose matrices are (inputs, outputs)."""

        def linear(name: str) -> LinearFields:
            weight, bias = (layer.get_parameter(f"{name}.{part}").detach() for part in ("weight", "bias"))
            with native.mapped_in(weight):
                return self._linears.add(weight, bias)

        norms = [self._norm(layer.get_submodule(name)) for name in ("ln_1", "ln_2")]
        return _Layer(*norms, *map(linear, ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")))

    def _norm(self, norm: torch.nn.Module) -> NormFields:
        assert isinstance(norm, torch.nn.LayerNorm)
        weight, bias = norm.weight.detach().clone(), norm.bias.detach().clone()
        self._kept += [weight, bias]
        return NormFields(weight.data_ptr(), bias.data_ptr(), norm.eps)


class _Handle:
    """The model in the C++ library, which is freed with this object."""

    def __init__(self, library: native.Library, team: native.Team, model: _Model) -> None:
        create = library.functions.gpt_create
        create.restype = Pointer
        self._library = library
        self.pointer = Pointer(create(Pointer(team.pointer), ctypes.byref(model)))
        _check_memory(not self.pointer)

    def __del__(self) -> None:
        self._library.functions.gpt_destroy(self.pointer)  # null does no harm


def _check_memory(failed: bool) -> None:
    if failed:
        raise MemoryError("too little memory for the GPT")


def fastest_gpt(network: Network, mode: WeightMode, device: torch.device) -> TorchGpt | NativeGpt:
    """Return the fastest GPT for `mode` on `device`: in C++ where this CPU runs it, else in torch.

    Raises ConfigurationError if there is none.
    """
    library = native.library()
    if library is not None and device.type == "cpu" and mode in (WeightMode.FP16W, WeightMode.INT8):
        return NativeGpt(network, mode, library, threads=torch.get_num_threads())
    return TorchGpt(network, mode, device)
