"""The sides of benchmarks/xtts.py: coqui-tts's own XTTS code, and our decode engine.

Each side runs in a process of side_process.py and gets only numbers. It makes voices, texts and latents itself, equal
ones for equal seeds.
"""

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirrorchat.audio.samples import Samples
from mirrorchat.concurrency.context import Context
from mirrorchat.concurrency.device_lock import DeviceLock
from mirrorchat.hardware.devices import urgent_stream
from mirrorchat.xtts.cuda_graph import StaticSteps
from mirrorchat.xtts.decode import DecodeEngine, DecodeLimits
from mirrorchat.xtts.gpt import TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network, quiet_gpt_config
from mirrorchat.xtts.sampling import Sampling
from mirrorchat.xtts.utterance import Request
from mirrorchat.xtts.vocoder import StreamingVocoder

TEXT = "The quick brown fox jumps over the lazy dog near the river."
SETTINGS = {"temperature": 0.75, "top_k": 50, "top_p": 0.85, "repetition_penalty": 5.0}
SEED = 0
STREAM_TOKENS = 20  # coqui-tts's default chunk
BANDWIDTH_BYTES = 1 << 30  # much larger than the caches
ROW_BYTES = 280_000_000  # more than the keys and values of a sequence in float32


@dataclass(frozen=True)
class Spoken:
    """A sentence, with the times of its first and its last samples."""

    tokens: list[int]
    samples: Samples
    first_s: float
    first_samples: int
    seconds: float


@dataclass(frozen=True)
class Voice:
    """A random conditioning with the size of XTTS's."""

    conditioning: Tensor
    embedding: Tensor

    @classmethod
    def random(cls, seed: int, width: int) -> "Voice":
        generator = torch.Generator().manual_seed(seed)
        conditioning = torch.randn(1, 32, width, generator=generator) * 0.5
        embedding = torch.randn(1, 512, 1, generator=generator)
        return cls(conditioning, torch.nn.functional.normalize(embedding, dim=1))


def random_latents(count: int, width: int) -> Tensor:
    """Return `count` random latents. A smaller `count` gives the first ones of a larger."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


def read_bandwidth(device: str = "cpu", repeats: int = 8) -> float:
    """Return the bytes per second of the fastest of several sums over much memory."""
    block = torch.ones(BANDWIDTH_BYTES // 4, device=device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        block.sum().item()  # waits for a GPU
        seconds.append(time.perf_counter() - start)
    return BANDWIDTH_BYTES / min(seconds)


def weights_read(network: Network, mode: WeightMode) -> float:
    """Return the bytes of weights that a decode step reads: every matrix of the GPT and the head once."""
    matrices = [p for p in network.gpt.gpt.h.parameters() if p.dim() == 2] + [network.gpt.mel_head.weight]
    return float({"fp32": 4, "int8": 1}.get(mode.value, 2) * sum(p.numel() for p in matrices))


class Stock:
    """The unchanged inference code of coqui-tts with the weights in `folder`.

    `load_network` builds the network, so that tiny checkpoints load too, and loading takes little memory. `deepspeed`
    is coqui-tts's option of that name.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", deepspeed: bool = False) -> None:
        self.network = load_network(folder).to(device)
        self.codes: list[int] = []
        with quiet_gpt_config():  # the last step of coqui-tts's `load_checkpoint`
            self.network.gpt.init_gpt_for_inference(kv_cache=self.network.args.kv_cache, use_deepspeed=deepspeed)
        self.network.gpt.eval()
        self._width = int(self.network.gpt.model_dim)
        generate: Callable[..., Tensor] = self.network.gpt.generate

        def recorded(*arguments: Any, **settings: Any) -> Tensor:
            codes = generate(*arguments, **settings)
            self.codes = codes[0].tolist()
            return codes

        self.network.gpt.generate = recorded

    def speak(self, voice_seed: int, count: int, *, sample: bool) -> Spoken:
        """Return a sentence of `count` tokens, from `inference`."""
        voice = Voice.random(voice_seed, self._width)
        torch.manual_seed(SEED)
        start = time.perf_counter()
        spoken = self.network.inference(
            TEXT, "en", voice.conditioning, voice.embedding, do_sample=sample, **self._exactly(count)
        )
        seconds = time.perf_counter() - start
        samples = np.asarray(spoken["wav"], np.float32)
        return Spoken(self.codes, samples, seconds, len(samples), seconds)

    def first_chunk(self, voice_seed: int, count: int, chunk_tokens: int) -> tuple[float, int]:
        """Return the time of the first samples of `inference_stream`, and their number."""
        voice = Voice.random(voice_seed, self._width)
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
        samples = len(next(stream).cpu())
        seconds = time.perf_counter() - start
        stream.close()
        return seconds, samples

    def vocode_seconds(self, latents: int, chunk_tokens: int) -> float:
        """Return the time of the vocoder as `inference_stream` uses it: each chunk repeats all earlier latents."""
        device = self.network.device
        voice, made = Voice.random(0, self._width), random_latents(latents, self._width).to(device)
        start = time.perf_counter()
        with torch.inference_mode():
            for end in range(chunk_tokens, latents + 1, chunk_tokens):
                self.network.hifigan_decoder(made[None, :end], g=voice.embedding.to(device)).cpu()
        return time.perf_counter() - start

    @staticmethod
    def _exactly(count: int) -> dict[str, float]:
        return {**SETTINGS, "max_new_tokens": count, "min_new_tokens": count}


class Own:
    """Our engine in one weight mode, with a vocoder that computes in `dtype`, prepared as in the server.

    Single steps and the single vocoder run on the caller's thread. They are valid only in a process whose engine has
    not spoken, because the thread of the engine would have OpenMP workers too (see side_process.py).
    """

    def __init__(
        self,
        folder: Path,
        mode: WeightMode,
        dtype: torch.dtype,
        *,
        max_batch: int = 8,
        device: str = "cpu",
        device_lock: DeviceLock | None = None,
    ) -> None:
        network = load_network(folder)
        self.floor_bytes = weights_read(network, mode)
        network.hifigan_decoder.to(device)
        self.vocoder = StreamingVocoder(network.hifigan_decoder, dtype=dtype)
        limits = DecodeLimits(max_batch=max_batch, cache_bytes=ROW_BYTES * max_batch, queue_chunks=100)
        self.engine = DecodeEngine(
            network,
            mode=mode,
            vocoder=self.vocoder,
            device=torch.device(device),
            limits=limits,
            device_lock=device_lock,
        )
        network.forget_decoder()
        self.network = network.to(device)  # kept, as for voices in the server
        self._device = device
        self._width = self.engine.gpt.width
        self._text_ids = network.tokenizer.encode(TEXT.lower(), lang="en")

    def close(self) -> None:
        self.engine.close()

    def speak(self, voice_seed: int, count: int, *, sample: bool) -> Spoken:
        """Return a sentence of `count` tokens."""
        return self.speak_all([voice_seed], count, sample=sample)[0]

    def speak_all(self, voice_seeds: Sequence[int], count: int, *, sample: bool) -> list[Spoken]:
        """Return the parallel speech in these voices. The times count from the last request."""
        voices = [Voice.random(seed, self._width) for seed in voice_seeds]
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
        sampling = Sampling(do_sample=sample, min_tokens=count, **SETTINGS)  # type: ignore[arg-type]
        return Request(
            self._text_ids, voice.conditioning, voice.embedding, SEED, count, Context.after(600.0), sampling=sampling
        )

    def start(self, voice_seed: int, slots: Sequence[int]) -> tuple[Tensor, int]:
        """Prefill `slots` of the cache with a voice and the text. Return the last output and the filled positions."""
        gpt, cache = self.engine.gpt, self.engine.cache
        conditioning = Voice.random(voice_seed, self._width).conditioning[0]
        prefix = torch.cat([conditioning.to(cache.data.device), gpt.text_prefix(self._text_ids)])
        outputs = [gpt.prefill(prefix, cache, slot, 0)[-1:] for slot in slots]
        return outputs[-1], len(prefix)

    @torch.inference_mode()
    def step_seconds(self, batch: int, steps: int) -> list[float]:
        """Return the times of `steps` decode steps of `batch` sequences, including the scores of the next token."""
        if self._device != "cpu":
            with urgent_stream(torch.device(self._device)):
                return self._captured_step_seconds(list(range(batch)), steps)
        gpt, cache, slots = self.engine.gpt, self.engine.cache, list(range(batch))
        _, filled = self.start(0, slots)
        times = []
        for step in range(steps):
            start = time.perf_counter()
            x, positions = gpt.audio_inputs([7] * batch, [step + 1] * batch), [filled + step] * batch
            gpt.latents_and_scores(gpt.step(x, cache, slots, positions))
            times.append(time.perf_counter() - start)
        return times

    def _captured_step_seconds(self, slots: Sequence[int], steps: int) -> list[float]:
        """Return the times of the engine's steps on a GPU, including sampling; each waits for the one before."""
        captured = self._captured_steps
        last, filled = self.start(0, slots)
        for slot in slots:
            captured.start(slot, last, positions=filled, sampling=Sampling(min_tokens=steps), seed=slot)
        before, times = captured.launch(slots), []
        for _ in range(steps - 1):
            start = time.perf_counter()
            launched = captured.launch(slots)
            before.collect()
            before = launched
            times.append(time.perf_counter() - start)
        before.collect()
        return times

    @functools.cached_property
    def _captured_steps(self) -> StaticSteps:
        assert isinstance(self.engine.gpt, TorchGpt)
        return StaticSteps(self.engine.gpt, self.engine.cache, capture=True)

    def bandwidth(self) -> float:
        """Return the bytes per second that this process reads."""
        return read_bandwidth(self._device)

    def floor_s(self, bandwidth: float) -> float:
        """Return the time to read the weights of a step once."""
        return self.floor_bytes / bandwidth

    def vocode_seconds(self, latents: int, chunk_tokens: int) -> float:
        """Return the time of the vocoder in chunks."""
        made = random_latents(latents, self._width)
        start = time.perf_counter()
        stream = self.vocoder.open(Voice.random(0, self._width).embedding)
        for begin in range(0, latents, chunk_tokens):
            chunk = made[begin : begin + chunk_tokens]
            self.vocoder.advance([(stream, chunk, begin + chunk_tokens >= latents)])
        return time.perf_counter() - start

    def peak_gb(self) -> float:
        """Return the peak memory of this process, including mapped files."""
        lines = Path("/proc/self/status").read_text().splitlines()
        # getrusage starts with the value of the parent process.
        return next(int(line.split()[1]) * 1024 / 1e9 for line in lines if line.startswith("VmHWM"))

    def gpu_gb(self) -> tuple[float, float]:
        """Return the peak GPU memory of tensors, and the peak that torch reserved for them."""
        return torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9
