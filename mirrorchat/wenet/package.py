"""A recognizer that runs WeNet's own package: it serves every model that `wenet.load_model` can load.

The package's `transcribe` does not suit a server: it searches with a beam of 1, adds random dither, keeps gradients,
tells Whisper that all speech is English, and fails below 60 ms and above 199 s. This module calls the package's feature
extraction and searches itself, with a beam of 10 if the search has a beam. MirrorChat decodes the recordings and cuts
them at pauses. The engine computes one utterance at a time.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirrorchat.audio.pieces import pieces_of
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import EngineInfo, Language, Tier, Transcript
from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.devices import usable_device
from mirrorchat.wenet.batch import NOTHING, brief
from mirrorchat.wenet.ctc.search import BEAM, ContextGraph, FloatArray, Hypothesis
from mirrorchat.wenet.engine import RecognitionEngine
from mirrorchat.wenet.features import FRAME_SHIFT_S, SAMPLE_RATE
from mirrorchat.wenet.package_load import Features, load
from mirrorchat.wenet.rescoring import CTC_WEIGHT, REVERSE_WEIGHT
from mirrorchat.wenet.text import SPECIAL, written
from mirrorchat.wenet.token_table import RecognizedPiece, TokenTable, recognized

SHORTEST_S = 0.06  # the package's networks fail with less
STUCK_AFTER_S = 300.0  # the largest Whisper takes less for a piece, even on a busy CPU
PLAIN_TOKENIZERS = ("char", "bpe")  # their tokens spell the text, as those of our own networks do

State = tuple[int, float]  # of the hot words: the state of the context graph and the bonus so far


class WenetPackageRecognizer:
    """The recognizer of the model `name` in WeNet's package (paraformer, whisper, a folder, ...) for one language.

    Thread-safe and deterministic. Models with CTC and attention decoders (`attention_rescoring`) use hot words and give
    the time and confidence of each token; the confidence is the probability of the attention decoders. Other models
    ignore hot words. `name`, `models_dir`, `device` and the errors are those of `package_load.load`; a model that loads
    and cannot be run raises ConfigurationError, too. `threads` and `device_lock` are those of WenetRecognizer.
    """

    def __init__(
        self,
        name: str,
        models_dir: Path,
        language: Language,
        *,
        threads: int,
        device: str = "cpu",
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self.language = language
        chosen = usable_device(device)
        loaded = load(name, models_dir, chosen)
        reason = "run by WeNet's own package"
        self.info = EngineInfo("wenet", f"{loaded.folder.name} fp32", str(chosen), reason, Tier.REAL)
        self._features = loaded.features
        self._tokenizer = loaded.network.tokenizer
        model = PackageModel(loaded.network, language, chosen, device_lock)
        self._tokens = _token_table(loaded.tokenizer, loaded.network)
        self._has_times = model.rescores and self._tokens is not None
        _warm_up(name, model, self._features)
        self._engine = RecognitionEngine(model, stuck_after_s=STUCK_AFTER_S, device=chosen)

    def recognize(
        self, audio: Audio, language: Language, *, hotwords: Sequence[str] = (), context: Context
    ) -> Transcript:
        """Recognize a whole recording, as `WenetRecognizer.recognize` does. Less than 60 ms give an empty text."""
        if language is not self.language:
            raise ValueError(f"this model is for {self.language}, not {language}")
        context.check()
        pieces = [piece for piece in pieces_of(audio) if piece.audio.duration_s >= SHORTEST_S]
        features = [self._features(piece.audio.resample(SAMPLE_RATE).samples) for piece in pieces]
        graph = self._tokens.hotword_graph(hotwords) if self._tokens and self._has_times else None
        found = self._engine.recognize(features, graph=graph, context=context)
        return self._transcript(recognized(pieces, found))

    def check_ready(self) -> None:
        """Raise NotReady if the engine's thread has failed or is stuck."""
        self._engine.check_ready()

    def close(self) -> None:
        """End the engine's thread. Waiting callers get ShuttingDown."""
        self._engine.close()

    def _transcript(self, pieces: Sequence[RecognizedPiece]) -> Transcript:
        if self._tokens is None:
            tokens = [token for piece in pieces for token in piece.hypothesis.tokens]
            return Transcript(self._detokenized(tokens), self.language)
        if not self._has_times:
            return Transcript(self._tokens.text(pieces, self.language), self.language)
        return self._tokens.transcript(pieces, self.language)

    def _detokenized(self, tokens: Sequence[int]) -> str:
        """Return the text of the tokenizer, in its own case, without tags such as `<|en|>`, spaced as Chinese is."""
        if not tokens:
            return ""
        text = SPECIAL.sub(" ", self._tokenizer.detokenize(list(tokens))[0])
        return written([text], Language.CHINESE)  # keeps the case of Latin letters


class PackageModel:
    """A network of the package, decoded with its own search (`default_decode_method`), one utterance at a time.

    Attention rescoring has the weights of our own recognizer. It also keeps the bonus of the hot words, which the
    package drops before rescoring. `device_lock` is held during a whole recognition, whose search is the package's.
    """

    rows = 1
    frames = 1

    def __init__(
        self,
        network: Any,
        language: Language,
        device: torch.device,
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        self._network = network
        self._device, self._device_lock = device, device_lock or nullcontext()
        self._method: str = network.default_decode_method
        self.rescores = self._method == "attention_rescoring"
        backwards = REVERSE_WEIGHT if self.rescores and network.is_bidirectional_decoder() else 0.0
        # Whisper reads tasks and langs, SenseVoice lid and itn: they must not guess the language or rewrite the text.
        infos = {"tasks": ["transcribe"], "langs": [language.code], "lid": language.code, "itn": "woitn"}
        self._how = {"beam_size": BEAM, "ctc_weight": CTC_WEIGHT, "reverse_weight": backwards, "infos": infos}
        self._shortest = network.right_context() + 1
        # The decoder has positions for `decode_maxlen` tokens only, and the search goes on for one token per frame.
        self._longest = getattr(network, "decode_maxlen", math.inf) * network.subsampling_rate()

    def recognize(self, features: Sequence[FloatArray], graphs: Sequence[ContextGraph | None]) -> list[Hypothesis]:
        """Return the best hypothesis of each utterance.

        `features` are (T, D) float32. An utterance that is too short gives an empty hypothesis. Raises ValueError if
        the package fails.
        """
        with self._device_lock, torch.inference_mode():
            return [self._recognize(each, graph) for each, graph in zip(features, graphs, strict=True)]

    def _recognize(self, features: FloatArray, graph: ContextGraph | None) -> Hypothesis:
        if len(features) < self._shortest:
            return NOTHING
        try:
            return self._decode(features, graph)
        except Exception as error:  # failed asserts and index errors, too
            if self._counts_no_token(features):
                return NOTHING
            if len(features) > self._longest:  # the hypothesis ran on
                return self._recognize_in_parts(features, graph)
            raise ValueError(f"WeNet's package failed ({type(error).__name__})") from error

    def _counts_no_token(self, features: FloatArray) -> bool:
        """Return whether Paraformer predicts less than one token, as in silence, for which its decoder fails."""
        predictor = getattr(self._network, "predictor", None)
        if self._method != "paraformer_greedy_search" or predictor is None:
            return False
        encoded, mask = self._network.embed_audio(*self._batch(features))
        return float(predictor(encoded, mask=mask)[1]) < 1.0

    def _recognize_in_parts(self, features: FloatArray, graph: ContextGraph | None) -> Hypothesis:
        size = int(self._longest)
        parts = [self._recognize(features[at : at + size], graph) for at in range(0, len(features), size)]
        return Hypothesis(tuple(token for part in parts for token in part.tokens), sum(p.score for p in parts), (), ())

    def _decode(self, features: FloatArray, graph: ContextGraph | None) -> Hypothesis:
        hot = _PackageGraph(graph) if graph else None
        found = self._network.decode([self._method], *self._batch(features), context_graph=hot, **self._how)
        return _hypothesis(found[self._method][0], timed=self.rescores)

    def _batch(self, features: FloatArray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return one utterance as a batch for the package: features (1, T, D) and lengths (1,)."""
        batch = torch.from_numpy(features).unsqueeze(0)
        return batch.to(self._device), torch.tensor([len(features)], device=self._device)


class _PackageGraph:
    """The hot words, with the interface of the package's own context graph, which reads them from a file.

    The search replaces the bonus so far by the result of `finalize`, so the state carries this bonus.
    """

    root: State = (0, 0.0)

    def __init__(self, graph: ContextGraph) -> None:
        self._graph = graph

    def forward_one_step(self, state: State, token: int) -> tuple[float, State]:
        bonus, target = self._graph.step(state[0], token)
        return bonus, (target, state[1] + bonus)

    def finalize(self, state: State) -> tuple[float, State]:
        return state[1] - self._graph.unfinished(state[0]), self.root


def _hypothesis(result: Any, *, timed: bool) -> Hypothesis:
    tokens = tuple(int(token) for token in result.tokens)
    score = float(result.score)
    if not timed:
        return Hypothesis(tokens, score, (), ())
    confidences = tuple(min(1.0, float(value)) for value in result.tokens_confidence)
    return Hypothesis(tokens, score, tuple(int(frame) for frame in result.times), confidences)


def _token_table(tokenizer: str, network: Any) -> TokenTable | None:
    """Return the token table if the tokens spell the text; None if only the tokenizer can make the text."""
    if tokenizer not in PLAIN_TOKENIZERS:
        return None
    names = network.tokenizer.char_dict
    tokens = [str(names.get(number, "<unk>")) for number in range(network.vocab_size)]
    return TokenTable(tokens, network.subsampling_rate() * FRAME_SHIFT_S)


def _warm_up(name: str, model: PackageModel, features: Features) -> None:
    """Recognize half a second of faint noise. Raises ConfigurationError if the package cannot."""
    noise = np.random.default_rng(0).standard_normal(SAMPLE_RATE // 2).astype(np.float32)
    try:
        model.recognize([features(noise * np.float32(0.01))], [None])
    except Exception as error:  # a network of an unknown kind may raise any exception
        reason = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise ConfigurationError(
            f"WeNet's package loads wenet:{name} but cannot run it: {type(reason).__name__}: {brief(reason)}"
        ) from error
