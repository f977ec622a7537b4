"""Fixtures that several test files share, and the rule for skips: under --strict-skips only what is stated may skip."""

import subprocess
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from support.openai_scene import Scene, open_scene
from support.page_scene import Scene as PageScene
from support.page_scene import Scenes as PageScenes
from support.page_scene import open_scenes
from support.running_server import RunningServer

# How the reason of a permitted skip begins.
ALLOWED_SKIPS = ("clips absent", "no GPU", "no compiled library", "wenet package absent")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail on a skip that is not one of ALLOWED_SKIPS")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if item.config.getoption("--strict-skips") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        if not reason.removeprefix("Skipped: ").startswith(ALLOWED_SKIPS):
            report.outcome = "failed"
            report.longrepr = f"skipped, which --strict-skips does not allow: {reason}"
    return report


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real gunicorn with no weights and no chat API: everything embedded, the parrot answers."""
    with RunningServer(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture(scope="session")
def openai_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """A real gunicorn with two keys and two real chat APIs, embedded engines, and a folder for voices."""
    with open_scene(tmp_path_factory.mktemp("openai")) as scene:
        yield scene


@pytest.fixture(scope="session")
def weights_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """The same with weights: WeNet's trained tiny models for both languages, a tiny XTTS."""
    from make_tiny_xtts import make_checkpoint
    from support.trained_wenet import write_trained_checkpoint

    folder = tmp_path_factory.mktemp("weights")
    write_trained_checkpoint(folder / "models" / "wenet-zh", "zh")
    write_trained_checkpoint(folder / "models" / "wenet-en", "en")
    make_checkpoint(folder / "models" / "xtts-v2")
    with open_scene(folder) as scene:
        yield scene


@pytest.fixture(scope="session")
def xtts_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny XTTS with random weights, in which nothing is to be changed."""
    from make_tiny_xtts import make_checkpoint

    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def page_scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageScenes]:
    with open_scenes(tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("guarded")) as scenes:
        yield scenes


@pytest.fixture
def page_scene(page_scenes: PageScenes) -> PageScene:
    return page_scenes.open


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the source of axe-core."""
    folder = tmp_path_factory.mktemp("axe")
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), "axe-core@4"]
    try:
        subprocess.run(command, check=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("npm absent: apt install npm")
    return (folder / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
