"""WeNet's own package as a side of benchmarks/wenet.py, if it is installed (see docs/engines.md).

    python -m benchmarks.wenet_package_side [wenetspeech ...]    # ms for 5 s, compared with the runtime format

The weights are those of the other sides, in the format of WeNet's training, and the package loads them.
"""

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.side_process import Side
from benchmarks.wenet_sides import BINS, SIZES, Runtime, draw_features, draw_model
from mirrorchat.wenet.ctc.search import BEAM
from mirrorchat.wenet.model import U2Config
from mirrorchat.wenet.package_load import load
from mirrorchat.wenet.rescoring import CTC_WEIGHT, REVERSE_WEIGHT

ROOT = Path(__file__).resolve().parent.parent
METHOD = "attention_rescoring"


def available() -> bool:
    """Tell whether WeNet's package is installed."""
    return importlib.util.find_spec("wenet") is not None


class Package:
    """WeNet's own network and search, float32, with random weights at one of SIZES."""

    def __init__(self, size: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            # in another process, so that the memory of this one does not include it
            subprocess.run([sys.executable, "-m", __spec__.name, "--write", size, folder], check=True, cwd=ROOT)
            self._network = load(folder, ROOT, torch.device("cpu")).network

    @torch.no_grad()
    def seconds(self, frames: int) -> float:
        """Return the time from features to the best hypothesis of an utterance."""
        features = torch.from_numpy(draw_features(frames)).unsqueeze(0)
        how = {"beam_size": BEAM, "ctc_weight": CTC_WEIGHT, "reverse_weight": REVERSE_WEIGHT}
        start = time.perf_counter()
        self._network.decode([METHOD], features, torch.tensor([frames]), **how)
        return time.perf_counter() - start

    def peak_mb(self) -> float:
        """Return the peak memory of this process."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))


def write_checkpoint(size: str, folder: Path) -> None:
    """Write the network of `draw_model` in one of SIZES as a release folder of WeNet."""
    config = SIZES[size]
    tokens = ["<blank>", "<unk>", *(f"u{number}" for number in range(2, config.vocabulary))]
    (folder / "units.txt").write_text("".join(f"{token} {i}\n" for i, token in enumerate(tokens)), encoding="utf-8")
    weights = draw_model(size).state_dict()
    torch.save(weights, folder / "final.pt")
    mean, istd = (weights[f"encoder.global_cmvn.{name}"].double() for name in ("mean", "istd"))
    statistics = {"mean_stat": mean.tolist(), "var_stat": (istd**-2 + mean**2).tolist(), "frame_num": 1}
    (folder / "global_cmvn").write_text(json.dumps(statistics), encoding="utf-8")
    (folder / "train.yaml").write_text(yaml.safe_dump(train_yaml(config)), encoding="utf-8")


def train_yaml(config: U2Config) -> dict[str, Any]:
    """Return the settings of a network with WeNet's names."""
    encoder = {
        "output_size": config.width, "attention_heads": config.heads, "linear_units": config.encoder_units,
        "num_blocks": config.encoder_blocks, "input_layer": config.subsampling, "pos_enc_layer_type": config.positions,
        "selfattention_layer_type": config.attention, "activation_type": config.activation, "use_cnn_module": True,
        "cnn_module_kernel": config.kernel, "cnn_module_norm": config.convolution_norm, "causal": config.causal,
        "use_dynamic_chunk": config.dynamic_chunk, "normalize_before": True,
    }  # fmt: skip
    decoder = {
        "attention_heads": config.decoder_heads, "linear_units": config.decoder_units,
        "num_blocks": config.decoder_blocks, "r_num_blocks": config.reverse_blocks,
    }  # fmt: skip
    return {
        "input_dim": BINS, "output_dim": config.vocabulary, "model": "asr_model",
        "model_conf": {"ctc_weight": 0.3, "reverse_weight": REVERSE_WEIGHT},
        "encoder": config.encoder, "encoder_conf": encoder, "decoder": config.decoder, "decoder_conf": decoder,
        "tokenizer_conf": {"special_tokens": {"<sos>": config.sos, "<eos>": config.eos}},
        "cmvn": "global_cmvn", "dataset_conf": {"fbank_conf": {"num_mel_bins": BINS}},
    }  # fmt: skip


def main(sizes: list[str], frames: int = 500, rounds: int = 5) -> None:
    """Print the fastest round of the package, and of the runtime format with our search, on one thread."""
    for size in sizes:
        with Side("package", 1, Package, size) as package, Side("runtime", 1, Runtime, size) as runtime:
            times = [
                (package.ask(Package.seconds, frames), runtime.ask(Runtime.seconds_with_our_search, frames))
                for _ in range(rounds)
            ]
            theirs, script = (min(seconds) * 1e3 for seconds in zip(*times[1:], strict=True))
            memory = package.ask(Package.peak_mb), runtime.ask(Runtime.peak_mb)
        print(f"{size}: package {theirs:.0f} ms, {memory[0]:.0f} MB; runtime {script:.0f} ms, {memory[1]:.0f} MB")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write_checkpoint(sys.argv[2], Path(sys.argv[3]))
    else:
        main(sys.argv[1:] or list(SIZES))
