"""The models of benchmarks/gpu_check.py: random weights at real size, and the tests' trained WeNet models.

They are made anew in a folder in memory, so nothing is fetched. The speech of random weights is noise, and costs as
much as speech.
"""

import importlib
import sys
import wave
from dataclasses import asdict
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, module_from_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def import_coqui() -> None:
    """Import coqui-tts where soundfile or torchcodec is not installed; only its reading and writing of files uses them.

    It imports soundfile, and merely asks whether there is a torchcodec. transformers must not find that stand-in.
    """
    absent = [name for name in ("soundfile", "torchcodec") if name not in sys.modules and find_spec(name) is None]
    sys.modules.update({name: module_from_spec(ModuleSpec(name, None)) for name in absent})
    importlib.import_module("TTS")
    if "torchcodec" in absent:
        del sys.modules["torchcodec"]


import_coqui()
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(ROOT / "tests")]

import make_tiny_xtts  # noqa: E402
import numpy as np  # noqa: E402
import safetensors.torch  # noqa: E402
import torch  # noqa: E402
import yaml  # noqa: E402
from support.trained_wenet import write_trained_checkpoint  # noqa: E402

from benchmarks.wenet_sides import SIZES, draw_model  # noqa: E402
from mirrorchat.audio.samples import Audio  # noqa: E402
from mirrorchat.engines import Language  # noqa: E402
from mirrorchat.wenet.encoder import U2Config  # noqa: E402

RECORDINGS = {Language.ENGLISH: "question.wav", Language.CHINESE: "question_zh.wav"}
NETWORKS = {Language.ENGLISH: "librispeech", Language.CHINESE: "wenetspeech"}  # the released sizes
ENCODER = {  # the names of a train.yaml for the fields of U2Config
    "output_size": "width", "attention_heads": "heads", "linear_units": "encoder_units", "num_blocks": "encoder_blocks",
    "cnn_module_kernel": "kernel", "causal": "causal", "cnn_module_norm": "convolution_norm",
    "use_dynamic_chunk": "dynamic_chunk", "input_layer": "subsampling",
}  # fmt: skip
DECODER = {
    "attention_heads": "decoder_heads", "linear_units": "decoder_units", "num_blocks": "decoder_blocks",
    "r_num_blocks": "reverse_blocks",
}  # fmt: skip


def make_models(folder: Path, *, tiny: bool) -> None:
    """Write what a server's folder of models has, and beside it `trained-LANGUAGE`."""
    make_tiny_xtts.make_checkpoint(folder / "xtts-v2", size="tiny" if tiny else "real", endless=True)
    for language, size in NETWORKS.items():
        write_trained_checkpoint(folder / f"trained-{language.code}", "zh" if language is Language.CHINESE else "en")
        _write_wenet(folder / f"wenet-{language.code}", "tiny" if tiny else size)


def _write_wenet(folder: Path, size: str) -> None:
    """Write a network with random weights as WeNet's training leaves it."""
    folder.mkdir(parents=True)
    config, model = SIZES[size], draw_model(size)
    safetensors.torch.save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, folder / "final.safetensors"
    )
    (folder / "train.yaml").write_text(yaml.safe_dump(_train(config)), encoding="utf-8")
    tokens = ["<blank>", *(f"t{number}" for number in range(1, config.vocabulary))]
    (folder / "units.txt").write_text("".join(f"{t} {n}\n" for n, t in enumerate(tokens)), encoding="utf-8")


def _train(config: U2Config) -> dict[str, object]:
    values = asdict(config)
    special = {"<blank>": config.blank, "<sos>": config.sos, "<eos>": config.eos}
    return {
        "encoder": config.encoder,
        "encoder_conf": {name: values[field] for name, field in ENCODER.items()},
        "decoder": config.decoder,
        "decoder_conf": {name: values[field] for name, field in DECODER.items()},
        "cmvn": "global_cmvn",
        "tokenizer_conf": {"special_tokens": special},
    }


def recording(language: Language) -> Audio:
    """Return the question of `examples/` in `language`, about 2 s."""
    with wave.open(str(ROOT / "examples" / RECORDINGS[language])) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return Audio((samples / 32768.0).astype(np.float32), file.getframerate())


def repeated(audio: Audio, seconds: float) -> Audio:
    """Return `audio` again and again, for `seconds`."""
    return Audio(np.resize(audio.samples, int(seconds * audio.sample_rate)), audio.sample_rate)


def decibels(exact: torch.Tensor, other: torch.Tensor) -> float:
    """Return the ratio of `exact` to the error of `other`; 300 for no error."""
    reference, found = exact.double().cpu(), other.double().cpu()
    error = float((reference - found).norm())
    return 300.0 if error == 0 else float(20 * torch.log10(reference.norm() / error))
