"""What ends gunicorn's worker process when one of its engines has failed for good: gunicorn then starts another.

A lost GPU cannot be used again by the same process, and neither can an engine whose thread has ended.
"""

import logging
import os
import signal
import threading
import time

from mirrorchat.engines import Engines, Recognizer, Synthesizer
from mirrorchat.errors import EngineFailed, NotReady
from mirrorchat.server.runtime import Runtime

CHECK_S = 0.25  # between two looks at the engines
END_LIMIT_S = 10.0  # for the worker to tell its callers and to end; a broken driver can block it for ever

_log = logging.getLogger(__name__)


def end_worker_with_failed_engines(runtime: Runtime) -> None:
    """Watch the engines from a thread of its own, and end this process when one has failed for good."""
    threading.Thread(target=_watch, args=(runtime,), name="watch-engines", daemon=True).start()


def _watch(runtime: Runtime) -> None:
    while (engines := runtime.metrics.engines) is None or (error := failure(engines)) is None:
        time.sleep(CHECK_S)
    _log.critical("%s", error.message)
    runtime.end_turns()
    signal.alarm(int(END_LIMIT_S) + 2)  # ends this process even while Python itself is ending
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(END_LIMIT_S)
    os._exit(1)


def failure(engines: Engines) -> EngineFailed | None:
    """Return the error of an engine that has failed for good, also if others are only busy; None if there is none."""
    watched: list[Recognizer | Synthesizer] = [*engines.recognizers.values(), *engines.synthesizers.values()]
    for engine in watched:
        try:
            engine.check_ready()
        except EngineFailed as error:
            return error
        except NotReady:  # it may work again
            pass
    return None
