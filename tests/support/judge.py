"""The judge of what the small models speak: Whisper base, which reads 30 s at once, as it was trained.

It shares the weights with the small recognizer and not its shortened encoder, and it was not used to choose a voice.
"""

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.error_rate import Edits, edits, tokens
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.small.whisper import WhisperRecognizer
from support.small_models import whisper_folder

MISHEARD = {Language.ENGLISH: 0.04, Language.CHINESE: 0.16}  # of words, of characters: what the small models promise
LIMIT_S = 60.0


class Judge:
    """Hears speech. The test skips where Whisper cannot be had."""

    def __init__(self) -> None:
        self._whisper = WhisperRecognizer(whisper_folder(), threads=2, whole=True)

    def close(self) -> None:
        self._whisper.close()

    def check_understood(self, language: Language, *spoken: tuple[str, Audio], at_most: float | None = None) -> None:
        """Assert that at most a share of the words in all texts `spoken` is misheard: see MISHEARD."""
        texts = [(said, self._hear(audio, language)) for said, audio in spoken]
        found = sum((edits(tokens(said, language), tokens(heard, language)) for said, heard in texts), Edits())
        assert found.rate is not None and found.rate <= (at_most or MISHEARD[language]), texts

    def _hear(self, audio: Audio, language: Language) -> str:
        return self._whisper.recognize(audio, language, context=Context.after(LIMIT_S)).text
