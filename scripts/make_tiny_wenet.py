"""Trains the tiny WeNet models of the tests, and writes them in the format of the releases: `final.zip`, `units.txt`.

    python scripts/make_tiny_wenet.py [en] [zh]

Each is a U2++ network with half a million weights and the hundred words of `tiny_wenet_speech.py`. It is trained on
speech of eSpeak NG with CTC and both attention decoders, and with noise, gain and SpecAugment (arXiv 1904.08779), so
that it recognizes voices outside of the training. Linear layers are stored as int8, as in the releases. The same seed
on the same computer gives the same weights. Training took 12 (Chinese) and 14 (English) minutes on two busy cores.
"""

import argparse
import random
import time
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tiny_wenet_speech as speech
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language
from mirrorchat.wenet.features import fbank
from mirrorchat.wenet.model import GlobalCMVN, U2Config, U2Model, reverse_tokens

DATA = Path(__file__).parent.parent / "tests" / "data" / "wenet-tiny"
TAKES = 6000
STEPS: dict[speech.Code, int] = {"en": 3200, "zh": 2000}  # the short words of English take longer
BATCH = 16
SEED = 1
PEAK_RATE = 2.5e-3
CTC_SHARE = 0.5
REVERSE_SHARE = 0.3
IGNORED = -1
_SUFFIXES = ("'s", "ing", "er", "s")


def split_word(word: str, language: speech.Code) -> list[str]:
    """Return the tokens of a word: Chinese characters, or an English stem with `▁` before it and perhaps a suffix."""
    if language == "zh":
        return list(word)
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) >= len(suffix) + 2:
            return ["▁" + word.removesuffix(suffix), suffix]
    return ["▁" + word]


def list_tokens(language: speech.Code) -> list[str]:
    """Return every token by number. The two languages keep `<sos/eos>` where WeNet's older and newer recipes do."""
    spoken = {token for word in speech.vocabulary(language) for token in split_word(word, language)}
    if language == "zh":
        return ["<blank>", "<unk>", *sorted(spoken), "<sos/eos>"]
    return ["<blank>", "<unk>", "<sos/eos>", *sorted(spoken)]


@dataclass(frozen=True)
class Example:
    """One training take: filter banks (T, 80) float32 and token numbers (U) int64."""

    features: Tensor
    tokens: Tensor


def make_examples(takes: Sequence[speech.Take], tokens: Sequence[str]) -> list[Example]:
    """Speak the takes and compute their features."""
    numbers = {token: number for number, token in enumerate(tokens)}
    examples = []
    for take, samples in zip(takes, speech.speak(takes), strict=True):
        spelled = [numbers[token] for word in take.words for token in split_word(word, take.language)]
        examples.append(Example(torch.from_numpy(fbank(samples)), torch.tensor(spelled, dtype=torch.long)))
    return examples


def batches(examples: Sequence[Example], rng: random.Random) -> Iterator[list[Example]]:
    """Yield batches of similar length in random order, without end."""
    while True:
        order = sorted(examples, key=lambda example: len(example.features) + rng.randint(0, 40))
        groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        rng.shuffle(groups)
        yield from groups


def jitter(features: Tensor, mean: Tensor, rng: random.Random) -> Tensor:
    """Return features with random gain and tilt, and with up to two masked bands and one masked time span."""
    frames, bins = features.shape
    tilt = torch.linspace(-1.0, 1.0, bins) * rng.uniform(-1.0, 1.0)
    features = features + rng.uniform(-1.5, 1.5) + tilt
    for _ in range(2):
        width, start = rng.randint(0, 10), rng.randint(0, bins - 10)
        features[:, start : start + width] = mean[start : start + width]
    width, start = rng.randint(0, 6), rng.randint(0, max(frames - 6, 0))
    features[start : start + width] = mean
    return features


def loss_of(model: U2Model, batch: Sequence[Example], mean: Tensor, rng: random.Random) -> Tensor:
    """Return the joint loss of U2++: CTC and the label-smoothed cross entropy of both decoders, per utterance."""
    features = [jitter(example.features.clone(), mean, rng) for example in batch]
    lengths = torch.tensor([len(item) for item in features])
    chunk = rng.randint(6, 25) if rng.random() < 0.5 else -1  # sometimes in chunks, for streaming
    encoded, mask = model.encoder(pad_sequence(features, batch_first=True), lengths, chunk)
    counts = torch.tensor([len(example.tokens) for example in batch])
    targets = torch.cat([example.tokens for example in batch])
    ctc = nn.functional.ctc_loss(
        model.ctc.log_softmax(encoded).transpose(0, 1), targets, mask.sum(dim=(1, 2)), counts,
        reduction="sum", zero_infinity=True,
    ) / len(batch)  # fmt: skip
    attention = attention_loss(model, batch, encoded, mask, counts + 1) / len(batch)
    return CTC_SHARE * ctc + (1.0 - CTC_SHARE) * attention


def attention_loss(model: U2Model, batch: Sequence[Example], encoded: Tensor, mask: Tensor, lengths: Tensor) -> Tensor:
    """Return the summed cross entropy of both decoders. `lengths` (B) include the end token."""
    start = torch.tensor([model.sos])
    given = pad_sequence([torch.cat((start, example.tokens)) for example in batch], True, float(model.eos))
    reverse = reverse_tokens(given, lengths, model.eos)
    outputs = model.decoder(encoded, mask, given, lengths, reverse, REVERSE_SHARE)
    total = torch.zeros([])
    for logits, shown, share in zip(outputs, (given, reverse), (1.0 - REVERSE_SHARE, REVERSE_SHARE), strict=True):
        wanted = torch.full_like(shown, IGNORED)
        wanted[:, :-1] = shown[:, 1:]
        wanted[torch.arange(len(batch)), lengths - 1] = model.eos
        place = torch.arange(wanted.shape[1]).unsqueeze(0)
        wanted[place >= lengths.unsqueeze(1)] = IGNORED
        total = total + share * nn.functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=0.1
        )
    return total


def build(tokens: Sequence[str], examples: Sequence[Example]) -> U2Model:
    """Return an untrained network with the CMVN of the examples."""
    frames = torch.cat([example.features for example in examples]).clamp(min=0.0)
    config = U2Config(
        vocabulary=len(tokens), sos=tokens.index("<sos/eos>"), eos=tokens.index("<sos/eos>"), width=64, heads=4,
        encoder_units=192, encoder_blocks=4, kernel=8, decoder_heads=4, decoder_units=128, decoder_blocks=1,
        reverse_blocks=1, dropout=0.05,
    )  # fmt: skip
    return U2Model(config, GlobalCMVN(frames.mean(dim=0), 1.0 / frames.std(dim=0)))


def train(model: U2Model, examples: Sequence[Example], steps: int, seed: int) -> None:
    """Train in place with Adam, a short warm-up and a cosine schedule down to zero."""
    rng = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, total_steps=steps, pct_start=0.1)
    mean = model.get_buffer("encoder.global_cmvn.mean")
    started, recent = time.monotonic(), 0.0
    model.train()
    for step, batch in zip(range(1, steps + 1), batches(examples, rng), strict=False):
        loss = loss_of(model, batch, mean, rng)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        recent += loss.item()
        if step % 100 == 0:
            print(f"step {step:5d}  loss {recent / 100:7.3f}  {time.monotonic() - started:6.0f} s", flush=True)
            recent = 0.0
    model.eval()


def export(model: U2Model, tokens: Sequence[str], folder: Path) -> None:
    """Write `model` like WeNet's runtime export: linear layers in int8, everything in TorchScript."""
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        # PyTorch is moving its quantization to another package; the releases are made with this one.
        warnings.filterwarnings("ignore", message=r"torch\.ao\.quantization is deprecated", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions", category=UserWarning)
        quantize = torch.ao.quantization.quantize_dynamic
        quantized = quantize(model, {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-untyped-call]
    save_script(quantized, folder / "final.zip")
    lines = [f"{token} {number}\n" for number, token in enumerate(tokens)]
    (folder / "units.txt").write_text("".join(lines), encoding="utf-8")


def save_script(model: nn.Module, path: Path) -> None:
    """Write `model` to `path` as TorchScript without debug records, which name local folders."""
    with warnings.catch_warnings():
        # PyTorch calls TorchScript deprecated; it is the format of WeNet's releases.
        warnings.filterwarnings("ignore", message=r"`torch\.jit\.script", category=DeprecationWarning)
        torch.jit.script(model).save(str(path))  # type: ignore[no-untyped-call]
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".debug_pkl")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(zipfile.ZipInfo(name), content)  # ZipInfo without the present date


def edit_distance(wanted: Sequence[str], heard: Sequence[str]) -> int:
    """Return the Levenshtein distance of two sequences."""
    row = list(range(len(heard) + 1))
    for i, want in enumerate(wanted, start=1):
        previous, row[0] = row[0], i
        for j, got in enumerate(heard, start=1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (want != got))
    return row[-1]


def report(folder: Path, language: speech.Code) -> None:
    """Print the error rate (WER in English, CER in Chinese) of the written model on each held-out kind."""
    recognizer = WenetRecognizer(folder, Language.parse(language), threads=1)
    errors: dict[str, npt.NDArray[np.int64]] = {}
    takes = speech.held_out(language)
    for take, samples in zip(takes, speech.speak(takes), strict=True):
        heard = recognizer.recognize(Audio(samples, speech.SAMPLE_RATE), recognizer.language, context=Context()).text
        wanted: Sequence[str] = take.words if language == "en" else take.text
        got: Sequence[str] = heard.lower().split() if language == "en" else heard
        wrong = edit_distance(wanted, got)
        if wrong:
            print(f"  {take.kind} {take.voice}: {take.text!r} heard as {heard!r}")
        errors[take.kind] = errors.get(take.kind, np.zeros(2, np.int64)) + np.array([wrong, len(wanted)])
    for kind, (wrong, count) in errors.items():
        print(f"{language} {kind}: {wrong}/{count} = {wrong / count:.1%}")


def main() -> None:
    """Train and write the models of the command line, by default both."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("languages", nargs="*", default=["en", "zh"], choices=["en", "zh"])
    parser.add_argument("--out", type=Path, default=DATA)
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for language in arguments.languages:
        started = time.monotonic()
        torch.manual_seed(arguments.seed)
        tokens = list_tokens(language)
        examples = make_examples(speech.training(language, TAKES, arguments.seed), tokens)
        print(f"{language}: {len(examples)} takes spoken in {time.monotonic() - started:.0f} s, {len(tokens)} tokens")
        model = build(tokens, examples)
        train(model, examples, STEPS[language], arguments.seed)
        export(model, tokens, arguments.out / language)
        size = (arguments.out / language / "final.zip").stat().st_size
        print(f"{language}: {time.monotonic() - started:.0f} s, {size} bytes")
        report(arguments.out / language, language)


if __name__ == "__main__":
    main()
