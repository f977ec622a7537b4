"""Makes an XTTS v2 checkpoint with random weights: a tiny one for tests, or one of real size for benchmarks.

    python scripts/make_tiny_xtts.py FOLDER
    python scripts/make_tiny_xtts.py FOLDER --size real

It has the files and formats of a converted release (config.json, vocab.json, model.safetensors), or with `--pickle`
those of the release itself (model.pth), and three speakers as released (speakers_xtts.pth). It speaks noise. The tiny
one (2 layers of width 64, narrow vocoder and speaker encoder, 2 MB) keeps all released values except sizes, and the
same code loads it.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from TTS.tts.configs.xtts_config import XttsConfig

from mirrorchat.xtts.checkpoint import (
    CONFIG_FILE,
    PICKLE_FILE,
    SPEAKERS_PICKLE_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    Weights,
)
from mirrorchat.xtts.model import VocoderSizes, build_network, read_vocabulary

SPECIAL_TOKENS = ("[STOP]", "[UNK]", "[SPACE]", "[START]", "[en]", "[zh-cn]")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = f"{LETTERS}0123456789 .,!?'-:;()/ü。，！？、；："  # pinyin is spelled with a digit for the tone
RELEASED_TEXT_TOKENS = 6681
SPEAKERS = ("Claribel Dervla", "Ana Florence", "Eugenio Mataracı")  # three of the 58 in the release
TINY_SIZES = VocoderSizes(channels=32, filters=(8, 8, 16, 16), blocks=(1, 1, 1, 1))


def make_checkpoint(folder: Path, *, size: str = "tiny", seed: int = 0, endless: bool = False) -> Weights:
    """Write config.json, vocab.json, model.safetensors and speakers_xtts.pth into `folder`; return the weights.

    An `endless` model never samples the token that ends a sentence, so each has as many tokens as its text allows.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text_tokens = RELEASED_TEXT_TOKENS if size == "real" else 0
    vocabulary = json.dumps(make_vocabulary(text_tokens), ensure_ascii=False)
    (folder / VOCABULARY_FILE).write_text(vocabulary, encoding="utf-8")
    config = released_config()
    if size == "tiny":
        narrow(config)
    config.save_json(str(folder / CONFIG_FILE))
    weights = random_weights(config, folder / VOCABULARY_FILE, TINY_SIZES if size == "tiny" else VocoderSizes(), seed)
    if endless:
        weights["gpt.mel_head.bias"][config.model_args.gpt_stop_audio_token] = -1e4
    if size == "tiny":  # half the bytes on disk; read as float32
        weights = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in weights.items()}
    safetensors.torch.save_file(weights, folder / WEIGHTS_FILE)
    torch.save(random_speakers(config, seed), folder / SPEAKERS_PICKLE_FILE)
    return weights


def released_config() -> XttsConfig:
    """Return the configuration of the released XTTS v2: its differences from the defaults of coqui-tts."""
    config = XttsConfig(
        temperature=0.75,
        repetition_penalty=5.0,
        top_k=50,
        top_p=0.85,
        gpt_cond_len=30,
        gpt_cond_chunk_len=4,
        max_ref_len=30,
    )
    args = config.model_args
    args.gpt_use_perceiver_resampler = True
    args.gpt_num_audio_tokens, args.gpt_start_audio_token, args.gpt_stop_audio_token = 1026, 1024, 1025
    args.gpt_number_text_tokens = RELEASED_TEXT_TOKENS
    return config


def narrow(config: XttsConfig) -> None:
    """Shrink the sizes of `config`: 2 layers of width 64, 64 audio codes, at most 37 of them in an answer (1.7 s)."""
    args = config.model_args
    args.gpt_layers, args.gpt_n_model_channels, args.gpt_n_heads, args.decoder_input_dim = 2, 64, 4, 64
    args.gpt_num_audio_tokens, args.gpt_start_audio_token, args.gpt_stop_audio_token = 66, 64, 65
    args.gpt_max_audio_tokens = 40


def make_vocabulary(text_tokens: int = 0) -> dict[str, Any]:
    """Return a character-level vocabulary in the `tokenizers` format, filled up to `text_tokens` entries."""
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *CHARACTERS))}
    for index in range(len(vocabulary), text_tokens):
        vocabulary[f"\u2063{index}"] = index  # an invisible separator, which no text has
    special = {"special": True, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    model = {"type": "BPE", "unk_token": "[UNK]", "fuse_unk": False, "vocab": vocabulary, "merges": []}
    return {
        "version": "1.0",
        "added_tokens": [{"id": vocabulary[token], "content": token, **special} for token in SPECIAL_TOKENS],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": model,
    }


def random_weights(config: XttsConfig, vocabulary: Path, sizes: VocoderSizes, seed: int) -> Weights:
    """Return every tensor of the network, contiguous and with random numbers of a suitable scale."""
    with torch.random.fork_rng(devices=[]):  # some tensors keep the numbers that their layers begin with
        torch.manual_seed(seed)
        network = build_network(config, read_vocabulary(vocabulary), sizes)
    generator = torch.Generator().manual_seed(seed)
    weights = {name: _drawn(name, tensor, generator) for name, tensor in network.state_dict().items()}
    return {name: tensor.detach().contiguous() for name, tensor in weights.items()}


def random_speakers(config: XttsConfig, seed: int) -> dict[str, Weights]:
    """Return the voices of SPEAKERS, in the form of the release."""
    generator, args = torch.Generator().manual_seed(seed), config.model_args
    return {
        name: {
            "gpt_cond_latent": torch.randn(1, 32, args.gpt_n_model_channels, generator=generator),
            "speaker_embedding": torch.randn(1, args.d_vector_dim, 1, generator=generator),
        }
        for name in SPEAKERS
    }


def _drawn(name: str, tensor: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return random values for a weight. Norm weights are 1, biases 0; filter banks and statistics are unchanged."""
    if not tensor.is_floating_point() or (not tensor.is_meta and "weight" not in name):
        return tensor.clone()
    if tensor.dim() == 1 or name.endswith((".gamma", "gain")):
        return torch.full(tensor.shape, 0.0 if name.endswith("bias") else 1.0)
    scale = float(tensor[0].numel() ** -0.5)
    return torch.randn(tensor.shape, generator=generator) * scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=("tiny", "real"), default="tiny")
    parser.add_argument("--pickle", action="store_true", help="write model.pth instead of model.safetensors")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    weights = make_checkpoint(options.folder, size=options.size, seed=options.seed)
    if options.pickle:
        torch.save({"model": weights}, options.folder / PICKLE_FILE)
        (options.folder / WEIGHTS_FILE).unlink()


if __name__ == "__main__":
    main()
