"""Where things are that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # of the project
DATA = ROOT / "tests" / "data"
CLIPS = ROOT.parent / "shared" / "clips"  # real speech with transcripts; absent on most machines
CASES = ROOT.parent / "shared" / "cases"  # sentences that were spoken wrongly; absent on most machines
# "What is the best way to learn a language?", spoken by eSpeak NG, whose samples several tests rely on
QUESTION = DATA / "wenet-reference" / "question.wav"
