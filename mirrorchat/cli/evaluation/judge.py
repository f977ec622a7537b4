"""The judge of `evaluate --judge`: it hears our speech, rates how natural it sounds, and compares its voice.

- Whisper base hears, 30 s at once, as it was trained. Its weights are those of the small recognizer, which reads less.
- DistillMOS (Stahl and Gamper, arXiv 2502.05356) predicts the mean opinion score of listeners, from 1 to 5.
- The encoder of Resemblyzer compares voices (`speaker_encoder.py`).
"""

import io
import pickle
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from mirrorchat.audio.samples import Audio
from mirrorchat.cli.evaluation.clips import Clip
from mirrorchat.cli.evaluation.speaker_encoder import INSTALL_HINT, SpeakerEncoder
from mirrorchat.cli.evaluation.speaker_similarity import Speakers
from mirrorchat.errors import ConfigurationError, EvaluationError
from mirrorchat.settings import Settings
from mirrorchat.startup.engine_choice import INSTALL, WHISPER_FILES, WHISPER_PACKAGES, absent_files, absent_packages

if TYPE_CHECKING:
    import torch

NEEDED_PACKAGES = (
    *WHISPER_PACKAGES, "torch", "torchaudio", "transformers", "librosa", "resemblyzer", "distillmos", "xls_r_sqa",
)  # fmt: skip
SAMPLE_RATE_HZ = 16_000  # of DistillMOS


class Judge:
    """Judges speech, on the CPU; `clips` are the recordings of the askers.

    Raises EvaluationError, with the command that helps, if a package or the weights of Whisper are missing, and
    ConfigurationError if weights cannot be read.
    """

    def __init__(self, settings: Settings, clips: Sequence[Clip]) -> None:
        folder = settings.models_dir / "whisper-base"
        if absent := absent_packages(NEEDED_PACKAGES):
            raise EvaluationError(f"the judge needs {', '.join(absent)}: {INSTALL_HINT}")
        if absent := absent_files(folder, WHISPER_FILES):
            raise EvaluationError(f"the judge needs {', '.join(absent)} in {folder}: run {INSTALL}small")
        import torch

        from mirrorchat.small.whisper import WhisperRecognizer

        torch.set_num_threads(settings.threads)
        self.listener = WhisperRecognizer(folder, threads=settings.threads, whole=True)
        self.speakers = Speakers(SpeakerEncoder(), clips)
        self._naturalness = _load_distillmos()

    def naturalness(self, audio: Audio) -> float:
        """Return the predicted mean opinion score, from 1 (bad) to 5 (excellent), of the speech `audio` (any rate)."""
        import torch

        samples = torch.from_numpy(audio.resample(SAMPLE_RATE_HZ).samples.copy())
        with torch.inference_mode():
            return float(self._naturalness(samples[None]))

    def close(self) -> None:
        """Take no more speech."""
        self.listener.close()


def _load_distillmos() -> "torch.nn.Module":
    from mirrorchat.hardware.torchaudio_import import import_torchaudio

    try:
        import_torchaudio()
        import distillmos

        with redirect_stdout(io.StringIO()):  # it prints the path of its weights
            model: torch.nn.Module = distillmos.ConvTransformerSQAModel()
    except (ImportError, OSError, RuntimeError, KeyError, EOFError, pickle.UnpicklingError) as error:
        raise ConfigurationError(f"DistillMOS cannot be loaded: {INSTALL_HINT}") from error
    return model.eval()
