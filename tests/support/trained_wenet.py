"""The tests' trained models as checkpoints: what `final.zip` holds, written as WeNet's training leaves it."""

from pathlib import Path

import tiny_wenet_speech as speech
import torch
import yaml
from torch import Tensor

from mirrorchat.wenet.batch import load_script
from mirrorchat.wenet.checkpoint import read_tokens
from support.places import DATA

MODELS = DATA / "wenet-tiny"
ENCODER = {
    "output_size": 64, "attention_heads": 4, "linear_units": 192, "num_blocks": 4, "cnn_module_kernel": 8,
    "causal": True, "cnn_module_norm": "layer_norm", "use_dynamic_chunk": True, "input_layer": "conv2d",
}  # fmt: skip
DECODER = {"attention_heads": 4, "linear_units": 128, "num_blocks": 1, "r_num_blocks": 1}


def write_trained_checkpoint(folder: Path, code: speech.Code) -> Path:
    """Write the trained model for `code` into a new `folder` as train.yaml, final.pt and units.txt; return it."""
    folder.mkdir(parents=True)
    tokens_file = MODELS / code / "units.txt"
    tokens = read_tokens(tokens_file)
    (folder / "units.txt").write_bytes(tokens_file.read_bytes())
    special = {"<blank>": 0, "<unk>": 1, "<sos>": tokens.index("<sos/eos>"), "<eos>": tokens.index("<sos/eos>")}
    train = {
        "encoder": "conformer", "encoder_conf": ENCODER, "decoder": "bitransformer", "decoder_conf": DECODER,
        "cmvn": "global_cmvn", "cmvn_conf": {"cmvn_file": "global_cmvn", "is_json_cmvn": True},
        "tokenizer": "char", "tokenizer_conf": {"special_tokens": special}, "input_dim": 80, "output_dim": len(tokens),
    }  # fmt: skip
    (folder / "train.yaml").write_text(yaml.safe_dump(train), encoding="utf-8")
    torch.save(_weights(load_script(MODELS / code / "final.zip")), folder / "final.pt")
    return folder


def _weights(model: torch.jit.ScriptModule) -> dict[str, Tensor]:
    """Return float32 weights by WeNet's names; the quantized ones as the numbers that they stand for."""
    weights = {name: weight for name, weight in model.state_dict().items() if "_packed_params" not in name}
    weights = {name: weight for name, weight in weights.items() if not name.endswith((".scale", ".zero_point"))}
    for name, layer in model.named_modules():
        if name.endswith("._packed_params"):
            weight, bias = torch.ops.quantized.linear_unpack(layer._packed_params)
            place = name.removesuffix("._packed_params")
            weights[f"{place}.weight"] = weight.dequantize()
            if bias is not None:
                weights[f"{place}.bias"] = bias
    return weights
