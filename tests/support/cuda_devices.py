"""Fixtures for tests on a GPU: a real one if there is one, else a simulated one, and a simulated one always.

`cuda_device` is a torch.device. The test runs once for each of CASES: on `cuda:0`, of compute capability 8.9, and on
`cuda:1` beside it, of 7.5; on a machine with GPUs, on the first two real ones. `any_device` is the CPU, too.
`simulated_cuda` is a `SimulatedCuda` with two devices, also where there are real ones: for what only a simulated device
can tell or do, as count waits, run out of memory, or be lost.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch

    from support.simulated_cuda import SimulatedCuda


@dataclass(frozen=True)
class Case:
    """A device: the CPU if it has no number, a real one if it has no capability."""

    index: int | None
    capability: tuple[int, int] | None = None

    def __str__(self) -> str:
        if self.index is None:
            return "cpu"
        return f"cuda:{self.index}" + (f" {self.capability[0]}.{self.capability[1]}" if self.capability else "")


CASES = [Case(0, (8, 9)), Case(1, (7, 5))]
CPU = Case(None)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    given = {name for mark in metafunc.definition.iter_markers("parametrize") for name in _names(mark)}
    for name, before in (("cuda_device", []), ("any_device", [CPU])):
        if name in metafunc.fixturenames and name not in given:
            metafunc.parametrize(name, [*before, *_cases()], indirect=True, ids=str)


def _names(mark: pytest.Mark) -> list[str]:
    names = mark.args[0]
    return [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)


def _cases() -> list[Case]:
    import torch

    return [Case(index) for index in range(min(2, torch.cuda.device_count()))] or CASES


@pytest.fixture
def cuda_device(request: pytest.FixtureRequest) -> "Iterator[torch.device]":
    """A GPU; see CASES."""
    yield from _device(request.param)


@pytest.fixture
def any_device(request: pytest.FixtureRequest) -> "Iterator[torch.device]":
    """The CPU or a GPU; see CASES."""
    yield from _device(request.param)


def _device(case: Case) -> "Iterator[torch.device]":
    import torch

    if case.index is None:
        yield torch.device("cpu")
    elif case.capability is None:
        yield torch.device("cuda", case.index)
    else:
        from support.simulated_cuda import Gpu, install, uninstall

        gpus = [Gpu(), Gpu()]
        gpus[case.index].capability = case.capability
        install(*gpus)
        yield torch.device("cuda", case.index)
        uninstall()


@pytest.fixture
def simulated_cuda() -> "Iterator[SimulatedCuda]":
    """Two simulated devices; `simulated_cuda.gpus[0].capability = (7, 5)` changes one."""
    from support.simulated_cuda import install, uninstall

    yield install()
    uninstall()
