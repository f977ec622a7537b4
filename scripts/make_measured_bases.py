"""Measures the base voices of the small synthesizer, and writes what they are chosen by and what the tint starts from.

.venv/bin/python scripts/make_measured_bases.py ~/.cache/mirrorchat/kokoro
"""

import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mirrorchat.small.synthesizer import SmallSynthesizer
from mirrorchat.small.voices_base import CACHE_FILE, MEASURED_BASES


def main(kokoro: Path) -> None:
    MEASURED_BASES.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for file in kokoro.iterdir():
            if file.name != CACHE_FILE:
                (folder / file.name).symlink_to(file.resolve())
        SmallSynthesizer(folder, threads=2)
        shutil.copyfile(folder / CACHE_FILE, MEASURED_BASES)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
