"""Copies within a device, between devices, and between a device and the host."""

from typing import Any

import torch
from torch import Tensor

from support.simulated_cuda.state import current, device_index
from support.simulated_cuda.streams import current_stream
from support.simulated_cuda.tensors import (
    Form,
    SimulatedTensor,
    is_pinned,
    not_yet_computed,
    numbers_of,
    on_device,
    pin,
)

aten = torch.ops.aten


def to_copy(source: Tensor, *, device: Any = None, dtype: Any = None, **options: Any) -> Tensor:
    """Do what `aten._to_copy` does if one of both sides is a device."""
    target = source.device if device is None else torch.device(device)
    late = options.get("non_blocking", False)
    layout = options.get("memory_format") or torch.preserve_format
    form = Form.of(torch.empty_like(numbers_of(source), dtype=dtype, memory_format=layout, device="meta"))
    if target.type == "cuda":
        return copy_(on_device(form, device_index(target)), source, late)
    made = not_yet_computed(form)
    return copy_(pin(made) if options.get("pin_memory") else made, source, late)


def copy_(to: Tensor, source: Tensor, late: bool) -> Tensor:
    """Do what `aten.copy_` does if one of both sides is a device; `late` for non_blocking."""
    if isinstance(to, SimulatedTensor) and isinstance(source, SimulatedTensor):
        _between(to, source)
    elif isinstance(to, SimulatedTensor):
        _upload(to, source, late)
    elif isinstance(source, SimulatedTensor):
        _download(to, source, late)
    return to


def _between(to: SimulatedTensor, source: SimulatedTensor) -> None:
    stream, left, right = current_stream(source.device), to.numbers, source.numbers
    if to.device != source.device:  # torch makes each device's current stream wait for the other's
        other = current_stream(to.device)
        stream.wait_stream(other)
        stream.launch("copy to another device", lambda: left.copy_(right), [source.memory], [to.memory])
        other.wait_stream(stream)
    else:
        stream.launch("copy_", lambda: left.copy_(right), [source.memory], [to.memory])


def _upload(to: SimulatedTensor, source: Tensor, late: bool) -> None:
    index, left = to.device.index, to.numbers
    stream = current_stream(to.device)
    if is_pinned(source) and late:
        right = source  # the device reads it when it comes to it
    else:
        right = source.clone()
        current().wait("upload" if is_pinned(source) else "upload from pageable memory", index)
    stream.launch("upload", lambda: left.copy_(right), [], [to.memory])
    if not late:
        stream.run()


def _download(to: Tensor, source: SimulatedTensor, late: bool) -> None:
    stream, right = current_stream(source.device), source.numbers
    waits = not (is_pinned(to) and late)
    if waits:
        current().wait("download" if is_pinned(to) else "download to pageable memory", source.device.index)
    stream.launch("download", lambda: to.copy_(right), [source.memory], [])
    if waits:
        stream.run()
    else:
        to.copy_(not_yet_computed(Form.of(to)))  # what the host reads before it has waited
