"""WeNet's checkpoints on disk: both spellings of `train.yaml`, and files that are not right.

The starting points are the tiny checkpoints of `data/wenet-reference`, which are written as WeNet's releases are.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from support.wenet_folder import (
    NEW,
    OLD,
    change_settings,
    change_weights,
    copy_of,
    output,
    refusal,
    settings,
    weights,
    write_settings,
)
from support.wenet_reference import DATA
from torch import Tensor

from mirrorchat.errors import ModelNotInstalled
from mirrorchat.wenet.checkpoint import read_checkpoint
from mirrorchat.wenet.train_yaml import ELSEWHERE, NOWHERE, read_train_yaml


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a copy of the newer checkpoint, to be spoiled."""
    return copy_of(NEW, tmp_path)


def test_a_checkpoint_is_ready_for_inference(folder: Path) -> None:
    checkpoint = read_checkpoint(folder)
    parameters = dict(checkpoint.model.named_parameters())
    assert not checkpoint.model.training
    assert {(p.dtype, p.device.type, p.requires_grad) for p in parameters.values()} == {(torch.float32, "cpu", False)}
    assert len(checkpoint.tokens) == checkpoint.config.vocabulary == 40
    stored = weights(folder)
    assert all(torch.equal(parameter, stored[name]) for name, parameter in parameters.items())


def test_what_no_network_computes_with_is_dropped() -> None:
    """Tables of positions in newer checkpoints; layers for an option that was never on in older ones."""
    assert {"encoder.embed.pos_enc.pe", "decoder.left_decoder.embed.1.pe"} <= set(weights(DATA / NEW))
    old = {"encoder.encoders.0.concat_linear.weight", "decoder.right_decoder.decoders.0.concat_linear2.bias"}
    assert old <= set(weights(DATA / OLD))
    for name in (NEW, OLD):
        kept = set(read_checkpoint(DATA / name).model.state_dict())
        assert kept < set(weights(DATA / name))
        assert not [key for key in kept if key.endswith(".pe") or "concat" in key]


# train.yaml


def test_the_old_spelling_says_the_same(folder: Path) -> None:
    expected = output(read_checkpoint(folder))
    top = settings(folder)
    for key in (
        "cmvn",
        "cmvn_conf",
        "tokenizer",
        "tokenizer_conf",
        "ctc",
        "ctc_conf",
        "model",
        "dataset",
        "vocab_size",
    ):
        top.pop(key, None)
    write_settings(folder, top | {"cmvn_file": "exp/somewhere/global_cmvn", "is_json_cmvn": True, "output_dim": 40})
    checkpoint = read_checkpoint(folder)
    assert torch.equal(output(checkpoint), expected)
    assert (checkpoint.config.sos, checkpoint.config.eos) == (39, 39)


def test_sos_and_eos_are_the_special_tokens_or_the_last_token(folder: Path) -> None:
    assert (read_checkpoint(folder).config.sos, read_checkpoint(folder).config.eos) == (2, 2)
    change_settings(folder, "tokenizer_conf", "special_tokens", value={"<sos>": 5, "<blank>": 0})
    assert (read_checkpoint(folder).config.sos, read_checkpoint(folder).config.eos) == (5, 39)
    change_settings(folder, "tokenizer_conf", "special_tokens", value=None)
    assert (read_checkpoint(folder).config.sos, read_checkpoint(folder).config.eos) == (39, 39)
    change_settings(folder, "model_conf", "special_tokens", value={"<sos>": 3, "<eos>": 4})
    model = read_checkpoint(folder).model
    assert (model.sos_symbol(), model.eos_symbol()) == (3, 4)
    change_settings(folder, "model_conf", "special_tokens", value={"<sos>": 40})
    assert "model_conf.special_tokens.<sos> is 40" in refusal(folder)


def test_the_blank_is_the_settings_or_the_tokens(folder: Path) -> None:
    change_settings(folder, "ctc_conf", "ctc_blank_id", value=3)
    assert "ctc_conf.ctc_blank_id is 3 and units.txt has <blank> at 0" in refusal(folder)
    lines = (folder / "units.txt").read_text(encoding="utf-8").replace("<blank>", "<b>")
    (folder / "units.txt").write_text(lines, encoding="utf-8")
    assert read_checkpoint(folder).config.blank == 3
    change_settings(folder, "ctc_conf", value={})
    assert read_checkpoint(folder).config.blank == 0
    (folder / "units.txt").write_text(lines.replace("<unk> 1", "<blank> 1"), encoding="utf-8")
    assert read_checkpoint(folder).config.blank == 1


def test_what_is_left_out_is_as_wenets_constructors_have_it(tmp_path: Path) -> None:
    path = tmp_path / "train.yaml"
    path.write_text("encoder: conformer\n")
    config = read_train_yaml(path, ["<blank>"] * 9).config
    assert (config.encoder_blocks, config.decoder_blocks, config.reverse_blocks, config.decoder) == (
        6, 6, 0, "bitransformer",
    )  # fmt: skip
    assert (config.kernel, config.convolution_norm, config.causal, config.macaron) == (15, "batch_norm", False, True)
    assert (config.positions, config.attention, config.activation) == ("rel_pos", "rel_selfattn", "swish")
    assert (config.knows_chunks, config.streams, config.vocabulary, config.sos) == (False, False, 9, 8)
    path.write_text("encoder: transformer\ndecoder: transformer\nencoder_conf: {use_dynamic_chunk: true}\n")
    config = read_train_yaml(path, ["<blank>"] * 9).config
    assert (config.positions, config.attention, config.activation) == ("abs_pos", "selfattn", "relu")
    assert config.streams and config.decoder == "transformer"


@pytest.mark.parametrize(
    "path",
    [
        ("lora_conf",),
        ("encoder_conf", "stochastic_depth"),
        ("decoder_conf", "r_num_block"),
        ("model_conf", "warmup"),
        ("ctc_conf", "blank"),
        ("cmvn_conf", "norm_var"),
        ("dataset_conf", "fbank_conf", "low_freq"),
    ],
)
def test_a_key_that_is_not_understood_is_an_error_by_name(folder: Path, path: tuple[str, ...]) -> None:
    change_settings(folder, *path, value=None)
    message = refusal(folder)
    assert "train.yaml: " + ".".join(path) + " is not understood" in message


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("encoder",), "squeezeformer", "encoder is 'squeezeformer'; it must be conformer or transformer"),
        (("decoder",), None, "decoder is None; it must be bitransformer or transformer"),
        (("model",), "paraformer", "model is 'paraformer'"),
        (("ctc",), [], "ctc is not a plain value"),
        (("cmvn",), "local", "cmvn is 'local'"),
        (("input_dim",), 40, "input_dim is 40; it must be 80"),
        (("output_dim",), 41, "output_dim is 41 and units.txt lists 40 tokens"),
        (("vocab_size",), 39, "vocab_size is 39 and units.txt lists 40 tokens"),
        (("encoder_conf", "input_layer"), "linear", "encoder_conf.input_layer is 'linear'; it must be conv2d or"),
        (("encoder_conf", "num_blocks"), 10**9, "encoder_conf.num_blocks is 1000000000; it must be a whole number"),
        (("encoder_conf", "num_blocks"), True, "encoder_conf.num_blocks is True"),
        (("encoder_conf", "output_size"), "16", "encoder_conf.output_size is '16'"),
        (("encoder_conf", "output_size"), 17, "does not divide width"),
        (("encoder_conf", "normalize_before"), False, "encoder_conf.normalize_before is False"),
        (("encoder_conf", "causal"), 1, "encoder_conf.causal is 1"),
        (("encoder_conf", "causal"), False, "kernel is 8"),
        (("encoder_conf", "layer_norm_type"), "rms_norm", "encoder_conf.layer_norm_type is 'rms_norm'"),
        (("encoder_conf", "norm_eps"), 1e-6, "encoder_conf.norm_eps is 1e-06"),
        (("decoder_conf", "src_attention"), False, "decoder_conf.src_attention is False"),
        (("decoder_conf", "tie_word_embedding"), True, "decoder_conf.tie_word_embedding is True"),
        (("model_conf", "apply_non_blank_embedding"), True, "model_conf.apply_non_blank_embedding is True"),
        (("dataset_conf", "fbank_conf", "num_mel_bins"), 40, "dataset_conf.fbank_conf.num_mel_bins is 40"),
        (("dataset_conf", "fbank_conf", "frame_shift"), 20, "dataset_conf.fbank_conf.frame_shift is 20"),
        (("dataset_conf", "resample_conf", "resample_rate"), 8000, "resample_rate is 8000; it must be 16000"),
        (("dataset_conf", "feats_type"), "mfcc", "dataset_conf.feats_type is 'mfcc'; it must be fbank"),
        (("collate_conf", "feature_extraction_conf", "using_pitch"), True, "feature_extraction_conf.using_pitch"),
        (("encoder_conf",), "large", "encoder_conf is not a list of settings"),
        (("tokenizer_conf", "special_tokens"), 7, "tokenizer_conf.special_tokens is not a list of settings"),
    ],
)  # fmt: skip
def test_a_value_that_no_network_here_has_is_named(
    folder: Path, path: tuple[str, ...], value: object, message: str
) -> None:
    change_settings(folder, *path, value=value)
    assert message in refusal(folder)


TWO_LAYERS = {"attention_heads": 2, "linear_units": 24, "num_blocks": 2, "output_size": 16}
EFFICIENT = {"stride_layer_idx": [3, 7], "stride": [2, 2], "group_size": 3}
MEL = {"feats_type": "log_mel_spectrogram", "log_mel_spectrogram_conf": {"num_mel_bins": 128}}


@pytest.mark.parametrize(
    ("changes", "runs"),
    [
        ({("encoder",): "e_branchformer", ("encoder_conf",): TWO_LAYERS | {"cgmlp_linear_units": 24}}, True),
        ({("encoder",): "squeezeformer", ("encoder_conf",): TWO_LAYERS | {"reduce_idx": 1}}, True),
        ({("encoder",): "zipformer", ("encoder_conf",): TWO_LAYERS}, False),
        ({("encoder",): "efficientConformer", ("encoder_conf",): {"group_layer_idx": [3, 7]} | EFFICIENT}, True),
        ({("encoder",): "efficientConformer", ("encoder_conf",): {"group_layer_idx": [0, 3]} | EFFICIENT}, False),
        ({("encoder",): "efficientConformer", ("encoder_conf", "efficient_conf"): EFFICIENT}, False),
        ({("model",): "ctl_model", ("encoder",): "dual_conformer"}, True),
        ({("joint",): "transducer_joint", ("predictor",): "rnn", ("model",): "transducer"}, True),
        ({("joint",): "transducer_joint", ("encoder_conf", "input_layer"): "conv2d7", ("model",): "transducer"}, False),
        ({("model",): "paraformer", ("encoder",): "sanm_encoder", ("input_dim",): 560}, True),
        ({("model",): "sensevoice_small", ("encoder",): "sanm_encoder_with_tp", ("decoder",): None}, True),
        ({("decoder",): None}, False),
        ({("model",): "whisper", ("dataset_conf",): MEL, ("input_dim",): 128}, True),
        ({("encoder_conf", "layer_norm_type"): "rms_norm", ("encoder_conf", "mlp_type"): "gated"}, True),
        ({("encoder_conf", "layer_norm_type"): "rms_norm", ("encoder_conf", "head_dim"): 4}, False),
        ({("encoder_conf", "pos_enc_layer_type"): "rope_pos"}, True),
        ({("encoder_conf", "stochastic_depth"): 0.1}, False),
        ({("encoder_conf", "num_blocks"): "many"}, False),
        ({("decoder_conf", "src_key_bias"): False}, False),
        ({("decoder",): "transformer", ("decoder_conf",): {"src_key_bias": False}}, True),
        ({("model_conf", "apply_non_blank_embedding"): True}, True),
        ({("model_conf", "warmup"): 3}, False),
        ({("dataset_conf", "fbank_conf", "num_mel_bins"): 40, ("input_dim",): 40}, True),
        ({("input_dim",): 40}, False),
        ({("dataset_conf", "resample_conf", "resample_rate"): 8000}, False),
        ({("lora_conf",): {"rank": 8}}, False),
    ],
)  # fmt: skip
def test_it_is_said_whether_wenets_own_package_runs_another_network(
    folder: Path, changes: dict[tuple[str, ...], object], runs: bool
) -> None:
    for path, value in changes.items():
        change_settings(folder, *path, value=value)
    message = refusal(folder)
    assert message.endswith(ELSEWHERE if runs else NOWHERE)
    assert 'recognizer = "wenet:FOLDER"' in message and "install the model again" not in message


def test_settings_of_the_training_change_nothing(folder: Path) -> None:
    expected = read_checkpoint(folder)
    for path in (("optim_conf", "lr"), ("encoder_conf", "dropout_rate"), ("model_conf", "ctc_weight"), ("dtype",)):
        change_settings(folder, *path, value=0.25)
    change_settings(folder, "dataset_conf", "anything", value={"at": "all"})
    found = read_checkpoint(folder)
    assert found.config == expected.config and torch.equal(output(found), output(expected))


def test_a_conformer_without_positions_has_the_attention_of_its_weights(folder: Path) -> None:
    """WeNet once chose it by the positions, whatever `selfattention_layer_type` said."""
    change_settings(folder, "encoder_conf", "pos_enc_layer_type", value="no_pos")
    assert read_checkpoint(folder).config.attention == "rel_selfattn"

    def forget_positions(table: dict[str, Tensor]) -> None:
        for name in [name for name in table if "linear_pos" in name or "pos_bias" in name]:
            del table[name]

    change_weights(folder, forget_positions)
    assert read_checkpoint(folder).config.attention == "selfattn"


# Weights


@pytest.mark.parametrize("missing", ["train.yaml", "units.txt", "final.pt"])
def test_a_missing_file_is_named(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelNotInstalled, match=f"{NEW} lacks {missing}"):
        read_checkpoint(folder)


def test_safetensors_are_preferred(folder: Path) -> None:
    expected = output(read_checkpoint(folder))
    safetensors.torch.save_file(weights(folder), folder / "final.safetensors")
    (folder / "final.pt").write_bytes(b"not read")
    assert torch.equal(output(read_checkpoint(folder)), expected)
    whole = (folder / "final.safetensors").read_bytes()
    for cut in (b"", whole[:7], whole[: len(whole) // 2]):
        (folder / "final.safetensors").write_bytes(cut)
        assert "final.safetensors is damaged or cannot be read" in refusal(folder)


def test_other_types_of_numbers_become_float32(folder: Path) -> None:
    expected = output(read_checkpoint(folder))
    change_weights(folder, lambda table: table.update({name: value.double() for name, value in table.items()}))
    assert torch.equal(output(read_checkpoint(folder)), expected)
    folder = copy_of("batch_norm", folder)
    # What averaging makes of batch norm's counter.
    counter = "encoder.encoders.0.conv_module.norm.num_batches_tracked"
    change_weights(folder, lambda table: table.update({counter: torch.tensor(12.5)}))
    assert read_checkpoint(folder).model.state_dict()[counter].dtype == torch.int64


@pytest.mark.parametrize("kept", [0, 1, 100, 50_000, -1])
def test_cut_weights_are_refused(folder: Path, kept: int) -> None:
    whole = (folder / "final.pt").read_bytes()
    (folder / "final.pt").write_bytes(whole[:kept])
    assert "final.pt is damaged or no torch checkpoint" in refusal(folder)


@pytest.mark.parametrize("content", [[1, 2], {"model": 1}, {1: torch.zeros(1)}, torch.zeros(3), None])
def test_what_is_no_table_of_weights_is_refused(folder: Path, content: object) -> None:
    torch.save(content, folder / "final.pt")
    assert "final.pt is not a WeNet checkpoint" in refusal(folder)


class Trap:
    """Unpickled by Python's own unpickler, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], object], tuple[Path]]:
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(folder: Path, tmp_path: Path) -> None:
    torch.save({"ctc.ctc_lo.bias": Trap(tmp_path / "sprung")}, folder / "final.pt")
    assert "final.pt is damaged or no torch checkpoint" in refusal(folder)
    assert not (tmp_path / "sprung").exists()
    torch.load(folder / "final.pt", weights_only=False)
    assert (tmp_path / "sprung").exists()  # the trap is one


def test_a_compressed_archive_is_not_unpacked(folder: Path) -> None:
    with zipfile.ZipFile(folder / "final.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "final.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    assert "it is compressed" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table: table.pop("ctc.ctc_lo.bias"), "final.pt lacks ctc.ctc_lo.bias; it is not the model of"),
        (lambda table: table.update({"ctc.more": torch.zeros(1)}), "holds what the network does not have: ctc.more;"),
        (lambda table: table.update({f"m{i}": torch.zeros(1) for i in range(9)}), "m0, m1, m2 and 6 more"),
        (lambda table: table.update({"ctc.ctc_lo.bias": torch.zeros(41)}), "is of shape (41,), not (40,)"),
        (lambda table: table.update({"ctc.ctc_lo.bias": torch.zeros(1).expand(40)}), "no plain floating-point"),
        (lambda table: table.update({"ctc.ctc_lo.bias": torch.zeros(40).to_sparse()}), "no plain floating-point"),
        (lambda table: table.update({"ctc.ctc_lo.bias": torch.zeros(40).int()}), "no plain floating-point"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    change_weights(folder, change)
    assert message in refusal(folder)


def test_settings_of_another_network_are_refused(folder: Path) -> None:
    """A width that the weights do not have is found before any memory is taken for it."""
    change_settings(folder, "encoder_conf", "output_size", value=16384)
    assert "is of shape" in refusal(folder)
    change_settings(folder, "decoder_conf", "r_num_blocks", value=3)
    assert "final.pt lacks decoder.right_decoder.decoders.2." in refusal(folder)


# Text files


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is not a list of settings"),
        (b"- a\n- b\n", "the file is not a list of settings"),
        (b"1: 2\n", "the file is not a list of settings"),
        (b"encoder: [", "is not YAML"),
        (b"encoder: !!python/object/apply:os.getcwd []\n", "is not YAML"),
        (b"[" * 20_000, "is not YAML"),
        (b"epoch: " + b"9" * 5000, "is not YAML"),
        (b"a: &a {x: 1}\nb: {<<: *a}\n", "merge keys are not read"),
        ("encoder: 今".encode("gb18030"), "is not UTF-8 text"),
        (b"#" * 1_000_001, "is larger than 1 MB"),
    ],
)
def test_spoilt_settings_are_refused(folder: Path, content: bytes, message: str) -> None:
    (folder / "train.yaml").write_bytes(content)
    found = refusal(folder)
    assert "train.yaml" in found and message in found and "install the model again" in found


def test_a_value_without_end_is_not_printed(folder: Path) -> None:
    """Ten lines of references unfold to 10 ** 10 entries if anything walks them."""
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 11)]
    (folder / "train.yaml").write_text("\n".join(["encoder_conf:", *(f"  {line}" for line in lines)]) + "\n")
    assert "encoder_conf.a0 is not understood" in refusal(folder)
    (folder / "train.yaml").write_text("\n".join(["optim_conf:", *(f"  {line}" for line in lines), "encoder: *a10"]))
    assert "encoder is not a plain value" in refusal(folder)


def test_a_folder_in_the_place_of_a_file_is_missing(folder: Path) -> None:
    (folder / "units.txt").unlink()
    (folder / "units.txt").mkdir()
    with pytest.raises(ModelNotInstalled, match=r"lacks units\.txt"):
        read_checkpoint(folder)


def test_huge_tokens_are_refused(folder: Path) -> None:
    (folder / "units.txt").write_text("<blank> 0\n" + "a 1\n" * 300_000)
    assert "units.txt is larger than 1 MB" in refusal(folder)
    (folder / "units.txt").write_text("<blank> 0\na " + "9" * 5000 + "\n")
    assert "units.txt, line 2" in refusal(folder)


def test_nothing_is_written(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    checkpoint = read_checkpoint(folder)
    checkpoint.model.ctc.ctc_lo.bias.data.add_(1.0)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("name", ["final.pt", "final.safetensors"])
def test_a_model_outlives_its_files(folder: Path, name: str) -> None:
    """A new version that is copied over the old one must not change the words of the server that is running."""
    safetensors.torch.save_file(weights(folder), folder / "final.safetensors")
    if name == "final.pt":
        (folder / "final.safetensors").unlink()
    checkpoint = read_checkpoint(folder)
    before = output(checkpoint)
    with (folder / name).open("r+b") as file:
        file.write(b"\xff" * (folder / name).stat().st_size)
    assert torch.equal(output(checkpoint), before)
