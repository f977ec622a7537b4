"""The reader of WeNet's `train.yaml`, in the old and the new spelling, which gives the configuration of the network.

The old spelling (until December 2023, so in the released checkpoints) has `cmvn_file` and `is_json_cmvn` at the top
level; the new one has `cmvn`, `cmvn_conf`, `tokenizer_conf` and `ctc_conf`. Missing keys have the defaults of WeNet's
constructors, which differ from those of its recipes. An unknown key could change the network, so it is an error that
names the key. Keys that matter only in training are known and ignored.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mirrorchat.errors import ConfigurationError
from mirrorchat.wenet.encoder import CONVOLUTION_NORMS, DECODERS, ENCODERS, SUBSAMPLINGS, U2Config
from mirrorchat.wenet.features import BINS, FRAME_LENGTH_MS, FRAME_SHIFT_MS, SAMPLE_RATE
from mirrorchat.wenet.layers import ACTIVATIONS, ATTENTIONS, POSITIONS

TEXT_LIMIT_BYTES = 1_000_000
REINSTALL = "install the model again"
ELSEWHERE = 'WeNet\'s own package runs it: recognizer = "wenet:FOLDER", with train.yaml, final.pt and units.txt in it'
NOWHERE = 'WeNet\'s own package (recognizer = "wenet:FOLDER") does not run it, either'


@dataclass(frozen=True)
class TrainYaml:
    """The content of a `train.yaml`: the configuration of the network, and whether it normalizes features with CMVN."""

    config: U2Config
    uses_cmvn: bool


# A reader returns the value as the network needs it, or raises ValueError with the allowed values.
_Reader = Callable[[object], Any]


_Elsewhere = tuple[object, ...] | type


@dataclass(frozen=True)
class _Key:
    """The reader of a key and the field of U2Config that the key sets; a key without a field is only checked.

    Of the values that the reader refuses, WeNet's own package runs those in `elsewhere`, or all of that type.
    """

    read: _Reader
    field: str | None = None
    elsewhere: _Elsewhere = ()


@dataclass(frozen=True)
class _Refusal:
    """Why no network here has a setting, and whether WeNet's own package runs such a network."""

    text: str
    runs_elsewhere: bool


def _integer(low: int, high: int) -> _Reader:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _one_of(*choices: object) -> _Reader:
    def read(value: object) -> object:
        if not _is_one_of(value, choices):
            raise ValueError(f"must be {' or '.join(str(choice) for choice in choices)}: this server runs no other")
        return value

    return read


def _is_one_of(value: object, choices: Sequence[object]) -> bool:
    return any(type(value) is type(choice) and value == choice for choice in choices)


def _is_among(value: object, choices: _Elsewhere) -> bool:
    return type(value) is choices if isinstance(choices, type) else _is_one_of(value, choices)


def _anything(value: object) -> object:
    return value


def _only(elsewhere: _Elsewhere | None = None, /, **values: object) -> dict[str, _Key]:
    """Return keys that may only have the value that all of WeNet's recipes leave unchanged.

    WeNet's own package runs the values in `elsewhere`; without that, all of the same type.
    """
    return {
        key: _Key(_one_of(value), elsewhere=type(value) if elsewhere is None else elsewhere)
        for key, value in values.items()
    }


def _ignored(*keys: str) -> dict[str, _Key]:
    return {key: _Key(_anything) for key in keys}


_FLAG = _one_of(True, False)
_SIZE = _integer(1, 16384)
_BLOCKS = _integer(1, 128)
_TOKEN = _integer(0, 1_000_000)

# Keys that can change the arithmetic of the network, but do not in any recipe for these kinds of network.
_PLAIN_LAYERS = (
    _only(normalize_before=True, query_bias=True, key_bias=True, value_bias=True, norm_eps=1e-5, mlp_bias=True)
    | _only(("rms_norm",), layer_norm_type="layer_norm")
    | _only(("gated", "moe"), mlp_type="position_wise_feed_forward")
    | _only((), n_kv_head=None, head_dim=None, concat_after=False)
)
_OTHER_ACTIVATIONS = ("hardtanh", "tanh", "selu")
# Keys that matter in training only, or for a kind of layer that _PLAIN_LAYERS excludes.
_LAYER_TRAINING = _ignored(
    "dropout_rate", "positional_dropout_rate", "gradient_checkpointing", "use_sdpa", "n_expert", "n_expert_activated"
)
_OTHER_ATTENTIONS = ("shaw_rel_selfattn", "rope_abs_selfattn", "firered_rel_selfattn")
_ENCODER_KEYS: dict[str, _Key] = {
    "output_size": _Key(_SIZE, "width"),
    "attention_heads": _Key(_SIZE, "heads"),
    "linear_units": _Key(_SIZE, "encoder_units"),
    "num_blocks": _Key(_BLOCKS, "encoder_blocks"),
    "input_layer": _Key(
        _one_of(*SUBSAMPLINGS), "subsampling", ("linear", "conv1d2", "conv2d2", "stack_n_frames", "firered_conv2d4")
    ),
    "pos_enc_layer_type": _Key(
        _one_of(*POSITIONS),
        "positions",
        ("embed", "abs_pos_whisper", "embed_learnable_pe", "abs_pos_paraformer", "rope_pos", "rel_pos_firered"),
    ),
    "activation_type": _Key(_one_of(*ACTIVATIONS), "activation", _OTHER_ACTIVATIONS),
    "static_chunk_size": _Key(_integer(0, 16384), "static_chunk", (-1,)),
    "use_dynamic_chunk": _Key(_FLAG, "dynamic_chunk"),
    **_PLAIN_LAYERS,
    **_LAYER_TRAINING,
    **_ignored("attention_dropout_rate", "use_dynamic_left_chunk"),
}
_KEYS_OF_ENCODER: dict[str, dict[str, _Key]] = {
    "transformer": _ENCODER_KEYS
    | {"selfattention_layer_type": _Key(_one_of("selfattn"), "attention", _OTHER_ATTENTIONS)},
    "conformer": _ENCODER_KEYS
    | {
        "selfattention_layer_type": _Key(_one_of(*ATTENTIONS), "attention", _OTHER_ATTENTIONS),
        "macaron_style": _Key(_FLAG, "macaron"),
        "use_cnn_module": _Key(_FLAG, "convolution"),
        "cnn_module_kernel": _Key(_integer(1, 1024), "kernel"),
        "cnn_module_norm": _Key(_one_of(*CONVOLUTION_NORMS), "convolution_norm", ("rms_norm",)),
        "causal": _Key(_FLAG, "causal"),
    }
    | _only(positionwise_conv_kernel_size=1, conv_bias=True, conv_norm_eps=1e-5, conv_inner_factor=2, final_norm=True),
}
_DECODER_KEYS: dict[str, _Key] = {
    "attention_heads": _Key(_SIZE, "decoder_heads"),
    "linear_units": _Key(_SIZE, "decoder_units"),
    "num_blocks": _Key(_BLOCKS, "decoder_blocks"),
    "activation_type": _Key(_one_of(*ACTIVATIONS), "decoder_activation", _OTHER_ACTIVATIONS),
    **_PLAIN_LAYERS,
    **_LAYER_TRAINING,
    **_ignored("self_attention_dropout_rate", "src_attention_dropout_rate"),
    **_only(src_attention=True, tie_word_embedding=False),
    **_only(("embed_learnable_pe", "no_pos"), input_layer="embed"),
    **_only((), use_output_layer=True),
}
_SOURCE_BIASES = {"src_query_bias": True, "src_key_bias": True, "src_value_bias": True}
_KEYS_OF_DECODER: dict[str, dict[str, _Key]] = {
    "transformer": _DECODER_KEYS | _only(**_SOURCE_BIASES),
    "bitransformer": _DECODER_KEYS
    | _only((), **_SOURCE_BIASES)
    | {"r_num_blocks": _Key(_integer(0, 128), "reverse_blocks")},
}
_MODEL_KEYS = _ignored(
    "ctc_weight", "lsm_weight", "length_normalized_loss", "reverse_weight", "ignore_id", "lfmmi_dir", "special_tokens"
) | _only(apply_non_blank_embedding=False)
_CTC_KEYS = {"ctc_blank_id": _Key(_TOKEN)}
_CMVN_KEYS = _ignored("cmvn_file", "is_json_cmvn")
_FEATURES = {"feats_type": _Key(_one_of("fbank"), elsewhere=("mfcc", "log_mel_spectrogram"))}
_FBANK_KEYS = {
    **_only(num_mel_bins=BINS, frame_shift=FRAME_SHIFT_MS, frame_length=FRAME_LENGTH_MS),
    **_only(("hamming",), window_type="povey"),
    **_ignored("dither"),
}
_OLD_FBANK_KEYS = {
    "mel_bins": _Key(_one_of(BINS)),
    "frame_shift": _Key(_one_of(FRAME_SHIFT_MS)),
    "frame_length": _Key(_one_of(FRAME_LENGTH_MS)),
    "feature_type": _Key(_one_of("fbank")),
    "using_pitch": _Key(_one_of(False)),
}
_RESAMPLE_KEYS = {"resample_rate": _Key(_one_of(SAMPLE_RATE))}
_TOP_KEYS: dict[str, _Key] = {
    "encoder": _Key(
        _one_of(*ENCODERS),
        elsewhere=(
            "squeezeformer", "branchformer", "e_branchformer", "dual_conformer", "dual_transformer", "sanm_encoder",
            "sanm_encoder_with_tp", "firered_conformer", "efficientConformer",
        ),
    ),
    "decoder": _Key(_one_of(*DECODERS), elsewhere=("sanm_decoder",)),
    "ctc": _Key(_one_of("ctc")),
    "model": _Key(
        _one_of("asr_model"),
        elsewhere=(
            "ctl_model", "whisper", "firered", "k2_model", "transducer", "paraformer", "sensevoice_small",
        ),
    ),
    "cmvn": _Key(_one_of("global_cmvn", None)),
    "input_dim": _Key(_one_of(BINS), elsewhere=int),
    "output_dim": _Key(_TOKEN),
    "vocab_size": _Key(_TOKEN),
    **_ignored(
        # Sections, which are read on their own, and the old spelling of one of them.
        "encoder_conf", "decoder_conf", "model_conf", "ctc_conf", "cmvn_conf", "dataset_conf", "collate_conf",
        "tokenizer_conf", "cmvn_file", "is_json_cmvn",
        # Keys that matter in training only.
        "accum_grad", "dataset", "dtype", "epoch", "grad_clip", "init_infos", "is_deepspeed", "is_distributed",
        "lfmmi_dir", "log_interval", "max_epoch", "model_dir", "optim", "optim_conf", "rank", "raw_wav",
        "save_interval", "save_states", "scheduler", "scheduler_conf", "spec_aug", "spec_aug_conf", "tokenizer",
        "train_engine", "use_amp",
    ),
}  # fmt: skip

# What other kinds of network have at the top level.
_PREDICTOR = _ignored("predictor", "predictor_conf")
_KEYS_OF_MODEL: dict[str, dict[str, _Key]] = {
    "transducer": _PREDICTOR | _ignored("joint", "joint_conf"),
    "paraformer": _PREDICTOR,
    "sensevoice_small": _ignored("decoder"),
}
# WeNet's own package leaves unread what it does not know in these sections, and fails for it in others. A network with
# LoRA it would run without its LoRA.
UNREAD_ELSEWHERE = ("", "ctc_conf", "cmvn_conf")
MATTERS_ELSEWHERE = ("lora_conf",)
STACKED_FRAMES = ("paraformer", "sensevoice_small")  # their networks read several frames at once

# The defaults of WeNet's constructors.
_ENCODER_DEFAULTS: dict[str, dict[str, Any]] = {
    "conformer": {"kernel": 15, "convolution_norm": "batch_norm", "causal": False},
    "transformer": {"positions": "abs_pos", "attention": "selfattn", "activation": "relu", "causal": False},
}
_DEFAULTS: dict[str, Any] = {
    "width": 256, "heads": 4, "encoder_units": 2048, "encoder_blocks": 6, "static_chunk": 0, "dynamic_chunk": False,
    "decoder_heads": 4, "decoder_units": 2048, "decoder_blocks": 6, "reverse_blocks": 0,
}  # fmt: skip


def read_train_yaml(path: Path, tokens: Sequence[str]) -> TrainYaml:
    """Return the content of the `train.yaml` at `path`, for a model with these `tokens`.

    Raises ConfigurationError, which names the file and the key, if a key is unknown, has a value that no network here
    supports, or disagrees with the tokens, and if the file is not YAML. For another network, the message says whether
    WeNet's own package (`package_load.py`) runs it: its tables of COMMIT were tried with WeNet's recipes.
    """
    top = _parse(path)
    _refuse_others(path, top)
    encoder, decoder = _kind(top, "encoder", "conformer"), _kind(top, "decoder", "bitransformer")
    fields = _DEFAULTS | _ENCODER_DEFAULTS[encoder] | {"encoder": encoder, "decoder": decoder}
    fields |= _fields(_section(path, top, "encoder_conf"), _KEYS_OF_ENCODER[encoder])
    fields |= _fields(_section(path, top, "decoder_conf"), _KEYS_OF_DECODER[decoder])
    _check_vocabulary(path, top, len(tokens))
    sos, eos = _sos_and_eos(path, top, len(tokens))
    try:
        blank = _blank(path, top, tokens)
        config = U2Config(vocabulary=len(tokens), sos=sos, eos=eos, blank=blank, bins=BINS, **fields)
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}; {REINSTALL}") from error
    return TrainYaml(config, _uses_cmvn(path, top))


def read_text(path: Path) -> str:
    """Return a small text file. Raises ConfigurationError if it is too large, is not UTF-8 or cannot be read."""
    try:
        with path.open("rb") as file:
            content = file.read(TEXT_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}; {REINSTALL}") from error
    if len(content) > TEXT_LIMIT_BYTES:
        raise ConfigurationError(f"{path} is larger than {TEXT_LIMIT_BYTES // 1_000_000} MB; {REINSTALL}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text; {REINSTALL}") from error


class _Loader(yaml.SafeLoader):
    """Safe YAML without merge keys (`<<`), because a few of them can expand beyond the memory of the computer."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, "merge keys are not read", key.start_mark)


def _parse(path: Path) -> dict[str, object]:
    text = read_text(path)
    try:
        top = yaml.load(text, _Loader)  # a subclass of SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = (str(error).splitlines() or ["it is nested too deeply"])[0]
        raise ConfigurationError(f"{path} is not YAML ({reason[:200]}); {REINSTALL}") from error
    return _mapping(path, "the file", top)


def _mapping(path: Path, name: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigurationError(f"{path}: {name} is not a list of settings; {REINSTALL}")
    return value


def _section(path: Path, top: Mapping[str, object], *names: str) -> dict[str, object]:
    """Return the section at the path `names`; a missing or empty section has no settings."""
    found: object = top
    for i in range(len(names)):
        found = _mapping(path, ".".join(names[:i]) or "the file", found).get(names[i])
        if found is None:
            return {}
    return _mapping(path, ".".join(names), found)


def _kind(section: Mapping[str, object], key: str, default: str) -> str:
    """Return the name at `key`; "" for anything else, which may be endless."""
    value = section.get(key, default)
    return value if isinstance(value, str) else ""


def _refuse_others(path: Path, top: Mapping[str, object]) -> None:
    """Raise ConfigurationError if `top` describes a network or features that this server does not have."""
    refusals = [
        refusal
        for names, keys in _sections(top)
        for refusal in _refusals(".".join(names), _section(path, top, *names), keys)
    ]
    kind = {"feats_type": _section(path, top, "dataset_conf").get("feats_type", "fbank")}
    refusals += _refusals("dataset_conf", kind, _FEATURES)
    if refusals:
        runs = all(refusal.runs_elsewhere for refusal in refusals)
        runs = runs and _has_matching_features(path, top) and _has_working_groups(path, top)
        raise ConfigurationError(f"{path}: {refusals[0].text}; {ELSEWHERE if runs else NOWHERE}")


def _sections(top: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], Mapping[str, _Key] | None]]:
    """Yield the path of each section that this server checks, and its keys; None for those of other networks."""
    model = _kind(top, "model", "asr_model")
    yield (), _TOP_KEYS | _KEYS_OF_MODEL.get(model, {})
    yield ("encoder_conf",), _KEYS_OF_ENCODER.get(_kind(top, "encoder", "conformer"))
    yield ("decoder_conf",), _KEYS_OF_DECODER.get(_kind(top, "decoder", "bitransformer"))
    yield ("model_conf",), _MODEL_KEYS if model == "asr_model" else None
    yield ("ctc_conf",), _CTC_KEYS
    yield ("cmvn_conf",), _CMVN_KEYS
    yield ("dataset_conf", "fbank_conf"), _FBANK_KEYS
    yield ("dataset_conf", "resample_conf"), _RESAMPLE_KEYS
    yield ("collate_conf", "feature_extraction_conf"), _OLD_FBANK_KEYS


def _refusals(section: str, values: Mapping[str, object], keys: Mapping[str, _Key] | None) -> Iterator[_Refusal]:
    """Yield a refusal for each of `values` that no network here has."""
    if keys is None:
        return
    for name, value in values.items():
        shown = f"{section}.{name[:80]}".removeprefix(".")
        if (key := keys.get(name)) is None:
            text = f"{shown} is not understood, so this server cannot run the model"
            yield _Refusal(text, section in UNREAD_ELSEWHERE and name not in MATTERS_ELSEWHERE)
            continue
        try:
            key.read(value)
        except ValueError as error:
            yield _Refusal(f"{shown} is {_shown(value)}; it {error}", _is_among(value, key.elsewhere))


def _has_matching_features(path: Path, top: Mapping[str, object]) -> bool:
    """Tell whether the features that WeNet's own package computes are those of the network.

    It does not read the old spelling, and takes 23 mel bins where the new one says nothing.
    """
    features = _kind(_section(path, top, "dataset_conf"), "feats_type", "fbank")
    if features != "fbank" or _kind(top, "model", "asr_model") in STACKED_FRAMES:
        return True
    bins = _section(path, top, "dataset_conf", "fbank_conf").get("num_mel_bins")
    return isinstance(bins, int) and bins == top.get("input_dim")


def _has_working_groups(path: Path, top: Mapping[str, object]) -> bool:
    """Tell whether an efficientConformer has grouped attention in its strided layers only: elsewhere it fails."""
    if _kind(top, "encoder", "conformer") != "efficientConformer":
        return True
    layers = _section(path, top, "encoder_conf") | _section(path, top, "encoder_conf", "efficient_conf")
    grouped, strided = layers.get("group_layer_idx", [0, 1, 2, 3]), layers.get("stride_layer_idx", 3)
    return _whole_numbers(grouped) <= _whole_numbers(strided)


def _whole_numbers(value: object) -> set[int]:
    return {each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)}


def _fields(values: Mapping[str, object], keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Return the fields of U2Config that `values` set, which have been checked."""
    return {key.field: key.read(value) for name, value in values.items() if (key := keys[name]).field is not None}


def _shown(value: object) -> str:
    """Return a value for a message, shortened; lists and sections, which could be endless, are not shown."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else "not a plain value"


def _check_vocabulary(path: Path, top: Mapping[str, object], tokens: int) -> None:
    for key in ("output_dim", "vocab_size"):
        if top.get(key, tokens) != tokens:
            raise ConfigurationError(
                f"{path}: {key} is {_shown(top[key])} and units.txt lists {tokens} tokens; {REINSTALL}"
            )


def _sos_and_eos(path: Path, top: Mapping[str, object], tokens: int) -> tuple[int, int]:
    """Return sos and eos: the numbers under `special_tokens`, or the last token for both."""
    for section in ("tokenizer_conf", "model_conf"):
        special = _section(path, top, section, "special_tokens")
        if special:
            named = {name: token for name, token in special.items() if name in ("<sos>", "<eos>")}
            token = {name: _Key(_integer(0, tokens - 1)) for name in named}
            for refusal in _refusals(f"{section}.special_tokens", named, token):
                raise ConfigurationError(f"{path}: {refusal.text}; {REINSTALL}")
            found = {name: token for name, token in named.items() if isinstance(token, int)}
            return found.get("<sos>", tokens - 1), found.get("<eos>", tokens - 1)
    return tokens - 1, tokens - 1


def _blank(path: Path, top: Mapping[str, object], tokens: Sequence[str]) -> int:
    """Return the blank of CTC: `ctc_blank_id`, or the token `<blank>`, or 0. The first two must not disagree."""
    section = _section(path, top, "ctc_conf")
    listed = tokens.index("<blank>") if "<blank>" in tokens else None
    blank = section.get("ctc_blank_id", listed)
    if listed is not None and blank != listed:
        raise ValueError(f"ctc_conf.ctc_blank_id is {_shown(blank)} and units.txt has <blank> at {listed}")
    return blank if isinstance(blank, int) else 0


def _uses_cmvn(path: Path, top: Mapping[str, object]) -> bool:
    """Return whether the model normalizes its features with CMVN, in either spelling."""
    section = _section(path, top, "cmvn_conf")
    if "cmvn" in top:
        return top["cmvn"] is not None
    return bool(top.get("cmvn_file") or section.get("cmvn_file"))
