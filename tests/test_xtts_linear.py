"""Weights in fewer bits against float32: how far off, and that rows of a batch have nothing to do with each other."""

import pytest
import torch

from mirrorchat import xtts_linear
from mirrorchat.errors import ConfigurationError
from mirrorchat.xtts_linear import PlanesLinear, WeightMode, exact_products, make_linear

CPU_MODES = [mode for mode in (WeightMode.FP16W, WeightMode.INT8) if mode is WeightMode.FP16W or exact_products()]


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


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
    [
        (WeightMode.FP32, 1e-6),
        (WeightMode.FP16W, 4e-4),
        (WeightMode.INT8, 1.2e-2),
        (WeightMode.BF16, 8e-3),
        (WeightMode.FP16, 1e-3),
    ],
)
def test_error(layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, mode: WeightMode, error: float) -> None:
    if mode is WeightMode.INT8 and mode not in CPU_MODES:
        with pytest.raises(ConfigurationError, match="choose fp16w"):
            make_linear(*layer, mode)
        return
    weight, x = layer[0], rows[2:6]  # not the rows for which half precision overflows
    exact = x.double() @ weight.double().T
    found = make_linear(weight, torch.zeros(96), mode)(x)
    assert found.dtype is torch.float32
    scale = weight.double().norm(dim=1) * x.double().norm(dim=1, keepdim=True) / 16
    assert float(((found - exact) / scale).square().mean().sqrt()) < error


@pytest.mark.parametrize("mode", CPU_MODES)
def test_a_row_is_the_same_to_the_last_bit_in_any_batch(
    layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, mode: WeightMode
) -> None:
    linear = make_linear(*layer, mode)
    together = linear(rows)
    assert all(torch.equal(linear(rows[i : i + 1])[0], together[i]) for i in range(8))
    assert torch.equal(linear(rows[[5, 2]]), together[[5, 2]])


@pytest.mark.parametrize("mode", CPU_MODES)
def test_a_row_that_is_not_finite_harms_no_other(
    layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, mode: WeightMode
) -> None:
    linear = make_linear(*layer, mode)
    broken = rows.clone()
    broken[3] = torch.nan
    found = linear(broken)
    assert found[3].isnan().all()
    others = [0, 1, 2, 4, 5, 6, 7]
    assert torch.equal(found[others], linear(rows)[others])


def test_zeros(layer: tuple[torch.Tensor, torch.Tensor]) -> None:
    for mode in CPU_MODES:
        assert torch.equal(make_linear(*layer, mode)(torch.zeros(1, 256))[0], layer[1])
        assert torch.equal(make_linear(torch.zeros(4, 8), torch.ones(4), mode)(torch.ones(2, 8)), torch.ones(2, 4))


def test_half_precision_where_the_cpu_has_no_exact_products(
    layer: tuple[torch.Tensor, torch.Tensor], rows: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xtts_linear, "exact_products", lambda: False)
    linear = make_linear(*layer, WeightMode.FP16W)
    assert not isinstance(linear, PlanesLinear)
    assert relative_error(linear(rows), torch.nn.functional.linear(rows, *layer)) < 4e-4
    with pytest.raises(ConfigurationError, match="AVX512-VNNI"):
        make_linear(*layer, WeightMode.INT8)


@pytest.mark.skipif(not exact_products(), reason="no GPU nor AVX512-VNNI: nothing to compare")
def test_products_are_exact_at_the_largest_numbers() -> None:
    """A CPU that adds pairs of products in 16 bits saturates here."""
    weight = torch.full((16, 64), 127.0)
    linear = PlanesLinear(weight, torch.zeros(16), planes=1)
    assert torch.equal(linear(torch.full((1, 64), -127.0)), torch.full((1, 16), -127.0 * 127.0 * 64))
