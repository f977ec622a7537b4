"""XTTS on an old GPU: it keeps 16 bits of each weight and computes in float32."""

from pathlib import Path

import pytest

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

import torch
from support.simulated_cuda import SimulatedCuda
from support.xtts_requests import ask, collect, engines

from mirrorchat.hardware.devices import usable_device
from mirrorchat.synth import weight_mode
from mirrorchat.xtts.linear import WeightMode, make_linear
from mirrorchat.xtts.model import load_network


def test_a_gpu_of_6_x_speaks_the_tokens_of_the_cpu(simulated_cuda: SimulatedCuda, xtts_checkpoint: Path) -> None:
    simulated_cuda.gpus[0].capability = (6, 1)
    simulated_cuda.architectures = ["sm_60", "sm_75", "sm_90"]
    device = usable_device("auto")
    mode = weight_mode("auto", device)
    assert device == torch.device("cuda", 0) and mode is WeightMode.FP16W
    layer = make_linear(torch.full((2, 3), 1 / 3).to(device), torch.zeros(2).to(device), mode)
    found = layer(torch.full((1, 3), 1e-6).to(device)).cpu()  # in float16 it would be a coarse multiple of 6e-8
    torch.testing.assert_close(found, torch.full((1, 2), 1e-6), rtol=1e-3, atol=0.0)
    network = load_network(xtts_checkpoint)
    with engines(network) as make:
        expected = collect(make(mode, max_batch=1, queue_chunks=100).submit(ask(max_tokens=30)))
        on_gpu = make(mode, device=device, max_batch=1, queue_chunks=100)
        assert on_gpu.cache.data.dtype is torch.float32
        assert collect(on_gpu.submit(ask(max_tokens=30))).tokens == expected.tokens
