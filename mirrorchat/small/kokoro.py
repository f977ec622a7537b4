"""Kokoro-82M in 8 bits on onnxruntime: phonemes and a style become speech at 24 kHz.

Model: Kokoro-82M v1.0 by hexgrad (Apache-2.0), a StyleTTS 2 (Li et al. 2023, arXiv 2306.07691) with an ISTFTNet
vocoder, as the project kokoro-onnx exported it. A voice is a table of styles, one for each number of tokens.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from mirrorchat.audio.samples import Audio
from mirrorchat.errors import ConfigurationError, ModelNotInstalled, SynthesisFailed
from mirrorchat.small.archive import read_tables

SAMPLE_RATE_HZ = 24_000
MODEL_FILE = "kokoro-v1.0.int8.onnx"
VOICES_FILE, JAPANESE_VOICES_FILE = "voices-v1.0.bin", "voices_ja.npz"  # numpy archives: a table for each name
TOKENS_LIMIT = 510  # for one run of the network, the silent token at either end not counted

_STYLE_SHAPE = (TOKENS_LIMIT, 1, 256)
_LARGEST_ARCHIVE_BYTES = 100_000_000  # 54 voices are 28 MB
_SILENT_TOKEN = 0

Styles = npt.NDArray[np.float32]  # shape (510, 1, 256)


class Kokoro:
    """Speaks phonemes in one of its `voices`. Thread-safe and deterministic.

    `tokens` has the number of each phoneme. Raises ModelNotInstalled when `folder` lacks the model or any voices,
    ConfigurationError when they cannot be read.
    """

    def __init__(self, folder: Path, tokens: Mapping[str, int], threads: int) -> None:
        self._tokens = tokens
        self._styles = _read_voices(folder)
        self.voices = frozenset(self._styles)
        self._session = open_session(folder / MODEL_FILE, threads)

    @staticmethod
    def is_installed(folder: Path) -> bool:
        """Return whether `folder` has the model and voices. The installer has checked their sums."""
        has_voices = any((folder / name).is_file() for name in (JAPANESE_VOICES_FILE, VOICES_FILE))
        return has_voices and (folder / MODEL_FILE).is_file()

    def fingerprint(self, voice: str) -> str:
        """Return a digest of a voice's styles."""
        return hashlib.sha256(self._styles[voice].tobytes()).hexdigest()

    def speak(self, phonemes: str, voice: str) -> Audio:
        """Return `phonemes` (at most TOKENS_LIMIT of them count) as speech at 24 kHz in one of the voices.

        Characters that are no phoneme of Kokoro's are left out. Raises SynthesisFailed when the network fails.
        """
        tokens = [self._tokens[character] for character in phonemes if character in self._tokens][:TOKENS_LIMIT]
        if not tokens:
            return Audio(np.zeros(0, np.float32), SAMPLE_RATE_HZ)
        inputs = {
            "tokens": np.array([[_SILENT_TOKEN, *tokens, _SILENT_TOKEN]], np.int64),
            "style": self._styles[voice][len(tokens) - 1],
            "speed": np.ones(1, np.float32),
        }
        try:
            (samples,) = self._session.run(None, inputs)
        except Exception as error:  # onnxruntime has no base class for its errors
            raise SynthesisFailed(f"Kokoro failed: {type(error).__name__}") from error
        samples = np.nan_to_num(np.asarray(samples, np.float32).ravel())
        return Audio(np.clip(samples, -1.0, 1.0), SAMPLE_RATE_HZ)


def open_session(file: Path, threads: int) -> onnxruntime.InferenceSession:
    """Open a network. Its threads wait without spinning, which would take the cores from the other stages.

    Raises ModelNotInstalled without the file, ConfigurationError when it cannot be read.
    """
    if not file.is_file():
        raise ModelNotInstalled(f"{file} is missing: run .venv/bin/mirrorchat models install small")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigurationError(f"{file} cannot be read: install it anew") from error


def _read_voices(folder: Path) -> dict[str, Styles]:
    """Return the styles of each voice in the archives that are there."""
    files = [folder / name for name in (JAPANESE_VOICES_FILE, VOICES_FILE)]
    styles = {name: table for file in files if file.is_file() for name, table in _read_archive(file).items()}
    if not styles:
        raise ModelNotInstalled(f"{folder} holds no voices: run .venv/bin/mirrorchat models install small")
    return styles


def _read_archive(file: Path) -> dict[str, Styles]:
    try:
        tables = read_tables(file, limit_bytes=_LARGEST_ARCHIVE_BYTES)
        return {name: _checked(table) for name, table in tables.items()}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error


def _checked(table: npt.NDArray[np.generic]) -> Styles:
    if table.shape != _STYLE_SHAPE or table.dtype != np.float32 or not np.isfinite(table).all():
        raise ValueError(f"a voice is not {_STYLE_SHAPE} finite float32")
    return np.asarray(table, np.float32)
