"""The memory plan of the small models, which needs no torch: what is counted, and what is said where it is too much."""

import sys
from pathlib import Path

import pytest

from mirrorchat.cli.doctor.device import plan_findings
from mirrorchat.cli.doctor.findings import State
from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware import host_memory
from mirrorchat.settings import Settings
from mirrorchat.startup import memory_plan
from mirrorchat.startup.engine_choice import KOKORO_FILES, KOKORO_PACKAGES, WHISPER_FILES, WHISPER_PACKAGES
from mirrorchat.startup.memory_plan import MemoryPlan, plan_memory
from mirrorchat.startup.memory_small import HIBARI_BYTES, KOKORO_BYTES, WHISPER_BYTES

for package in (*WHISPER_PACKAGES, *KOKORO_PACKAGES):
    pytest.importorskip(package, reason=f"{package}, of the extra `small`, is not installed")

FLOOR = {"chinese": "embedded", "english": "embedded"}


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # how Python marks a module that cannot be imported


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder with the names of the small models' files: the plan reads no more of them."""
    for folder, names in (("whisper-base", WHISPER_FILES), ("kokoro", KOKORO_FILES)):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name.partition(" or ")[0]).touch()
    return tmp_path


def counted(plan: MemoryPlan) -> dict[str, int]:
    process, *models = plan.parts
    assert process.name == "Python and its packages"
    return {part.name: part.bytes.kept for part in models}


def test_each_small_model_is_counted(models: Path) -> None:
    everything = {"Whisper base": WHISPER_BYTES, "hibari": HIBARI_BYTES, "Kokoro": KOKORO_BYTES}
    assert counted(plan_memory(Settings(models_dir=models))) == everything
    assert counted(plan_memory(Settings(models_dir=models, synthesizer=FLOOR))) == {"Whisper base": WHISPER_BYTES}
    spoken = plan_memory(Settings(models_dir=models, recognizer=FLOOR))
    assert counted(spoken) == {"hibari": HIBARI_BYTES, "Kokoro": KOKORO_BYTES}
    assert counted(plan_memory(Settings(models_dir=models / "none"))) == {"hibari": HIBARI_BYTES}
    assert plan_memory(Settings(models_dir=models, recognizer=FLOOR, synthesizer=FLOOR)).parts == ()


def test_too_little_memory_is_told_with_what_to_set(models: Path) -> None:
    plan = plan_memory(Settings(models_dir=models), free={"cpu": 500_000_000})
    assert not plan.fits
    with pytest.raises(ConfigurationError) as refused:
        plan.require_fit()
    message = refused.value.message
    assert "cpu has 0.50 GB free" in message
    assert message.endswith("free some memory, or set recognizer = 'embedded' and synthesizer = 'embedded'")
    assert plan_memory(Settings(models_dir=models), free={"cpu": 2_000_000_000}).fits


def test_the_doctor_tells_it_without_torch(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(models_dir=models)
    assert host_memory.free_host_bytes() > 0
    for free, state in ((2_000_000_000, State.OK), (500_000_000, State.PROBLEM)):
        monkeypatch.setattr(memory_plan, "free_host_bytes", lambda free=free: free)
        (found,) = plan_findings(settings)
        assert (found.subject, found.state) == ("models in memory", state)
