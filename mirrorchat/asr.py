"""WeNet's recogniser: sound to Kaldi filter banks, through the network and the searches, to text as a person writes it.

A model is a folder: `train.yaml`, `final.pt` (or `final.safetensors`), `units.txt` and `global_cmvn` as WeNet trains
them, which our own network reads; or its runtime format, `final.zip` (TorchScript) and `units.txt`. The steps and their
numbers are those of WeNet (Zhang et al., arXiv 2203.15455).
"""

import enum
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import kaldi_native_fbank
import numpy as np
import torch

from mirrorchat import native
from mirrorchat.audio import Audio
from mirrorchat.ctc_search import FloatArray, Hypothesis
from mirrorchat.devices import usable_device
from mirrorchat.engines import Cancel, EngineInfo, Language, Transcript
from mirrorchat.errors import ConfigurationError, ModelNotInstalled, NotReady
from mirrorchat.speech_pieces import Piece, pieces_of
from mirrorchat.unit_table import SPECIAL, UnitTable, mean_confidence
from mirrorchat.wenet_batch import FRAME_SHIFT_S, ScriptOneByOne, U2Batches, brief, load_script, warm_up
from mirrorchat.wenet_checkpoint import read_checkpoint, read_units, weights_path
from mirrorchat.wenet_engine import RecognitionEngine
from mirrorchat.wenet_int8 import quantise

SAMPLE_RATE = 16000
BINS = 80
STUCK_S = 60.0  # longer than any batch takes on a busy core


class WenetWeights(enum.StrEnum):
    """How the network's weights are kept: as they are, with 8 bits (CPU), or in half precision (GPU)."""

    FP32 = "fp32"
    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


_DTYPES = {WenetWeights.FP16: torch.float16, WenetWeights.BF16: torch.bfloat16}


def fbank(samples: FloatArray) -> FloatArray:
    """Return Kaldi filter banks (T, 80) float32 of 16 kHz samples in [-1, 1]; T is 0 below 25 ms.

    WeNet's settings: 25 ms windows every 10 ms, 16-bit scale, and at inference no dither, so that the same audio always
    gives the same words.
    """
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BINS
    options.energy_floor = 0.0
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE, samples * np.float32(32768.0))
    bank.input_finished()
    frames = [bank.get_frame(i) for i in range(bank.num_frames_ready)]
    return np.array(frames, dtype=np.float32).reshape(-1, BINS)


_CJK = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_LETTER = rf"[^\W\d_{_CJK}]"
_BETWEEN_SCRIPTS = re.compile(rf"(?<=[{_CJK}])(?={_LETTER})|(?<={_LETTER})(?=[{_CJK}])")
_WITHIN_CJK = re.compile(rf"(?<=[{_CJK}]) +(?=[\d{_CJK}])|(?<=\d) +(?=[{_CJK}])")
_LONE_I = re.compile(r"(?<![\w'])i(?![\w-])")


def written(units: Sequence[str], language: Language) -> str:
    """Return units as a person writes them.

    `▁` begins a word; `<blank>`, `<unk>`, `<sos/eos>` and their like are no text. English is in lower case, with a
    capital at the start and for "I". Chinese has no spaces, except round words in Latin letters, which keep their case.
    """
    text = "".join(" " if SPECIAL.fullmatch(unit) else unit.replace("▁", " ") for unit in units)
    text = _WITHIN_CJK.sub("", _BETWEEN_SCRIPTS.sub(" ", " ".join(text.split())))
    text = " ".join(text.split())
    if language is Language.ENGLISH:
        text = _LONE_I.sub("I", text.lower())
        text = text[:1].upper() + text[1:]
    return text


class WenetRecognizer:
    """WeNet's model in `folder` for one language. Thread-safe; deterministic; callers' recordings share batches.

    Weights that WeNet has trained run on `device` (`auto`, `cpu`, `cuda` or `cuda:1`), kept as `weights` says (a
    WenetWeights or `auto`); its runtime format, read where it is all that the folder holds, is quantised, which PyTorch
    runs on the CPU only. `threads` is the number of PyTorch's
    threads in one operation; PyTorch keeps one such number for the whole process, and the last engine built sets it.
    `device_lock` is held while a batch is computed.

    Raises ModelNotInstalled when `folder` lacks a file, ConfigurationError when a file is not what its name says or
    `weights` and `device` do not go together.
    """

    def __init__(
        self,
        folder: Path,
        language: Language,
        *,
        threads: int,
        device: str = "cpu",
        weights: str = "auto",
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self.language = language
        model: U2Batches | ScriptOneByOne
        if weights_path(folder).is_file():
            place = usable_device(device)
            kept = _choose_weights(weights, place)
            model, units, frame_s = _load_checkpoint(folder, place, kept, threads)
            self.info = EngineInfo("wenet", f"{folder.name} {kept}", str(place))
        else:
            model, units, frame_s = _load_runtime(folder, language)
            reason = "the released files are quantised, which runs on the CPU"
            self.info = EngineInfo("wenet", folder.name, "cpu", reason)
        self._units = UnitTable(units, frame_s)
        self._engine = RecognitionEngine(model, device_lock=device_lock)

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), cancel: Cancel
    ) -> Transcript:
        """Return what is said in `audio` (any rate, any length), and when. No words give an empty text.

        `hotwords` are likelier to be heard: names, say. One that the model has no units for, or that has too many,
        changes nothing. Raises the reason of `cancel` soon after it is set, RecognitionFailed, ServerBusy,
        ShuttingDown, and ValueError for a language that this model is not for or over MAX_PHRASES hot words.
        """
        if language is not self.language:
            raise ValueError(f"this model is for {self.language}, not {language}")
        cancel.check()
        pieces = pieces_of(audio)
        features = [fbank(piece.audio.resample(SAMPLE_RATE).samples) for piece in pieces]
        found = self._engine.recognise(features, context=self._units.context(hotwords), cancel=cancel)
        return self._transcript(pieces, found)

    def check_ready(self) -> None:
        """Raise NotReady when the engine's thread has failed or is stuck."""
        self._engine.check_ready()
        if self._engine.stuck_s > STUCK_S:
            raise NotReady(f"recognition has been stuck for {self._engine.stuck_s:.0f} s")

    def close(self) -> None:
        """End the engine's thread; who still waits gets ShuttingDown."""
        self._engine.close()

    def _transcript(self, pieces: Sequence[Piece], found: Sequence[Hypothesis]) -> Transcript:
        spoken = self._units.spoken(pieces, found)
        text = written(self._units.names(found), self.language)
        return Transcript(text, self.language, spoken, mean_confidence(spoken))


Loaded = tuple[U2Batches | ScriptOneByOne, list[str], float]  # what recognises, its units, seconds in a frame


def _choose_weights(name: str, device: torch.device) -> WenetWeights:
    if name == "auto":
        fast = device.type == "cpu" and native.library() is not None
        return WenetWeights.INT8 if fast else WenetWeights.FP32
    weights = WenetWeights(name)
    if weights is not WenetWeights.FP32 and (weights is WenetWeights.INT8) != (device.type == "cpu"):
        raise ConfigurationError(f"WeNet's weights cannot be {weights} on {device}; choose fp32")
    return weights


def _load_checkpoint(folder: Path, device: torch.device, weights: WenetWeights, threads: int) -> Loaded:
    checkpoint = read_checkpoint(folder)
    if weights is WenetWeights.INT8:
        model = quantise(checkpoint.model, threads)
    else:
        model = checkpoint.model.to(device=device, dtype=_DTYPES.get(weights, torch.float32))
    batches = U2Batches(model, device=device)
    warm_up(batches)
    return batches, checkpoint.units, checkpoint.model.subsampling_rate() * FRAME_SHIFT_S


def _load_runtime(folder: Path, language: Language) -> Loaded:
    missing = [name for name in ("final.zip", "units.txt") if not (folder / name).is_file()]
    if missing:
        raise ModelNotInstalled(
            f"the WeNet model for {language} is not installed: {folder} lacks {' and '.join(missing)}"
        )
    units = read_units(folder / "units.txt")
    script = load_script(folder / "final.zip")
    try:
        model = ScriptOneByOne(script, len(units))
        warm_up(model)
        return model, units, int(script.subsampling_rate()) * FRAME_SHIFT_S
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{folder / 'final.zip'} is not a WeNet runtime model: {brief(error)}") from error
