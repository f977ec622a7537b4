"""Tiny random checkpoints of what only WeNet's package runs, made with its own classes: Whisper, Paraformer and so on.

The settings are those that the package's converters write, with small sizes.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

Config = dict[str, Any]
CHARACTERS = "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产"
TAGS = ["<|zh|>", "<|en|>", "<|NEUTRAL|>", "<|Speech|>", "<|woitn|>"]


def write_model(folder: Path, kind: str) -> Path:
    """Write the release folder of a tiny model of `kind` (one of KINDS) with random weights; return it."""
    from wenet.utils.init_model import init_model

    folder.mkdir(parents=True)
    config = KINDS[kind](folder)
    if config["cmvn"]:
        config["cmvn_conf"] = {"cmvn_file": str(folder / "global_cmvn"), "is_json_cmvn": True}
        bins = config["input_dim"] // 80 * 80
        count = 1000
        statistics = {"mean_stat": [10.0 * count] * bins, "var_stat": [109.0 * count] * bins, "frame_num": count}
        (folder / "global_cmvn").write_text(json.dumps(statistics), encoding="utf-8")
    torch.manual_seed(1)
    network, _ = init_model(argparse.Namespace(checkpoint=None, jit=True), config)
    _spread(network)
    torch.save(network.state_dict(), folder / "final.pt")
    config.pop("init_infos", None)
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def _spread(network: Any) -> None:
    """Make what differs between sounds large, so that the texts vary; draw what the package leaves undefined."""
    for name, weights in network.state_dict().items():
        if name == "decoder.embed.1.pe":
            weights.normal_(std=0.5)
        if weights.is_floating_point() and weights.dim() > 1 and "global_cmvn" not in name and ".pe" not in name:
            weights.mul_(3.0)


def _write_tokens(folder: Path, first: list[str]) -> int:
    tokens = [*first, *CHARACTERS]
    (folder / "units.txt").write_text("".join(f"{token} {i}\n" for i, token in enumerate(tokens)), encoding="utf-8")
    return len(tokens)


def _attention(**more: object) -> Config:
    return {"attention_heads": 2, "linear_units": 24, "num_blocks": 2, "normalize_before": True} | more


def _fbank(dither: float, **more: object) -> Config:
    settings = {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": dither} | more
    return {"fbank_conf": settings}


def _model(kind: str, **more: object) -> Config:
    return {"model": kind, "model_conf": {"ctc_weight": 0.3, "lsm_weight": 0.1} | more, "ctc_conf": {"ctc_blank_id": 0}}


def _whisper(folder: Path) -> Config:
    from whisper.tokenizer import get_tokenizer

    names = ("sot", "eot", "sot_prev", "transcribe", "translate", "no_timestamps", "no_speech", "timestamp_begin")
    tokenizer = get_tokenizer(multilingual=True, num_languages=99)
    (folder / "units.txt").write_text("", encoding="utf-8")
    encoder = _attention(output_size=16, input_layer="conv1d2", pos_enc_layer_type="abs_pos_whisper", key_bias=False)
    decoder = _attention(input_layer="embed_learnable_pe", key_bias=False, src_key_bias=False, tie_word_embedding=True)
    return _model("whisper") | {
        "input_dim": 80,
        "output_dim": 51865,
        "encoder": "transformer",
        "encoder_conf": encoder | {"static_chunk_size": -1, "activation_type": "gelu"},
        "decoder": "transformer",
        "decoder_conf": decoder | {"activation_type": "gelu"},
        "tokenizer": "whisper",
        "tokenizer_conf": {
            "is_multilingual": True,
            "num_languages": 99,
            "special_tokens": {name: getattr(tokenizer, name) for name in names},
        },
        "cmvn": None,
        "dataset_conf": {
            "feats_type": "log_mel_spectrogram",
            "log_mel_spectrogram_conf": {"n_fft": 400, "hop_length": 160, "num_mel_bins": 80, "padding": 0},
        },
    }


def _paraformer(folder: Path) -> Config:
    vocabulary = _write_tokens(folder, ["<blank>", "<sos>", "<eos>"])
    return _model("paraformer", sampler=True, add_eos=True) | {
        "input_dim": 560,
        "output_dim": vocabulary,
        "encoder": "sanm_encoder",
        "encoder_conf": _sanm(),
        "decoder": "sanm_decoder",
        "decoder_conf": _attention(att_layer_num=2),
        "predictor": "paraformer_predictor",
        "predictor_conf": {"idim": 16, "l_order": 1, "r_order": 1, "cnn_groups": 1, "residual": False},
        "tokenizer": "paraformer",
        "tokenizer_conf": {
            "symbol_table_path": str(folder / "units.txt"),
            "seg_dict_path": "seg_dict",
            "special_tokens": {"<blank>": 0, "<sos>": 1, "<eos>": 2},
        },
        "cmvn": "global_cmvn",
        "dataset_conf": _fbank(0.1, window_type="hamming"),
    }


def _sanm(**more: object) -> Config:
    layers = {"input_layer": "paraformer_dummy", "pos_enc_layer_type": "abs_pos_paraformer"}
    return _attention(output_size=16) | layers | more


def _sensevoice(folder: Path) -> Config:
    import sentencepiece

    words = [CHARACTERS[i : i + 3] for i in range(0, 48, 3)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(words * 20), model_prefix=str(folder / "pieces"), vocab_size=70, hard_vocab_limit=False,
        user_defined_symbols=TAGS, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "pieces.model"))
    lines = [f"{pieces.id_to_piece(i)} {i}\n" for i in range(pieces.get_piece_size())]
    (folder / "units.txt").write_text("".join(lines), encoding="utf-8")
    return _model("sensevoice_small") | {
        "model_conf": {"ctc_weight": 1.0, "lsm_weight": 0.1},
        "input_dim": 560,
        "output_dim": len(lines),
        "encoder": "sanm_encoder_with_tp",
        "encoder_conf": _sanm(tp_blocks=1),
        "decoder": None,
        "tokenizer": "sentencepiece",
        "tokenizer_conf": {"model_path": "data/pieces.model", "special_tokens": {"<s>": 1, "</s>": 2}},
        "cmvn": "global_cmvn",
        "dataset_conf": _fbank(0.1, window_type="hamming"),
    }


def _firered(folder: Path) -> Config:
    vocabulary = _write_tokens(folder, ["<blank>", "<unk>", "<pad>", "<sos>", "<eos>"])
    encoder = _attention(output_size=16, input_layer="firered_conv2d4", pos_enc_layer_type="rel_pos_firered")
    no_bias = {"key_bias": False, "value_bias": False, "query_bias": False, "conv_bias": False}
    convolution = {"cnn_module_kernel": 9, "cnn_module_norm": "layer_norm", "conv_inner_factor": 4}
    kind = {"selfattention_layer_type": "firered_rel_selfattn", "final_norm": False, "activation_type": "swish"}
    decoder = _attention(tie_word_embedding=True, key_bias=False, src_key_bias=False, activation_type="gelu")
    return _model("firered") | {
        "input_dim": 80,
        "output_dim": vocabulary,
        "encoder": "firered_conformer",
        "encoder_conf": encoder | no_bias | convolution | kind | {"static_chunk_size": -1},
        "decoder": "transformer",
        "decoder_conf": decoder,
        "tokenizer": "bpe",
        "tokenizer_conf": {
            "bpe_path": "train_bpe1000.model",
            "symbol_table_path": "dict.txt",
            "non_lang_syms_path": None,
            "split_with_space": True,
            "special_tokens": {"sos": 3, "eos": 4},
        },
        "cmvn": "global_cmvn",
        "dataset_conf": _fbank(0.1),
    }


KINDS: dict[str, Callable[[Path], Config]] = {
    "whisper": _whisper,
    "paraformer": _paraformer,
    "sensevoice_small": _sensevoice,
    "firered": _firered,
}
