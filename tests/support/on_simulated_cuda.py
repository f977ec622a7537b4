"""Runs a script on a simulated CUDA device: `python on_simulated_cuda.py SCRIPT ARGUMENT ...`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.simulated_cuda import install

if __name__ == "__main__":
    install()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
