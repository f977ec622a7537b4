"""What a turn leaves in a served process is freed soon."""

from pathlib import Path

from support.checks import wait_for
from support.running_server import RunningServer, changed_conf

CYCLE = """\
def _leave_a_cycle(runtime: Any) -> None:
    import gc
    import weakref

    class Left:
        pass

    while not runtime.wait_until_loaded(1.0) or not gc.get_freeze_count():
        pass
    left = Left()
    left.itself = left
    weakref.finalize(left, logging.getLogger("mirrorchat").info, "the cycle is freed")
    logging.getLogger("mirrorchat").info("a cycle is left")


def post_worker_init(worker: Any) -> None:
    threading.Thread(target=_leave_a_cycle, args=(worker.app.callable.extensions["mirrorchat"],), daemon=True).start()
    _post_worker_init(worker)


def _post_worker_init(worker: Any) -> None:"""


def test_reference_cycles_are_freed_without_further_turns(tmp_path: Path) -> None:
    conf = changed_conf(tmp_path, "def post_worker_init(worker: Any) -> None:", CYCLE)
    with RunningServer(tmp_path, gunicorn_conf=conf) as running:
        wait_for(lambda: "a cycle is left" in running.log)
        wait_for(lambda: "the cycle is freed" in running.log)
