"""The processes that benchmarks compare: they answer, one after another, and what goes wrong in them is shown."""

import os
import time
from collections.abc import Iterator

import pytest

from benchmarks import side_process
from benchmarks.side_process import Side, SideFailed


class Echo:
    """What the children of these tests hold."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def say(self, name: str) -> str:
        if not name:
            raise ValueError("nobody to greet")
        return f"{self.greeting} {name} from {os.getpid()}"

    def sleep(self) -> None:
        time.sleep(60)

    def die(self) -> None:
        os._exit(7)


@pytest.fixture
def echo() -> Iterator[Side[Echo]]:
    with Side("echo", 1, Echo, "hello") as child:
        yield child


def test_child_answers_and_outlives_errors_but_not_its_own_end(echo: Side[Echo]) -> None:
    assert not echo.ask(Echo.say, "you").endswith(str(os.getpid()))
    with pytest.raises(SideFailed, match="nobody to greet"):
        echo.ask(Echo.say, "")
    assert echo.ask(Echo.say, "again").startswith("hello again")
    with pytest.raises(SideFailed, match="died with exit code 7"):
        echo.ask(Echo.die)
    with pytest.raises(SideFailed, match="has ended"):
        echo.ask(Echo.say, "anybody")


def test_child_that_cannot_be_made() -> None:
    with Side("nothing", 1, Echo) as child, pytest.raises(SideFailed, match="missing 1 required"):
        child.wait()


def test_child_that_takes_too_long(echo: Side[Echo], monkeypatch: pytest.MonkeyPatch) -> None:
    echo.wait()
    monkeypatch.setattr(side_process, "DEADLINE_S", 0.2)
    with pytest.raises(SideFailed, match="took longer than"):
        echo.ask(Echo.sleep)
