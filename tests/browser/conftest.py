"""The page in a browser, and axe, which looks for what keeps people from using it."""

import subprocess
from collections.abc import Iterator

import pytest
from support.page_scene import Scene, Scenes, open_scenes


@pytest.fixture(scope="session")
def page_scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenes]:
    with open_scenes(tmp_path_factory.mktemp("page"), tmp_path_factory.mktemp("guarded")) as scenes:
        yield scenes


@pytest.fixture
def page_scene(page_scenes: Scenes) -> Scene:
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
