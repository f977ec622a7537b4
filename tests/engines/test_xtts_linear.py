"""Weights in fewer bits in torch against float32: how far off, and that a broken row harms no other."""

import pytest
import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.xtts.linear import WeightMode, make_linear


@pytest.fixture(scope="module")
def layer() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(96, 256, generator=generator) * torch.logspace(-3, 1, 96)[:, None]
    return weight, torch.randn(96, generator=generator)


@pytest.fixture(scope="module")
def rows() -> torch.Tensor:
    return torch.randn(8, 256, generator=torch.Generator().manual_seed(1)) * torch.logspace(-4, 4, 8)[:, None]


@pytest.mark.parametrize(
    ("mode", "error"),
    [(WeightMode.FP32, 1e-6), (WeightMode.FP16W, 4e-4), (WeightMode.BF16, 8e-3), (WeightMode.FP16, 1e-3)],
)
def test_error(layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, mode: WeightMode, error: float) -> None:
    weight, x = layer[0], rows[2:6]  # not the rows for which half precision overflows
    exact = x.double() @ weight.double().T
    found = make_linear(weight, torch.zeros(96), mode)(x)
    assert found.dtype is torch.float32
    scale = weight.double().norm(dim=1) * x.double().norm(dim=1, keepdim=True) / 16
    assert float(((found - exact) / scale).square().mean().sqrt()) < error


def test_a_row_that_is_not_finite_harms_no_other(layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor) -> None:
    linear = make_linear(*layer, WeightMode.FP16W)
    broken = rows.clone()
    broken[3] = torch.nan
    found = linear(broken)
    assert found[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(found[others], linear(rows)[others])


def test_int8_is_the_librarys_alone(layer: tuple[torch.Tensor, torch.Tensor]) -> None:
    with pytest.raises(ConfigurationError, match="need a CPU with AVX512-VNNI"):
        make_linear(*layer, WeightMode.INT8)
