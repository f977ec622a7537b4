"""Speech recognition with WeNet's released runtime models: features, search, rescoring, and text as a person writes it.

A model is a folder with `final.zip` (TorchScript) and `units.txt`. The steps and their numbers are those of WeNet
(Zhang et al., arXiv 2203.15455): Kaldi filter banks, the whole utterance through the encoder, CTC prefix beam search,
then both attention decoders choose among its n best.
"""

import re
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import kaldi_native_fbank
import numpy as np
import torch

from mirrorchat.audio import Audio
from mirrorchat.ctc_search import FloatArray, Hypothesis, prefix_beam_search
from mirrorchat.engines import Cancel, EngineInfo, Language, Transcript
from mirrorchat.errors import ConfigurationError, ModelNotInstalled

SAMPLE_RATE = 16000
BINS = 80
CTC_WEIGHT = 0.5
REVERSE_WEIGHT = 0.3


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


def encode(model: torch.jit.ScriptModule, features: FloatArray) -> tuple[torch.Tensor, FloatArray]:
    """Return the encoder's output (1, S, D) and CTC log probabilities (S, V) of one utterance's features (T, 80)."""
    encoded, _, _ = model.forward_encoder_chunk(torch.from_numpy(features).unsqueeze(0), 0, -1)
    log_probs: FloatArray = model.ctc_activation(encoded)[0].numpy()
    return encoded, log_probs


def attention_rescoring(
    model: torch.jit.ScriptModule, hypotheses: Sequence[Hypothesis], encoded: torch.Tensor
) -> Hypothesis:
    """Return the hypothesis that CTC and the attention decoders together like best (U2, arXiv 2012.05481).

    `encoded` is the encoder's output (1, S, D). Scores are WeNet's: the decoders' log probabilities, 0.7 forwards and
    0.3 backwards where the model has both, and 0.5 times CTC's. Of equals the first wins.
    """
    sos, eos = int(model.sos_symbol()), int(model.eos_symbol())
    weight = REVERSE_WEIGHT if model.is_bidirectional_decoder() else 0.0
    lengths = torch.tensor([len(hypothesis.units) + 1 for hypothesis in hypotheses])
    padded = torch.full((len(hypotheses), int(lengths.max())), eos)
    for row, hypothesis in zip(padded, hypotheses, strict=True):
        row[: len(hypothesis.units) + 1] = torch.tensor((sos, *hypothesis.units))
    forwards, backwards = model.forward_attention_decoder(padded, lengths, encoded, weight)
    scores = []
    for i, hypothesis in enumerate(hypotheses):
        score = (1.0 - weight) * _text_score(forwards[i], (*hypothesis.units, eos)) + CTC_WEIGHT * hypothesis.score
        if weight > 0.0:
            score += weight * _text_score(backwards[i], (*reversed(hypothesis.units), eos))
        scores.append(score)
    return hypotheses[scores.index(max(scores))]


def _text_score(log_probs: torch.Tensor, units: tuple[int, ...]) -> float:
    """Return the log probability of `units` by one decoder's (U, V)."""
    wanted = torch.tensor(units).unsqueeze(1)
    return float(log_probs[: len(units)].gather(1, wanted).sum(dtype=torch.float64))


_SPECIAL = re.compile(r"<[^<>]*>")
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
    text = "".join(" " if _SPECIAL.fullmatch(unit) else unit.replace("▁", " ") for unit in units)
    text = _WITHIN_CJK.sub("", _BETWEEN_SCRIPTS.sub(" ", " ".join(text.split())))
    text = " ".join(text.split())
    if language is Language.ENGLISH:
        text = _LONE_I.sub("I", text.lower())
        text = text[:1].upper() + text[1:]
    return text


def read_units(path: Path) -> list[str]:
    """Return the units of a `units.txt` (one `unit number` a line), indexed by their numbers.

    Raises ConfigurationError, naming the line, when a line is not of that form or a number is missing or doubled.
    """
    numbered: dict[int, str] = {}
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text; install the model again") from error
    for position, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        unit, _, number = line.rstrip("\r").replace("\t", " ").rpartition(" ")
        if not unit or not number.isdecimal() or int(number) in numbered:
            raise ConfigurationError(f"{path}, line {position}: not a unit and its own number; install the model again")
        numbered[int(number)] = unit
    if not numbered or sorted(numbered) != list(range(len(numbered))):
        raise ConfigurationError(f"{path}: numbers are missing; install the model again")
    return [numbered[number] for number in range(len(numbered))]


class WenetRecognizer:
    """WeNet's runtime model in `folder` for one language. Thread-safe; deterministic.

    The released files are int8-quantised, which PyTorch runs on the CPU only. `threads` is the number of PyTorch's
    threads in one operation; PyTorch keeps one such number for the whole process, and the last engine built sets it.

    Raises ModelNotInstalled when `folder` lacks a file, ConfigurationError when a file is not what its name says.
    """

    def __init__(self, folder: Path, language: Language, *, threads: int) -> None:
        missing = [name for name in ("final.zip", "units.txt") if not (folder / name).is_file()]
        if missing:
            raise ModelNotInstalled(
                f"the WeNet model for {language} is not installed: {folder} lacks {' and '.join(missing)}"
            )
        torch.set_num_threads(threads)
        self.info = EngineInfo("wenet", folder.name, "cpu", "the released files are quantised, which runs on the CPU")
        self.language = language
        self._units = read_units(folder / "units.txt")
        self._model = load_script(folder / "final.zip")
        # The interpreter of TorchScript may rewrite a method's graph while it runs, and one utterance already uses
        # every thread, so utterances take turns.
        self._lock = threading.Lock()
        self._check_and_warm_up(folder)

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), cancel: Cancel
    ) -> Transcript:
        """Return what is said in `audio` (any rate, any length). No words, or no time for one, give an empty text.

        `hotwords` are taken and not yet used. Raises the reason of `cancel` between the stages once it is set, and
        ValueError for a language that this model is not for.
        """
        if language is not self.language:
            raise ValueError(f"this model is for {self.language}, not {language}")
        cancel.check()
        features = fbank(audio.resample(SAMPLE_RATE).samples)
        with self._lock, torch.inference_mode():
            units = self._decode(features, cancel)
        return Transcript(written([self._units[unit] for unit in units], language), language)

    def check_ready(self) -> None:
        """It computes on the caller's thread: there is nothing that could have ended."""

    def close(self) -> None:
        """Nothing to end: the weights go with the last reference."""

    def _decode(self, features: FloatArray, cancel: Cancel) -> tuple[int, ...]:
        if len(features) < self._shortest:
            return ()
        cancel.check()
        encoded, log_probs = encode(self._model, features)
        cancel.check()
        hypotheses = prefix_beam_search(log_probs)
        cancel.check()
        return attention_rescoring(self._model, hypotheses, encoded).units

    def _check_and_warm_up(self, folder: Path) -> None:
        """Check that the files belong together, and recognise noise twice: TorchScript optimises on its second run."""
        try:
            self._shortest = int(self._model.right_context()) + 1
            noise = np.random.default_rng(0).standard_normal((100, BINS), dtype=np.float32)
            for _ in range(2):
                self._warm_up(noise)
        except (RuntimeError, AttributeError, ValueError) as error:
            raise ConfigurationError(f"{folder / 'final.zip'} is not a WeNet runtime model: {_brief(error)}") from error

    @torch.inference_mode()
    def _warm_up(self, features: FloatArray) -> None:
        encoded, log_probs = encode(self._model, features)
        if log_probs.shape[1] != len(self._units):
            raise ValueError(f"it knows {log_probs.shape[1]} units and units.txt lists {len(self._units)}")
        attention_rescoring(self._model, prefix_beam_search(log_probs), encoded)


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Return the TorchScript model in `path`, on the CPU. Raises ConfigurationError when it holds none."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated; it is the format of WeNet's releases, and this is where it is read.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.load` is deprecated", category=DeprecationWarning)
        try:
            model = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be read as TorchScript: {_brief(error)}") from error
    return cast(torch.jit.ScriptModule, model.eval())


def _brief(error: Exception) -> str:
    """Return the first line of a PyTorch error; the rest is its C++ stack."""
    return (str(error).splitlines() or [type(error).__name__])[0]
