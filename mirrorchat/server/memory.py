"""Keeps the server's process as small as what it holds.

A turn leaves recordings in reference cycles, and gaps in malloc's heaps. Python alone would free the cycles only when
as many objects as a quarter of all loaded ones have gathered, which takes hundreds of turns.
"""

import gc
import threading
import time

from mirrorchat.hardware.host_memory import return_free_memory
from mirrorchat.server.runtime import Runtime

TIDY_S = 5.0


def keep_memory_small(runtime: Runtime) -> None:
    """Free, from a thread of its own, what turns leave behind, as soon as the engines are loaded."""
    threading.Thread(target=_tidy, args=(runtime,), name="tidy-memory", daemon=True).start()


def _tidy(runtime: Runtime) -> None:
    while not runtime.wait_until_loaded(TIDY_S):
        pass
    gc.collect()
    gc.freeze()  # what is loaded stays: no collection has to look at it again
    while True:
        time.sleep(TIDY_S)
        gc.collect()
        return_free_memory()
