"""Neutral speech of the base voices: a piece of text becomes phonemes, and these speech at 24 kHz.

hibari-tts (Apache-2.0, English, a woman's voice distilled from Kokoro) takes a fiftieth of a core; all other base
voices are styles of Kokoro, which is forty times slower.
"""

import threading
from pathlib import Path

import numpy as np

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.errors import ConfigurationError, SynthesisFailed
from mirrorchat.small.kokoro import SAMPLE_RATE_HZ, Kokoro
from mirrorchat.small.phonemes import Phonemizer, divided
from mirrorchat.small.phonemes_words import MandarinWords
from mirrorchat.small.voices_base import HIBARI_VOICE, BaseVoice

_PART_LIMIT = 300  # phonemes at once, some 20 s of speech; a usual piece has less than 250
_HIBARI_SEED = 0  # of the noise in its consonants

# Kokoro speaks after 0.4 s of silence and leaves 0.7 s after the last word.
_SILENCE = 0.01  # of full scale
_BEFORE_S, _AFTER_S = 0.03, 0.15


class NeutralSpeech:
    """Speaks with the base voices. Thread-safe and deterministic.

    Without a `folder` with Kokoro it has hibari's voice only, and no Mandarin. Raises ConfigurationError when hibari,
    or Kokoro that is there, cannot be loaded.
    """

    def __init__(self, folder: Path | None, threads: int) -> None:
        try:
            from hibari import Hibari

            self._hibari = Hibari(HIBARI_VOICE, threads=1)
            self._english = self._hibari.g2p
        except Exception as error:  # onnxruntime has no base class for its errors
            raise ConfigurationError(f"hibari-tts cannot be loaded: {error}") from error
        is_installed = folder is not None and Kokoro.is_installed(folder)
        self.kokoro = Kokoro(folder, self._hibari.vocab, threads) if folder and is_installed else None
        mandarin = MandarinWords() if self.kokoro else None
        self.words = mandarin.split if mandarin else _undivided
        self._phonemizer = Phonemizer(self._english_phonemes, mandarin)
        self._lock = threading.Lock()

    def speak(self, text: str, base: BaseVoice, context: Context) -> Audio | None:
        """Return `text` (spoken form) as speech at 24 kHz, or None if it has no phonemes.

        Raises SynthesisFailed, or the reason if `context` ends, which is seen between parts of some 20 s.
        """
        parts = []
        for part in divided(self._phonemizer.phonemes(text), _PART_LIMIT):
            context.check()
            parts.append(_trimmed(self._speak_part(part, base)))
        samples = np.concatenate([np.zeros(0, np.float32), *parts])
        return Audio(samples, SAMPLE_RATE_HZ) if len(samples) else None

    def _speak_part(self, phonemes: str, base: BaseVoice) -> Samples:
        if base.name != HIBARI_VOICE:
            assert self.kokoro is not None
            return self.kokoro.speak(phonemes, base.name).samples
        try:
            samples = self._hibari.from_phonemes(phonemes, seed=_HIBARI_SEED)
        except Exception as error:
            raise SynthesisFailed(f"hibari failed: {type(error).__name__}") from error
        return np.asarray(np.nan_to_num(samples).clip(-1.0, 1.0), np.float32)

    def _english_phonemes(self, text: str) -> str:
        try:
            with self._lock:  # for some ms; hibari does not say whether its rules are thread-safe
                return str(self._english(text, normalize_text=False))
        except Exception as error:  # its rules meet whatever a chat API has written
            raise SynthesisFailed(f"hibari cannot read the sentence: {type(error).__name__}") from error


def _undivided(text: str) -> list[str]:
    return [text]


def _trimmed(samples: Samples) -> Samples:
    """Return `samples` without the silence at the ends, but for a short margin; nothing if all is silent."""
    loud = np.flatnonzero(np.abs(samples) > _SILENCE)
    if not len(loud):
        return samples[:0]
    start = max(0, int(loud[0]) - round(_BEFORE_S * SAMPLE_RATE_HZ))
    return samples[start : int(loud[-1]) + round(_AFTER_S * SAMPLE_RATE_HZ)]
