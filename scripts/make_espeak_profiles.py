"""Measures the variants of eSpeak NG's voice in each language, and writes what the voice tint starts from.

.venv/bin/python scripts/make_espeak_profiles.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mirrorchat.embedded.engines import SOURCE_PROFILES, measure_source
from mirrorchat.embedded.workers.espeak import VARIANTS
from mirrorchat.engines import Language


def main() -> None:
    measured = [measure_source(language, variant) for language in Language for variant in VARIANTS[language]]
    SOURCE_PROFILES.write_bytes(b"".join(profile.to_bytes() for profile in measured))


if __name__ == "__main__":
    main()
