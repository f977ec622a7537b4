"""Write what WeNet itself computes from tiny random checkpoints: the numbers that our own code must reproduce.

    python scripts/make_wenet_reference.py WENET_SOURCE_FOLDER [--clips FOLDER] [--out FOLDER] [VARIANT ...]

Run with the Python of a side environment that has torch, a torchaudio of the same age, soundfile, soxr, librosa,
langid, jieba, sentencepiece, kaldi-native-fbank and PyYAML, and with WeNet's source beside it: it is no dependency.
Each variant is a recipe of WeNet's with small sizes, saved as WeNet saves it (`train.yaml`, `final.pt`, `units.txt`,
`global_cmvn`), with `expected.npz`; the README.md beside the variants describes it. The same seeds give the same bytes
on one machine.
"""

import argparse
import json
import math
import sys
import tempfile
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional, TypeAlias, Union

import kaldi_native_fbank
import numpy as np
import numpy.typing as npt
import soundfile
import soxr
import torch
import yaml
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "data" / "wenet-reference"
SAMPLE_RATE = 16000
BINS = 80
BEAM = 10
CTC_WEIGHT = 0.5
REVERSE_WEIGHT = 0.3
METHODS = ["ctc_greedy_search", "ctc_prefix_beam_search", "attention_rescoring"]
NOISE_FRAMES = (23, 67, 203, 403)
BATCH = ("noise-23", "noise-67", "noise-203")
# Input, encoder frames in a chunk, chunks before it that are seen (-1: all). 403 frames are enough for 4 to hide some.
STREAMS = (("question", 16, -1), ("noise-203", 16, -1), ("noise-403", 16, 4), ("noise-203", 4, 2))
ENCODED_CLIPS = ("zh_wenet_aishell-BAC009S0724W0121", "en_pocketsphinx_cards_001")
KEPT_POSITIONS = 64  # of WeNet's table of 5,000, which is the same in every checkpoint
WORD_PIECES = "▁THE ▁A ▁OF ▁TO ▁AND ▁IN ▁IS ▁IT S ED ING ER ▁ E T A O N I H R L D U C M W Y F G P B V K ' ▁YOU ▁THAT"
CHARACTERS = "一二三四五六七八九十天地人大小上下来去有不在我你他这那是的了好学生语言月日"
NEW_SECTIONS = ("tokenizer", "tokenizer_conf", "ctc", "ctc_conf", "cmvn", "cmvn_conf", "model", "dataset")

FloatArray = npt.NDArray[np.float32]
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]
Config: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A recipe, by its path under WeNet's `examples`, how its release was written, and what is changed in it."""

    name: str
    recipe: str
    seed: int
    old: bool = False  # train.yaml and weights as before December 2023
    bpe: bool = False
    kaldi_cmvn: bool = False
    encoder: Config = field(default_factory=dict)


VARIANTS = (
    Variant("aishell", "aishell/s0/conf/train_u2++_conformer.yaml", 101),
    Variant("aishell2", "aishell2/s0/conf/train_u2++_conformer.yaml", 122, old=True, kaldi_cmvn=True),
    Variant("multi_cn", "multi_cn/s0/conf/train_unified_conformer.yaml", 103, old=True),
    Variant("wenetspeech", "wenetspeech/s0/conf/train_u2++_conformer.yaml", 104, encoder={"attention_heads": 4}),
    Variant("gigaspeech", "gigaspeech/s0/conf/train_u2++_conformer.yaml", 133, old=True, bpe=True),
    Variant("librispeech", "librispeech/s0/conf/train_u2++_conformer.yaml", 126, bpe=True),
    Variant("batch_norm", "aishell/s0/conf/train_conformer.yaml", 127, old=True),
    Variant("transformer", "aishell/s0/conf/train_unified_transformer.yaml", 108),
    Variant("conv2d8", "aishell/s0/conf/train_u2++_conformer.yaml", 109, encoder={"input_layer": "conv2d8"}),
)


@dataclass(frozen=True)
class Wenet:
    """What is called of WeNet's package."""

    init_model: Callable[..., Any]
    context_graph: Callable[..., Any]


def stand_in(name: str, **contents: object) -> None:
    """Put a module with these contents where `import name` finds it."""
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    sys.modules[name] = module


def load_wenet(source: Path) -> Wenet:
    """Import WeNet's package from its source.

    It wants three things that are not there: names that `torch.nn.modules.conv` no longer passes on, torchaudio's
    compiled part, and the list of Whisper's languages.
    """
    for name, value in {"Union": Union, "Optional": Optional, "Tensor": Tensor}.items():
        torch.nn.modules.conv.__dict__.setdefault(name, value)
    nothing = {"_IS_ALIGN_AVAILABLE": False, "_IS_TORCHAUDIO_EXT_AVAILABLE": False}
    stand_in("torchaudio._extension", fail_if_no_align=lambda function: function, **nothing)
    stand_in("whisper")
    stand_in("whisper.tokenizer", LANGUAGES={})
    sys.path.insert(0, str(source))
    from wenet.utils.context_graph import ContextGraph
    from wenet.utils.init_model import init_model

    return Wenet(init_model, ContextGraph)


# Inputs


def fbank(samples: FloatArray) -> FloatArray:
    """Return filter banks (T, 80) of 16 kHz samples as `mirrorchat.wenet.features.fbank` does."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = SAMPLE_RATE
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = BINS
    options.energy_floor = 0.0
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(SAMPLE_RATE, samples * np.float32(32768.0))
    bank.input_finished()
    return np.array([bank.get_frame(i) for i in range(bank.num_frames_ready)], dtype=np.float32)


def read(path: Path) -> FloatArray:
    """Return a sound file's filter banks, resampled as `mirrorchat.audio.samples` does."""
    channels, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    samples = channels.mean(axis=1, dtype=np.float32)
    if rate_hz != SAMPLE_RATE:
        samples = np.clip(soxr.resample(samples, rate_hz, SAMPLE_RATE, quality="HQ"), -1.0, 1.0).astype(np.float32)
    return fbank(samples)


def smooth_noise(frames: int) -> npt.NDArray[np.float16]:
    """Return noise that changes slowly, with the level and spread of speech's filter banks: (frames, 80)."""
    noise = np.random.default_rng(frames).standard_normal((frames + 4, BINS + 7))
    for axis, width in ((0, 5), (1, 8)):
        noise = np.lib.stride_tricks.sliding_window_view(noise, width, axis=axis).mean(axis=-1) * math.sqrt(width)
    return (10.0 + 3.0 * noise).astype(np.float16)


def inputs(clips: Path | None) -> dict[str, FloatArray]:
    """Return every input's features (T, 80), the sounds by the file's name without its suffix."""
    features = {f"noise-{frames}": smooth_noise(frames).astype(np.float32) for frames in NOISE_FRAMES}
    features["question"] = read(OUT / "question.wav")
    paths = sorted(clips.glob("*.wav")) if clips else []
    return features | {path.stem: read(path) for path in paths}


# Checkpoints


def list_tokens(variant: Variant) -> list[str]:
    """Return 40 tokens by number, with `<sos/eos>` where the recipe's age puts it."""
    spoken = WORD_PIECES.split() if variant.bpe else list(CHARACTERS)
    if variant.old:
        return ["<blank>", "<unk>", *spoken, "<sos/eos>"]
    return ["<blank>", "<unk>", "<sos/eos>", *spoken]


def make_config(variant: Variant, source: Path, vocabulary: int) -> Config:
    """Return the recipe with small sizes, and with the entries that WeNet's training adds to `train.yaml`."""
    config: Config = yaml.safe_load((source / "examples" / variant.recipe).read_text(encoding="utf-8"))
    config["encoder_conf"].update(output_size=16, attention_heads=2, linear_units=24, num_blocks=2)
    config["encoder_conf"].update(variant.encoder)
    config["decoder_conf"].update(attention_heads=2, linear_units=32, num_blocks=2)
    if "r_num_blocks" in config["decoder_conf"]:
        config["decoder_conf"].update(num_blocks=1, r_num_blocks=2)
    config.update(input_dim=BINS, output_dim=vocabulary, use_amp=False)
    if variant.old:
        for section in NEW_SECTIONS:
            config.pop(section, None)
        config.update(cmvn_file="data/train/global_cmvn", is_json_cmvn=not variant.kaldi_cmvn)
    else:
        config.update(vocab_size=vocabulary, dtype="fp32", train_engine="torch_ddp", save_states="model_only")
    return config


def write_cmvn(variant: Variant, path: Path) -> None:
    """Write statistics of features with a mean near 10 and a spread near 3.3, each bin's its own."""
    rng = np.random.default_rng(variant.seed)
    mean, spread, count = rng.normal(10.0, 1.0, BINS), rng.normal(3.3, 0.4, BINS), 1_000_003
    first, second = (mean * count).tolist(), ((spread**2 + mean**2) * count).tolist()
    if variant.kaldi_cmvn:
        rows = [" ".join(f"{value:.9g}" for value in row) for row in (first, second)]
        path.write_text(f" [\n  {rows[0]} {count} \n  {rows[1]} 0 ]\n", encoding="utf-8")
    else:
        statistics = {"mean_stat": first, "var_stat": second, "frame_num": count}
        path.write_text(json.dumps(statistics), encoding="utf-8")


def make_model(wenet: Wenet, variant: Variant, config: Config, cmvn: Path) -> Any:
    """Return WeNet's own network with random weights; an older `train.yaml` is told of its CMVN in the newer way."""
    statistics = {"cmvn_file": str(cmvn), "is_json_cmvn": not variant.kaldi_cmvn}
    told = config | {"cmvn": "global_cmvn", "cmvn_conf": statistics}
    torch.manual_seed(variant.seed)
    model, _ = wenet.init_model(argparse.Namespace(checkpoint=None, jit=True), told)
    if model.encoder.global_cmvn is None:
        raise RuntimeError(f"{variant.name}: WeNet has dropped the CMVN")
    randomise(model.eval(), variant.seed)
    level(model)
    return model


def randomise(model: Any, seed: int) -> None:
    """Move what starts as ones and zeros, and make the decoder attend sharply, so that whatever is ignored shows."""
    factors = {"embed.0": 0.25, "linear_q": 3.0, "linear_k": 3.0, "linear_out": 2.0, "output_layer": 1.5}
    generator = torch.Generator().manual_seed(seed)
    for name, weights in model.state_dict().items():
        noise = torch.randn(weights.shape, generator=generator)
        if name.endswith("num_batches_tracked"):
            weights.fill_(1000)
        elif name.endswith("running_var"):
            weights.copy_(0.5 + noise.abs())
        elif weights.dim() == 1 and "global_cmvn" not in name:
            weights.add_(0.2 * noise)
        elif name.startswith("decoder"):
            weights.mul_(next((factor for part, factor in factors.items() if name.endswith(f"{part}.weight")), 1.0))


def level(model: Any) -> None:
    """Make the tokens about equally likely over noise, and blank the likeliest, so that CTC gives varied text."""
    encoded = torch.from_numpy(encode(model, smooth_noise(NOISE_FRAMES[-1]).astype(np.float32)))
    layer = model.ctc.ctc_lo
    layer.weight.mul_(4.0 / layer(encoded).std(dim=0).mean())
    layer.bias.sub_(layer(encoded).mean(dim=0))
    layer.bias[0] += 4.0
    layer.bias[[1, model.sos]] -= 30.0  # nobody says `<unk>` or `<sos/eos>`


def state(model: Any, variant: Variant) -> "OrderedDict[str, Tensor]":
    """Return the weights as `final.pt` holds them.

    Newer checkpoints have the table of positions, here its beginning; those before May 2022 have linear layers that
    nothing uses.
    """
    weights: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in model.state_dict().items():
        if not name.endswith(".pe"):
            weights[name] = tensor.clone()
        elif variant.name == "aishell":
            weights[name] = tensor[:, :KEPT_POSITIONS].clone()
    if variant.name == "aishell2":
        width = model.encoder.output_size()
        layers = [name.removesuffix("norm1.weight") for name in weights if name.endswith("norm1.weight")]
        unused = ["encoder.encoders.0.concat_linear"] + [f"{layer}concat_linear{i}" for layer in layers for i in (1, 2)]
        for name in unused:
            weights[f"{name}.weight"], weights[f"{name}.bias"] = torch.ones(width, 2 * width), torch.ones(width)
    return weights


def write_checkpoint(wenet: Wenet, variant: Variant, source: Path, folder: Path) -> Any:
    """Write a release folder and return the network in it."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = list_tokens(variant)
    config = make_config(variant, source, len(tokens))
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    (folder / "units.txt").write_text("".join(f"{u} {i}\n" for i, u in enumerate(tokens)), encoding="utf-8")
    write_cmvn(variant, folder / "global_cmvn")
    model = make_model(wenet, variant, config, folder / "global_cmvn")
    torch.save(state(model, variant), folder / "final.pt")
    return model


# Expected outputs


def is_bidirectional(model: Any) -> bool:
    return bool(model.is_bidirectional_decoder())


def decode(model: Any, features: FloatArray, **how: Any) -> dict[str, Any]:
    """Return WeNet's results of the three searches on one input, by method."""
    weight = REVERSE_WEIGHT if is_bidirectional(model) else 0.0
    batch, lengths = torch.from_numpy(features).unsqueeze(0), torch.tensor([len(features)])
    settings: Config = {"beam_size": BEAM, "ctc_weight": CTC_WEIGHT, "reverse_weight": weight} | how
    results = model.decode(METHODS, batch, lengths, **settings)
    return {method: results[method][0] for method in METHODS}


def encode(model: Any, features: FloatArray) -> FloatArray:
    """Return the encoder's output (S, D) of one whole input."""
    batch, lengths = torch.from_numpy(features).unsqueeze(0), torch.tensor([len(features)])
    encoded: FloatArray = model.encoder(batch, lengths, decoding_chunk_size=-1)[0][0].numpy()
    return encoded


def ragged(rows: Sequence[Sequence[int]]) -> npt.NDArray[np.int16]:
    """Return rows of token or frame numbers as one array, filled up with -1."""
    filled = np.full((len(rows), max(map(len, rows))), -1, np.int16)
    for row, values in zip(filled, rows, strict=True):
        row[: len(values)] = values
    return filled


def ragged_lists(lists: Sequence[Sequence[Sequence[int]]]) -> npt.NDArray[np.int16]:
    """Return lists of `BEAM` rows each as one array (inputs, BEAM, longest), filled up with -1."""
    filled = ragged([row for rows in lists for row in [*rows, *[()] * (BEAM - len(rows))]])
    return filled.reshape(len(lists), BEAM, -1)


def search_arrays(results: Sequence[dict[str, Any]]) -> Arrays:
    """Return what the searches gave for each input, a row for each."""
    greedy = [result["ctc_greedy_search"] for result in results]
    beam = [result["ctc_prefix_beam_search"] for result in results]
    rescored = [result["attention_rescoring"] for result in results]
    confidences = np.full((len(results), max(len(one.tokens) for one in rescored)), np.nan, np.float32)
    for row, one in zip(confidences, rescored, strict=True):
        row[: len(one.tokens)] = [float(value) for value in one.tokens_confidence]
    return {
        "greedy": ragged([one.tokens for one in greedy]),
        "beam": ragged_lists([one.nbest for one in beam]),
        "beam_scores": np.array([[*one.nbest_scores, *[np.nan] * (BEAM - len(one.nbest))] for one in beam]),
        "beam_times": ragged_lists([one.nbest_times for one in beam]),
        "rescored_index": np.array([b.nbest.index(r.tokens) for b, r in zip(beam, rescored, strict=True)], np.int16),
        "rescored": ragged([one.tokens for one in rescored]),
        "rescored_times": ragged([one.times for one in rescored]),
        "rescored_scores": np.array([one.score for one in rescored], np.float64),
        "rescored_confidences": np.array([float(one.confidence) for one in rescored], np.float64),
        "rescored_token_confidences": confidences,
    }


def whole_arrays(model: Any, features: dict[str, FloatArray]) -> Arrays:
    """Return the outputs for every input read whole."""
    encoded = {name: encode(model, matrix) for name, matrix in features.items()}
    exact = [matrix.astype(np.float64) for matrix in encoded.values()]
    arrays: Arrays = {
        "inputs": np.array(list(features)),
        "frames": np.array([len(matrix) for matrix in features.values()], np.int32),
        "encoded_frames": np.array([len(matrix) for matrix in exact], np.int32),
        "encoded_sums": np.array([matrix.sum() for matrix in exact]),
        "encoded_norms": np.array([np.sqrt((matrix**2).sum()) for matrix in exact]),
    }
    for name, matrix in encoded.items():
        if name == "question" or name.startswith("noise-") or name in ENCODED_CLIPS:
            arrays[f"encoded/{name}"] = matrix
    return arrays | search_arrays([decode(model, matrix) for matrix in features.values()])


def stream_arrays(model: Any, features: dict[str, FloatArray]) -> Arrays:
    """Return the outputs for inputs read in chunks, where the recipe is trained for that."""
    arrays: Arrays = {}
    if not model.encoder.use_dynamic_chunk:
        return arrays
    for name, chunk, left in STREAMS:
        key, batch = f"stream/{name}/{chunk}/{left}", torch.from_numpy(features[name]).unsqueeze(0)
        how = {"decoding_chunk_size": chunk, "num_decoding_left_chunks": left, "simulate_streaming": True}
        arrays[key] = model.encoder.forward_chunk_by_chunk(batch, chunk, left)[0][0].numpy()
        results = decode(model, features[name], **how)
        arrays[f"{key}/greedy"] = np.array(results["ctc_greedy_search"].tokens, np.int16)
        arrays[f"{key}/rescored"] = np.array(results["attention_rescoring"].tokens, np.int16)
    return arrays


def batch_arrays(model: Any, features: dict[str, FloatArray]) -> Arrays:
    """Return the encoder's output for inputs of several lengths together, filled up with zeros."""
    matrices = [torch.from_numpy(features[name]) for name in BATCH]
    lengths = torch.tensor([len(matrix) for matrix in matrices])
    batch = pad_sequence(matrices, batch_first=True)
    encoded, mask = model.encoder(batch, lengths, decoding_chunk_size=-1)
    arrays: Arrays = {
        "batch_inputs": np.array(BATCH),
        "batch": encoded.numpy(),
        "batch_frames": mask.squeeze(1).sum(1).numpy().astype(np.int32),
    }
    if model.encoder.use_dynamic_chunk:  # the same mask in one pass, as in training: chunks of 4, 2 before
        arrays["batch_masked"] = model.encoder(batch, lengths, 4, 2)[0].numpy()
    return arrays


# Hot words


def hot_words(best: Sequence[int], others: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return two runs of two or three tokens that lesser hypotheses have and the best has not."""
    found: list[tuple[int, ...]] = []
    known = {tuple(best[i : i + n]) for n in (2, 3) for i in range(len(best))}
    for size in (2, 3):
        runs = [tuple(hypothesis[i : i + size]) for hypothesis in others for i in range(len(hypothesis) - size + 1)]
        found.append(next(run for run in reversed(runs) if run not in known and run[:2] not in found))
    return found


def context_cases(wenet: Wenet, model: Any, tokens: Sequence[str], features: dict[str, FloatArray]) -> Iterator[Config]:
    """Yield the searches with hot words at two bonuses, and with words that overlap."""
    for name in ("question", "noise-203"):
        hypotheses = decode(model, features[name])["ctc_prefix_beam_search"].nbest
        first, second = hot_words(hypotheses[0], hypotheses)
        overlapping = [first, (*first[-1:], *second), second[:-1]]
        for words, score in (([first, second], 3.0), ([first, second], 6.0), (overlapping, 2.0)):
            case = {"input": name, "words": words, "text": [spell(word, tokens) for word in words], "score": score}
            words_graph = graph(wenet, tokens, words, score)
            yield case | biased(decode(model, features[name], context_graph=words_graph))


def spell(word: Sequence[int], tokens: Sequence[str]) -> str:
    return "".join(tokens[token] for token in word)


def graph(wenet: Wenet, tokens: Sequence[str], words: Sequence[Sequence[int]], score: float) -> Any:
    """Return WeNet's graph of words, which it reads from a file as text."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as file:
        file.writelines(spell(word, tokens) + "\n" for word in words)
        file.flush()
        return wenet.context_graph(file.name, {token: i for i, token in enumerate(tokens)}, context_score=score)


def biased(results: dict[str, Any]) -> Config:
    """Return a search with hot words as plain lists."""
    beam, rescored = results["ctc_prefix_beam_search"], results["attention_rescoring"]
    return {
        "beam": [[*tokens] for tokens in beam.nbest],
        "beam_scores": beam.nbest_scores,
        "rescored": [*rescored.tokens],
        "rescored_score": rescored.score,
    }


def write_variant(wenet: Wenet, variant: Variant, source: Path, out: Path, features: dict[str, FloatArray]) -> None:
    """Write one variant's checkpoint and expected outputs, and print what would make it a poor test."""
    model = write_checkpoint(wenet, variant, source, out / variant.name)
    arrays = whole_arrays(model, features) | stream_arrays(model, features) | batch_arrays(model, features)
    arrays["sos_eos"] = np.array([model.sos, model.eos], np.int16)
    np.savez_compressed(out / variant.name / "expected.npz", allow_pickle=False, **arrays)
    if variant.name == "aishell":
        cases = list(context_cases(wenet, model, list_tokens(variant), features))
        lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
        (out / variant.name / "context.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    report(variant, arrays)


def report(variant: Variant, arrays: Arrays) -> None:
    """Print how varied the texts are and how close the closest two hypotheses are."""
    gaps = -np.diff(arrays["beam_scores"], axis=1)
    lengths = (arrays["greedy"] >= 0).sum(axis=1)
    distinct = len(np.unique(arrays["greedy"])) - 1
    changed = int((arrays["rescored_index"] > 0).sum())
    print(
        f"{variant.name}: {distinct} tokens in the greedy texts, of {lengths.sum()} in "
        f"{arrays['encoded_frames'].sum()} frames; closest hypotheses {np.nanmin(gaps):.1e}; "
        f"rescoring changes {changed} of {len(lengths)}"
    )


def main() -> None:
    """Write the variants named on the command line, all by default."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("variants", nargs="*", default=[variant.name for variant in VARIANTS])
    parser.add_argument("--clips", type=Path)
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    wenet = load_wenet(arguments.source)
    features = inputs(arguments.clips)
    arguments.out.mkdir(parents=True, exist_ok=True)
    noise = {f"noise-{frames}": smooth_noise(frames) for frames in NOISE_FRAMES}
    np.savez_compressed(arguments.out / "noise.npz", allow_pickle=False, **noise)
    with torch.no_grad():
        for variant in VARIANTS:
            if variant.name in arguments.variants:
                write_variant(wenet, variant, arguments.source, arguments.out, features)


if __name__ == "__main__":
    main()
