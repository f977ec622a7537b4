"""Which engine answers, and why: what is missing is named, and a named engine must start."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from make_tiny_xtts import make_checkpoint
from running_server import ROOT

from mirrorchat import startup
from mirrorchat.engines import Engines, Language
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.settings import Settings
from mirrorchat.startup import build_engines


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Return what `auto` builds where Chinese WeNet and XTTS are installed, and English WeNet is half so."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(ROOT / "tests" / "data" / "wenet-tiny" / "zh", folder / "wenet-zh")
    (folder / "wenet-en").mkdir()
    shutil.copy(ROOT / "tests" / "data" / "wenet-tiny" / "en" / "units.txt", folder / "wenet-en")
    make_checkpoint(folder / "xtts-v2")
    built = build_engines(Settings(models_dir=folder, threads=1))
    yield built
    built.close()


def test_auto_takes_the_real_engine_where_its_weights_are(engines: Engines) -> None:
    infos = engines.infos()
    assert infos["recognizer.zh"].name == "wenet" and "its weights are in" in infos["recognizer.zh"].reason
    assert infos["synthesizer.zh"].name == infos["synthesizer.en"].name == "xtts"
    assert engines.synthesizers[Language.CHINESE] is engines.synthesizers[Language.ENGLISH]


def test_auto_takes_the_embedded_engine_else_and_names_the_missing_file(engines: Engines) -> None:
    info = engines.infos()["recognizer.en"]
    assert info.name == "embedded"
    assert info.reason.startswith("no final.pt or final.safetensors or final.zip in ")
    assert info.reason.endswith("wenet-en: run .venv/bin/mirrorchat models install wenet-en")


def test_missing_packages_are_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    reason = startup._missing(tmp_path, ["weights"], ["json", "not_a_package"])
    assert "not_a_package is not installed: run scripts/serve --full" in reason and "json" not in reason
    assert startup._missing(tmp_path, ["weights"], ["json"]) == ""
    with pytest.raises(ConfigurationError, match="engine xtts: not_a_package is not installed"):
        startup._require_packages("xtts", ["json", "not_a_package"])


def test_a_named_engine_must_start(tmp_path: Path) -> None:
    named = {"chinese": "auto", "english": "wenet"}
    with pytest.raises(ModelNotInstalled, match=r"wenet-en.*final\.zip"):
        build_engines(Settings(models_dir=tmp_path, recognizer=named, threads=1))
    with pytest.raises(ModelNotInstalled, match="xtts-v2"):
        build_engines(Settings(models_dir=tmp_path, synthesizer=dict.fromkeys(named, "xtts"), threads=1))
