"""The two sides that benchmarks/xtts.py compares: coqui-tts's own XTTS code, and this project's decode engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorchat.audio import Samples
from mirrorchat.engines import Cancel, Deadline
from mirrorchat.xtts_decode import DecodeEngine, DecodeLimits
from mirrorchat.xtts_linear import WeightMode
from mirrorchat.xtts_model import Network, load_network
from mirrorchat.xtts_sampling import Sampling
from mirrorchat.xtts_utterance import Request
from mirrorchat.xtts_vocoder import StreamingVocoder

TEXT = "The quick brown fox jumps over the lazy dog near the river."
SETTINGS = {"temperature": 0.75, "top_k": 50, "top_p": 0.85, "repetition_penalty": 5.0}
SEED = 0


@dataclass(frozen=True)
class Spoken:
    """A sentence, when its first samples were there, and when all were."""

    tokens: list[int]
    samples: Samples
    first_s: float
    first_samples: int
    seconds: float


@dataclass(frozen=True)
class Voice:
    """A conditioning that no one has: random numbers of the size that XTTS's are."""

    conditioning: Tensor
    embedding: Tensor

    @classmethod
    def draw(cls, seed: int, width: int) -> "Voice":
        generator = torch.Generator().manual_seed(seed)
        conditioning = torch.randn(1, 32, width, generator=generator) * 0.5
        embedding = torch.randn(1, 512, 1, generator=generator)
        return cls(conditioning, torch.nn.functional.normalize(embedding, dim=1))


def load_seconds(folder: Path) -> tuple[Network, float]:
    """Return the network in `folder` and how long it took to load."""
    start = time.perf_counter()
    network = load_network(folder)
    return network, time.perf_counter() - start


@dataclass
class Stock:
    """coqui-tts's inference code with the weights of `network`, which nothing has changed."""

    network: Network
    codes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        generate: Callable[..., Tensor] = self.network.gpt.generate

        def recorded(*arguments: Any, **settings: Any) -> Tensor:
            codes = generate(*arguments, **settings)
            self.codes = codes[0].tolist()
            return codes

        self.network.gpt.generate = recorded

    def speak(self, voice: Voice, count: int, *, sample: bool) -> Spoken:
        torch.manual_seed(SEED)
        start = time.perf_counter()
        spoken = self.network.inference(
            TEXT, "en", voice.conditioning, voice.embedding, do_sample=sample, **self._exactly(count)
        )
        seconds = time.perf_counter() - start
        samples = np.asarray(spoken["wav"], np.float32)
        return Spoken(self.codes, samples, seconds, len(samples), seconds)

    def first_chunk(self, voice: Voice, chunk_tokens: int, count: int) -> tuple[float, int]:
        """Return when `inference_stream` gives its first samples, and how many those are."""
        start = time.perf_counter()
        stream = self.network.inference_stream(
            TEXT,
            "en",
            voice.conditioning,
            voice.embedding,
            stream_chunk_size=chunk_tokens,
            do_sample=False,
            **self._exactly(count),
        )
        samples = len(next(stream))
        seconds = time.perf_counter() - start
        stream.close()
        return seconds, samples

    def vocode_streamed(self, latents: Tensor, voice: Voice, chunk_tokens: int) -> float:
        """Return how long the vocoder takes for `latents` (n, D) as `inference_stream` uses it."""
        start = time.perf_counter()
        with torch.inference_mode():
            for end in range(chunk_tokens, len(latents) + 1, chunk_tokens):
                self.network.hifigan_decoder(latents[None, :end], g=voice.embedding)
        return time.perf_counter() - start

    @staticmethod
    def _exactly(count: int) -> dict[str, float]:
        return {**SETTINGS, "max_new_tokens": count, "min_new_tokens": count}


class Own:
    """This project's engine in one weight mode, with a vocoder that computes in `dtype`."""

    def __init__(
        self, network: Network, mode: WeightMode, dtype: torch.dtype, *, max_batch: int = 8, device: str = "cpu"
    ) -> None:
        self.name = f"{mode.value} + {str(dtype).removeprefix('torch.')} vocoder"
        self.mode = mode
        self.vocoder = StreamingVocoder(network.hifigan_decoder, dtype=dtype)
        limits = DecodeLimits(max_batch=max_batch, cache_bytes=280_000_000 * max_batch, queue_chunks=100)
        self.engine = DecodeEngine(network, mode=mode, vocoder=self.vocoder, device=torch.device(device), limits=limits)
        self._text_ids = network.tokenizer.encode(TEXT.lower(), lang="en")

    def speak(self, voice: Voice, count: int, *, sample: bool) -> Spoken:
        return self.speak_all([voice], count, sample=sample)[0]

    def speak_all(self, voices: list[Voice], count: int, *, sample: bool) -> list[Spoken]:
        """Return what the engine says in `voices` at once; the times are from when all were handed over."""
        start = time.perf_counter()
        utterances = [self.engine.submit(self._request(voice, count, sample)) for voice in voices]
        results = []
        for utterance in utterances:
            chunks, times = [], []
            for chunk in utterance:
                chunks.append(chunk)
                times.append(time.perf_counter() - start)
            results.append(Spoken(utterance.tokens, np.concatenate(chunks), times[0], len(chunks[0]), times[-1]))
        return results

    def _request(self, voice: Voice, count: int, sample: bool) -> Request:
        return Request(
            self._text_ids,
            voice.conditioning,
            voice.embedding,
            SEED,
            count,
            Deadline.after(600.0),
            Cancel(),
            sampling=Sampling(do_sample=sample, min_tokens=count, **SETTINGS),  # type: ignore[arg-type]
        )

    def step_seconds(self, voice: Voice, batch: int, steps: int) -> list[float]:
        """Return the times of `steps` decode steps with the scores of the next token, `batch` sequences each.

        To be called while the engine has nothing to do: it uses the engine's cache.
        """
        gpt, cache = self.engine.gpt, self.engine.cache
        rows = list(range(batch))
        times = []
        with torch.inference_mode():
            prefix = torch.cat([voice.conditioning[0].to(cache.data.device), gpt.text_prefix(self._text_ids)])
            for row in rows:
                gpt.prefill(prefix, cache, row, 0)
            for step in range(steps):
                start = time.perf_counter()
                x = gpt.audio_inputs([7] * batch, [step + 1] * batch)
                _, scores = gpt.latents_and_scores(gpt.step(x, cache, rows, [len(prefix) + step] * batch))
                scores.cpu()  # waits for a GPU
                times.append(time.perf_counter() - start)
        return times

    def vocode_streamed(self, latents: Tensor, voice: Voice, chunk_tokens: int) -> float:
        """Return how long the vocoder takes for `latents` (n, D) in chunks."""
        start = time.perf_counter()
        stream = self.vocoder.open(voice.embedding)
        for begin in range(0, len(latents), chunk_tokens):
            chunk = latents[begin : begin + chunk_tokens]
            self.vocoder.advance([(stream, chunk, begin + chunk_tokens >= len(latents))])
        return time.perf_counter() - start


def weights_read(network: Network, mode: WeightMode) -> float:
    """Return how many bytes of weights a decode step reads: every matrix of the GPT and the head once."""
    matrices = [p for p in network.gpt.gpt.h.parameters() if p.dim() == 2] + [network.gpt.mel_head.weight]
    return float({"fp32": 4, "int8": 1}.get(mode.value, 2) * sum(p.numel() for p in matrices))
