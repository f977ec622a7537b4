"""The reader of WeNet's `train.yaml`, in the old and the new spelling, which gives the configuration of the network.

The old spelling (until December 2023, so in the released checkpoints) has `cmvn_file` and `is_json_cmvn` at the top
level; the new one has `cmvn`, `cmvn_conf`, `tokenizer_conf` and `ctc_conf`. Missing keys have the defaults of WeNet's
constructors, which differ from those of its recipes. An unknown key could change the network, so it is an error that
names the key. Keys that matter only in training are known and ignored.
"""

from collections.abc import Callable, Mapping, Sequence
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


@dataclass(frozen=True)
class TrainYaml:
    """The content of a `train.yaml`: the configuration of the network, and whether it normalizes features with CMVN."""

    config: U2Config
    uses_cmvn: bool


# A reader returns the value as the network needs it, or raises ValueError with the allowed values.
_Reader = Callable[[object], Any]


@dataclass(frozen=True)
class _Key:
    """The reader of a key and the field of U2Config that the key sets; a key without a field is only checked."""

    read: _Reader
    field: str | None = None


def _integer(low: int, high: int) -> _Reader:
    def read(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return read


def _one_of(*choices: object) -> _Reader:
    def read(value: object) -> object:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise ValueError(f"must be {' or '.join(str(choice) for choice in choices)}: this server runs no other")
        return value

    return read


def _anything(value: object) -> object:
    return value


def _only(**values: object) -> dict[str, _Key]:
    """Return keys that may only have the value that all of WeNet's recipes leave unchanged."""
    return {key: _Key(_one_of(value)) for key, value in values.items()}


def _ignored(*keys: str) -> dict[str, _Key]:
    return {key: _Key(_anything) for key in keys}


_FLAG = _one_of(True, False)
_SIZE = _integer(1, 16384)
_BLOCKS = _integer(1, 128)
_TOKEN = _integer(0, 1_000_000)

# Keys that can change the arithmetic of the network, but do not in any recipe for these kinds of network.
_PLAIN_LAYERS = _only(
    normalize_before=True, query_bias=True, key_bias=True, value_bias=True, layer_norm_type="layer_norm", norm_eps=1e-5,
    n_kv_head=None, head_dim=None, mlp_type="position_wise_feed_forward", mlp_bias=True, concat_after=False,
)  # fmt: skip
# Keys that matter in training only, or for a kind of layer that _PLAIN_LAYERS excludes.
_LAYER_TRAINING = _ignored(
    "dropout_rate", "positional_dropout_rate", "gradient_checkpointing", "use_sdpa", "n_expert", "n_expert_activated"
)
_ENCODER_KEYS: dict[str, _Key] = {
    "output_size": _Key(_SIZE, "width"),
    "attention_heads": _Key(_SIZE, "heads"),
    "linear_units": _Key(_SIZE, "encoder_units"),
    "num_blocks": _Key(_BLOCKS, "encoder_blocks"),
    "input_layer": _Key(_one_of(*SUBSAMPLINGS), "subsampling"),
    "pos_enc_layer_type": _Key(_one_of(*POSITIONS), "positions"),
    "activation_type": _Key(_one_of(*ACTIVATIONS), "activation"),
    "static_chunk_size": _Key(_integer(0, 16384), "static_chunk"),
    "use_dynamic_chunk": _Key(_FLAG, "dynamic_chunk"),
    **_PLAIN_LAYERS,
    **_LAYER_TRAINING,
    **_ignored("attention_dropout_rate", "use_dynamic_left_chunk"),
}
_KEYS_OF_ENCODER: dict[str, dict[str, _Key]] = {
    "transformer": _ENCODER_KEYS | {"selfattention_layer_type": _Key(_one_of("selfattn"), "attention")},
    "conformer": _ENCODER_KEYS
    | {
        "selfattention_layer_type": _Key(_one_of(*ATTENTIONS), "attention"),
        "macaron_style": _Key(_FLAG, "macaron"),
        "use_cnn_module": _Key(_FLAG, "convolution"),
        "cnn_module_kernel": _Key(_integer(1, 1024), "kernel"),
        "cnn_module_norm": _Key(_one_of(*CONVOLUTION_NORMS), "convolution_norm"),
        "causal": _Key(_FLAG, "causal"),
    }
    | _only(positionwise_conv_kernel_size=1, conv_bias=True, conv_norm_eps=1e-5, conv_inner_factor=2, final_norm=True),
}
_DECODER_KEYS: dict[str, _Key] = {
    "attention_heads": _Key(_SIZE, "decoder_heads"),
    "linear_units": _Key(_SIZE, "decoder_units"),
    "num_blocks": _Key(_BLOCKS, "decoder_blocks"),
    "activation_type": _Key(_one_of(*ACTIVATIONS), "decoder_activation"),
    **_PLAIN_LAYERS,
    **_LAYER_TRAINING,
    **_ignored("self_attention_dropout_rate", "src_attention_dropout_rate"),
    **_only(
        input_layer="embed", use_output_layer=True, src_attention=True, tie_word_embedding=False, src_query_bias=True,
        src_key_bias=True, src_value_bias=True,
    ),
}  # fmt: skip
_KEYS_OF_DECODER: dict[str, dict[str, _Key]] = {
    "transformer": _DECODER_KEYS,
    "bitransformer": _DECODER_KEYS | {"r_num_blocks": _Key(_integer(0, 128), "reverse_blocks")},
}
_MODEL_KEYS = _ignored(
    "ctc_weight", "lsm_weight", "length_normalized_loss", "reverse_weight", "ignore_id", "lfmmi_dir", "special_tokens"
) | _only(apply_non_blank_embedding=False)
_CTC_KEYS = {"ctc_blank_id": _Key(_TOKEN)}
_CMVN_KEYS = _ignored("cmvn_file", "is_json_cmvn")
_FBANK_KEYS = {
    "num_mel_bins": _Key(_one_of(BINS)),
    "frame_shift": _Key(_one_of(FRAME_SHIFT_MS)),
    "frame_length": _Key(_one_of(FRAME_LENGTH_MS)),
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
    "encoder": _Key(_one_of(*ENCODERS)),
    "decoder": _Key(_one_of(*DECODERS)),
    "ctc": _Key(_one_of("ctc")),
    "model": _Key(_one_of("asr_model")),
    "cmvn": _Key(_one_of("global_cmvn", None)),
    "input_dim": _Key(_one_of(BINS)),
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
    supports, or disagrees with the tokens, and if the file is not YAML.
    """
    top = _parse(path)
    _read(path, "", top, _TOP_KEYS)
    encoder, decoder = str(top.get("encoder", "conformer")), str(top.get("decoder", "bitransformer"))
    fields = _DEFAULTS | _ENCODER_DEFAULTS[encoder] | {"encoder": encoder, "decoder": decoder}
    fields |= _read(path, "encoder_conf", _section(path, top, "encoder_conf"), _KEYS_OF_ENCODER[encoder])
    fields |= _read(path, "decoder_conf", _section(path, top, "decoder_conf"), _KEYS_OF_DECODER[decoder])
    _read(path, "model_conf", _section(path, top, "model_conf"), _MODEL_KEYS)
    _check_features(path, top)
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


def _read(path: Path, section: str, values: Mapping[str, object], keys: Mapping[str, _Key]) -> dict[str, Any]:
    """Return the fields of U2Config that `values` set. Raises ConfigurationError for an unknown key or value."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        shown = f"{section}.{name[:80]}".removeprefix(".")
        key = keys.get(name)
        if key is None:
            raise ConfigurationError(f"{path}: {shown} is not understood, so this server cannot run the model")
        try:
            read = key.read(value)
        except ValueError as error:
            raise ConfigurationError(f"{path}: {shown} is {_shown(value)}; it {error}") from error
        if key.field is not None:
            fields[key.field] = read
    return fields


def _shown(value: object) -> str:
    """Return a value for a message, shortened; lists and sections, which could be endless, are not shown."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else "not a plain value"


def _check_features(path: Path, top: Mapping[str, object]) -> None:
    """Raise ConfigurationError unless the model was trained with the features that `features.py` computes."""
    sections: Sequence[tuple[tuple[str, ...], dict[str, _Key]]] = (
        (("dataset_conf", "fbank_conf"), _FBANK_KEYS),
        (("dataset_conf", "resample_conf"), _RESAMPLE_KEYS),
        (("collate_conf", "feature_extraction_conf"), _OLD_FBANK_KEYS),
    )
    for names, keys in sections:
        _read(path, ".".join(names), _section(path, top, *names), keys)
    kind = {"feats_type": _section(path, top, "dataset_conf").get("feats_type", "fbank")}
    _read(path, "dataset_conf", kind, {"feats_type": _Key(_one_of("fbank"))})


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
            _read(path, f"{section}.special_tokens", named, {name: _Key(_integer(0, tokens - 1)) for name in named})
            found = {name: token for name, token in named.items() if isinstance(token, int)}
            return found.get("<sos>", tokens - 1), found.get("<eos>", tokens - 1)
    return tokens - 1, tokens - 1


def _blank(path: Path, top: Mapping[str, object], tokens: Sequence[str]) -> int:
    """Return the blank of CTC: `ctc_blank_id`, or the token `<blank>`, or 0. The first two must not disagree."""
    section = _section(path, top, "ctc_conf")
    _read(path, "ctc_conf", section, _CTC_KEYS)
    listed = tokens.index("<blank>") if "<blank>" in tokens else None
    blank = section.get("ctc_blank_id", listed)
    if listed is not None and blank != listed:
        raise ValueError(f"ctc_conf.ctc_blank_id is {_shown(blank)} and units.txt has <blank> at {listed}")
    return blank if isinstance(blank, int) else 0


def _uses_cmvn(path: Path, top: Mapping[str, object]) -> bool:
    """Return whether the model normalizes its features with CMVN, in either spelling."""
    section = _section(path, top, "cmvn_conf")
    _read(path, "cmvn_conf", section, _CMVN_KEYS)
    if "cmvn" in top:
        return top["cmvn"] is not None
    return bool(top.get("cmvn_file") or section.get("cmvn_file"))
