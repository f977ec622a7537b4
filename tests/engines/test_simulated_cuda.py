"""The simulated CUDA device: it computes what the CPU does, and finds the mistakes that a real one would hide."""

import gc
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from support.simulated_cuda import Gpu, SimulatedCuda, install, uninstall
from support.simulated_cuda.allocator import LARGE_SEGMENT, SMALL_SEGMENT, Allocator
from torch import Tensor
from torch.nn import functional as F

CPU = torch.device("cpu")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 4, generator=GENERATOR)
NUMBERS = torch.tensor([2, 0])


def in_thread(function: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv1d(3, 4, 3), torch.nn.GELU(), torch.nn.BatchNorm1d(4)).eval()


def lstm() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.LSTM(4, 2, batch_first=True)


def attended(device: torch.device, **options: Any) -> Tensor:
    x = X.to(device)[None, None]
    return F.scaled_dot_product_attention(x, x, x, **options)


def event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]


def stream(device: int = 0, priority: int = 0) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority)  # type: ignore[no-untyped-call]


COMPUTATIONS: list[Callable[[torch.device], Any]] = [
    lambda device: X.to(device) @ X.to(device).T + 1.5,
    lambda device: network().to(device)(torch.ones(2, 3, 9, device=device)),
    lambda device: attended(device, is_causal=True),
    lambda device: attended(device, attn_mask=torch.eye(3).bool().to(device)),
    lambda device: X.to(device)[NUMBERS.to(device), 1:].sort(descending=True),
    lambda device: X.to(device)[[0, 2], None, ..., -1],
    lambda device: X.to(device)[X.to(device) > 0],
    lambda device: X.to(device).topk(2).values.softmax(-1).cumsum(0),
    lambda device: torch.stft(
        X.to(device).flatten(), 4, window=torch.ones(4, device=device), return_complex=True
    ).abs(),
    lambda device: lstm().to(device)(X[None].to(device))[0],
    lambda device: torch.where(X.to(device) > 0, X.to(device), 0.0).unbind(1),
    lambda device: (int(NUMBERS.to(device)[0]), float(X.to(device)[1, 1]), NUMBERS.to(device).tolist()),
]


@torch.inference_mode()
@pytest.mark.parametrize("compute", COMPUTATIONS)
def test_it_computes_what_the_cpu_does(any_device: torch.device, compute: Callable[[torch.device], Any]) -> None:
    found, expected = compute(any_device), compute(CPU)
    # A real one computes convolutions in TF32.
    torch.testing.assert_close(found, expected, check_device=False, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("index", [1, slice(1, 3), (0, slice(None, 2)), ([2, 0], 1), (Ellipsis, NUMBERS), X > 0])
@pytest.mark.parametrize("value", [7.0, torch.tensor(7.0)])
def test_it_writes_where_the_cpu_does(any_device: torch.device, index: Any, value: Any) -> None:
    found, expected = X.to(any_device, copy=True), X.clone()
    expected[index] = value
    found[index.to(any_device) if isinstance(index, Tensor) else index] = value
    assert torch.equal(found.cpu(), expected)


class TestLateness:
    def test_a_pinned_buffer_read_too_early_holds_no_result(self, simulated_cuda: SimulatedCuda) -> None:
        found = torch.zeros(3, pin_memory=True)
        found.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        assert found.isnan().all()
        torch.cuda.synchronize()
        assert found.tolist() == [1.0, 1.0, 1.0]

    def test_a_pinned_buffer_written_too_early_spoils_the_upload(self, simulated_cuda: SimulatedCuda) -> None:
        source = torch.ones(3, pin_memory=True)
        found = source.to("cuda", non_blocking=True)
        source.fill_(5.0)
        assert found.tolist() == [5.0, 5.0, 5.0]

    def test_an_event_of_the_wrong_stream_waits_for_nothing(self, simulated_cuda: SimulatedCuda) -> None:
        found = torch.zeros(3, pin_memory=True)
        found.copy_(torch.ones(3, device="cuda:1"), non_blocking=True)
        place = event()
        place.record()  # on the current device, which is 0
        place.synchronize()
        assert found.isnan().all()

    def test_an_event_that_is_asked_again_and_again_comes(self, simulated_cuda: SimulatedCuda) -> None:
        found = torch.zeros(3, pin_memory=True)
        found.copy_(torch.ones(3, device="cuda"), non_blocking=True)
        place = event()
        place.record()
        assert not place.query()  # type: ignore[no-untyped-call]
        assert place.query()  # type: ignore[no-untyped-call]
        assert found.tolist() == [1.0, 1.0, 1.0]


class TestStreams:
    def test_reading_before_it_is_written(self, simulated_cuda: SimulatedCuda) -> None:
        x = torch.ones(3, device="cuda")
        with torch.cuda.stream(stream()), pytest.raises(RuntimeError, match="has not waited for it"):
            x + 1

    def test_writing_before_it_is_read(self, simulated_cuda: SimulatedCuda) -> None:
        x, side = torch.ones(3, device="cuda"), stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = x + 1
        with pytest.raises(RuntimeError, match="overwrites what stream 1"):
            x.zero_()
        torch.cuda.current_stream().wait_stream(side)
        x.zero_()
        assert y.tolist() == [2.0, 2.0, 2.0]

    def test_waiting_for_one_who_has_waited(self, simulated_cuda: SimulatedCuda) -> None:
        x, second, third = torch.ones(3, device="cuda"), stream(), stream()
        second.wait_stream(torch.cuda.current_stream())
        third.wait_stream(second)
        with torch.cuda.stream(third):
            assert (x + 1).tolist() == [2.0, 2.0, 2.0]

    def test_memory_that_another_stream_still_uses(self, simulated_cuda: SimulatedCuda) -> None:
        def used(record: bool) -> None:
            x, side = torch.ones(3, device="cuda"), stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                x + 1
            if record:
                x.record_stream(side)

        used(record=True)
        torch.ones(3, device="cuda")
        used(record=False)
        with pytest.raises(RuntimeError, match="record_stream is missing"):
            torch.ones(3, device="cuda")

    def test_there_are_32_of_each_priority(self, simulated_cuda: SimulatedCuda) -> None:
        made = [stream() for _ in range(33)]
        assert made[0] is made[32]
        assert len({*made, stream(priority=-1), stream(1)}) == 34

    def test_each_thread_begins_on_the_first_device_and_its_default_stream(self, simulated_cuda: SimulatedCuda) -> None:
        torch.cuda.set_device(1)
        with torch.cuda.stream(stream(1)):
            assert torch.zeros(1, device="cuda").device.index == 1
            default = in_thread(lambda: torch.cuda.current_stream() is torch.cuda.default_stream(0))
            assert default and in_thread(lambda: torch.zeros(1, device="cuda").device.index) == 0


class TestGraphs:
    def test_a_capture_records_and_a_replay_runs(self, cuda_device: torch.device) -> None:
        with torch.cuda.device(cuda_device):
            x, graph = torch.zeros(3, device=cuda_device), torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = x.add_(1) * 2
            assert x.tolist() == [0.0, 0.0, 0.0]
            graph.replay()
            graph.replay()
            assert (x.tolist(), y.tolist()) == ([2.0, 2.0, 2.0], [4.0, 4.0, 4.0])

    def test_its_operations_can_be_counted(self, simulated_cuda: SimulatedCuda) -> None:
        x, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            x.add_(1).mul_(2)
        assert simulated_cuda.graphs[-1].kernels == ["add_.Tensor", "mul_.Tensor"]
        graph.replay()
        assert simulated_cuda.graphs[-1].replays == 1

    @pytest.mark.parametrize("wait", [lambda x: x.tolist(), lambda x: torch.cuda.synchronize(), lambda x: x[0].item()])
    def test_a_wait_ends_a_capture(self, simulated_cuda: SimulatedCuda, wait: Callable[[Tensor], object]) -> None:
        x = torch.zeros(3, device="cuda")
        with pytest.raises(torch.AcceleratorError, match="capture"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            wait(x)

    @pytest.mark.parametrize("mode", ["global", "thread_local"])
    def test_a_wait_of_another_thread_ends_a_global_one(self, simulated_cuda: SimulatedCuda, mode: str) -> None:
        x = torch.zeros(3, device="cuda")
        graph = torch.cuda.CUDAGraph()

        def capture() -> None:
            with torch.cuda.graph(graph, capture_error_mode=mode):
                x.add_(1)
                in_thread(wait)

        def wait() -> None:
            if mode == "global":
                with pytest.raises(torch.AcceleratorError, match="stream is capturing"):
                    torch.cuda.synchronize()
            else:
                torch.cuda.synchronize()

        if mode == "global":
            with pytest.raises(torch.AcceleratorError, match="previous error"):
                capture()
        else:
            capture()

    def test_a_capture_on_another_device_is_empty(self, simulated_cuda: SimulatedCuda) -> None:
        x = torch.zeros(3, device="cuda:1")
        with pytest.warns(UserWarning, match="Graph is empty"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            x.add_(1)

    def test_memory_that_was_freed_since(self, simulated_cuda: SimulatedCuda) -> None:
        x, graph = torch.zeros(3, device="cuda"), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x + 1
        del x
        gc.collect()
        with pytest.raises(RuntimeError, match="freed since its capture"):
            graph.replay()
        assert y.device.type == "cuda"


class TestWaits:
    @pytest.mark.parametrize(
        ("action", "kind"),
        [
            (lambda x: x.cpu(), "download to pageable memory"),
            (lambda x: x[0].item(), "_local_scalar_dense"),
            (lambda x: x[x > 0], "index.Tensor"),
            (lambda x: x.copy_(torch.ones(3)), "upload from pageable memory"),
            (lambda x: x.copy_(torch.ones(3), non_blocking=True), "upload from pageable memory"),
            (lambda x: x[torch.tensor([0, 1])], "indices on the CPU"),
            (lambda x: torch.cuda.synchronize(), "torch.cuda.synchronize"),
        ],
    )
    def test_each_is_counted_and_can_be_an_error(
        self, simulated_cuda: SimulatedCuda, action: Callable[[Tensor], object], kind: str
    ) -> None:
        x = torch.zeros(3, device="cuda")
        with simulated_cuda.counting() as waits:
            action(x)
        assert [(why, line.partition(":")[0]) for why, line in waits] == [(kind, "test_simulated_cuda.py")]
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchronizing"):
            action(x)

    def test_what_the_device_does_alone_is_none(self, simulated_cuda: SimulatedCuda) -> None:
        x, pinned = torch.zeros(3, device="cuda"), torch.ones(3, pin_memory=True)
        with simulated_cuda.counting() as waits:
            x.copy_(pinned, non_blocking=True)
            x[1] = 5.0
            pinned.copy_(x * torch.arange(3, device="cuda"), non_blocking=True)
        assert not waits


class TestMixes:
    @pytest.mark.parametrize("other", ["cpu", "cuda:1"])
    def test_tensors_of_two_devices(self, simulated_cuda: SimulatedCuda, other: str) -> None:
        with pytest.raises(RuntimeError, match="same device"):
            torch.ones(3, device="cuda") + torch.ones(3, device=other)

    def test_a_number_of_the_cpu_is_none(self, simulated_cuda: SimulatedCuda) -> None:
        assert (torch.ones(3, device="cuda") + torch.tensor(1.0)).tolist() == [2.0, 2.0, 2.0]

    def test_no_numpy(self, simulated_cuda: SimulatedCuda) -> None:
        with pytest.raises(TypeError, match="convert cuda:0"):
            torch.ones(3, device="cuda").numpy()

    @pytest.mark.parametrize("name", ["set_device", "mem_get_info", "get_device_name", "Stream", "memory_allocated"])
    def test_a_device_that_is_not_there(self, simulated_cuda: SimulatedCuda, name: str) -> None:
        with pytest.raises(torch.AcceleratorError, match="invalid device ordinal"):
            getattr(torch.cuda, name)(2)

    def test_an_event_of_another_device(self, simulated_cuda: SimulatedCuda) -> None:
        place = event()
        place.record()
        with torch.cuda.device(1), pytest.raises(RuntimeError, match="does not match"):
            place.record()

    @pytest.mark.parametrize(
        ("capability", "mask", "kernel"),
        [((8, 9), False, "flash"), ((8, 9), True, "efficient"), ((7, 5), True, "math"), ((9, 0), True, "cudnn")],
    )
    def test_attention_s_kernel_is_torch_s_choice(
        self, simulated_cuda: SimulatedCuda, capability: tuple[int, int], mask: bool, kernel: str
    ) -> None:
        simulated_cuda.gpus[0].capability = capability
        x = torch.ones(1, 1, 3, 4, device="cuda", dtype=torch.bfloat16)
        seen = torch.ones(3, 3, device="cuda", dtype=torch.bool) if mask else None
        with torch.inference_mode():
            F.scaled_dot_product_attention(x, x, x, attn_mask=seen)
        assert simulated_cuda.launched[f"attention ({kernel})"] == 1


class TestMemory:
    def test_it_is_counted_as_torch_s_allocator_does(self, simulated_cuda: SimulatedCuda) -> None:
        free, total = torch.cuda.mem_get_info()
        small, large = torch.zeros(100, device="cuda"), torch.zeros(1 << 20, device="cuda")
        assert torch.cuda.memory_allocated() == 512 + (4 << 20)
        assert torch.cuda.memory_reserved() == SMALL_SEGMENT + LARGE_SEGMENT
        assert torch.cuda.mem_get_info() == (free - SMALL_SEGMENT - LARGE_SEGMENT, total)
        del large
        assert (torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()) == (512, 512 + (4 << 20))
        torch.cuda.empty_cache()
        assert torch.cuda.memory_reserved() == SMALL_SEGMENT
        assert small.device.index == 0 and torch.cuda.memory_allocated(1) == 0

    def test_segments_are_split_and_joined(self, simulated_cuda: SimulatedCuda) -> None:
        pieces = [torch.zeros(1 << 20, device="cuda") for _ in range(5)]  # of 4 MB, in one segment of 20
        assert torch.cuda.memory_reserved() == LARGE_SEGMENT
        del pieces[1:4]
        larger = torch.zeros(2 << 20, device="cuda")
        assert torch.cuda.memory_reserved() == LARGE_SEGMENT
        assert torch.cuda.memory_allocated() == 16 << 20
        del pieces, larger
        assert torch.cuda.memory_allocated() == 0

    def test_a_view_keeps_it(self, simulated_cuda: SimulatedCuda) -> None:
        view = torch.zeros(100, device="cuda")[:1]
        assert torch.cuda.memory_allocated() == 512
        del view
        assert torch.cuda.memory_allocated() == 0

    def test_each_stream_and_each_thread_has_its_workspace(self, simulated_cuda: SimulatedCuda) -> None:
        x = torch.ones(2, 2, device="cuda")
        torch.cuda.synchronize()

        def taken(of: torch.cuda.Stream) -> int:
            before = torch.cuda.memory_allocated()
            with torch.cuda.stream(of):
                torch.mm(x, x)
            return torch.cuda.memory_allocated() - before

        side = stream()
        megabytes = [taken(torch.cuda.default_stream()) >> 20, taken(side) >> 20, taken(side) >> 20]
        other = in_thread(lambda: taken(torch.cuda.default_stream()) >> 20)
        assert (megabytes, other) == ([8, 8, 0], 8)
        assert in_thread(lambda: taken(torch.cuda.default_stream()) >> 20) == 0  # the handle of a thread that ended

    def test_what_is_not_there_cannot_be_taken(self) -> None:
        install(Gpu(total_bytes=1 << 30, outside_bytes=1 << 28))
        try:
            with pytest.raises(torch.OutOfMemoryError):
                torch.zeros(1 << 28, device="cuda")
            torch.cuda.set_per_process_memory_fraction(0.125)
            torch.zeros(1 << 24, device="cuda")
            with pytest.raises(torch.OutOfMemoryError):
                torch.zeros(1 << 26, device="cuda")
            assert torch.zeros(3, device="cuda").tolist() == [0.0, 0.0, 0.0]
        finally:
            uninstall()

    def test_an_allocation_fails_when_it_is_told_to(self, simulated_cuda: SimulatedCuda) -> None:
        simulated_cuda.fail_allocation(after=1, thread=threading.current_thread().name)
        torch.zeros(3, device="cuda")
        assert in_thread(lambda: torch.zeros(3, device="cuda").tolist()) == [0.0, 0.0, 0.0]
        with pytest.raises(torch.OutOfMemoryError):
            torch.zeros(3, device="cuda")
        torch.zeros(3, device="cuda")


class TestLostDevice:
    @pytest.mark.parametrize(
        "call",
        [
            lambda x, place: x + 1,
            lambda x, place: x.cpu(),
            lambda x, place: x.zero_(),
            lambda x, place: x[0].item(),
            lambda x, place: place.query(),
            lambda x, place: place.synchronize(),
            lambda x, place: place.record(),
            lambda x, place: torch.cuda.synchronize(),
            lambda x, place: torch.cuda.mem_get_info(),
            lambda x, place: stream(),
            lambda x, place: torch.zeros(3, device="cuda"),
        ],
    )
    def test_each_call_fails_until_a_new_process(
        self, simulated_cuda: SimulatedCuda, call: Callable[[Tensor, Any], object]
    ) -> None:
        x, place = torch.zeros(3, device="cuda"), event()
        place.record()
        simulated_cuda.lose()
        for _ in range(2):
            with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
                call(x, place)
        assert torch.zeros(3, device="cuda:1").tolist() == [0.0, 0.0, 0.0]
        simulated_cuda.regain()
        assert x.tolist() == [0.0, 0.0, 0.0]

    def test_in_the_midst_of_things_and_with_the_error_of_a_library(self, simulated_cuda: SimulatedCuda) -> None:
        x = torch.zeros(3, device="cuda")
        simulated_cuda.lose(after=2, last_words=RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"))
        x += 1
        x += 1
        with pytest.raises(RuntimeError, match="CUBLAS"):
            x += 1
        with pytest.raises(torch.AcceleratorError):
            torch.cuda.synchronize()


def test_it_leaves_nothing_behind() -> None:
    def seen() -> list[object]:
        own = [
            torch.is_grad_enabled(),
            torch.get_num_threads(),
            threading.Thread.run,
            torch.backends.cudnn.is_acceptable,
        ]
        return [*own, vars(torch.cuda).copy(), vars(torch.cuda.graph).copy(), vars(torch._C).copy()]

    before = seen()
    install(Gpu((6, 1)))
    assert torch.cuda.get_device_capability() == (6, 1)
    assert torch.cuda.get_device_properties(0).total_memory == Gpu().total_bytes
    uninstall()
    assert seen() == before
    assert in_thread(torch.is_grad_enabled)


def test_threads_allocate_at_the_same_time() -> None:
    """As an engine and whoever reads what it made do."""
    allocator, before = Allocator(), sys.getswitchinterval()

    def allocate(_: int) -> None:
        for number in range(1500):
            sizes = [700 * (1 + (number * 7 + each) % 50) for each in range(3)]
            for chunk in [allocator.allocate(size, "pool", 1 << 33) for size in sizes]:
                allocator.give_back(chunk)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(allocate, range(3)))
    finally:
        sys.setswitchinterval(before)
    allocator.settle()
    assert allocator.allocated == 0
