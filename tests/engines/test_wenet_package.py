"""WeNet's own package as a recognizer: equal to our own where both run a model, and its defects kept from callers.

Runs where the package is installed (README: WeNet's own package). The checkpoints are tiny and random, or trained on
synthetic words.
"""

import importlib.util
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import tiny_wenet_speech as speech
import torch
import yaml
from support.contexts import HungUpAtWait
from support.places import ROOT
from support.running_server import RunningServer
from support.tiny_wenet_package import KINDS, TAGS, write_model
from support.trained_wenet import write_trained_checkpoint

from benchmarks.wenet_package_side import write_checkpoint
from benchmarks.wenet_sides import SIZES
from mirrorchat.asr import WenetRecognizer
from mirrorchat.audio.encoders import encode_wav
from mirrorchat.audio.samples import Audio
from mirrorchat.concurrency.context import Context
from mirrorchat.engines import Language, Recognizer, Transcript
from mirrorchat.errors import ClientGone, ConfigurationError, ModelNotInstalled
from mirrorchat.wenet.model import U2Config
from mirrorchat.wenet.package import PackageModel, WenetPackageRecognizer
from mirrorchat.wenet.package_load import PackageFiles, load
from mirrorchat.wenet.train_yaml import ELSEWHERE, read_train_yaml

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("wenet") is None, reason="wenet package absent: README says how to install it"
    ),
    # files that the package and Whisper leave open
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

REFERENCE = ROOT / "tests" / "data" / "wenet-reference"
ENGLISH, CHINESE = Language.ENGLISH, Language.CHINESE
VARIANTS = {
    "aishell2": CHINESE, "multi_cn": CHINESE, "wenetspeech": CHINESE, "gigaspeech": ENGLISH, "librispeech": ENGLISH,
    "batch_norm": CHINESE, "transformer": CHINESE, "conv2d8": CHINESE,
}  # fmt: skip
CPU = torch.device("cpu")


def question() -> Audio:
    samples, rate_hz = soundfile.read(REFERENCE / "question.wav", dtype="float32")
    return Audio(samples, rate_hz)


def noise(seconds: float, seed: int = 0) -> Audio:
    samples = 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * 16_000))
    return Audio(samples.astype(np.float32), 16_000)


@contextmanager
def package(name: str, models_dir: Path = REFERENCE, language: Language = CHINESE) -> Iterator[WenetPackageRecognizer]:
    recognizer = WenetPackageRecognizer(name, models_dir, language, threads=1)
    yield recognizer
    recognizer.close()


@contextmanager
def ours(folder: Path, language: Language) -> Iterator[WenetRecognizer]:
    recognizer = WenetRecognizer(folder, language, threads=1, weights="fp32")
    yield recognizer
    recognizer.close()


def hear(recognizer: Recognizer, audio: Audio, language: Language = CHINESE, *hotwords: str) -> Transcript:
    return recognizer.recognize(audio, language, hotwords=hotwords, context=Context())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a tiny model of each kind that only the package runs."""
    base = tmp_path_factory.mktemp("tiny")
    for kind in KINDS:
        write_model(base / kind, kind)
    return base


def timed(transcript: Transcript) -> list[tuple[str, float, float]]:
    return [(token.text, token.start_s, token.end_s) for token in transcript.tokens]


# Equal to our own


@pytest.mark.parametrize("variant", VARIANTS)
def test_text_and_times_are_those_of_our_own_network(variant: str) -> None:
    language = VARIANTS[variant]
    with package(variant, language=language) as theirs, ours(REFERENCE / variant, language) as own:
        for audio in (question(), noise(3.1, 1), noise(0.13, 2)):
            got, wanted = hear(theirs, audio, language), hear(own, audio, language)
            assert got.text == wanted.text
            assert timed(got) == timed(wanted)
            assert all(0 <= token.confidence <= 1 for token in got.tokens)
        assert hear(theirs, question(), language).text


def test_hot_words_are_those_of_our_own_recognizer(tmp_path: Path) -> None:
    folder = write_trained_checkpoint(tmp_path / "en", "en")
    complete(folder)
    takes = speech.held_out("en")
    changed = 0
    with package("en", tmp_path, ENGLISH) as theirs, ours(folder, ENGLISH) as own:
        for take, samples in list(zip(takes, speech.speak(takes), strict=True))[:8]:
            noisy = samples + noise(10.0, 3).samples[: len(samples)] * np.float32(0.3)
            audio = Audio(np.clip(noisy, -1, 1), speech.SAMPLE_RATE)
            words = ("nobody", max(take.words, key=len))
            hot = hear(theirs, audio, ENGLISH, *words)
            assert hot.text == hear(own, audio, ENGLISH, *words).text
            changed += hot.text != hear(theirs, audio, ENGLISH).text
    assert changed


def complete(folder: Path) -> None:
    """Write the statistics in a checkpoint's weights as `global_cmvn`, and the number of bins in `train.yaml`."""
    weights = torch.load(folder / "final.pt", weights_only=True)
    mean, istd = (weights[f"encoder.global_cmvn.{name}"].double().numpy() for name in ("mean", "istd"))
    statistics = {"mean_stat": mean.tolist(), "var_stat": (istd**-2 + mean**2).tolist(), "frame_num": 1}
    (folder / "global_cmvn").write_text(json.dumps(statistics), encoding="utf-8")
    config = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8"))
    config["dataset_conf"] = {"fbank_conf": {"num_mel_bins": 80, "frame_shift": 10, "frame_length": 25, "dither": 1.0}}
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")


def test_the_benchmarks_checkpoint_is_the_network_that_it_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"width": 16, "heads": 2, "encoder_units": 24, "encoder_blocks": 2, "decoder_heads": 2, "decoder_units": 32}
    monkeypatch.setitem(SIZES, "tiny", U2Config(40, 2, 2, **sizes))  # type: ignore[arg-type]
    (tmp_path / "tiny").mkdir()
    write_checkpoint("tiny", tmp_path / "tiny")
    with package("tiny", tmp_path) as theirs, ours(tmp_path / "tiny", CHINESE) as own:
        assert hear(theirs, question()).text == hear(own, question()).text != ""


# What the package does wrong by itself


def test_the_same_audio_gives_the_same_words() -> None:
    assert yaml.safe_load((REFERENCE / "wenetspeech" / "train.yaml").read_text())["dataset_conf"]["fbank_conf"][
        "dither"
    ]
    with package("wenetspeech") as recognizer:
        assert hear(recognizer, question()) == hear(recognizer, question())


def test_nothing_is_computed_with_gradients() -> None:
    loaded = load("multi_cn", REFERENCE, CPU)
    model = PackageModel(loaded.network, CHINESE, CPU)
    outputs: list[bool] = []
    for module in loaded.network.encoder.modules():
        module.register_forward_hook(
            lambda _module, _inputs, output: outputs.append(getattr(output, "requires_grad", False))
        )
    model.recognize([loaded.features(question().resample(16_000).samples)], [None])
    assert outputs and not any(outputs)
    assert not any(weights.requires_grad for weights in loaded.network.parameters())
    assert not loaded.network.training


@pytest.mark.parametrize("kind", ["multi_cn", *KINDS])
def test_too_little_audio_has_no_words(tiny: Path, kind: str) -> None:
    with package(kind, REFERENCE if kind in VARIANTS else tiny) as recognizer:
        for seconds in (0.0, 0.001, 0.03, 0.0599):
            assert hear(recognizer, noise(seconds)).text == ""
        for seconds in (0.06, 0.07, 0.085, 0.1, 0.15):
            assert len(hear(recognizer, noise(seconds)).text) < 100  # it need not be heard; it must not fail


def test_a_recording_of_over_199_seconds_is_heard_whole() -> None:
    samples = question().resample(16_000).samples
    audio = Audio(np.tile(samples, 100)[: 203 * 16_000], 16_000)
    with package("multi_cn") as theirs, ours(REFERENCE / "multi_cn", CHINESE) as own:
        heard = hear(theirs, audio)
        assert heard.text == hear(own, audio).text
        assert heard.tokens[-1].end_s > 199


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_cancelled_turn_goes_on_at_once(at: int) -> None:
    with package("wenetspeech") as recognizer:
        long = Audio(np.tile(question().samples, 20), question().sample_rate)
        context = HungUpAtWait(at)
        with pytest.raises(ClientGone):
            recognizer.recognize(long, CHINESE, context=context)
        assert context.waits == at
        assert hear(recognizer, question()).text


def test_two_callers_hear_what_each_would_alone() -> None:
    audios = [question(), noise(2.0, 5)]
    with package("wenetspeech") as recognizer:
        alone = [hear(recognizer, audio) for audio in audios]
        found: dict[int, list[Transcript]] = {0: [], 1: []}

        def call(index: int) -> None:
            found[index].extend(hear(recognizer, audios[index]) for _ in range(5))

        threads = [threading.Thread(target=call, args=(index,)) for index in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert alone[0] != alone[1]
    assert found == {index: [alone[index]] * 5 for index in found}


def test_a_model_for_one_language_refuses_the_other() -> None:
    with package("multi_cn") as recognizer, pytest.raises(ValueError, match="chinese"):
        hear(recognizer, question(), ENGLISH)


# The other kinds


def own_text(loaded: PackageFiles, audio: Audio, method: str, infos: dict[str, Any]) -> str:
    """Return what the package's decode and tokenizer give."""
    features = torch.from_numpy(loaded.features(audio.resample(16_000).samples)).unsqueeze(0)
    with torch.no_grad():
        result = loaded.network.decode([method], features, torch.tensor([features.shape[1]]), beam_size=10, infos=infos)
    return str(loaded.network.tokenizer.detokenize(list(result[method][0].tokens))[0])


@pytest.mark.parametrize("language", Language)
def test_whisper_hears_the_language_it_is_told(tiny: Path, language: Language) -> None:
    loaded = load("whisper", tiny, CPU)
    infos = {"tasks": ["transcribe"], "langs": [language.code]}
    with package("whisper", tiny, language) as recognizer:
        heard = hear(recognizer, question(), language).text
    assert heard == " ".join(own_text(loaded, question(), "attention", infos).split())
    other = {"tasks": ["transcribe"], "langs": ["en" if language is CHINESE else "zh"]}
    assert heard != " ".join(own_text(loaded, question(), "attention", other).split())


def test_whispers_features_are_whispers(tiny: Path) -> None:
    import whisper

    samples = question().resample(16_000).samples
    wanted = whisper.log_mel_spectrogram(torch.tensor(samples), n_mels=80).T.numpy()
    got = load("whisper", tiny, CPU).features(samples)
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_hypothesis_that_runs_on_is_decoded_in_parts(tiny: Path) -> None:
    """Whisper's decoder has 448 positions; a random one never ends before."""
    loaded = load("whisper", tiny, CPU)
    features = loaded.features(noise(9.2).samples)
    with pytest.raises(AssertionError):
        loaded.network.decode(["attention"], torch.from_numpy(features)[None], torch.tensor([len(features)]), 10)
    model = PackageModel(loaded.network, ENGLISH, CPU)
    [whole] = model.recognize([features], [None])
    parts = model.recognize([features[:896], features[896:]], [None, None])
    assert whole.tokens == parts[0].tokens + parts[1].tokens


def test_paraformer_reads_as_the_package_transcribes_a_file(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchaudio

    def read(path: str) -> tuple[torch.Tensor, int]:  # torchaudio's own needs FFmpeg
        samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
        return torch.from_numpy(samples.T), rate_hz

    monkeypatch.setattr(torchaudio, "load", read)
    audio = question().resample(16_000)
    soundfile.write(tmp_path / "question.wav", audio.samples, 16_000, subtype="FLOAT")
    wanted = load("paraformer", tiny, CPU).network.transcribe(str(tmp_path / "question.wav")).text
    with package("paraformer", tiny) as recognizer:
        assert hear(recognizer, audio).text == wanted != ""


def test_paraformer_hears_nothing_where_it_counts_no_token(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "paraformer", tmp_path / "silent")
    change_weights(tmp_path / "silent", lambda name, weight: weight * 0 - 50 if "cif_output.bias" in name else weight)
    with package("silent", tmp_path) as recognizer:
        assert hear(recognizer, question()) == Transcript("", CHINESE)


@pytest.mark.parametrize("language", Language)
def test_sensevoice_hears_the_language_it_is_told_and_writes_no_tags(tiny: Path, language: Language) -> None:
    loaded = load("sensevoice_small", tiny, CPU)
    wanted = own_text(loaded, question(), "ctc_greedy_search", {"lid": language.code, "itn": "woitn"})
    with package("sensevoice_small", tiny, language) as recognizer:
        heard = hear(recognizer, question(), language)
    for tag in TAGS:
        wanted = wanted.replace(tag, "")
    assert heard.text == "".join(wanted.split()) != ""
    assert heard.tokens == () and heard.confidence is None


def test_firered_reads_with_its_decoder(tiny: Path) -> None:
    loaded = load("firered", tiny, CPU)
    features = torch.from_numpy(loaded.features(noise(3.0).samples)).unsqueeze(0)
    with torch.no_grad():
        [result] = loaded.network.decode(["attention"], features, torch.tensor([features.shape[1]]), 10)["attention"]
    with package("firered", tiny) as recognizer:
        heard = hear(recognizer, noise(3.0)).text
    tokens = loaded.network.tokenizer.ids2tokens(result.tokens)
    assert heard == "".join(token for token in tokens if not token.startswith("<"))


# Names, and what is refused


def change_weights(folder: Path, change: Callable[[str, torch.Tensor], torch.Tensor | None]) -> None:
    weights = torch.load(folder / "final.pt", weights_only=True)
    changed = {name: new for name, old in weights.items() if (new := change(name, old)) is not None}
    torch.save(changed, folder / "final.pt")


def copy_of(variant: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(REFERENCE / variant, tmp_path / variant))


@pytest.mark.parametrize("kind", KINDS)
def test_our_own_loader_says_that_the_package_runs_it(tiny: Path, kind: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        read_train_yaml(tiny / kind / "train.yaml", ["<blank>"] * 60)
    assert refusal.value.message.endswith(ELSEWHERE)
    with package(kind, tiny) as recognizer:
        recognizer.check_ready()


def test_an_unknown_name_is_refused_with_those_that_the_package_knows(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"wenet:whisper is no folder.*paraformer.*whisper-tiny"):
        load("whisper", tmp_path, CPU)


def test_a_name_that_cannot_be_downloaded_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    with pytest.raises(ModelNotInstalled, match=r"wenet:paraformer is not on this machine.*ProxyError"):
        load("paraformer", tmp_path, CPU)


def test_a_name_that_has_been_downloaded_is_loaded(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny / "whisper", tmp_path / ".wenet" / "whiper-tiny")
    assert load("whisper-tiny", tmp_path, CPU).folder == tmp_path / ".wenet" / "whiper-tiny"


def test_a_folder_is_named_in_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copy_of("multi_cn", tmp_path)
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, models_dir in (("multi_cn", tmp_path), (str(folder), REFERENCE), ("~/multi_cn", REFERENCE)):
        assert load(name, models_dir, CPU).folder == folder
    assert before == sorted((path.name, path.read_bytes()) for path in folder.iterdir())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = copy_of("multi_cn", tmp_path)
    (folder / "units.txt").unlink()
    with pytest.raises(ModelNotInstalled, match=r"lacks units\.txt"):
        load("multi_cn", tmp_path, CPU)
    for variant in ("aishell2", "wenetspeech"):  # as before December 2023, and after
        (copy_of(variant, tmp_path) / "global_cmvn").unlink()
        with pytest.raises(ModelNotInstalled, match="lacks global_cmvn"):
            load(variant, tmp_path, CPU)


def test_statistics_that_the_package_would_leave_out_are_refused(tmp_path: Path) -> None:
    folder = copy_of("wenetspeech", tmp_path)
    config = yaml.safe_load((folder / "train.yaml").read_text(encoding="utf-8")) | {"cmvn": None}
    (folder / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="global_cmvn is there, but"):
        load("wenetspeech", tmp_path, CPU)


def test_weights_that_the_package_would_draw_are_refused(tmp_path: Path) -> None:
    folder = copy_of("wenetspeech", tmp_path)
    change_weights(folder, lambda name, weight: None if name.endswith("encoders.1.norm_conv.bias") else weight)
    with pytest.raises(ConfigurationError, match=r"lacks 1 weights, encoder\.encoders\.1\.norm_conv\.bias"):
        load("wenetspeech", tmp_path, CPU)


@pytest.mark.parametrize("content", ["- a list", "dataset_conf: 1", "a: [", "model: nothing_known"])
def test_a_train_yaml_that_the_package_cannot_use_is_refused(tmp_path: Path, content: str) -> None:
    folder = copy_of("wenetspeech", tmp_path)
    (folder / "train.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError):
        load("wenetspeech", tmp_path, CPU)


def test_weights_of_another_shape_are_refused() -> None:
    """The reference's `aishell` has only the beginning of its table of positions."""
    with pytest.raises(ConfigurationError, match=r"cannot load .*aishell.*size mismatch"):
        load("aishell", REFERENCE, CPU)


def test_torch_is_as_before() -> None:
    load("multi_cn", REFERENCE, CPU)
    assert not hasattr(torch.nn.modules.conv, "Optional")


def test_a_server_hears_through_the_package(tmp_path: Path) -> None:
    named = {"english": f"wenet:{REFERENCE / 'librispeech'}"}
    with RunningServer(tmp_path, recognizer=named, device="cpu") as server:
        response = server.ask(encode_wav(question()), "english")
        assert response.status_code == 200, response.text
        engines = response.headers["X-MirrorChat-Engines"]
    with ours(REFERENCE / "librispeech", ENGLISH) as own:
        assert unquote(response.headers["X-MirrorChat-Transcript"]) == hear(own, question(), ENGLISH).text
    assert "recognizer=wenet/librispeech fp32" in engines
