"""WeNet's recognizer: audio to text, with Kaldi filter banks, the U2 network, CTC search and attention rescoring.

A model is a folder in one of two formats. A checkpoint of WeNet has `train.yaml`, `final.pt` (or `final.safetensors`),
`units.txt` and `global_cmvn`; our own network runs it. WeNet's runtime format has `final.zip` (TorchScript) and
`units.txt`. The steps and their constants are those of WeNet (Zhang et al., arXiv 2203.15455).
"""

import enum
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import torch

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import EngineInfo, Language, Listening, Tier, Transcript
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.hardware import native
from mirrorchat.hardware.devices import current_device, gpu_weights, usable_device
from mirrorchat.wenet.batch import CPU, ScriptOneByOne, U2Batches, brief, load_script, warm_up
from mirrorchat.wenet.checkpoint import read_checkpoint, read_tokens, weights_path
from mirrorchat.wenet.ctc.search import Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine
from mirrorchat.wenet.features import FRAME_SHIFT_S, SAMPLE_RATE, fbank
from mirrorchat.wenet.int8 import quantize
from mirrorchat.wenet.layers import keep_in_half
from mirrorchat.wenet.listening import ChunkListener, Listeners, WholeListener
from mirrorchat.wenet.stream import ChunkReader, reads_chunks
from mirrorchat.wenet.token_table import RecognizedPiece, TokenTable, recognized


class WenetWeights(enum.StrEnum):
    """The type of the network's weights: as trained, with 8 bits (CPU only), or with 16 bits (GPU only).

    `fp16w` computes in float32, `fp16` and `bf16` in these types.
    """

    FP32 = "fp32"
    FP16W = "fp16w"
    INT8 = "int8"
    FP16 = "fp16"
    BF16 = "bf16"


WARM_UP_LIMIT_S = 60.0
_DTYPES = {WenetWeights.FP16: torch.float16, WenetWeights.BF16: torch.bfloat16}


class WenetRecognizer:
    """The recognizer with the WeNet model in `folder`, for one language.

    It is thread-safe and deterministic, and the recordings of all callers share batches. `streams` is true if the
    network can recognize in chunks: it was trained with chunks and has no convolution that needs later frames.

    Arguments:
        folder: the model. A checkpoint is preferred to the runtime format if the folder has both.
        language: the language of the model.
        threads: CPU threads of one PyTorch operation. PyTorch has one such number for the whole process, which the
            engine that was built last sets.
        device: `auto`, `cpu`, `cuda` or `cuda:1`. The runtime format is quantized and runs on the CPU only.
        weights: a WenetWeights or `auto`; not for the runtime format.
        device_lock: held while `device` computes, for engines that share a GPU; not for the runtime format.
        speaks: returns whether an engine on the same GPU speaks; batches are then short.

    Raises:
        ModelNotInstalled: `folder` lacks a file.
        ConfigurationError: a file is damaged or of another format, or `weights` do not run on `device`.

    Example:
        recognizer = WenetRecognizer(Path("models/wenet-en"), Language.ENGLISH, threads=2)
        text = recognizer.recognize(audio, Language.ENGLISH, context=Context.after(60.0)).text
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
        speaks: Callable[[], bool] = lambda: False,
    ) -> None:
        torch.set_num_threads(threads)
        self.language = language
        model: U2Batches | ScriptOneByOne
        self._device_lock, chosen = device_lock, CPU
        if weights_path(folder).is_file():
            chosen = usable_device(device)
            mode = choose_weights(weights, chosen)
            with current_device(chosen):
                model, tokens, frame_s = _load_checkpoint(folder, chosen, mode, threads, device_lock)
            self.info = EngineInfo("wenet", f"{folder.name} {mode}", str(chosen), "", Tier.REAL)
        else:
            model, tokens, frame_s = _load_runtime(folder, language)
            self._device_lock = None
            reason = "the released files are quantized, which runs on the CPU"
            self.info = EngineInfo("wenet", folder.name, "cpu", reason, Tier.REAL)
        self._tokens = TokenTable(tokens, frame_s)
        self._network = model.model
        self.streams = reads_chunks(model.model)
        self._listeners = Listeners()
        self._engine = RecognitionEngine(model, device=chosen, speaks=speaks)
        if chosen.type == "cuda":  # each thread has handles of cuBLAS and cuDNN of its own
            self._engine.compute(partial(warm_up, model), context=Context.after(WARM_UP_LIMIT_S))

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Recognize a whole recording.

        Arguments:
            audio: float32 samples in [-1, 1], of any rate and length.
            language: the language of the model.
            hotwords: phrases, such as names, that the search favours. A phrase that the tokens cannot spell, or that
                has more than MAX_PHRASE_TOKENS of them, has no effect.
            context: the context of the turn.

        Returns:
            The transcript with the time and confidence of each token; `text` is empty if nobody speaks.

        Raises:
            RecognitionFailed: the model failed for this recording.
            ServerBusy: too many recordings are queued.
            NotReady, ShuttingDown: the engine has failed or is closing.
            ValueError: the language is another one, or there are more than MAX_PHRASES hot words.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        self._check_language(language)
        context.check()
        pieces = pieces_of(audio)
        features = [fbank(piece.audio.resample(SAMPLE_RATE).samples) for piece in pieces]
        graph = self._tokens.hotword_graph(hotwords)
        found = self._engine.recognize(features, graph=graph, context=context)
        return self._tokens.transcript(recognized(pieces, found), self.language)

    def listen(self, language: Language, *, hotwords: Sequence[str] = (), context: Context) -> Listening:
        """Begin to recognize speech that is still arriving, in one piece of LONGEST_S (60 s) at most.

        Arguments are those of `recognize`.

        Returns:
            An object that takes the audio and gives partial transcripts, a new one for every 0.64 s. If `streams` is
            false, the partial transcripts are empty and the whole is recognized at the end.

        Raises:
            ServerBusy: MAX_LISTENERS callers speak already.
            ValueError: as for `recognize`.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        self._check_language(language)
        context.check()
        graph = self._tokens.hotword_graph(hotwords)
        listener: ChunkListener | WholeListener
        if self.streams:
            reader = ChunkReader(self._network, graph=graph, device_lock=self._device_lock)
            tokens = self._tokens.tokens
            listener = ChunkListener(self._engine, reader, tokens, language, self._transcribe_one, context=context)
        else:
            recognize = partial(self.recognize, language=language, hotwords=hotwords, context=context)
            listener = WholeListener(recognize, context=context)
        self._listeners.admit(listener)
        return listener

    def check_ready(self) -> None:
        """Raise NotReady if the engine's thread has failed or is stuck."""
        self._engine.check_ready()

    def close(self) -> None:
        """End the engine's thread. Waiting callers get ShuttingDown."""
        self._engine.close()

    def _check_language(self, language: Language) -> None:
        if language is not self.language:
            raise ValueError(f"this model is for {self.language}, not {language}")

    def _transcribe_one(self, found: Hypothesis, duration_s: float) -> Transcript:
        return self._tokens.transcript([RecognizedPiece(0.0, duration_s, found)], self.language)


Loaded = tuple[U2Batches | ScriptOneByOne, list[str], float]  # the model, its tokens, seconds in an encoder frame


def choose_weights(name: str, device: torch.device) -> WenetWeights:
    """Return the weights for the setting `wenet_weights`, `name`, on `device`.

    `auto` means what suits a GPU (`devices.gpu_weights`), int8 on a CPU that the C++ library supports, and fp32 on
    others. Raises ConfigurationError if weights of this type do not run on `device`.
    """
    if name == "auto" and device.type == "cuda":
        return WenetWeights(gpu_weights(device))
    if name == "auto":
        return WenetWeights.FP32 if native.library() is None else WenetWeights.INT8
    weights = WenetWeights(name)
    if weights is not WenetWeights.FP32 and (weights is WenetWeights.INT8) != (device.type == "cpu"):
        raise ConfigurationError(f"WeNet's weights cannot be {weights} on {device}; choose fp32")
    return weights


def _load_checkpoint(
    folder: Path,
    device: torch.device,
    weights: WenetWeights,
    threads: int,
    device_lock: AbstractContextManager[object] | None,
) -> Loaded:
    checkpoint = read_checkpoint(folder)
    if weights is WenetWeights.INT8:
        model = quantize(checkpoint.model, threads)
    else:
        if weights is WenetWeights.FP16W:
            keep_in_half(checkpoint.model)
        model = checkpoint.model.to(device=device, dtype=_DTYPES.get(weights))
    batches = U2Batches(model, device=device, device_lock=device_lock)
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
