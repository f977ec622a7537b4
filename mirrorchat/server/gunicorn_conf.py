"""gunicorn's configuration: one worker, which loads the models once; threads, since turns wait for native code."""

import logging
import threading
from types import FrameType
from typing import Any

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.host_memory import limit_malloc_arenas
from mirrorchat.settings import load_settings

limit_malloc_arenas()
try:
    _settings = load_settings()
    _settings.check_served()
except ConfigurationError as error:
    raise SystemExit(f"mirrorchat: {error.message}") from None

_host = f"[{_settings.host}]" if ":" in _settings.host and not _settings.host.startswith("unix:") else _settings.host
bind = f"{_host}:{_settings.port}"
wsgi_app = "mirrorchat.app:create_app()"
workers = 1
worker_class = "mirrorchat.server.worker.DeadlineWorker"
SPARE_THREADS = 12  # for health, rejections and uploads, beside running and queued turns
threads = max(32, _settings.max_turns + _settings.max_waiting + SPARE_THREADS)
timeout = 120
graceful_timeout = 30
keepalive = 75  # longer than nginx keeps an idle connection, so that nginx closes it
secure_scheme_headers: dict[str, str] = {}  # MirrorChat itself reads the headers of proxies (trusted_proxies)
control_socket_disable = True  # it would write a socket into the home folder
TURN_GRACE_S = 25.0  # below graceful_timeout: then turns end with an error, before gunicorn closes their connections

logconfig_dict = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"nothing_of_callers": {"()": "mirrorchat.server.gunicorn_log.NothingOfCallers"}},
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "root": {"level": "WARNING", "handlers": ["stderr"]},
    "loggers": {
        "mirrorchat": {"level": "INFO"},
        "gunicorn.error": {"level": "INFO", "handlers": [], "propagate": True, "filters": ["nothing_of_callers"]},
        "gunicorn.access": {"level": "CRITICAL", "handlers": [], "propagate": False},
    },
}


def post_worker_init(worker: Any) -> None:
    """On SIGTERM reject new turns, and end running turns with an error after TURN_GRACE_S.

    Watch the engines and the memory.
    """
    import signal

    from mirrorchat.server.failed_engine import end_worker_with_failed_engines
    from mirrorchat.server.memory import keep_memory_small

    runtime = worker.app.callable.extensions["mirrorchat"]

    def stop(signum: int, frame: FrameType | None) -> None:
        logging.getLogger("mirrorchat").info("stopping: %d turns may finish", runtime.admission.running)
        runtime.stop_admission()
        timer = threading.Timer(TURN_GRACE_S, runtime.end_turns)
        timer.daemon = True
        timer.start()
        worker.handle_exit(signum, frame)

    signal.signal(signal.SIGTERM, stop)
    end_worker_with_failed_engines(runtime)
    keep_memory_small(runtime)


def worker_exit(server: Any, worker: Any) -> None:
    """Free the engines, and end their worker processes, when gunicorn's worker exits."""
    app = getattr(worker.app, "callable", None)
    if app is not None:
        app.extensions["mirrorchat"].close()
