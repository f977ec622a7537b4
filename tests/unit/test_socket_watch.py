"""The watch on callers' sockets: hang-ups cancel the turn at once."""

import socket
import threading
from collections.abc import Iterator

import pytest

from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ClientGone
from mirrorchat.server.socket_watch import SOCKET_KEY, CallerSocket, SocketWatch

LONG_S = 20.0


@pytest.fixture
def watch() -> Iterator[SocketWatch]:
    watch = SocketWatch()
    yield watch
    watch.close()


class Caller:
    """A connection, its request's context, and the watch on it."""

    def __init__(self, watch: SocketWatch) -> None:
        self.server, self.client = socket.socketpair()
        self.context, self.gone = Context.after(LONG_S), threading.Event()
        self.context.on_cancel(lambda _: self.gone.set())
        self.watched: CallerSocket = watch.watch({SOCKET_KEY: self.server}, self.context)

    def close(self) -> None:
        self.watched.close()
        self.server.close()
        self.client.close()


@pytest.fixture
def callers(watch: SocketWatch) -> Iterator[list[Caller]]:
    callers = [Caller(watch) for _ in range(3)]
    yield callers
    for caller in callers:
        caller.close()


@pytest.mark.parametrize("half", [True, False])
def test_a_hang_up_cancels_its_own_turn_alone(callers: list[Caller], half: bool) -> None:
    if half:
        callers[1].client.shutdown(socket.SHUT_WR)
    else:
        callers[1].client.close()
    assert callers[1].gone.wait(LONG_S)
    with pytest.raises(ClientGone, match="hung up"):
        callers[1].context.check()
    for caller in (callers[0], callers[2]):
        caller.context.check()


def test_a_socket_is_watched_anew_for_each_request(watch: SocketWatch, callers: list[Caller]) -> None:
    first = callers[0]
    first.watched.close()
    context, gone = Context.after(LONG_S), threading.Event()
    context.on_cancel(lambda _: gone.set())
    second = watch.watch({SOCKET_KEY: first.server}, context)
    first.client.close()
    assert gone.wait(LONG_S)
    first.context.check()  # its request was over
    second.close()


def test_what_is_not_watched_is_left_alone(watch: SocketWatch) -> None:
    context = Context()
    caller = watch.watch({}, context)  # another server, which does not hand its socket on
    caller.pace()
    assert not caller.expired
    caller.close()
    context.check()


def test_a_write_to_a_caller_who_has_hung_up_ends_at_once(callers: list[Caller]) -> None:
    caller = callers[0]
    caller.client.shutdown(socket.SHUT_WR)  # it reads nothing either
    assert caller.gone.wait(LONG_S)
    with pytest.raises(OSError):
        caller.server.sendall(b"an error event")


def test_a_fault_in_one_cancellation_leaves_the_others_watched(callers: list[Caller]) -> None:
    def fault(_: object) -> None:
        raise RuntimeError("a defect")

    callers[0].context.on_cancel(fault)
    callers[0].client.close()
    assert callers[0].gone.wait(LONG_S)
    callers[1].client.close()
    assert callers[1].gone.wait(LONG_S)


def test_a_request_that_outlives_the_watch_is_still_watched() -> None:
    watch = SocketWatch()
    caller = Caller(watch)
    watch.close()
    caller.client.close()
    assert caller.gone.wait(LONG_S)
    caller.close()
    context = Context()
    watch.watch({SOCKET_KEY: caller.server}, context).close()  # a request that begins after the watch has closed
    context.check()
