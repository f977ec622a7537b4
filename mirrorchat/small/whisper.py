"""Whisper base in 8 bits (Radford et al. 2022): it hears both languages on a CPU. CTranslate2 computes it.

Whisper reads 30 s at once, and a short question would cost as much as a long one. The encoder therefore reads the
speech and one second more. Its outputs for pure silence follow, as far as the decoder needs them: without them it
repeats itself. What still goes wrong (an answer that is too long, ends in a repetition or starts again) is heard again
at 30 s.

The same encoder outputs tell the language. Only the probabilities of ours are compared: speech in a third language
counts as the nearer of the two.
"""

import math
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import WITHOUT_SPEECH, EngineInfo, Language, Tier, Transcript
from mirrorchat.errors import ConfigurationError
from mirrorchat.small.log_mel import SAMPLE_RATE_HZ, log_mel
from mirrorchat.small.whisper_text import (
    TEXT_TOKENS,
    HeardToken,
    chinese_marks,
    read_vocabulary,
    spoken_tokens,
    starts_again,
    tidy,
    timed_words,
    token_bytes,
    with_chinese_marks,
    without_loop,
    written_language,
)

_MIN_SPEECH_S = 0.1  # shorter speech is a click that the detector took for speech
_MARGIN_S = 0.2  # of the recording before and after the speech
_PIECE_S = 27.0  # of a longer recording at once
_AFTER_S = 1.0  # of silence behind the speech
_WHOLE_S = 30.0  # what Whisper was trained on
_DECODED_STATES = 750  # of the encoder's outputs: the decoder gets at least 15 s
_STATE_S = 0.02
_BEAM = 5
_TOKENS, _TOKENS_PER_S = 8, 10.0  # more than people say
_MEDIAN_WIDTH = 7  # states; openai/whisper smooths its attention over as many

_OPENMP_WAIT = "OMP_WAIT_POLICY"

Result = TypeVar("Result")
States = npt.NDArray[np.float32]


class WhisperRecognizer:
    """Recognizes both languages with the model in `folder`, one recording at a time, on `threads` cores.

    With `whole` it always reads 30 s, as it was trained. Thread-safe and deterministic. Raises ConfigurationError if
    the model cannot be loaded.
    """

    def __init__(self, folder: Path, *, threads: int, whole: bool = False) -> None:
        import opencc

        ctranslate2 = _import_ctranslate2()

        try:
            self._model = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type="int8", intra_threads=threads
            )
            vocabulary = read_vocabulary(folder / "vocabulary.txt")
            self._bytes = token_bytes(vocabulary)
            self._view = ctranslate2.StorageView.from_array
            self._silence = self._states(np.zeros(round(_WHOLE_S * SAMPLE_RATE_HZ), np.float32))
        except (RuntimeError, OSError, ValueError) as error:
            raise ConfigurationError(f"Whisper cannot be loaded from {folder}: {error}") from error
        self._ids = {token: number for number, token in enumerate(vocabulary[TEXT_TOKENS:], TEXT_TOKENS)}
        self._simplify = opencc.OpenCC("t2s").convert
        self._thread = ThreadPoolExecutor(1, "whisper")
        self._whole = whole
        self.info = EngineInfo(
            "small", f"Whisper base int8, CTranslate2 {ctranslate2.__version__}", "cpu", "", Tier.SMALL
        )

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Return the transcript of `audio` (any rate); `hotwords` change nothing. Raises as `Recognizer.recognize`.

        The voice activity detector decides whether there is speech: Whisper writes sentences in noise.
        """
        return self._recognized(audio, language, context)

    def recognize_any(self, audio: Audio, *, context: Context) -> Transcript:
        """Return the transcript of `audio` in the language of its first piece. Raises as `Recognizer.recognize`."""
        heard = self._recognized(audio, None, context)
        return replace(heard, language=written_language(heard.text, heard.language))

    def detect_language(self, audio: Audio, *, context: Context) -> Language:
        """Return the language that is spoken in `audio` (any rate), judged by at most its first 27 s of speech."""
        span = find_speech(audio)
        if span.speech_s < _MIN_SPEECH_S:
            return WITHOUT_SPEECH
        speech = trim_to_speech(audio, span, margin_s=_MARGIN_S).resample(SAMPLE_RATE_HZ)
        samples = speech.samples[: round(_PIECE_S * SAMPLE_RATE_HZ)]
        return self._in_turn(lambda: self._language_in(self._speech_states(samples)), context)

    def check_ready(self) -> None:
        """Do nothing: the model stays loaded."""

    def close(self) -> None:
        """Take no more recordings."""
        self._thread.shutdown(cancel_futures=True)

    def _in_turn(self, call: Callable[[], Result], context: Context) -> Result:
        """Return what `call` returns in the one thread that computes. The caller goes on at once if `context` ends."""
        future = self._thread.submit(call)
        try:
            return context.wait(future)
        finally:
            future.cancel()

    def _recognized(self, audio: Audio, language: Language | None, context: Context) -> Transcript:
        """Return the transcript of `audio`. Without a `language` the first piece decides it."""
        span = find_speech(audio)
        context.check()
        if span.speech_s < _MIN_SPEECH_S:
            return Transcript("", language or WITHOUT_SPEECH)
        start_s = max(0.0, span.start_s - _MARGIN_S)
        speech = trim_to_speech(audio, span, margin_s=_MARGIN_S).resample(SAMPLE_RATE_HZ)
        heard: list[HeardToken] = []
        for piece in pieces_of(speech, _PIECE_S):
            hear = partial(self._hear, piece.audio.samples, start_s + piece.start_s, language, context)
            language, tokens = self._in_turn(hear, context)
            heard += tokens
        return self._transcript(heard, start_s + speech.duration_s, language or WITHOUT_SPEECH)

    def _language_in(self, states: States) -> Language:
        """Return the likelier language. `states` has no silence appended: with it, noisy speech is misjudged."""
        probabilities = dict(self._model.detect_language(self._view(states))[0])
        return max(Language, key=lambda language: probabilities.get(_language_token(language), 0.0))

    def _hear(
        self, samples: Samples, start_s: float, language: Language | None, context: Context
    ) -> tuple[Language, list[HeardToken]]:
        """Return the language, which is detected if it is None, and the tokens of one piece."""
        context.check()
        duration_s = len(samples) / SAMPLE_RATE_HZ
        states, limit = self._speech_states(samples), _TOKENS + round(_TOKENS_PER_S * duration_s)
        language = language or self._language_in(states)
        states = self._decoder_input(states)
        ids = self._decode(states, language, limit)
        if len(ids) >= limit or len(without_loop(ids)) < len(ids) or starts_again(self._text(ids)):
            context.check()
            states = self._states(_padded(samples, _WHOLE_S))
            ids = without_loop(self._decode(states, language, limit))
        return language, self._timed(states, ids, start_s, duration_s, language)

    def _speech_states(self, samples: Samples) -> States:
        """Return the encoder's outputs for `samples` and a second more, or for 30 s."""
        length_s = _WHOLE_S if self._whole else len(samples) / SAMPLE_RATE_HZ + _AFTER_S
        return self._states(_padded(samples, length_s))

    def _decoder_input(self, states: States) -> States:
        """Return `states` followed by those for silence, as many as the decoder needs: see the module."""
        if states.shape[1] >= _DECODED_STATES:
            return states
        return np.ascontiguousarray(np.concatenate([states, self._silence[:, states.shape[1] : _DECODED_STATES]], 1))

    def _states(self, samples: Samples) -> States:
        """Return the encoder's outputs, shape (1, states, 512): one for each 20 ms of `samples`."""
        mel = log_mel(samples)
        mel = np.ascontiguousarray(mel[None, :, : mel.shape[1] // 2 * 2])
        return np.asarray(self._model.encode(self._view(mel), to_cpu=True))

    def _decode(self, states: States, language: Language, limit: int) -> list[int]:
        """Return the ids of the text, at most `limit`."""
        prompt = [*_prompt(language), "<|notimestamps|>"]
        result = self._model.generate(
            self._view(states), [prompt], beam_size=_BEAM, max_length=len(prompt) + limit, sampling_temperature=0.0
        )[0]
        return [token for token in result.sequences_ids[0] if token < len(self._bytes)]

    def _text(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "replace")

    def _timed(
        self, states: States, ids: Sequence[int], start_s: float, duration_s: float, language: Language
    ) -> list[HeardToken]:
        """Return the tokens with their times, from the attention of the heads that align (Whisper's `timing.py`)."""
        if not ids:
            return []
        frames = min(round((duration_s + _AFTER_S) / _STATE_S), states.shape[1]) * 2
        prompt = [self._ids[token] for token in _prompt(language)]
        found = self._model.align(self._view(states), prompt, [list(ids)], frames, median_filter_width=_MEDIAN_WIDTH)[0]
        first: dict[int, int] = {}
        for token, state in found.alignments:
            first.setdefault(token, state)
        return [
            HeardToken(self._bytes[token], start_s + min(first.get(at, 0) * _STATE_S, duration_s), confidence)
            for at, (token, confidence) in enumerate(zip(ids, found.text_token_probs, strict=True))
        ]

    def _transcript(self, heard: Sequence[HeardToken], end_s: float, language: Language) -> Transcript:
        simplify = self._simplify if language is Language.CHINESE else str
        text = b"".join(token.data for token in heard).decode("utf-8", "replace")
        simplified = [replace(token, text=simplify(token.text)) for token in spoken_tokens(heard, end_s)]
        text, tokens = tidy(chinese_marks(simplify(text))), with_chinese_marks(simplified)
        return Transcript(text, language, tuple(tokens), _confidence(heard), timed_words(tokens))


def _confidence(heard: Sequence[HeardToken]) -> float | None:
    """Return the geometric mean of the tokens' probabilities; None without tokens."""
    if not heard:
        return None
    return math.exp(statistics.fmean(math.log(max(token.confidence, 1e-6)) for token in heard))


def _import_ctranslate2() -> Any:
    """Import CTranslate2 so that its threads wait for each other without spinning.

    On busy cores a spinning thread keeps the one that it waits for from running: a question of 2 s then took 10 to 20 s
    instead of 0.3 s. The OpenMP library reads the variable when it is loaded; what is loaded later is not affected.
    """
    before = os.environ.get(_OPENMP_WAIT)
    os.environ[_OPENMP_WAIT] = "PASSIVE"
    try:
        import ctranslate2
    finally:
        if before is None:
            del os.environ[_OPENMP_WAIT]
        else:
            os.environ[_OPENMP_WAIT] = before
    return ctranslate2


def _prompt(language: Language) -> list[str]:
    return ["<|startoftranscript|>", _language_token(language), "<|transcribe|>"]


def _language_token(language: Language) -> str:
    return f"<|{language.code}|>"


def _padded(samples: Samples, length_s: float) -> Samples:
    """Return `samples` with silence behind them up to `length_s` seconds."""
    return np.pad(samples, (0, max(0, round(length_s * SAMPLE_RATE_HZ) - len(samples))))
