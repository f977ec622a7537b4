"""A process for each side of a comparison. Only one side computes at a time.

Two engines in one process disturb each other: every live thread that has run an OpenMP loop keeps its own workers, and
with more workers than cores a loop takes up to 1.7 times as long. So each side has a process, and the main process asks
one side, waits for its answer, and asks the next one: all sides are exposed to the same noise of the computer.
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

DEADLINE_S = 900.0  # for a command, and for the start of a side
FAREWELL_S = 10.0  # for the end of a side after its last command


class SideFailed(Exception):
    """A side raised an error, died or took too long."""


class Side(Generic[S]):
    """A process that holds the object `make(*arguments, **settings)`. Close it, or use it in a with block.

    The constructor does not wait, so several sides can load in parallel. After `wait` or the first `ask`, `import_s`
    is the time to start Python and import the modules, and `load_s` the time of `make`.
    """

    def __init__(self, name: str, threads: int, make: Callable[..., S], *arguments: Any, **settings: Any) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        work = (theirs, threads, make, arguments, settings)
        self._process = context.Process(target=_serve, args=work, name=name, daemon=True)
        self._started = time.perf_counter()
        self._process.start()
        theirs.close()  # the pipe then ends with the process
        self.import_s = self.load_s = -1.0  # not known yet

    def wait(self) -> None:
        """Wait until the object is made. Raises SideFailed when `make` fails."""
        if self.load_s < 0:
            ready: float = self._receive(DEADLINE_S)
            self.import_s = ready - self._started
            self.load_s = self._receive(DEADLINE_S)

    def ask(self, method: Callable[Concatenate[S, P], R], *arguments: P.args, **settings: P.kwargs) -> R:
        """Return the result of `method` of the object in the process.

        Raises SideFailed, with the traceback of the process, when it fails or exceeds the deadline.
        """
        self.wait()
        try:
            self._connection.send((method, arguments, settings))
        except OSError as error:
            raise SideFailed(f"{self.name} has ended") from error
        result: R = self._receive(DEADLINE_S)
        return result

    def close(self) -> None:
        """End the process, by force if necessary. A second call does nothing."""
        with contextlib.suppress(OSError):  # it has ended already
            self._connection.send(None)
        self._process.join(FAREWELL_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()

    def __enter__(self) -> "Side[S]":
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
    """Answer commands until the main process sends no more or ends."""
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
        pass  # the main process has ended
    except Exception:  # a command that cannot be read
        traceback.print_exc()
    finally:
        if held and hasattr(held[0], "close"):
            held[0].close()
        sys.stdout.flush()
        os._exit(0)  # a normal exit takes a second with torch


def _answer(connection: Connection, work: Callable[[], Any]) -> bool:
    """Send the result of `work`, or its traceback. Return True for a result."""
    try:
        connection.send((True, work()))
    except Exception:  # the main process shows it
        connection.send((False, traceback.format_exc()))
        return False
    return True


def _on_passing_thread(work: Callable[[], R]) -> R:
    """Return the result of `work` on a thread that then ends with its OpenMP workers, as in the server."""
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
