"""Measures eSpeak NG's own voice in each language, and writes what the voice tint starts from.

.venv/bin/python scripts/make_espeak_profiles.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mirrorchat.embedded.engines import SOURCE_PROFILES, EmbeddedSynthesizer
from mirrorchat.engines import Language


def main() -> None:
    synthesizer = EmbeddedSynthesizer()
    try:
        SOURCE_PROFILES.write_bytes(b"".join(synthesizer.measure_source(one).to_bytes() for one in Language))
    finally:
        synthesizer.close()


if __name__ == "__main__":
    main()
