"""Makes examples/question.wav: a question spoken by eSpeak NG (the same bytes every time)."""

from pathlib import Path

from mirrorchat.audio.samples import encode_wav
from mirrorchat.cli.doctor.spoken_question import QUESTIONS, say
from mirrorchat.engines import Language

DESTINATION = Path(__file__).resolve().parent.parent / "examples" / "question.wav"

if __name__ == "__main__":
    DESTINATION.parent.mkdir(exist_ok=True)
    DESTINATION.write_bytes(encode_wav(say(*QUESTIONS[Language.ENGLISH])))
