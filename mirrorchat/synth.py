"""XTTS v2 as a synthesiser: answers spoken in the asker's own voice, through coqui-tts's model code.

A voice is the conditioning that XTTS computes from a few seconds of speech. A sentence is cut to the model's limits,
and each piece is spoken on its own. The model carries state through an inference and samples from torch's global
random generator, so one piece at a time has both to itself; neither is held while a listener takes the audio.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from mirrorchat.audio import Audio, Samples
from mirrorchat.engines import Cancel, Deadline, EngineInfo, Language, Priority, Voice, VoiceKind
from mirrorchat.errors import ConfigurationError, NotReady, SynthesisFailed, log_unexpected
from mirrorchat.espeak import Espeak
from mirrorchat.text import spoken_form
from mirrorchat.vad import find_speech, trim_to_speech
from mirrorchat.xtts_checkpoint import read_speakers
from mirrorchat.xtts_model import Network, load_network
from mirrorchat.xtts_text import TextCutter, read_as
from mirrorchat.xtts_turns import Turnstile
from mirrorchat.xtts_voice import XttsVoice

SPEECH_NEEDED_S = 1.0  # less is not enough to tell a voice
REFERENCE_LIMIT_S = 30.0
REFERENCE_RATE_HZ = 22_050  # of the model's conditioning encoder
NEUTRAL_SPEAKER = "Claribel Dervla"  # of the 58 studio speakers that come with the released weights
NEUTRAL_TEXT = "The quick brown fox jumps over the lazy dog, while five wizards box and a vexed judge keeps watch."

PIECE_GAP_S = 0.15
EDGE_LEVEL = 0.003  # -50 dB: what is quieter at a piece's edges is silence
EDGE_KEPT_S = 0.08

# What torch, transformers and coqui-tts raise when a computation fails; torch's out-of-memory errors are RuntimeErrors.
MODEL_ERRORS = (RuntimeError, ValueError, IndexError, AssertionError)


class XttsSynthesizer:
    """Speaks with the XTTS v2 weights in `folder`, with `threads` CPU threads.

    `device` is `cpu`, `cuda`, `cuda:1`, ..., or `auto`: the GPU where torch can use one, else the CPU.

    Raises ModelNotInstalled when files are missing; ConfigurationError when they are damaged or do not belong
    together, or torch cannot use the device. Nothing in the folder is written.
    """

    def __init__(self, folder: Path, *, device: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self._device = _usable_device(device)
        self._folder = folder
        self._network: Network | None = load_network(folder).to(self._device)
        self._config = self._network.config
        self._turnstile = Turnstile()
        self.info = EngineInfo("xtts", folder.name, str(self._device))
        self.sample_rate = int(self._config.model_args.output_sample_rate)

    def voice(self, references: Sequence[Audio]) -> XttsVoice:
        """Return the voice heard in `references` (any rate; the first 30 s of them count).

        With less than 1 s of speech it is a neutral voice whose reason says so: the released studio speaker
        "Claribel Dervla" where the model's folder has the speakers, else XTTS's rendering of eSpeak NG's voice.
        Raises SynthesisFailed when the model fails.
        """
        spans = [find_speech(reference) for reference in references]
        speech_s = sum(span.speech_s for span in spans)
        if speech_s < SPEECH_NEEDED_S:
            shown_s = math.floor(speech_s * 10) / 10  # never rounded up to what would have been enough
            return replace(self._neutral_voice, reason=f"{shown_s:.1f} s of speech, {SPEECH_NEEDED_S:.0f} s is needed")
        heard = [trim_to_speech(audio, span) for audio, span in zip(references, spans, strict=True) if span.speech_s]
        return self._condition(heard, VoiceKind.CLONE, f"{speech_s:.1f} s of speech")

    def speak(
        self,
        text: str,
        voice: Voice,
        language: Language,
        *,
        seed: int,
        priority: Priority,
        deadline: Deadline,
        cancel: Cancel,
    ) -> Iterator[Audio]:
        """Yield `text` (written form) as speech, one Audio for each piece, in order; nothing if it holds no word.

        Raises SynthesisFailed when the model fails or its output is not finite, DeadlineExceeded, and the reason of
        `cancel`; both take effect within one step of the model. Raises TypeError for another engine's voice.
        """
        if not isinstance(voice, XttsVoice):
            raise TypeError(f"XTTS speaks with an XttsVoice, not a {type(voice).__name__}")
        pieces = self._pieces(text, language)
        for index, piece in enumerate(pieces):
            with self._turnstile.turn(priority, deadline, cancel):
                samples = self._infer(piece, voice, language, seed + index, _StopWhenUnwanted(deadline, cancel))
            gap_s = PIECE_GAP_S if index < len(pieces) - 1 else 0.0
            yield Audio(finish_piece(samples, self.sample_rate, gap_s), self.sample_rate)

    def close(self) -> None:
        """Free the model. A piece that is being spoken is finished; later calls raise NotReady."""
        self._network = None

    def _loaded(self) -> Network:
        network = self._network
        if network is None:
            raise NotReady("the speech model has been closed")
        return network

    @functools.cached_property
    def _neutral_voice(self) -> XttsVoice:
        speakers = read_speakers(self._folder)
        if speakers:
            speaker = speakers.get(NEUTRAL_SPEAKER) or next(iter(speakers.values()))
            return XttsVoice(VoiceKind.NEUTRAL, "", speaker.gpt_cond_latent, speaker.speaker_embedding)
        espeak = Espeak()
        try:
            spoken = espeak.speak(NEUTRAL_TEXT, Language.ENGLISH, deadline=None, cancel=Cancel())
        finally:
            espeak.close()
        return self._condition([spoken.audio], VoiceKind.NEUTRAL, "")

    def _condition(self, references: Sequence[Audio], kind: VoiceKind, reason: str) -> XttsVoice:
        """Return the voice of `references` (trimmed): coqui-tts's `get_conditioning_latents`, from memory.

        Runs beside inferences: no state is carried here, and nothing is drawn at random.
        """
        network, config = self._loaded(), self._config
        waves = [torch.from_numpy(samples)[None] for samples in limited(references, REFERENCE_LIMIT_S)]
        if config.sound_norm_refs:
            waves = [wave / wave.abs().max() * 0.75 for wave in waves]
        try:
            embeddings = [network.get_speaker_embedding(wave, REFERENCE_RATE_HZ) for wave in waves]
            latent = network.get_gpt_cond_latents(
                torch.cat(waves, dim=-1),
                REFERENCE_RATE_HZ,
                length=config.gpt_cond_len,
                chunk_length=config.gpt_cond_chunk_len,
            )
        except MODEL_ERRORS as error:
            raise SynthesisFailed(f"the voice could not be computed ({type(error).__name__})") from error
        embedding = torch.stack(embeddings).mean(dim=0)
        if not (latent.isfinite().all() and embedding.isfinite().all()):
            raise SynthesisFailed("the voice could not be computed (numbers that are not finite)")
        return XttsVoice(kind, reason, latent.cpu().clone(), embedding.cpu().clone())

    def _pieces(self, text: str, language: Language) -> list[str]:
        network = self._loaded()

        def count_tokens(piece: str) -> int:
            return len(network.tokenizer.encode(_as_read(piece), lang=read_as(piece, language).code))

        cutter = TextCutter(language, count_tokens, token_limit=int(self._config.model_args.gpt_max_text_tokens))
        return cutter.cut(spoken_form(text, language))

    def _infer(self, piece: str, voice: XttsVoice, language: Language, seed: int, stop: StoppingCriteria) -> Samples:
        """Return `piece` as samples. To be called by one thread at a time: see the top of the module."""
        network, config = self._loaded(), self._config
        devices = [self._device] if self._device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices):
                torch.manual_seed(seed % 2**63)
                output = network.inference(
                    piece,
                    read_as(piece, language).code,
                    voice.gpt_cond_latent,
                    voice.speaker_embedding,
                    temperature=config.temperature,
                    length_penalty=config.length_penalty,
                    repetition_penalty=config.repetition_penalty,
                    top_k=config.top_k,
                    top_p=config.top_p,
                    stopping_criteria=StoppingCriteriaList([stop]),
                )
        except MODEL_ERRORS as error:
            log_unexpected(error)
            raise SynthesisFailed(f"XTTS could not speak the sentence ({type(error).__name__})") from error
        samples = np.asarray(output["wav"], dtype=np.float32).reshape(-1)
        if not np.isfinite(samples).all():
            raise SynthesisFailed("XTTS could not speak the sentence (samples that are not finite)")
        return samples


class _StopWhenUnwanted(StoppingCriteria):
    """Asked by the decoder after each token: raises when nobody waits for the rest any more."""

    def __init__(self, deadline: Deadline, cancel: Cancel) -> None:
        self._deadline = deadline
        self._cancel = cancel

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        self._cancel.check()
        self._deadline.check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


def limited(references: Sequence[Audio], limit_s: float) -> list[Samples]:
    """Return `references` at the conditioning rate, as much of them from the start as makes `limit_s` together."""
    room = int(limit_s * REFERENCE_RATE_HZ)
    parts: list[Samples] = []
    for reference in references:
        samples = reference.resample(REFERENCE_RATE_HZ).samples[:room]
        room -= len(samples)
        if len(samples):
            parts.append(np.array(samples, dtype=np.float32))  # a copy: torch warns of arrays it may not write to
    return parts


def finish_piece(samples: Samples, sample_rate: int, gap_s: float) -> Samples:
    """Return `samples` in [-1, 1] with all but 80 ms of the silence at both edges cut off, then `gap_s` of silence."""
    loud = np.flatnonzero(np.abs(samples) > EDGE_LEVEL)
    kept = int(EDGE_KEPT_S * sample_rate)
    if len(loud):
        samples = samples[max(0, loud[0] - kept) : loud[-1] + 1 + kept]
    gap = np.zeros(int(gap_s * sample_rate), np.float32)
    return np.concatenate([np.clip(samples, -1.0, 1.0), gap])


def _as_read(piece: str) -> str:
    """Return `piece` as `Xtts.inference` gives it to the tokenizer."""
    return piece.strip().lower()


def _usable_device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"device {name!r} is not one that torch knows") from error
    gpus = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise ConfigurationError(f"device {name!r} cannot be used: torch {torch.__version__} finds {gpus} GPUs")
    return device
