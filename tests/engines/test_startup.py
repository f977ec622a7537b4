"""Which engine answers, and why: what is missing is named, and a named engine must start."""

import importlib.util
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from make_tiny_xtts import make_checkpoint
from support.places import ROOT
from support.running_server import RunningServer
from support.speech import say
from support.trained_wenet import write_trained_checkpoint

from mirrorchat import asr, synth
from mirrorchat.asr import WenetRecognizer
from mirrorchat.concurrency.context import Context
from mirrorchat.concurrency.device_lock import DeviceLock
from mirrorchat.engines import EngineInfo, Engines, Language, Priority, Tier
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.hardware import devices
from mirrorchat.hardware.devices import is_gpu
from mirrorchat.settings import Settings
from mirrorchat.startup import loading
from mirrorchat.startup.engine_choice import Lack, missing, require_packages, upgrade_command
from mirrorchat.startup.loading import build_engines
from mirrorchat.synth import XttsSynthesizer


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
    assert [infos[stage].tier for stage in ("recognizer.zh", "synthesizer.zh")] == [Tier.REAL] * 2
    assert infos["chat"].tier == infos["chat"].upgrade == infos["synthesizer.zh"].upgrade == ""
    assert engines.synthesizers[Language.CHINESE] is engines.synthesizers[Language.ENGLISH]


def test_auto_takes_the_embedded_engine_else_and_names_the_missing_file(engines: Engines) -> None:
    info = engines.infos()["recognizer.en"]
    assert (info.name, info.tier) == ("embedded", Tier.FLOOR)
    assert info.reason.startswith("no config.json, model.bin, vocabulary.txt in ")
    assert info.reason.endswith("whisper-base") and info.upgrade == ".venv/bin/mirrorchat models install small"


def test_packages_alone_speak_english_with_hibari_and_mandarin_with_espeak(tmp_path: Path) -> None:
    """Without a folder of models, and where none can be written."""
    engines = build_engines(Settings(models_dir=tmp_path / "none", threads=1))
    try:
        infos = engines.infos()
        assert [(infos[stage].name, infos[stage].tier) for stage in ("synthesizer.en", "synthesizer.zh")] == [
            ("small", Tier.SMALL), ("embedded", Tier.FLOOR)
        ]  # fmt: skip
        assert infos["synthesizer.en"].model.startswith("hibari")
        assert infos["synthesizer.en"].upgrade == ".venv/bin/mirrorchat models install xtts-v2"
        speaker = engines.synthesizers[Language.ENGLISH]
        voice = speaker.voice([say("hello there my dear friends, how are you today")])
        arguments = {"seed": 0, "priority": Priority.FIRST, "context": Context.after(60)}
        (spoken,) = speaker.speak("It is late.", voice, Language.ENGLISH, **arguments)  # type: ignore[arg-type]
        assert 0.3 < spoken.duration_s < 4.0
        assert upgrade_command(infos.values()) == ".venv/bin/mirrorchat models install small"
    finally:
        engines.close()
    assert not (tmp_path / "none").exists()


def test_the_lowest_tier_goes_up_first_with_one_command() -> None:
    def info(tier: Tier, upgrade: str) -> EngineInfo:
        return EngineInfo("engine", "", "cpu", "", tier, upgrade)

    install = ".venv/bin/mirrorchat models install "
    floor, named = info(Tier.FLOOR, install + "small"), info(Tier.FLOOR, "")
    small = [info(Tier.SMALL, install + name) for name in ("wenet-zh", "wenet-en", "xtts-v2", "xtts-v2")]
    real = info(Tier.REAL, "")
    assert upgrade_command([*small, floor, floor, real]) == install + "small"
    assert upgrade_command([*small, named]) == install + "wenet-zh wenet-en xtts-v2"
    assert upgrade_command([info(Tier.FLOOR, "scripts/environment small"), *small]) == "scripts/environment small"
    assert upgrade_command([real, named]) == upgrade_command([]) == ""


def test_engines_without_torch_load_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def meet(build: Callable[..., object]) -> Callable[..., object]:
        def met(*args: object) -> object:
            together.wait(10)
            return build(*args)

        return met

    for name in ("_build_synthesizers", "_build_recognizers"):
        monkeypatch.setattr(loading, name, meet(getattr(loading, name)))
    loaded = build_engines(Settings(models_dir=tmp_path, threads=1))
    loaded.close()
    shutil.copytree(ROOT / "tests" / "data" / "wenet-tiny" / "en", tmp_path / "wenet-en")
    with pytest.raises(threading.BrokenBarrierError):  # the plan counts models of torch one after the other
        build_engines(Settings(models_dir=tmp_path, threads=1))


def test_missing_packages_are_named_with_the_command(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    lack = missing(tmp_path, ["weights"], ["json", "not_a_package"])
    assert lack == Lack(f"{tmp_path} is there, but not_a_package is not installed", "scripts/environment full")
    assert missing(tmp_path, ["weights"], ["json"]) is None
    with pytest.raises(ConfigurationError, match="engine xtts: not_a_package is not installed"):
        require_packages("xtts", ["json", "not_a_package"])


def test_a_named_engine_must_start(tmp_path: Path) -> None:
    named = {"chinese": "auto", "english": "wenet"}
    with pytest.raises(ModelNotInstalled, match=r"wenet-en.*final\.zip"):
        build_engines(Settings(models_dir=tmp_path, recognizer=named, threads=1))
    with pytest.raises(ModelNotInstalled, match="xtts-v2"):
        build_engines(Settings(models_dir=tmp_path, synthesizer=dict.fromkeys(named, "xtts"), threads=1))


def test_engines_on_one_gpu_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda` is asked for, and here means the CPU: what is built and how it waits is the same."""
    for module in (asr, devices, synth):
        monkeypatch.setattr(module, "usable_device", lambda name: torch.device("cpu"))
    for language in Language:
        write_trained_checkpoint(tmp_path / f"wenet-{language.code}", "zh" if language.code == "zh" else "en")
    make_checkpoint(tmp_path / "xtts-v2")
    engines = build_engines(Settings(models_dir=tmp_path, threads=1, device="cuda"))
    try:
        question, english = say("hello there my dear friends, how are you"), Language.ENGLISH
        speaker = engines.synthesizers[english]
        voice, late = speaker.voice([question]), Context.after(120)
        calls: list[Callable[[], object]] = [
            *(lambda each=each: each.recognize(question, each.language, context=Context())
              for each in engines.recognizers.values()),
            lambda: list(speaker.speak("Hello.", voice, english, seed=0, priority=Priority.FIRST,
                                       context=late)),
        ]  # fmt: skip
        lock = lock_of(engines.recognizers[english])
        assert isinstance(lock, DeviceLock)
        assert all(lock_of(each) is lock for each in (*engines.recognizers.values(), speaker))
        with ThreadPoolExecutor(len(calls)) as pool:
            with lock:
                under_way = [pool.submit(call) for call in calls]
                limit = time.monotonic() + 30
                while len(lock._turns) < 1 + len(calls):  # each engine's thread stands behind this one
                    assert time.monotonic() < limit
                    time.sleep(0.005)
                assert isinstance(speaker, XttsSynthesizer)
                assert not any(each.done() for each in under_way) and speaker.stats().tokens == 0
            assert all(each.result(60) for each in under_way)
    finally:
        engines.close()


def test_engines_on_the_cpu_do_not_wait_for_each_other(engines: Engines) -> None:
    for engine in (engines.recognizers[Language.CHINESE], engines.synthesizers[Language.CHINESE]):
        assert not isinstance(lock_of(engine), DeviceLock)


@pytest.mark.parametrize(("name", "gpu"), [("cpu", False), ("cuda", True), ("cuda:1", True)])
def test_the_name_of_a_device_says_whether_it_is_a_gpu(name: str, gpu: bool) -> None:
    assert is_gpu(name) is gpu
    assert is_gpu("auto") is torch.cuda.is_available()


def lock_of(engine: object) -> object:
    """Return what a recognizer's or synthesizer's thread holds while the device computes."""
    assert isinstance(engine, WenetRecognizer | XttsSynthesizer)
    return engine._device_lock if isinstance(engine, WenetRecognizer) else engine._engine._device_lock


def test_a_model_of_wenets_package_that_cannot_be_loaded_ends_the_server_with_the_way(tmp_path: Path) -> None:
    """Without the package its installation is named, and with it the models that it knows."""
    with RunningServer(tmp_path, wait=False, recognizer={"english": "wenet:no-such-model"}) as server:
        assert server.process.wait(90) == 3
        if importlib.util.find_spec("wenet"):
            assert "wenet:no-such-model is no folder" in server.log and "paraformer" in server.log
        else:
            assert "WeNet's package is not installed; install it: .venv/bin/pip install git+https" in server.log
