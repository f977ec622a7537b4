"""Worker processes: an exchange that was cancelled, late or in time, disturbs no later one."""

from collections.abc import Callable, Iterator

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers import process
from mirrorchat.embedded.workers.process import WorkerProcesses
from mirrorchat.errors import ClientGone, DeadlineExceeded

GONE = ClientGone("the caller hung up")
REQUEST = b"en-us\0Hello."


@pytest.fixture
def workers() -> Iterator[WorkerProcesses]:
    workers = WorkerProcesses("mirrorchat.embedded.workers.espeak_worker")
    workers.warm_up()
    yield workers
    workers.close()


def ask(workers: WorkerProcesses, context: Context | None = None) -> bytes:
    return workers.request(REQUEST, limit_s=20.0, context=context or Context.after(60.0))


def test_a_cancellation_that_comes_late_touches_no_later_exchange(
    workers: WorkerProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    late: list[Callable[[object], object]] = []

    class Late(Context):
        def on_cancel(self, call: Callable[[object], object]) -> Callable[[], None]:  # type: ignore[override]
            late.append(call)  # as a cancel() in another thread that has copied its list already
            return super().on_cancel(call)

    pids = workers.pids()
    ask(workers, Late.after(60.0))
    for call in late:
        call(GONE)
    assert ask(workers) and workers.pids() == pids


def test_a_cancellation_just_after_the_answer_costs_the_next_caller_nothing(
    workers: WorkerProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, real = Context.after(60.0), process._Exchange.receive

    def receive(exchange: process._Exchange) -> tuple[bool, bytes]:
        answer = real(exchange)
        context.cancel(GONE)
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(process._Exchange, "receive", receive)
        assert ask(workers, context)
    assert ask(workers)


def test_a_request_past_its_deadline_leaves_the_process_as_it_is(workers: WorkerProcesses) -> None:
    pids = workers.pids()
    for _ in range(3):
        with pytest.raises(DeadlineExceeded):
            ask(workers, Context.after(0.0))
    assert workers.pids() == pids
