"""Runs a script on a simulated CUDA device: `python on_simulated_cuda.py SCRIPT ARGUMENT ...`."""

import runpy
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from support.simulated_cuda import install  # noqa: E402

if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
