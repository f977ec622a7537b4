"""Makes the spoken questions examples/*.wav with eSpeak NG."""

from pathlib import Path

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.cli.synthetic_speech import QUESTIONS, synthesize
from mirrorchat.engines import Language

FOLDER = Path(__file__).resolve().parent.parent / "examples"
NAMES = {Language.ENGLISH: "question.wav", Language.CHINESE: "question_zh.wav"}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for language, name in NAMES.items():
        (FOLDER / name).write_bytes(encode_wav(*synthesize(QUESTIONS[language])))
