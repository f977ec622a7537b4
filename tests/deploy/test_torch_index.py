"""scripts/environment full with a program in place of nvidia-smi: which index torch comes from, and which build it is.

pip is a real one and installs into an environment of its own, from indexes on this computer. What is not torch is not
installed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.places import ROOT
from support.torch_indexes import TorchIndexes

TOOLS = ("bash", "cat", "cksum", "dirname", "env", "grep", "printf", "rm", "sed", "sleep", "tail", "yes")
HARDWARE = ("__init__.py", "bounded_run.py", "gpu_driver.py", "torch_build.py")
VERSIONS = {
    "simple": ["2.12.0", "2.13.0", "2.14.0"],
    "whl/cu130": ["2.13.0+cu130"],
    "whl/cu126": ["2.12.0+cu126", "2.13.0+cu126"],
    "whl/cpu": ["2.13.0+cpu"],
    "mine": ["2.13.0+rocm7"],
}
PIP = """\
#!/bin/bash
# pip installs torch; what else it is asked for counts as installed
[[ $* = *torch==* ]] || exit 0
exec {python} -m pip --python .venv/bin/python "$@"
"""


@pytest.fixture(scope="module")
def indexes() -> Iterator[TorchIndexes]:
    with TorchIndexes(VERSIONS) as indexes:
        yield indexes


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, indexes: TorchIndexes) -> Path:
    """Return a checkout with an environment that has pip and nothing else, and which takes `indexes` for PyTorch's."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("setup.cfg", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("native", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    hardware = folder / "mirrorchat" / "hardware"
    hardware.mkdir(parents=True)
    shutil.copy(ROOT / "mirrorchat" / "__init__.py", hardware.parent)
    for name in HARDWARE:
        text = (ROOT / "mirrorchat" / "hardware" / name).read_text(encoding="utf-8")
        text = text.replace("https://download.pytorch.org", indexes.url).replace("/proc/driver", f"{folder}/proc")
        (hardware / name).write_text(text.replace('"/usr/lib/wsl/lib"', '"/nowhere"'), encoding="utf-8")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    (folder / ".venv" / "bin" / "pip").write_text(PIP.format(python=sys.executable))
    (folder / ".venv" / "bin" / "pip").chmod(0o755)
    (next(folder.glob(".venv/lib/*/site-packages")) / "pip.py").touch()
    (folder / "bin").mkdir()
    for name in TOOLS:
        found = shutil.which(name)
        assert found
        (folder / "bin" / name).symlink_to(found)
    return folder


@pytest.fixture
def checkout(made: Path, indexes: TorchIndexes) -> Path:
    """Return the checkout without torch, without a GPU and without a memory of earlier installations."""
    for name in ("installed", "extras", "torch-index"):
        (made / ".venv" / name).unlink(missing_ok=True)
    for found in (*made.glob(".venv/lib/*/site-packages/torch"), *made.glob(".venv/lib/*/site-packages/torch-*")):
        shutil.rmtree(found)
    (made / "bin" / "nvidia-smi").unlink(missing_ok=True)
    indexes.versions.update(VERSIONS)
    indexes.forget()
    return made


def has_gpu(checkout: Path, body: str) -> None:
    program = checkout / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/bash\n{body}\n")
    program.chmod(0o755)


def environment(checkout: Path, indexes: TorchIndexes, **environ: str) -> "subprocess.CompletedProcess[str]":
    """Run scripts/environment full where pip's own index is `simple`."""
    pip = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{indexes.url}/simple", "PIP_RETRIES": "0"}
    return subprocess.run(
        [str(checkout / "scripts" / "environment"), "full"],
        env={"PATH": str(checkout / "bin"), "HOME": str(checkout)} | pip | environ,
        capture_output=True, text=True, timeout=180,
    )  # fmt: skip


def installed(checkout: Path) -> list[str]:
    """Return the versions of torch that are installed."""
    names = [path.name for path in checkout.glob(".venv/lib/*/site-packages/torch-*.dist-info")]
    return [name.removeprefix("torch-").removesuffix(".dist-info") for name in names]


@pytest.mark.parametrize(
    ("gpu", "index", "version", "why"),
    [
        ("echo NVIDIA A, 535.183.01, 7.5", "whl/cu126", "2.13.0+cu126", "for CUDA 12.6, because NVIDIA A has driver"),
        ("echo NVIDIA A, 570.133.20, 8.9", "whl/cu126", "2.13.0+cu126", "and CUDA 13 needs 580 or newer"),
        ("echo NVIDIA A, 570.133.20, 12.0", "whl/cpu", "2.13.0+cpu", "for the CPU, because NVIDIA A has driver 570"),
        ("echo NVIDIA A, 580.65.06, 6.1", "whl/cu126", "2.13.0+cu126", "6.1, and CUDA 13 begins at 7.5"),
        ("echo NVIDIA A, 580.65.06, 7.5", "simple", "2.13.0", "for CUDA 13, because NVIDIA A has driver 580.65.06"),
        ("echo NVIDIA A, 580.65.06, 12.0", "simple", "2.13.0", "for CUDA 13, because NVIDIA A has driver 580.65.06"),
        ("", "whl/cpu", "2.13.0+cpu", "for the CPU, because there is no NVIDIA GPU"),
        ("exec sleep 60", "whl/cpu", "2.13.0+cpu", "nvidia-smi is installed, but shows no GPU"),
        ("yes nonsense", "whl/cpu", "2.13.0+cpu", "nvidia-smi is installed, but shows no GPU"),
    ],
)
def test_the_driver_and_the_gpu_choose_the_index_and_the_version(
    checkout: Path, indexes: TorchIndexes, gpu: str, index: str, version: str, why: str
) -> None:
    if gpu:
        has_gpu(checkout, gpu)
    run = environment(checkout, indexes)
    assert run.returncode == 0, run.stderr
    assert indexes.taken == [(index, version)] and installed(checkout) == [version]
    (told,) = [line for line in run.stderr.splitlines() if line.startswith("mirrorchat: torch 2.13.0 for ")]
    assert why in told
    assert environment(checkout, indexes).stderr == ""  # nothing is missing now


def test_an_index_of_pip_s_settings_does_not_put_the_cpu_build_onto_a_gpu(
    checkout: Path, indexes: TorchIndexes
) -> None:
    has_gpu(checkout, "echo NVIDIA A, 580.65.06, 8.9")
    assert environment(checkout, indexes, PIP_EXTRA_INDEX_URL=f"{indexes.url}/whl/cpu").returncode == 0
    assert installed(checkout) == ["2.13.0"]


def test_a_cpu_build_of_pip_s_settings_serves_without_pytorch_s_index(checkout: Path, indexes: TorchIndexes) -> None:
    indexes.versions |= {"near": ["2.13.0+cpu"]}
    assert environment(checkout, indexes, PIP_EXTRA_INDEX_URL=f"{indexes.url}/near").returncode == 0
    assert indexes.taken == [("near", "2.13.0+cpu")] and "whl/cpu" not in indexes.asked


def test_torch_index_overrides_and_is_remembered(checkout: Path, indexes: TorchIndexes) -> None:
    has_gpu(checkout, "echo NVIDIA A, 580.65.06, 8.9")
    others = {"PIP_EXTRA_INDEX_URL": f"{indexes.url}/whl/cu130"}
    run = environment(checkout, indexes, **others)
    assert run.returncode == 0 and installed(checkout) == ["2.13.0+cu130"]
    indexes.forget()
    mine = environment(checkout, indexes, TORCH_INDEX=f"{indexes.url}/mine", **others)
    assert (
        mine.returncode == 0
        and "torch 2.13.0 from the index that TORCH_INDEX names" in mine.stderr
        and indexes.url not in mine.stderr
    )
    assert installed(checkout) == ["2.13.0+rocm7"] and set(indexes.asked) == {"mine"}
    assert environment(checkout, indexes).stderr == ""
    with (checkout / "constraints.txt").open("a") as file:  # an update of MirrorChat
        file.write("# changed\n")
    assert environment(checkout, indexes).returncode == 0 and installed(checkout) == ["2.13.0+rocm7"]


def test_a_gpu_that_comes_later_gets_its_build(checkout: Path, indexes: TorchIndexes) -> None:
    assert environment(checkout, indexes).returncode == 0 and installed(checkout) == ["2.13.0+cpu"]
    has_gpu(checkout, "echo NVIDIA A, 535.183.01, 8.9")
    (checkout / ".venv" / "installed").unlink()
    assert environment(checkout, indexes).returncode == 0 and installed(checkout) == ["2.13.0+cu126"]
    (checkout / "bin" / "nvidia-smi").unlink()  # a driver that is away for a day
    (checkout / ".venv" / "installed").unlink()
    assert environment(checkout, indexes).returncode == 0 and installed(checkout) == ["2.13.0+cu126"]


def test_where_pytorch_s_index_is_away_the_cpu_gets_any_build(checkout: Path, indexes: TorchIndexes) -> None:
    indexes.versions["whl/cpu"] = []
    run = environment(checkout, indexes)
    assert run.returncode == 0 and installed(checkout) == ["2.13.0"]
    assert "/whl/cpu cannot be reached: the build for CUDA is installed, which runs on the CPU, too" in run.stderr


def test_where_pytorch_s_index_is_away_a_gpu_does_not_get_a_build_that_it_cannot_run(
    checkout: Path, indexes: TorchIndexes
) -> None:
    indexes.versions["whl/cu126"] = []
    has_gpu(checkout, "echo NVIDIA A, 535.183.01, 8.9")
    run = environment(checkout, indexes)
    assert run.returncode == 1 and installed(checkout) == []
    assert "to take it from another index: TORCH_INDEX=URL scripts/environment full" in run.stderr
