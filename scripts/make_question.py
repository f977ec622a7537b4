"""Makes the spoken questions examples/*.wav: hibari speaks English and Kokoro Mandarin, which must be installed."""

from pathlib import Path

from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.cli.synthetic_speech import QUESTIONS
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.settings import load_settings
from mirrorchat.small.speech import NeutralSpeech
from mirrorchat.small.voices_base import HIBARI_VOICE, BaseVoice

FOLDER = Path(__file__).resolve().parent.parent / "examples"
NAMES = {Language.ENGLISH: "question.wav", Language.CHINESE: "question_zh.wav"}
VOICES = {Language.ENGLISH: HIBARI_VOICE, Language.CHINESE: "jf_gongitsune"}  # every source of Kokoro has this one


def question(speech: NeutralSpeech, language: Language) -> Audio:
    """Return the question of `language` as speech."""
    spoken = speech.speak(QUESTIONS[language][0], BaseVoice(VOICES[language], language), Context())
    assert spoken is not None, "the question has no phonemes"
    return spoken


if __name__ == "__main__":
    speech = NeutralSpeech(load_settings().models_dir / "kokoro", threads=1)
    for language, name in NAMES.items():
        (FOLDER / name).write_bytes(encode_wav(question(speech, language)))
