"""Recognition while the caller still speaks: the classes that implement `Listening` of `engines.py`.

A network that can stream gives a partial text for each chunk; any other recognizes the whole at the end. Each chunk,
and the rescoring at the end, is one piece of work for the recognition engine, and the caller waits for it. Between two
calls nothing runs, and no thread is held.
"""

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeVar
from weakref import WeakSet

import numpy as np

from mirrorchat.audio.samples import MAX_SAMPLE_RATE, MIN_SAMPLE_RATE, Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, PartialTranscript, Transcript
from mirrorchat.errors import AudioTooLong, MirrorChatError, NonFiniteAudio, ServerBusy
from mirrorchat.wenet.ctc.search import FloatArray, Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine
from mirrorchat.wenet.features import FeatureStream
from mirrorchat.wenet.stream import ChunkReader
from mirrorchat.wenet.text import settled, written

LONGEST_S = 60.0  # of one caller's speech; with 12 layers of width 512 the caches then have about 75 MB
MAX_LISTENERS = 16
NOTHING_YET = PartialTranscript("", "", 0.0)

Result = TypeVar("Result")


class Listener:
    """The common part of both kinds: how listening ends, and which audio it accepts.

    It accepts finite samples, all at the rate of the first piece, and LONGEST_S at most.
    """

    def __init__(self, *, context: Context) -> None:
        self.is_closed = False
        self.sample_rate = 0  # Hz; unknown before the first piece
        self.samples = 0
        self._context = context

    @property
    def duration_s(self) -> float:
        """Return the seconds of audio so far."""
        return self.samples / self.sample_rate if self.samples else 0.0

    def close(self) -> None:
        """Free the audio and the state of the recognition."""
        self.is_closed = True

    def close_if_over(self) -> None:
        """Close if the deadline has passed or the turn is cancelled."""
        if self._context.is_over:
            self.close()

    def _check_open(self) -> None:
        self.close_if_over()
        self._context.check()
        if self.is_closed:
            raise ValueError("this listening has ended")

    def _admit(self, audio: Audio) -> None:
        """Count another piece. Raises AudioTooLong, NonFiniteAudio or ValueError for a piece that it rejects."""
        rate = self.sample_rate or audio.sample_rate
        if audio.samples.ndim != 1 or audio.samples.dtype != np.float32:
            raise ValueError("samples are one float32 after the other")
        if audio.sample_rate != rate or not MIN_SAMPLE_RATE <= rate <= MAX_SAMPLE_RATE:
            raise ValueError(
                f"a piece at {audio.sample_rate} Hz; all pieces have one rate, {MIN_SAMPLE_RATE} to {MAX_SAMPLE_RATE}"
            )
        if self.samples + len(audio.samples) > LONGEST_S * rate:
            raise AudioTooLong(f"The speech is longer than {LONGEST_S:.0f} s.")
        if not np.isfinite(audio.samples).all():
            raise NonFiniteAudio("The speech holds samples that are not finite numbers.")
        self.sample_rate = rate
        self.samples += len(audio.samples)

    def _ask(self, work: Callable[[], Result]) -> Result:
        """Return the result of `work`. Every error of the tree but ServerBusy closes this listener."""
        try:
            return work()
        except ServerBusy:  # nothing was computed, and the audio is still buffered
            raise
        except MirrorChatError:
            self.close()
            raise


class ChunkListener(Listener):
    """A caller whose speech `reader` recognizes chunk by chunk.

    `tokens` are the tokens of the model. `transcribe` makes a transcript from a hypothesis and the seconds of audio.
    """

    def __init__(
        self,
        engine: RecognitionEngine,
        reader: ChunkReader,
        tokens: Sequence[str],
        language: Language,
        transcribe: Callable[[Hypothesis, float], Transcript],
        *,
        context: Context,
    ) -> None:
        super().__init__(context=context)
        self._engine, self._tokens, self._language, self._transcribe = engine, tokens, language, transcribe
        self._reader: ChunkReader | None = reader
        self._features: FeatureStream | None = None
        self._partial = NOTHING_YET
        self._shown = 0  # encoder frames that `_partial` covers

    def hear(self, audio: Audio) -> PartialTranscript:
        """Take another piece and return the text so far, which changes with each whole chunk."""
        reader = self._open()
        self._admit(audio)
        features = self._features = self._features or FeatureStream(audio.sample_rate)
        features.accept(audio)
        self._read(reader, features, least=reader.window)
        if reader.frames > self._shown:
            self._shown, self._partial = reader.frames, self._write(reader)
        return self._partial

    def finish(self) -> Transcript:
        """Return the transcript after attention rescoring, and close."""
        reader, found = self._open(), Hypothesis((), 0.0, (), ())
        features = self._features
        if features is not None:
            features.finish()
            self._read(reader, features, least=reader.shortest)
        if reader.frames:
            found = self._compute(reader.rescored)
        self.close()
        return self._transcribe(found, self.duration_s)

    def close(self) -> None:
        """Free the audio and the state of the recognition."""
        super().close()
        self._reader = self._features = None

    def _open(self) -> ChunkReader:
        self._check_open()
        reader = self._reader
        if reader is None:  # another thread has just closed it
            raise ValueError("this listening has ended")
        return reader

    def _read(self, reader: ChunkReader, features: FeatureStream, *, least: int) -> None:
        while features.waiting >= least:
            self._compute(partial(reader.read, features.ahead(reader.window)))
            features.take(reader.stride)

    def _compute(self, work: Callable[[], Result]) -> Result:
        return self._ask(lambda: self._engine.compute(work, context=self._context))

    def _write(self, reader: ChunkReader) -> PartialTranscript:
        text = written(self._spell(reader.hypotheses()[0].tokens), self._language)
        stable_text = settled(self._spell(reader.stable_prefix()), self._language)
        return PartialTranscript(text, stable_text, reader.frames * reader.frame_s)

    def _spell(self, tokens: Sequence[int]) -> list[str]:
        return [self._tokens[token] for token in tokens]


class WholeListener(Listener):
    """A caller whose speech `recognize` gets as a whole at the end, for networks that cannot stream."""

    def __init__(self, recognize: Callable[[Audio], Transcript], *, context: Context) -> None:
        super().__init__(context=context)
        self._recognize = recognize
        self._pieces: list[FloatArray] = []

    def hear(self, audio: Audio) -> PartialTranscript:
        """Keep another piece; the text stays empty."""
        self._check_open()
        self._admit(audio)
        self._pieces.append(audio.samples.copy())
        return NOTHING_YET

    def finish(self) -> Transcript:
        """Return the transcript, and close."""
        self._check_open()
        whole = Audio(np.concatenate([np.zeros(0, np.float32), *self._pieces]), self.sample_rate or MIN_SAMPLE_RATE)
        transcript = self._ask(partial(self._recognize, whole))
        self.close()
        return transcript

    def close(self) -> None:
        """Free the audio and the state of the recognition."""
        super().close()
        self._pieces = []


class Listeners:
    """The callers who speak at the moment, at most MAX_LISTENERS. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._present: WeakSet[Listener] = WeakSet()

    def admit(self, newcomer: Listener) -> None:
        """Admit `newcomer`, after closing listeners whose context is over. Raises ServerBusy if there are too many."""
        with self._lock:
            for each in self._present:
                each.close_if_over()
            self._present = WeakSet(each for each in self._present if not each.is_closed)
            if len(self._present) >= MAX_LISTENERS:
                raise ServerBusy(f"{MAX_LISTENERS} callers speak already; try again shortly", retry_after_s=2)
            self._present.add(newcomer)
