"""The small models, for the tests that hear and speak with them. Where they cannot be had, the tests skip.

They are installed once on a machine, as a user installs them, into a folder that later runs share.
"""

import functools
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirrorchat.settings import CONFIG_VARIABLE

FOLDER = Path(os.environ.get("MIRRORCHAT_TEST_MODELS", "~/.cache/mirrorchat-tests")).expanduser()
LIMIT_S = 600.0


@functools.cache
def _install(name: str) -> bool:
    """Install the model `name` unless it is there; tell whether it is there now."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    config = FOLDER / "config.py"
    config.write_text(f"models_dir = {str(FOLDER)!r}\n", encoding="utf-8")
    command = [sys.executable, "-m", "mirrorchat", "models", "install", name]
    environ = os.environ | {CONFIG_VARIABLE: str(config)}
    return subprocess.run(command, env=environ, capture_output=True, timeout=LIMIT_S, check=False).returncode == 0


def whisper_folder() -> Path:
    """Return the folder of Whisper base; skip the test if it cannot be had."""
    return _folder("whisper-base")


def kokoro_folder() -> Path:
    """Return the folder of Kokoro; skip the test if it cannot be had."""
    return _folder("kokoro")


def _folder(name: str) -> Path:
    if not _install(name):
        pytest.skip("small models absent")
    return FOLDER / name
