"""The XTTS v2 synthesizer: it speaks answers in the asker's own voice, with the sentences of all callers in one batch.

XTTS is the model of Casanova et al. (arXiv 2406.04904). A voice is the conditioning that XTTS computes from a few
seconds of speech. A sentence is split within the limits of the model, and each piece is one request to the decode
engine, which gives samples while it decodes. This module corrects two weaknesses of XTTS: it trims silence at the edges
of a piece, and a piece without an end is resampled once, or cut off and faded out.
"""

import functools
import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from mirrorchat.audio.samples import Audio, Samples
from mirrorchat.audio.vad import find_speech, trim_to_speech
from mirrorchat.concurrency.context import Context
from mirrorchat.embedded.workers.espeak import Espeak
from mirrorchat.engines import (
    SPEECH_NEEDED_S,
    BatchStats,
    EngineInfo,
    Language,
    Priority,
    SpeakerEmbedding,
    Tier,
    Voice,
    VoiceKind,
    judge_similarity,
    too_little_speech,
)
from mirrorchat.errors import ConfigurationError, EngineFailed, NotReady, SynthesisFailed
from mirrorchat.hardware.devices import gpu_weights, usable_device
from mirrorchat.hardware.lost_gpu import is_gpu_lost
from mirrorchat.speech.options import BOUNDS, NO_OPTIONS, SAMPLING_BOUNDS, SpeechOptions
from mirrorchat.text.normalization.normalize import normalize_text
from mirrorchat.text.normalization.scripts import XTTS_SCRIPTS
from mirrorchat.xtts.checkpoint import read_speakers, speakers_path
from mirrorchat.xtts.decode import DecodeEngine, DecodeLimits
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.sampling import LOOP_TOKENS, Sampling
from mirrorchat.xtts.text import TextSplitter, read_as
from mirrorchat.xtts.utterance import FinishReason, Request
from mirrorchat.xtts.vocoder import fade_out
from mirrorchat.xtts.vocoder_type import make_vocoder, remark_on_type
from mirrorchat.xtts.voice import DIFFERENT_TO, SAME_FROM, XttsVoice, built_in_voice, similarity
from mirrorchat.xtts.voice_thread import VoiceThread

REFERENCE_RATE_HZ = 22_050  # of the model's conditioning encoder
NEUTRAL_SPEAKER = "Claribel Dervla"  # of the 58 studio speakers that come with the released weights
NEUTRAL_TEXT = "The quick brown fox jumps over the lazy dog, while five wizards box and a vexed judge keeps watch."

STUCK_S = 30.0  # a step takes milliseconds on a GPU, and the first one of a long text seconds on a slow CPU

WARM_UP_S = 2  # of noise
PIECE_GAP_S = 0.15
EDGE_LEVEL = 0.003  # -50 dB: quieter samples at the edges of a piece are silence
EDGE_KEPT_S = 0.08

# The most audio tokens (21.5 a second) of a piece: about twice the number for slow speech, so that speech which runs on
# after the text is stopped. Speech has about 14 letters a second in English, and 4.5 characters in Chinese.
TOKENS_PER_CHARACTER = {Language.ENGLISH: 3.0, Language.CHINESE: 10.0}
TOKENS_AT_LEAST = 24
LOOP_S = LOOP_TOKENS / 21.5  # of speech that repeats a phrase, at which it is cut off
RESAMPLE_SEED = 1 << 32  # added to the seed of a piece that is resampled

T = TypeVar("T")

# torch and coqui-tts raise these if a computation fails; torch's out-of-memory errors are RuntimeErrors.
MODEL_ERRORS = (RuntimeError, ValueError, IndexError, AssertionError)


class XttsSynthesizer:
    """The synthesizer with the XTTS v2 model in `folder`. Thread-safe.

    Arguments:
        folder: the model; nothing in it is written.
        device: `auto`, `cpu`, `cuda` or `cuda:1`.
        threads: CPU threads of one PyTorch operation.
        weights: a WeightMode, or `auto` for fp16w on a CPU and what suits the GPU (`devices.gpu_weights`).
        limits: the sizes of the batch, the KV cache and the queues.
        device_lock: held during each step of the engine, for engines that share a GPU.

    Raises:
        ModelNotInstalled: `folder` lacks a file.
        ConfigurationError: files are damaged or do not belong together, or `device` cannot be used with `weights`.

    `built_in_voices` has the studio speakers that come with the model, by name; their voices are nobody's clone.

    Example:
        synthesizer = XttsSynthesizer(Path("models/xtts-v2"), device="auto", threads=4)
        voice = synthesizer.voice([question])
        for audio in synthesizer.speak("Hello.", voice, Language.ENGLISH, seed=0, priority=Priority.FIRST,
                                       context=Context.after(60.0)):
            play(audio)
    """

    follows: Collection[str] = tuple(BOUNDS)

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        threads: int,
        weights: str = "auto",
        limits: DecodeLimits | None = None,
        device_lock: AbstractContextManager[object] | None = None,
    ) -> None:
        torch.set_num_threads(threads)
        self._device = usable_device(device)
        self._folder = folder
        self._gpu_lost = False
        if self._device.type == "cuda":
            torch.backends.cuda.enable_cudnn_sdp(False)  # on GPUs of 9.x it prepares anew for each length of a text
        mode = weight_mode(weights, self._device)
        network = load_network(folder)
        self._network: Network | None = network
        self._config = network.config
        self._studio_voices = self._read_studio_voices()
        self.built_in_voices: Mapping[str, Voice] = self._studio_voices
        network.hifigan_decoder.to(self._device)
        vocoder = make_vocoder(network.hifigan_decoder, mode, network.gpt.final_norm)
        self._engine = DecodeEngine(
            network, mode=mode, vocoder=vocoder, device=self._device, limits=limits, device_lock=device_lock
        )
        network.forget_decoder()
        network.to(self._device)
        self._voice_thread = VoiceThread(self._device)
        remark = remark_on_type(vocoder, self._device)
        self.info = EngineInfo("xtts", f"{folder.name} {mode}", str(self._device), remark, Tier.REAL)
        self.sample_rate = vocoder.sample_rate
        if self._device.type == "cuda":  # the first voice loads kernels, and cuDNN and cuFFT prepare for it
            noise = np.random.default_rng(0).uniform(-0.1, 0.1, WARM_UP_S * REFERENCE_RATE_HZ).astype(np.float32)
            self._condition([Audio(noise, REFERENCE_RATE_HZ)], VoiceKind.NEUTRAL, "")

    def voice(self, references: Sequence[Audio]) -> XttsVoice:
        """Compute the voice of a speaker.

        Arguments:
            references: recordings of the speaker, of any rate. Of each counts its first `max_ref_len` (30 s).

        Returns:
            The cloned voice. With less than 1 s of speech it is a neutral voice, whose `reason` tells this: the studio
            speaker "Claribel Dervla" if the folder has the speakers, otherwise a clone of eSpeak NG's voice.

        Raises:
            SynthesisFailed: the model failed.
            NotReady: the synthesizer is closed.
        """
        spans = [find_speech(reference) for reference in references]
        speech_s = sum(span.speech_s for span in spans)
        if speech_s < SPEECH_NEEDED_S:
            return replace(self._neutral_voice, reason=too_little_speech(speech_s))
        heard = [trim_to_speech(audio, span) for audio, span in zip(references, spans, strict=True) if span.speech_s]
        return self._condition(heard, VoiceKind.CLONE, f"{speech_s:.1f} s of speech")

    @functools.cached_property
    def voice_model(self) -> str:
        """Return the name of the model's folder and the start of a SHA-256 of the networks that compute voices."""
        network = self._loaded()
        gpt, speaker_encoder = network.gpt, network.hifigan_decoder.speaker_encoder
        parts = (gpt.conditioning_encoder, gpt.conditioning_perceiver, speaker_encoder)
        digest = hashlib.sha256()

        def read() -> None:
            for name, tensor in (entry for part in parts for entry in part.state_dict().items()):
                digest.update(name.encode() + tensor.detach().float().cpu().contiguous().numpy().tobytes())

        self._computed(read)
        return f"{self._folder.name} {digest.hexdigest()[:12]}"

    def restore(self, data: bytes) -> XttsVoice:
        """Return the voice that `XttsVoice.to_bytes` wrote. Raises ValueError if it does not fit this model."""
        voice = XttsVoice.from_bytes(data)
        if not self._fits(voice):
            raise ValueError("this voice does not fit the model")
        return voice

    def _fits(self, voice: XttsVoice) -> bool:
        """Return whether the tensors of `voice` are such as the model computes."""
        latents, width = self._loaded().gpt.conditioning_perceiver.latents, self._config.model_args.d_vector_dim
        shapes = ((voice.gpt_cond_latent, (1, *latents.shape)), (voice.speaker_embedding, (1, width, 1)))
        return all(
            tensor.shape == shape and tensor.dtype == torch.float32 and bool(tensor.isfinite().all())
            for tensor, shape in shapes
        )

    def _read_studio_voices(self) -> dict[str, XttsVoice]:
        voices = {name: built_in_voice(name, speaker) for name, speaker in read_speakers(self._folder).items()}
        if not all(map(self._fits, voices.values())):
            raise ConfigurationError(f"the speakers in {speakers_path(self._folder)} do not belong to this model")
        return voices

    def embed_speaker(self, speech: Audio) -> SpeakerEmbedding | None:
        """Compute the speaker embedding of `speech`, without the rest of a voice, which costs more.

        Arguments:
            speech: speech of any rate, of which the first 30 s count.

        Returns:
            The output of the speaker encoder, (512,) float64; None if `speech` is empty.

        Raises:
            SynthesisFailed: the model failed.
            NotReady: the synthesizer is closed.
        """
        waves = self._conditioning_waves([speech])
        return self._speaker_embedding(waves).numpy().astype(np.float64).ravel() if waves else None

    def same_speaker(self, first: SpeakerEmbedding, second: SpeakerEmbedding) -> bool | None:
        """Compare two speaker embeddings, both (512,) float64, by their cosine.

        Returns:
            True from SAME_FROM on, False up to DIFFERENT_TO, and None in between.
        """
        return judge_similarity(similarity(first, second), same_from=SAME_FROM, different_to=DIFFERENT_TO)

    def speak(
        self,
        text: str,
        voice: Voice,
        language: Language,
        *,
        seed: int,
        priority: Priority,
        context: Context,
        options: SpeechOptions = NO_OPTIONS,
        buffer_low: Callable[[], bool] = lambda: False,
    ) -> Iterator[Audio]:
        """Speak a sentence. A FIRST one streams its chunks while it is decoded. Each piece of a LATER one is complete
        before it is yielded, unless the buffer is low, so that a failed piece can be resampled.

        Arguments:
            text: the sentence as written, of any length, in `language`.
            voice: an XttsVoice.
            seed: the seed of the sampling. The same text, voice and seed give the same samples on a CPU.
            priority: FIRST for the sentence for which the listener waits, otherwise LATER.
            context: the context of the turn.
            options: None leaves one to the model's configuration. For `speed` latents are stretched, as in coqui-tts.
            buffer_low: returns whether the listener's playout buffer is nearly empty.

        Yields:
            Audio in order, float32 in [-1, 1] at `sample_rate` (24 kHz); nothing if the text has no word.

        Raises:
            SynthesisFailed, TypeError: the model failed or made no sound; the voice is that of another engine.
            ServerBusy, NotReady, ShuttingDown: too many sentences wait; the engine has failed or is closing.
            DeadlineExceeded, or the reason of the cancellation: `context` ended.
        """
        if not isinstance(voice, XttsVoice):
            raise TypeError(f"XTTS speaks with an XttsVoice, not a {type(voice).__name__}")
        pieces = self._pieces(text, language)
        for index, piece in enumerate(pieces):
            urgency = priority if index == 0 else Priority.LATER
            request = self._request(piece, voice, language, seed + index, urgency, context, options)
            for samples in self._speak_piece(request, buffer_low):
                yield Audio(samples, self.sample_rate)
            if index < len(pieces) - 1:
                yield Audio(np.zeros(int(PIECE_GAP_S * self.sample_rate), np.float32), self.sample_rate)

    def check_ready(self) -> None:
        """Raise EngineFailed if the engine has failed or the GPU is lost, NotReady if it makes no progress."""
        if self._gpu_lost or not self._engine.healthy:
            raise EngineFailed("speech")
        if self._engine.stuck_s > STUCK_S:
            raise NotReady(f"the speech engine has made no progress for {STUCK_S:g} s", retry_after_s=30)

    def stats(self) -> BatchStats:
        """Return the load of the decode engine."""
        return self._engine.stats()

    def close(self) -> None:
        """Free the model. Running sentences end with ShuttingDown, and later calls raise NotReady."""
        self._engine.close()
        self._voice_thread.close()
        self._network = None

    def _loaded(self) -> Network:
        network = self._network
        if network is None:
            raise NotReady("the speech model has been closed")
        return network

    @functools.cached_property
    def _neutral_voice(self) -> XttsVoice:
        if voices := self._studio_voices:
            return voices.get(NEUTRAL_SPEAKER) or next(iter(voices.values()))
        espeak = Espeak()
        try:
            spoken = espeak.speak(NEUTRAL_TEXT, Language.ENGLISH, "klatt4", context=Context())
        finally:
            espeak.close()
        return self._condition([spoken.audio], VoiceKind.NEUTRAL, "")

    def _condition(self, references: Sequence[Audio], kind: VoiceKind, reason: str) -> XttsVoice:
        """Return the voice of `references` (trimmed), as `get_conditioning_latents` of coqui-tts does for files.

        It may run beside the decode engine: it has no state and uses no random numbers.
        """
        waves, network, config = self._conditioning_waves(references), self._loaded(), self._config
        embedding = self._speaker_embedding(waves)

        def condition() -> torch.Tensor:
            return _finite(
                network.get_gpt_cond_latents(
                    torch.cat(waves, dim=-1),
                    REFERENCE_RATE_HZ,
                    length=config.gpt_cond_len,
                    chunk_length=config.gpt_cond_chunk_len,
                )
            )

        return XttsVoice(kind, reason, self._computed(condition), embedding)

    def _conditioning_waves(self, references: Sequence[Audio]) -> list[torch.Tensor]:
        """Return what coqui-tts reads of each of `references`, (1, samples) at REFERENCE_RATE_HZ."""
        limit = REFERENCE_RATE_HZ * int(self._config.max_ref_len)
        heard = [reference.resample(REFERENCE_RATE_HZ).samples[:limit] for reference in references]
        # Copies, because torch warns about read-only arrays.
        waves = [torch.from_numpy(np.array(samples, np.float32))[None] for samples in heard if len(samples)]
        if self._config.sound_norm_refs:
            waves = [wave / wave.abs().max() * 0.75 for wave in waves]
        return waves

    def _speaker_embedding(self, waves: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the mean speaker embedding of the waves, (1, 512, 1) on the CPU."""
        network = self._loaded()

        def embed() -> torch.Tensor:
            embeddings = [network.get_speaker_embedding(wave, REFERENCE_RATE_HZ) for wave in waves]
            return _finite(torch.stack(embeddings).mean(dim=0))

        return self._computed(embed)

    def _computed(self, compute: Callable[[], T]) -> T:
        """Return what `compute` returns. Raise SynthesisFailed for an error of the model, and note a lost GPU."""
        try:
            return self._voice_thread.run(compute)
        except MODEL_ERRORS as error:
            self._gpu_lost = self._gpu_lost or is_gpu_lost(error)
            raise SynthesisFailed(f"the voice could not be computed ({type(error).__name__})") from error

    def _pieces(self, text: str, language: Language) -> list[str]:
        network = self._loaded()

        def count_tokens(piece: str) -> int:
            return len(network.tokenizer.encode(_as_read(piece), lang=read_as(piece, language).code))

        splitter = TextSplitter(language, count_tokens, token_limit=int(self._config.model_args.gpt_max_text_tokens))
        return splitter.split(normalize_text(text, language, XTTS_SCRIPTS))

    def _request(
        self,
        piece: str,
        voice: XttsVoice,
        language: Language,
        seed: int,
        priority: Priority,
        context: Context,
        options: SpeechOptions = NO_OPTIONS,
    ) -> Request:
        spoken_as = read_as(piece, language)
        return Request(
            text_ids=self._loaded().tokenizer.encode(_as_read(piece), lang=spoken_as.code),
            conditioning=voice.gpt_cond_latent,
            speaker_embedding=voice.speaker_embedding,
            seed=seed,
            max_tokens=token_budget(piece, spoken_as),
            context=context,
            priority=priority,
            sampling=self._sampling(options),
            speed=options.speed or 1.0,
        )

    def _sampling(self, options: SpeechOptions) -> Sampling:
        """Return the settings of the model's configuration, changed by `options`."""
        own = {name: getattr(self._config, name) for name in SAMPLING_BOUNDS}
        changed = {name: value for name, value in options.given().items() if name in own}
        return Sampling(**{**own, **changed})

    def _speak_piece(self, request: Request, buffer_low: Callable[[], bool]) -> Iterator[Samples]:
        """Yield the trimmed samples of one piece, resampled once if it failed and no audio was yielded yet."""
        at_once = request.priority is Priority.FIRST
        again = replace(request, seed=request.seed + RESAMPLE_SEED)
        for attempt, asked in enumerate((request, again)):
            utterance, trimmer = self._engine.submit(asked), EdgeTrimmer(self.sample_rate)
            held: list[Samples] = []
            for chunk in utterance:
                held.append(chunk)
                if utterance.finish_reason is None and (at_once or trimmer.started or buffer_low()):
                    yield from _not_empty(trimmer.push(np.concatenate(held)))
                    held = []
            if utterance.finish_reason is FinishReason.STOP or trimmer.started or attempt == 1:
                break
        rest = np.concatenate([np.zeros(0, np.float32), *held])
        if utterance.finish_reason is not FinishReason.STOP:
            looped = utterance.finish_reason is FinishReason.LOOP
            rest = cut_off(rest, self.sample_rate, looped_s=LOOP_S / request.speed if looped else 0.0)
        yield from _not_empty(np.concatenate([trimmer.push(rest), trimmer.finish()]))
        if not trimmer.started:
            raise SynthesisFailed("XTTS could not speak the sentence (it made no sound)")


def _finite(computed: torch.Tensor) -> torch.Tensor:
    """Return a copy on the CPU. Raises SynthesisFailed if a number is not finite."""
    if not computed.isfinite().all():
        raise SynthesisFailed("the voice could not be computed (numbers that are not finite)")
    return computed.cpu().clone()


class EdgeTrimmer:
    """Trims the silence before and after speech that arrives in chunks to 80 ms, and clips samples to [-1, 1]."""

    def __init__(self, sample_rate: int) -> None:
        self.started = False  # speech has begun
        self._kept = int(EDGE_KEPT_S * sample_rate)
        self._quiet = np.zeros(0, np.float32)  # held back: the silence at the end, unless more speech follows

    def push(self, samples: Samples) -> Samples:
        """Return the samples that are certainly not silence at an edge."""
        x = np.concatenate([self._quiet, samples])
        loud = np.flatnonzero(np.abs(x) > EDGE_LEVEL)
        if not len(loud):
            self._quiet = x if self.started else x[max(0, len(x) - self._kept) :]
            return x[:0]
        start = 0 if self.started else max(0, loud[0] - self._kept)
        self.started = True
        self._quiet = x[loud[-1] + 1 :]
        spoken: Samples = np.clip(x[start : loud[-1] + 1], -1.0, 1.0)
        return spoken

    def finish(self) -> Samples:
        """Return the rest of the silence at the end."""
        return self._quiet[: self._kept] if self.started else self._quiet[:0]


def token_budget(piece: str, language: Language) -> int:
    """Return the most audio tokens for `piece` (spoken form)."""
    return TOKENS_AT_LEAST + math.ceil(TOKENS_PER_CHARACTER[language] * len(piece))


def cut_off(samples: Samples, sample_rate: int, *, looped_s: float) -> Samples:
    """Return the faded `samples` of a piece that ended without a stop token, without its last `looped_s` seconds."""
    return fade_out(samples[: max(0, len(samples) - round(looped_s * sample_rate))], sample_rate)


def _not_empty(samples: Samples) -> Iterator[Samples]:
    if len(samples):
        yield samples


def weight_mode(name: str, device: torch.device) -> WeightMode:
    """Return the WeightMode for the setting `xtts_weights`, `name`, on `device`."""
    if name != "auto":
        return WeightMode(name)
    return WeightMode(gpu_weights(device)) if device.type == "cuda" else WeightMode.FP16W


def _as_read(piece: str) -> str:
    """Return `piece` in the form that `Xtts.inference` gives to the tokenizer."""
    return piece.strip().lower()
