"""Fast loading of coqui-tts's XTTS network from a local folder, with little memory.

The loader of coqui-tts builds the network twice at full size, initializes it with random numbers and then copies a
checkpoint into it, which takes 20 to 29 s and 4 GB. This module builds the GPT once on torch's `meta` device, which
allocates no memory, and then assigns the memory-mapped tensors of the checkpoint. That takes about 1 s, and memory only
for the pages that are read.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from mirrorchat.errors import ConfigurationError
from mirrorchat.hardware.torchaudio_import import import_torchaudio
from mirrorchat.xtts.checkpoint import CONFIG_FILE, VOCABULARY_FILE, Weights, read_weights

import_torchaudio()  # before coqui-tts imports it

from TTS.encoder.models.resnet import ResNetSpeakerEncoder  # noqa: E402
from TTS.tts.configs.xtts_config import XttsArgs, XttsConfig  # noqa: E402
from TTS.tts.layers.xtts.gpt import GPT  # noqa: E402
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder  # noqa: E402
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer  # noqa: E402
from TTS.tts.models.xtts import Xtts  # noqa: E402

NAMES_SHOWN = 4  # names of wrong tensors in an error message


class Network(Xtts):  # type: ignore[misc]  # coqui-tts has no type information
    """The XTTS of coqui-tts. `build_network` adds its parts when their sizes are known."""

    def init_models(self) -> None:
        """Do nothing. The constructor of Xtts calls this before the vocabulary and the checkpoint are known."""

    def forget_decoder(self) -> None:
        """Free the layers of the GPT and the vocoder. The decode engine has its own, and voices need neither."""
        self.gpt.gpt = None
        self.hifigan_decoder.waveform_decoder = None


@dataclass(frozen=True)
class VocoderSizes:
    """Sizes that are constants in coqui-tts, and that the shapes of a checkpoint show. The defaults are XTTS v2's.

    `channels` is the number after the first convolution of the vocoder; `filters` and `blocks` are those of the four
    stages of the speaker encoder.
    """

    channels: int = 512
    filters: tuple[int, ...] = (32, 64, 128, 256)
    blocks: tuple[int, ...] = (3, 4, 6, 3)

    @classmethod
    def of(cls, weights: Mapping[str, torch.Tensor]) -> "VocoderSizes":
        """Return the sizes of `weights`. Raises KeyError with the name of a missing tensor."""
        encoder = "hifigan_decoder.speaker_encoder.layer"
        stages = range(1, 5)
        return cls(
            channels=len(weights["hifigan_decoder.waveform_decoder.conv_pre.weight"]),
            filters=tuple(len(weights[f"{encoder}{stage}.0.conv1.weight"]) for stage in stages),
            blocks=tuple(len({n.split(".")[3] for n in weights if n.startswith(f"{encoder}{s}.")}) for s in stages),
        )


def load_network(folder: Path) -> Network:
    """Return the XTTS network in `folder`, float32 on the CPU, ready for voices and for the decode engine.

    Raises ModelNotInstalled if a file is missing, ConfigurationError if one is damaged or the weights do not fit the
    configuration (the message names tensors). Writes nothing.
    """
    weights = read_weights(folder)
    config = _read_config(folder / CONFIG_FILE)
    tokenizer = read_vocabulary(folder / VOCABULARY_FILE)
    try:
        network = build_network(config, tokenizer, VocoderSizes.of(weights))
    except KeyError as error:
        raise ConfigurationError(f"the weights in {folder} are not XTTS's: {error.args[0]} is missing") from error
    _check_fit(network, weights, folder)
    network.load_state_dict({name: _as_float32(tensor) for name, tensor in weights.items()}, assign=True)
    # Not `eval()`: the override in coqui-tts would build its inference GPT, which is not used here.
    return network.train(False).requires_grad_(False)  # type: ignore[no-any-return]


def build_network(config: XttsConfig, tokenizer: VoiceBpeTokenizer, sizes: VocoderSizes) -> Network:
    """Return a network with the shapes of `config`, `tokenizer` and `sizes`, whose GPT has no memory yet."""
    network = Network(config)
    network.tokenizer = tokenizer
    args = config.model_args
    args.gpt_number_text_tokens = tokenizer.get_number_tokens()
    args.gpt_start_text_token = tokenizer.tokenizer.token_to_id("[START]")
    args.gpt_stop_text_token = tokenizer.tokenizer.token_to_id("[STOP]")
    with quiet_gpt_config(), torch.device("meta"):
        network.gpt = _build_gpt(args)
    network.hifigan_decoder = _build_vocoder(args, sizes)
    return network


def _build_gpt(args: XttsArgs) -> GPT:
    return GPT(
        layers=args.gpt_layers,
        model_dim=args.gpt_n_model_channels,
        heads=args.gpt_n_heads,
        number_text_tokens=args.gpt_number_text_tokens,
        start_text_token=args.gpt_start_text_token,
        stop_text_token=args.gpt_stop_text_token,
        max_text_tokens=args.gpt_max_text_tokens,
        max_mel_tokens=args.gpt_max_audio_tokens,
        max_prompt_tokens=args.gpt_max_prompt_tokens,
        num_audio_tokens=args.gpt_num_audio_tokens,
        start_audio_token=args.gpt_start_audio_token,
        stop_audio_token=args.gpt_stop_audio_token,
        use_perceiver_resampler=args.gpt_use_perceiver_resampler,
        code_stride_len=args.gpt_code_stride_len,
    )


def _build_vocoder(args: XttsArgs, sizes: VocoderSizes) -> HifiDecoder:
    """Return the vocoder and its speaker encoder on the CPU: their filter banks cannot be computed on `meta`."""
    vocoder = HifiDecoder(
        input_sample_rate=args.input_sample_rate,
        output_sample_rate=args.output_sample_rate,
        output_hop_length=args.output_hop_length,
        ar_mel_length_compression=args.gpt_code_stride_len,
        decoder_input_dim=args.decoder_input_dim,
        d_vector_dim=args.d_vector_dim,
        cond_d_vector_in_each_upsampling_layer=args.cond_d_vector_in_each_upsampling_layer,
        upsample_initial_channel_decoder=sizes.channels,
    )
    if sizes != VocoderSizes(channels=sizes.channels):  # HifiDecoder has no argument for these
        vocoder.speaker_encoder = ResNetSpeakerEncoder(
            input_dim=vocoder.speaker_encoder_audio_config["num_mels"],
            proj_dim=args.d_vector_dim,
            layers=list(sizes.blocks),
            num_filters=list(sizes.filters),
            log_input=True,
            use_torch_spec=True,
            audio_config=vocoder.speaker_encoder_audio_config,
        )
    return vocoder


def _read_config(path: Path) -> XttsConfig:
    config = XttsConfig()
    try:
        config.load_json(str(path))
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
        raise ConfigurationError(f"{path} is damaged or is not an XTTS configuration: {error}") from error
    return config


def read_vocabulary(path: Path) -> VoiceBpeTokenizer:
    """Return the tokenizer with the vocabulary at `path`. Raises ConfigurationError if it is damaged."""
    try:
        return VoiceBpeTokenizer(vocab_file=path)
    except Exception as error:  # the tokenizers library raises bare Exception for a damaged file
        raise ConfigurationError(f"{path} is damaged or is not a vocabulary: {error}") from error


def _check_fit(network: Network, weights: Weights, folder: Path) -> None:
    """Raise ConfigurationError if `weights` have a missing tensor, an additional one, or one of another shape."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    faults = [
        *(f"{name} is missing" for name in expected.keys() - found.keys()),
        *(f"{name} is unexpected" for name in found.keys() - expected.keys()),
        *(
            f"{name} is {found[name]} instead of {shape}"
            for name, shape in expected.items()
            if found.get(name, shape) != shape
        ),
    ]
    if faults:
        shown = "; ".join(sorted(faults)[:NAMES_SHOWN])
        more = f"; and {len(faults) - NAMES_SHOWN} more" if len(faults) > NAMES_SHOWN else ""
        raise ConfigurationError(
            f"the weights in {folder} do not fit {CONFIG_FILE} and {VOCABULARY_FILE}: {shown}{more}"
        )


def _as_float32(tensor: torch.Tensor) -> torch.Tensor:
    """Return `tensor` as float32 if it is floating-point; a float32 tensor stays memory-mapped."""
    return tensor.float() if tensor.is_floating_point() else tensor


@contextmanager
def quiet_gpt_config() -> Iterator[None]:
    """Suppress the warning of transformers that the default begin and end tokens of GPT-2 exceed XTTS's vocabulary.

    The warning is correct and has no effect: coqui-tts passes its own begin and end tokens to every call of `generate`.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return "s_token_id must be" not in record.getMessage()

    logger = logging.getLogger("transformers.configuration_utils")
    logger.addFilter(is_other)
    try:
        yield
    finally:
        logger.removeFilter(is_other)
