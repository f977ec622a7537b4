"""Speaker embeddings from the encoder in the package Resemblyzer (Apache-2.0).

The encoder was trained with the generalized end-to-end loss (Wan et al., arXiv 1710.10467): three LSTM layers over a
mel spectrogram place utterances of one speaker near each other. Only the weights of the package are read, because its
code needs webrtcvad, which needs a compiler, and names that SciPy is about to remove. The tests compare the embeddings
with those of its `VoiceEncoder.embed_utterance`. Our own voice activity detector finds the speech.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

Embedding = npt.NDArray[np.float32]  # shape (256,), norm 1, no negative values

PACKAGE = "resemblyzer"
INSTALL_HINT = "run scripts/environment small full evaluate"
SAMPLE_RATE_HZ = 16_000
LEAST_SPEECH_S = 0.8  # half a window; a shorter recording consists mostly of padding

_WINDOW, _HOP, _MELS = 400, 160, 40  # 25 ms and 10 ms
_PARTIAL_FRAMES = 160  # 1.6 s, as in the training
_STEP_FRAMES = 77  # 1.3 windows a second
_LEAST_COVERAGE = 0.75  # an emptier last window is dropped
_LEVEL_DB = -30.0  # quieter speech is amplified to this root mean square
_HIDDEN, _LAYERS, _SIZE = 256, 3, 256


class SpeakerEncoder:
    """Computes speaker embeddings on the CPU. The package must be installed (`judge.NEEDED_PACKAGES`).

    Raises ConfigurationError for unreadable weights.
    """

    def __init__(self) -> None:
        spec = importlib.util.find_spec(PACKAGE)  # does not import the package
        assert spec is not None and spec.origin is not None
        self._lstm, self._linear = _load(Path(spec.origin).with_name("pretrained.pt"))

    def embed(self, audio: Audio) -> Embedding | None:
        """Return the embedding of the speaker of `audio` (any rate), or None if it has too little speech."""
        span = find_speech(audio)
        if span.speech_s < LEAST_SPEECH_S:
            return None
        return self.embed_samples(at_level(trim_to_speech(audio, span).resample(SAMPLE_RATE_HZ).samples))

    def embed_samples(self, samples: Samples) -> Embedding:
        """Return the normalized mean of the embeddings of windows over `samples` (16 kHz, only speech)."""
        import torch

        starts = window_starts(len(samples))
        needed = (starts[-1] + _PARTIAL_FRAMES) * _HOP
        mel = _mel(np.pad(samples, (0, max(0, needed - len(samples)))))
        windows = np.stack([mel[start : start + _PARTIAL_FRAMES] for start in starts])
        with torch.no_grad():
            _, (hidden, _) = self._lstm(torch.from_numpy(windows))
            raw = torch.relu(self._linear(hidden[-1]))
            each: npt.NDArray[np.float32] = (raw / raw.norm(dim=1, keepdim=True)).numpy()
        mean = each.mean(axis=0)
        embedding: Embedding = mean / np.linalg.norm(mean)
        return embedding


def window_starts(samples: int) -> list[int]:
    """Return the first frame of each window. A last window with too little sound is dropped."""
    frames = -(-(samples + 1) // _HOP)
    starts = list(range(0, max(1, frames - _PARTIAL_FRAMES + _STEP_FRAMES + 1), _STEP_FRAMES))
    covered = (samples - starts[-1] * _HOP) / (_PARTIAL_FRAMES * _HOP)
    return starts[:-1] if covered < _LEAST_COVERAGE and len(starts) > 1 else starts


def at_level(samples: Samples) -> Samples:
    """Return `samples` amplified to the level of the training. Louder samples stay unchanged."""
    level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
    gain = 10.0 ** (_LEVEL_DB / 20.0) / max(level, 1e-9)
    return samples if gain <= 1.0 else (samples * gain).astype(np.float32)


def _mel(samples: Samples) -> npt.NDArray[np.float32]:
    """Return the mel power spectrogram (not logarithmic), shape (frames, mels)."""
    from librosa.feature import melspectrogram

    mel = melspectrogram(y=samples, sr=SAMPLE_RATE_HZ, n_fft=_WINDOW, hop_length=_HOP, n_mels=_MELS)
    return np.ascontiguousarray(mel.T, dtype=np.float32)


def _load(path: Path) -> "tuple[torch.nn.LSTM, torch.nn.Linear]":
    import torch

    lstm = torch.nn.LSTM(_MELS, _HIDDEN, _LAYERS, batch_first=True)
    linear = torch.nn.Linear(_HIDDEN, _SIZE)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
        for name, module in (("lstm.", lstm), ("linear.", linear)):
            module.load_state_dict({key.removeprefix(name): state[key] for key in state if key.startswith(name)})
    except (OSError, RuntimeError, KeyError, TypeError, AttributeError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"the weights of {PACKAGE} cannot be read: {INSTALL_HINT}") from error
    return lstm.eval(), linear.eval()
