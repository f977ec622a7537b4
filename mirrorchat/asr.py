"""Speech recognition with WeNet's released runtime models: features, search, rescoring, and text as a person writes it.

A model is a folder with `final.zip` (TorchScript) and `units.txt`. The steps and their numbers are those of WeNet
(Zhang et al., arXiv 2203.15455): Kaldi filter banks, the whole utterance through the encoder, CTC prefix beam search,
then both attention decoders choose among its n best.
"""

import math
import re
import threading
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import torch

from mirrorchat.audio import Audio
from mirrorchat.engines import Cancel, EngineInfo, Language, Transcript
from mirrorchat.errors import ConfigurationError, ModelNotInstalled
from mirrorchat.wenet_checkpoint import read_units
from mirrorchat.wenet_model import U2Model

SAMPLE_RATE = 16000
BINS = 80
BEAM = 10
CTC_WEIGHT = 0.5
REVERSE_WEIGHT = 0.3
BLANK = 0

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Hypothesis:
    """One reading of an utterance: its unit numbers, and the log probability that CTC gives it."""

    units: tuple[int, ...]
    score: float


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


def encode(model: torch.jit.ScriptModule | U2Model, features: FloatArray) -> tuple[torch.Tensor, FloatArray]:
    """Return the encoder's output (1, S, D) and CTC log probabilities (S, V) of one utterance's features (T, 80)."""
    encoded, _, _ = model.forward_encoder_chunk(torch.from_numpy(features).unsqueeze(0), 0, -1)
    log_probs: FloatArray = model.ctc_activation(encoded)[0].numpy()
    return encoded, log_probs


class _Prefixes:
    """Every prefix met in one search, as a tree: a number for each, so that none is copied or compared whole."""

    def __init__(self) -> None:
        self.parents = [-1]
        self.units = [-1]
        self._children: dict[tuple[int, int], int] = {}

    def child(self, prefix: int, unit: int) -> int:
        """Return the number of `prefix` followed by `unit`."""
        number = self._children.setdefault((prefix, unit), len(self.units))
        if number == len(self.units):
            self.parents.append(prefix)
            self.units.append(unit)
        return number

    def spell(self, prefix: int) -> tuple[int, ...]:
        """Return the units of `prefix`, first to last."""
        units = []
        while prefix > 0:
            units.append(self.units[prefix])
            prefix = self.parents[prefix]
        return tuple(reversed(units))


# A live prefix: its number, and the log probabilities of the paths that end in a blank and in its last unit.
_Live = tuple[int, float, float]


def prefix_beam_search(log_probs: FloatArray, beam: int = BEAM) -> list[Hypothesis]:
    """Return the `beam` best readings of CTC log probabilities (S, V), best first.

    The method is Hannun et al.'s (arXiv 1408.2873), with WeNet's pruning: in each frame the `beam` best units extend
    the `beam` best prefixes. Equal scores stay in the order in which they were met.
    """
    prefixes = _Prefixes()
    live: list[_Live] = [(0, 0.0, -math.inf)]
    best = torch.from_numpy(log_probs).topk(min(beam, log_probs.shape[1]), dim=1)
    for scores, units in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        live = _advance(live, units, scores, prefixes)[:beam]
    return [Hypothesis(prefixes.spell(prefix), _log_add(blank, unit)) for prefix, blank, unit in live]


def _advance(live: list[_Live], units: list[int], scores: list[float], prefixes: _Prefixes) -> list[_Live]:
    """Return the live prefixes after one more frame, best first. Two paths that spell the same are added up."""
    met: dict[int, list[float]] = {}
    last = prefixes.units
    totals = [_log_add(blank, unit) for _, blank, unit in live]
    for unit, score in zip(units, scores, strict=True):
        for (prefix, ends_blank, ends_unit), total in zip(live, totals, strict=True):
            if unit == BLANK:
                _add(met, prefix, 0, total + score)
            elif last[prefix] == unit:
                # The same unit again is the same letter held, unless a blank came between.
                _add(met, prefix, 1, ends_unit + score)
                _add(met, prefixes.child(prefix, unit), 1, ends_blank + score)
            else:
                _add(met, prefixes.child(prefix, unit), 1, total + score)
    ranked = sorted(((_log_add(*ends), prefix, ends) for prefix, ends in met.items()), key=lambda item: -item[0])
    return [(prefix, ends[0], ends[1]) for _, prefix, ends in ranked]


def _add(met: dict[int, list[float]], prefix: int, end: int, score: float) -> None:
    ends = met.get(prefix)
    if ends is None:
        ends = met[prefix] = [-math.inf, -math.inf]
    ends[end] = _log_add(ends[end], score)


def _log_add(a: float, b: float) -> float:
    """Return log(exp(a) + exp(b)), also where both are log 0."""
    if a < b:
        a, b = b, a
    return a if b == -math.inf else a + math.log1p(math.exp(b - a))


def attention_rescoring(
    model: torch.jit.ScriptModule | U2Model, hypotheses: Sequence[Hypothesis], encoded: torch.Tensor
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
