"""A process for each side of a comparison, of which only one computes at a time.

Two engines in one process disturb each other: every live thread that has run one of OpenMP's loops keeps workers of
its own, and with more of those than cores a loop takes up to 1.7 times as long. So each side lives in a child process,
and the parent asks one, waits for its answer, and asks the next: all meet the same noise of the machine.
"""

import contextlib
import functools
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

import torch

S = TypeVar("S")
R = TypeVar("R")
P = ParamSpec("P")

DEADLINE_S = 900.0  # for a command, and for a child to be ready
FAREWELL_S = 10.0  # for a child to end after its last command


class SideFailed(Exception):
    """A child raised an error, died or took too long."""


class Child(Generic[S]):
    """A process that holds what `make(*arguments, **settings)` returns, to be closed or used as a context manager.

    It is not waited for before the first question or `wait`, so that several can load at once. Then `import_s` is how
    long it took to start Python and import everything, and `load_s` how long `make` took.
    """

    def __init__(self, name: str, threads: int, make: Callable[..., S], *arguments: Any, **settings: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        work = (theirs, threads, make, arguments, settings)
        self._process = context.Process(target=_serve, args=work, name=name, daemon=True)
        self._started = time.perf_counter()
        self._process.start()
        theirs.close()  # so that the end of the child ends the pipe
        self.import_s = self.load_s = -1.0  # not known yet

    def wait(self) -> None:
        """Return once it is ready. Raises SideFailed when `make` did."""
        if self.load_s < 0:
            ready: float = self._receive(DEADLINE_S)
            self.import_s = ready - self._started
            self.load_s = self._receive(DEADLINE_S)

    def ask(self, method: Callable[Concatenate[S, P], R], *arguments: P.args, **settings: P.kwargs) -> R:
        """Return what `method`, called with what the child holds, returns there.

        Raises SideFailed with the child's traceback when it raises, and when it has not returned by the deadline.
        """
        self.wait()
        try:
            self._connection.send((method, arguments, settings))
        except OSError as error:
            raise SideFailed(f"{self.name} has ended") from error
        result: R = self._receive(DEADLINE_S)
        return result

    def close(self) -> None:
        """Let the child end, by force where it does not. Harmless when it has."""
        with contextlib.suppress(OSError):  # it has ended already
            self._connection.send(None)
        self._process.join(FAREWELL_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()

    def __enter__(self) -> "Child[S]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _receive(self, deadline_s: float) -> Any:
        if not self._connection.poll(deadline_s):
            self._process.kill()
            raise SideFailed(f"{self.name} took longer than {deadline_s:.0f} s")
        try:
            succeeded, result = self._connection.recv()
        except EOFError as error:
            self._process.join(FAREWELL_S)
            raise SideFailed(f"{self.name} died with exit code {self._process.exitcode}") from error
        if not succeeded:
            raise SideFailed(f"{self.name} failed:\n{result}")
        return result


def _serve(
    connection: Connection, threads: int, make: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]
) -> None:
    """Answer commands until there are no more or the parent has gone."""
    torch.set_num_threads(threads)
    connection.send((True, time.perf_counter()))  # a clock that all processes share
    held: list[Any] = []

    def build() -> float:
        start = time.perf_counter()
        held.append(make(*arguments, **settings))
        return time.perf_counter() - start

    answered = _answer(connection, lambda: _on_passing_thread(build))
    try:
        while answered and (command := connection.recv()) is not None:
            method, given, named = command
            _answer(connection, functools.partial(method, held[0], *given, **named))
    except (EOFError, OSError):
        pass  # the parent has gone
    except Exception:  # a command that cannot be read
        traceback.print_exc()
    finally:
        if held and hasattr(held[0], "close"):
            held[0].close()
        sys.stdout.flush()
        os._exit(0)  # at once: with torch, Python's own way out takes a second


def _answer(connection: Connection, work: Callable[[], Any]) -> bool:
    """Send what `work` returns or how it failed; return whether it did not."""
    try:
        connection.send((True, work()))
    except Exception:  # whatever it is, the parent shows it
        connection.send((False, traceback.format_exc()))
        return False
    return True


def _on_passing_thread(work: Callable[[], R]) -> R:
    """Return what `work` returns. As in the server, which loads its engines on a thread that ends, with its workers."""
    results: list[R] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(work())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
