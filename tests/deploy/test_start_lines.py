"""What `scripts/serve` prints of the engines: without models, and where the small models are installed."""

import re
from pathlib import Path

import pytest
from support.clone import Clone
from support.small_models import kokoro_folder, whisper_folder

STAGES = ("recognizer.zh", "recognizer.en", "synthesizer.zh", "synthesizer.en")
UPGRADE = re.compile(r"to go up a tier: (.{1,200})$", re.MULTILINE)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("clone"))


def tiers(log: str) -> list[str]:
    """Return the tier of each of STAGES, as a start names it."""
    found = [re.search(rf"{re.escape(stage)} +[^:\n]{{1,200}} \((\w{{1,9}})\)", log) for stage in STAGES]
    return [match[1] if match else "" for match in found]


def test_without_models_the_floor_and_the_command_that_installs_the_small_models_are_named(clone: Clone) -> None:
    with clone.serving("scripts/serve"):
        pass
    assert "downloading" not in clone.log
    assert tiers(clone.log) == ["floor", "floor", "floor", "small"]  # hibari, which speaks English, is a package
    assert UPGRADE.findall(clone.log) == [".venv/bin/mirrorchat models install small"]


def test_where_the_small_models_are_they_hear_and_speak(clone: Clone, tmp_path: Path) -> None:
    user = clone.with_home(tmp_path / "home")
    models = user.home / ".cache" / "mirrorchat"
    models.mkdir(parents=True)
    for model in (whisper_folder(), kokoro_folder()):
        (models / model.name).symlink_to(model)
    with user.serving("scripts/serve", models=True):
        pass
    assert "downloading" not in user.log
    assert tiers(user.log) == ["small"] * 4
    assert len(UPGRADE.findall(user.log)) == 1 and "models install small" not in user.log
