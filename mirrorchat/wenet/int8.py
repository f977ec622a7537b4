"""Dynamic quantization of WeNet's networks on the CPU: weights have 8 bits and a scale for each output.

If the C++ library runs on this CPU, it computes whole layers (`wenet/native.py`) with 8-bit activations, a scale for
each row and exact sums. Otherwise PyTorch's dynamic quantization computes the linear layers; its activations share one
scale for all rows, as in WeNet's released runtime models.
"""

import warnings
from collections.abc import Iterator

import torch
from torch import nn

from mirrorchat.hardware import native
from mirrorchat.hardware.native_layers import PackedLinears
from mirrorchat.wenet.encoder import ConformerEncoderLayer, Conv2dSubsampling4, TransformerEncoderLayer
from mirrorchat.wenet.model import BiTransformerDecoder, DecoderLayer, TransformerDecoder, U2Model
from mirrorchat.wenet.native import (
    LANES,
    Backend,
    EncoderLayer,
    Linear,
    Subsampling,
    TextLayer,
    after_subsampling,
    whole,
)


def quantize(model: U2Model, threads: int) -> U2Model:
    """Return `model` (float32, on the CPU) with 8-bit weights, for `threads` threads; `model` itself is used up."""
    library = native.library()
    if library is not None and model.ctc.ctc_lo.in_features % LANES == 0:
        return _in_library(model, library, threads)
    with warnings.catch_warnings():
        # PyTorch recommends torchao for this, a package that nothing else here needs.
        warnings.filterwarnings("ignore", message=r".*torch\.ao\.quantization.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=r".*quantize_per_tensor.*")
        quantized: U2Model = torch.ao.quantization.quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}, dtype=torch.qint8
        )
    return quantized


@torch.no_grad()
def _in_library(model: U2Model, library: native.Library, threads: int) -> U2Model:
    backend = Backend(library, threads, sum(_sizes(model)))
    embed = model.encoder.embed
    embed.add_module("conv", Subsampling(backend, embed.conv, model.encoder.bins))
    parent, name = (embed.out, "0") if isinstance(embed, Conv2dSubsampling4) else (embed, "linear")
    after = parent.get_submodule(name)
    assert isinstance(after, nn.Linear)
    parent.add_module(name, after_subsampling(backend, after, model.ctc.ctc_lo.in_features))
    layers = model.encoder.encoders
    for index, layer in enumerate(layers):
        assert isinstance(layer, ConformerEncoderLayer | TransformerEncoderLayer)
        layers[index] = EncoderLayer(backend, layer)
    for decoder in _decoders(model):
        for index, layer in enumerate(decoder.decoders):
            assert isinstance(layer, DecoderLayer)
            decoder.decoders[index] = TextLayer(backend, layer)
        _replace(backend, decoder, "output_layer")
    _replace(backend, model.ctc, "ctc_lo")
    return model


def _replace(backend: Backend, parent: nn.Module, name: str) -> None:
    layer = parent.get_submodule(name)
    assert isinstance(layer, nn.Linear)
    parent.add_module(name, Linear(backend, layer))


def _decoders(model: U2Model) -> list[TransformerDecoder]:
    decoder = model.decoder
    return [decoder.left_decoder, decoder.right_decoder] if isinstance(decoder, BiTransformerDecoder) else [decoder]


def _sizes(model: U2Model) -> Iterator[int]:
    """Yield an upper bound of the bytes of each packed matrix; the matrices of one product are packed without gaps."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            outputs, inputs = layer.weight.flatten(1).shape
            yield PackedLinears.room_for(whole(inputs), outputs, 1)
