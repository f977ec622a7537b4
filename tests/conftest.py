"""Fixtures that several folders share, the order of the files, and the rule for skips.

Under --strict-skips only what is stated may skip.
"""

import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from support.fuzzing import Fuzz
from support.running_server import RunningServer
from support.stream_client import close_streams

from mirrorchat.access.chat_apis import CHAT_VARIABLES
from mirrorchat.chat.ollama import HOST_VARIABLE

pytest_plugins = ["support.cuda_devices"]

# How the reason of a permitted skip begins.
ALLOWED_SKIPS = ("clips absent", "no compiled library", "wenet package absent", "small models absent")

# The files that take longest come first, so that the short ones at the end keep all processes busy.
FOLDERS = ("server", "browser", "deploy", "engines", "unit")
# One test of theirs takes about as long as a whole file.
LONGEST = ("test_benchmarks_xtts", "test_benchmarks_turn", "test_benchmarks_gpu_check")


def pytest_configure() -> None:
    """Forget the chat API and the Ollama of whoever runs the tests: nothing is sent there."""
    for name in (*CHAT_VARIABLES, HOST_VARIABLE):
        os.environ.pop(name, None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--strict-skips", action="store_true", help="fail on a skip that is not one of ALLOWED_SKIPS")
    parser.addoption("--fuzz-seed", type=int, default=17, help="of the cases of the fuzz tests")
    parser.addoption("--fuzz-rounds", type=int, default=1, help="this many times as many cases of the fuzz tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (item.path.stem not in LONGEST, FOLDERS.index(item.path.parent.name)))


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
def fuzz(pytestconfig: pytest.Config) -> Fuzz:
    """The cases of the fuzz tests in this run."""
    return Fuzz(pytestconfig.getoption("--fuzz-seed"), pytestconfig.getoption("--fuzz-rounds"))


@pytest.fixture(autouse=True)
def closed_streams() -> Iterator[None]:
    """Close what a test has not read to its end: else the warning of it would come in the middle of another test."""
    yield
    close_streams()


@pytest.fixture(scope="session")
def embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A real gunicorn with no weights and no chat API: everything embedded, the parrot answers."""
    with RunningServer(tmp_path_factory.mktemp("embedded")) as server:
        yield server


@pytest.fixture(scope="session")
def xtts_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny XTTS with random weights, in which nothing is to be changed."""
    from make_tiny_xtts import make_checkpoint

    folder = tmp_path_factory.mktemp("models") / "xtts-v2"
    make_checkpoint(folder)
    return folder
