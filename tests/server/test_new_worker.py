"""A GPU is lost while a real gunicorn serves: callers are told, and a new worker process answers the next question."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import torch

pytest.importorskip(
    "mirrorchat.xtts.model", reason="coqui-tts, of the extra `full`, is not installed", exc_type=ImportError
)

from make_tiny_xtts import make_checkpoint
from support.audio_files import wav
from support.places import ROOT
from support.running_server import RunningServer, changed_conf
from support.speech import say
from support.trained_wenet import write_trained_checkpoint

from mirrorchat.wenet.batch import U2Batches
from mirrorchat.xtts.model import Network
from mirrorchat.xtts.steps import EagerSteps

LIMIT_S = 90.0
TEST_PATHS = [str(ROOT / "tests"), str(ROOT / "scripts")]
SPOKEN = say("hello there my dear friends, how are you")
ILLEGAL_ACCESS = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
CUBLAS = RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(handle)`")
PLACES: dict[str, tuple[type, str, Exception]] = {
    "recognition": (U2Batches, "recognize", ILLEGAL_ACCESS),
    "speech": (EagerSteps, "launch", CUBLAS),
    "voice": (Network, "get_speaker_embedding", ILLEGAL_ACCESS),
}
LOSES_THE_GPU = """\
import sys
from pathlib import Path

sys.path[:0] = {paths}
from server.test_new_worker import lose_the_gpu_when_told

lose_the_gpu_when_told(Path({flag!r}))
bind = """
CODES = ("recognition_failed", "synthesis_failed", "shutting_down", "not_ready")


def lose_the_gpu_when_told(flag: Path) -> None:
    """Let the next call of the place that is named in the file `flag` meet an error of the GPU."""

    def failing(usual: Callable[..., Any], place: str, error: Exception) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            if flag.exists() and flag.read_text() == place:
                flag.unlink()
                raise error
            return usual(*arguments, **options)

        return called

    for place, (owner, name, error) in PLACES.items():
        setattr(owner, name, failing(getattr(owner, name), place, error))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_trained_checkpoint(folder / "wenet-en", "en")
    make_checkpoint(folder / "xtts-v2")
    return folder


def test_a_new_worker_process_answers_after_the_gpu_is_lost(models: Path, tmp_path: Path) -> None:
    flag, question = tmp_path / "place", wav(SPOKEN.samples, SPOKEN.sample_rate)
    conf = changed_conf(tmp_path, "bind = ", LOSES_THE_GPU.format(paths=TEST_PATHS, flag=str(flag)))
    with RunningServer(tmp_path, gunicorn_conf=conf, models_dir=str(models)) as server:
        for place in PLACES:
            lost = server.worker_pid
            flag.write_text(place)
            response = server.ask(question, "english")
            assert not flag.exists(), place
            assert response.json()["error"]["code"] in CODES, (place, response.text)
            assert is_ready_only_in_another_worker(server, lost), place
            assert server.ask(question, "english").status_code == 200, place
        assert server.log.count("engine has failed: the server starts again") == len(PLACES)


def is_ready_only_in_another_worker(server: RunningServer, lost: int) -> bool:
    """Return whether /readyz is never 200 again before the worker process `lost` has been replaced."""
    limit = time.monotonic() + LIMIT_S
    while time.monotonic() < limit:
        try:
            if requests.get(f"{server.url}/readyz", timeout=5).status_code == 200:
                return server.worker_pid != lost
        except (requests.ConnectionError, requests.Timeout):  # between two worker processes
            pass
        time.sleep(0.05)
    return False
