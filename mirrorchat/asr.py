"""WeNet's recognizer: sound to Kaldi filter banks, through the network and the searches, to text as a person writes it.

A model is a folder: `train.yaml`, `final.pt` (or `final.safetensors`), `units.txt` and `global_cmvn` as WeNet trains
them, which our own network reads; or its runtime format, `final.zip` (TorchScript) and `units.txt`. The steps and their
numbers are those of WeNet (Zhang et al., arXiv 2203.15455).
"""

import enum
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio
from mirrorchat.engines import Context, EngineInfo, Language, Listening, Transcript
from mirrorchat.errors import ConfigurationError, ModelNotInstalled, NotReady
from mirrorchat.hardware import native
from mirrorchat.hardware.devices import usable_device
from mirrorchat.wenet.batch import ScriptOneByOne, U2Batches, brief, load_script, warm_up
from mirrorchat.wenet.checkpoint import read_checkpoint, read_tokens, weights_path
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine
from mirrorchat.wenet.features import BINS, FRAME_SHIFT_S, SAMPLE_RATE, fbank
from mirrorchat.wenet.int8 import quantize
from mirrorchat.wenet.listening import ChunkListener, Listeners, WholeListener
from mirrorchat.wenet.stream import ChunkReader, reads_chunks
from mirrorchat.wenet.text import written
from mirrorchat.wenet.token_table import RecognizedPiece, TokenTable, recognized

__all__ = ["BINS", "SAMPLE_RATE", "WenetRecognizer", "WenetWeights", "choose_weights", "fbank", "written"]

STUCK_S = 60.0  # longer than any batch takes on a busy core


class WenetWeights(enum.StrEnum):
    """How the network's weights are kept: as they are, with 8 bits (CPU), or in half precision (GPU)."""

    FP32 = "fp32"
    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


_DTYPES = {WenetWeights.FP16: torch.float16, WenetWeights.BF16: torch.bfloat16}


class WenetRecognizer:
    """WeNet's model in `folder` for one language. Thread-safe; deterministic; callers' recordings share batches.

    `streams` says whether it can listen in chunks: whether the network was trained so, and hears nothing ahead.

    Weights that WeNet has trained run on `device` (`auto`, `cpu`, `cuda` or `cuda:1`), kept as `weights` says (a
    WenetWeights or `auto`); its runtime format, read where it is all that the folder holds, is quantized, which PyTorch
    runs on the CPU only. `threads` is the number of PyTorch's threads in one operation; PyTorch keeps one such number
    for the whole process, and the last engine built sets it.
    `device_lock` is held while `device` computes a batch or a chunk; the runtime format has no use for it.

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
            kept = choose_weights(weights, place)
            model, tokens, frame_s = _load_checkpoint(folder, place, kept, threads)
            self.info = EngineInfo("wenet", f"{folder.name} {kept}", str(place))
        else:
            model, tokens, frame_s = _load_runtime(folder, language)
            device_lock = None
            reason = "the released files are quantized, which runs on the CPU"
            self.info = EngineInfo("wenet", folder.name, "cpu", reason)
        self._tokens = TokenTable(tokens, frame_s)
        self._network = model.model
        self.streams = reads_chunks(model.model)
        self._listeners = Listeners()
        self._engine = RecognitionEngine(model, device_lock=device_lock)

    def recognize(
        self,
        audio: Audio,
        language: Language,
        *,
        hotwords: Sequence[str] = (),
        context: Context,
    ) -> Transcript:
        """Return what is said in `audio` (any rate, any length), and when. No words give an empty text.

        `hotwords` are likelier to be heard: names, say. One that the model has no tokens for, or that has too many,
        changes nothing. Raises what ends `context`, RecognitionFailed,
        ServerBusy, ShuttingDown, and ValueError for a language that this model is not for or over MAX_PHRASES hot
        words.
        """
        self._check_language(language)
        context.check()
        pieces = pieces_of(audio)
        features = [fbank(piece.audio.resample(SAMPLE_RATE).samples) for piece in pieces]
        graph = self._tokens.hotword_graph(hotwords)
        found = self._engine.recognize(features, graph=graph, context=context)
        return self._tokens.transcript(recognized(pieces, found), self.language)

    def listen(
        self, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Listening:
        """Begin to listen to a caller who speaks for LONGEST_S at most, in one piece; partials come every 0.64 s.

        Without `streams` they are empty, and the whole is recognized at the end. Raises ServerBusy when MAX_LISTENERS
        speak already, ShuttingDown, what ends `context`, and ValueError as `recognize` does.
        """
        self._check_language(language)
        context.check()
        graph = self._tokens.hotword_graph(hotwords)
        listener: ChunkListener | WholeListener
        if self.streams:
            reader = ChunkReader(self._network, graph=graph)
            listener = ChunkListener(
                self._engine,
                reader,
                self._tokens.tokens,
                language,
                self._transcribe_one,
                context=context,
            )
        else:
            listener = WholeListener(
                partial(self.recognize, language=language, hotwords=hotwords, context=context),
                context=context,
            )
        self._listeners.admit(listener)
        return listener

    def check_ready(self) -> None:
        """Raise NotReady when the engine's thread has failed or is stuck."""
        self._engine.check_ready()
        if self._engine.stuck_s > STUCK_S:
            raise NotReady(f"recognition has been stuck for {self._engine.stuck_s:.0f} s")

    def close(self) -> None:
        """End the engine's thread; who still waits gets ShuttingDown."""
        self._engine.close()

    def _check_language(self, language: Language) -> None:
        if language is not self.language:
            raise ValueError(f"this model is for {self.language}, not {language}")

    def _transcribe_one(self, found: Hypothesis, duration_s: float) -> Transcript:
        return self._tokens.transcript([RecognizedPiece(0.0, duration_s, found)], self.language)


Loaded = tuple[U2Batches | ScriptOneByOne, list[str], float]  # what recognizes, its tokens, seconds in a frame


def choose_weights(name: str, device: torch.device) -> WenetWeights:
    """Return what the setting `wenet_weights` means on `device`. Raises ConfigurationError when it is not for that."""
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
        model = quantize(checkpoint.model, threads)
    else:
        model = checkpoint.model.to(device=device, dtype=_DTYPES.get(weights, torch.float32))
    batches = U2Batches(model, device=device)
    warm_up(batches)
    return batches, checkpoint.tokens, checkpoint.model.subsampling_rate() * FRAME_SHIFT_S


def _load_runtime(folder: Path, language: Language) -> Loaded:
    missing = [name for name in ("final.zip", "units.txt") if not (folder / name).is_file()]
    if missing:
        raise ModelNotInstalled(
            f"the WeNet model for {language} is not installed: {folder} lacks {' and '.join(missing)}"
        )
    tokens = read_tokens(folder / "units.txt")
    script = load_script(folder / "final.zip")
    try:
        model = ScriptOneByOne(script, len(tokens))
        warm_up(model)
        return model, tokens, int(script.subsampling_rate()) * FRAME_SHIFT_S
    except (RuntimeError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"{folder / 'final.zip'} is not a WeNet runtime model: {brief(error)}") from error
