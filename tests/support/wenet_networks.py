"""WeNet's networks of every kind with random weights."""

from typing import Any

import torch
from torch import nn

from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model

SOS, EOS, VOCABULARY, LAYERS, HEADS, WIDTH, KERNEL = 2, 2, 29, 3, 4, 32, 8


# Every kind of network, as what it changes in the first.
VARIANTS: dict[str, dict[str, Any]] = {
    "u2++": {},
    "conv2d6": {"subsampling": "conv2d6"},
    "conv2d8": {"subsampling": "conv2d8", "activation": "gelu"},
    "abs_pos": {"positions": "abs_pos"},
    "no_pos": {"positions": "no_pos", "attention": "selfattn", "decoder": "transformer"},
    "batch_norm": {"convolution_norm": "batch_norm"},
    "non_causal": {"convolution_norm": "batch_norm", "causal": False, "kernel": 7, "dynamic_chunk": False},
    "plain": {"macaron": False, "convolution": False},
    "kernel_1": {"kernel": 1},
    "transformer": {
        "encoder": "transformer", "positions": "abs_pos", "attention": "selfattn", "activation": "relu",
        "decoder": "transformer",
    },
    "static": {"static_chunk": 4, "dynamic_chunk": False},
}  # fmt: skip


def make_model(**changes: Any) -> U2Model:
    """Return a random network; its sums are far enough from 0 that a wrong cache or mask cannot hide."""
    sizes: dict[str, Any] = {
        "width": WIDTH, "heads": HEADS, "encoder_units": 48, "encoder_blocks": LAYERS, "kernel": KERNEL,
        "decoder_units": 40, "decoder_blocks": 2, "reverse_blocks": 1,
    }  # fmt: skip
    config = U2Config(vocabulary=VOCABULARY, sos=SOS, eos=EOS, **(sizes | changes))
    torch.manual_seed(3)
    model = U2Model(config, GlobalCMVN(torch.randn(80), torch.rand(80) + 0.5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean, module.running_var = torch.randn(WIDTH), torch.rand(WIDTH) + 0.5
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # a bias of a norm starts at 0, where it could be lost
            nn.init.normal_(parameter, std=0.3)
    return model.eval().requires_grad_(False)
