"""The thread on which voices are computed on a GPU."""

from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import TypeVar

import torch

from mirrorchat.errors import NotReady, SynthesisFailed

LIMIT_S = 30.0  # for a voice and those before it; each takes less than 0.1 s
T = TypeVar("T")


class VoiceThread:
    """Computes voices on `device`, on a GPU one at a time and on one thread. Thread-safe.

    Every thread that computes on a GPU has handles and workspaces of cuBLAS and cuDNN of its own, and cuDNN prepares
    anew for each. So a server's many request threads would take memory without need. A CPU computes on the caller's
    thread.
    """

    def __init__(self, device: torch.device) -> None:
        self._pool: ThreadPoolExecutor | None = None
        if device.type == "cuda":
            self._pool = ThreadPoolExecutor(1, "xtts-voice", torch.cuda.set_device, (device,))

    def run(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, or raise what it raises. It is called twice if a GPU's memory runs out.

        Raises SynthesisFailed after 30 s, NotReady after `close`.
        """
        if self._pool is None:
            return compute()
        try:
            waiting = self._pool.submit(_with_freed_memory, compute)
            return waiting.result(LIMIT_S)
        except TimeoutError as error:
            waiting.cancel()
            raise SynthesisFailed(f"the voice was not computed within {LIMIT_S:g} s") from error
        except CancelledError as error:
            raise NotReady("the speech model has been closed") from error

    def close(self) -> None:
        """End the thread after the voice that it computes."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _with_freed_memory(compute: Callable[[], T]) -> T:
    """Call `compute`; if the GPU's memory runs out, once more, without what torch keeps of freed memory."""
    try:
        return compute()
    except torch.OutOfMemoryError:
        pass  # from here on the error holds no tensors of the failed attempt
    torch.cuda.empty_cache()
    return compute()
