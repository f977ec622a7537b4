"""WeNet's networks against themselves read in other ways (chunks, batches, TorchScript) and against WeNet's names."""

import copy
import math
from pathlib import Path
from typing import Any

import make_tiny_wenet
import pytest
import torch
from support.wenet_networks import EOS, HEADS, KERNEL, LAYERS, SOS, VARIANTS, VOCABULARY, WIDTH, make_model
from torch import Tensor

from mirrorchat.wenet.batch import load_script
from mirrorchat.wenet.layers import PositionalEncoding
from mirrorchat.wenet.model import (
    BiTransformerDecoder,
    GlobalCMVN,
    U2Config,
    U2Model,
    chunk_mask,
    length_mask,
    reverse_tokens,
)


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> U2Model:
    return make_model(**VARIANTS[request.param])


def no_cache() -> Tensor:
    return torch.zeros(0, 0, 0, 0)


@pytest.fixture(scope="module")
def model() -> U2Model:
    return make_model()


@pytest.fixture(scope="module")
def scripted(model: U2Model, tmp_path_factory: pytest.TempPathFactory) -> torch.jit.ScriptModule:
    """The network as it is after TorchScript wrote and read it."""
    path = tmp_path_factory.mktemp("scripted") / "final.zip"
    make_tiny_wenet.save_script(model, path)
    return load_script(path)


def features(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(1, frames, 80, generator=torch.Generator().manual_seed(seed))


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=1e-5)


def hypotheses() -> tuple[Tensor, Tensor]:
    """Return four texts of different lengths, one of them empty, and their lengths with sos."""
    lengths = torch.tensor([7, 1, 4, 2])
    tokens = torch.randint(3, VOCABULARY, (4, 7), generator=torch.Generator().manual_seed(5))
    tokens[:, 0] = SOS
    return tokens.masked_fill(~length_mask(lengths, 7), EOS), lengths


def stream(model: U2Model, whole: Tensor, chunk: int, left_chunks: int) -> Tensor:
    """Return the encoder's output (1, S, D), read in chunks; checks the size of the caches on the way."""
    stride = chunk * model.subsampling_rate()
    window = stride - model.subsampling_rate() + model.right_context() + 1
    required = -1 if left_chunks < 0 else chunk * left_chunks
    outputs, attention, convolution, offset = [], no_cache(), no_cache(), 0
    for start in range(0, whole.shape[1] - model.right_context(), stride):
        output, attention, convolution = model.forward_encoder_chunk(
            whole[:, start : start + window], offset, required, attention, convolution
        )
        offset += output.shape[1]
        kept = offset if required < 0 else min(offset, required)
        assert attention.shape == (LAYERS, HEADS, kept, 2 * WIDTH // HEADS)
        outputs.append(output)
    assert convolution.shape in ((LAYERS, 1, WIDTH, KERNEL - 1), (LAYERS, 1, WIDTH, 0), (LAYERS, 0, 0, 0))
    return torch.cat(outputs, dim=1)


@pytest.mark.parametrize("frames", [211, 150, 71])
@pytest.mark.parametrize(("chunk", "left_chunks"), [(4, -1), (4, 2), (16, 1), (1, 0)])
def test_streaming_with_caches_equals_the_whole_under_a_chunk_mask(
    model: U2Model, frames: int, chunk: int, left_chunks: int
) -> None:
    whole = features(frames)
    expected, _ = model.encoder(whole, torch.tensor([frames]), chunk, left_chunks)
    assert_close(stream(model, whole, chunk, left_chunks), expected)


def test_every_kind_that_knows_chunks_streams(variant: U2Model) -> None:
    whole = features(211)
    if not variant.encoder.streams:
        with pytest.raises(ValueError, match="cannot be read in chunks"):
            stream(variant, whole, 4, 2)
        return
    expected, _ = variant.encoder(whole, torch.tensor([211]), 4, 2)
    assert_close(stream(variant, whole, 4, 2), expected)


def test_a_network_that_knows_no_chunks_has_no_chunk_mask() -> None:
    with pytest.raises(ValueError, match="not trained to be read in chunks"):
        make_model(dynamic_chunk=False).encoder(features(100), torch.tensor([100]), 4)


def test_a_static_chunk_is_the_only_one() -> None:
    static, dynamic = make_model(**VARIANTS["static"]), make_model()
    length = torch.tensor([211])
    expected, _ = dynamic.encoder(features(211), length, 4)
    for chunk in (-1, 16):
        assert_close(static.encoder(features(211), length, chunk)[0], expected)
    assert not torch.allclose(dynamic.encoder(features(211), length)[0], expected, atol=1e-2)


def test_a_chunk_mask_hides_what_a_whole_utterance_shows(model: U2Model) -> None:
    whole = features(211)
    length = torch.tensor([211])
    full, _ = model.encoder(whole, length)
    assert_close(model.forward_encoder_chunk(whole, 0, -1)[0], full)
    assert not torch.allclose(model.encoder(whole, length, 4)[0], full, atol=1e-2)


@pytest.mark.parametrize("chunk", [-1, 4])
def test_padding_in_a_batch_changes_nothing(variant: U2Model, chunk: int) -> None:
    if not variant.encoder.knows_chunks:
        chunk = -1
    lengths = [211, 97, variant.right_context() + 1]
    batch = torch.full((3, 211, 80), 50.0)
    for row, length in enumerate(lengths):
        batch[row, :length] = features(length, seed=row)[0]
    encoded, mask = variant.encoder(batch, torch.tensor(lengths), chunk)
    for row, length in enumerate(lengths):
        alone, _ = variant.encoder(features(length, seed=row), torch.tensor([length]), chunk)
        assert mask[row, 0].sum() == alone.shape[1] > 0
        assert_close(encoded[row : row + 1, : alone.shape[1]], alone)


def test_a_whole_utterance_is_one_chunk(variant: U2Model) -> None:
    if not variant.encoder.fixed_chunk:
        expected, _ = variant.encoder(features(150), torch.tensor([150]))
        assert_close(variant.forward_encoder_chunk(features(150), 0, -1)[0], expected)


@pytest.mark.parametrize("frames", [23, 24, 50, 211])
def test_frames_are_counted_as_the_convolutions_count_them(variant: U2Model, frames: int) -> None:
    encoded, mask = variant.encoder(features(frames), torch.tensor([frames]))
    assert encoded.shape[1] == mask.shape[2] == int(mask.sum())
    assert encoded.shape[1] == (frames - variant.right_context() - 1) // variant.subsampling_rate() + 1


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float16, 0.03), (torch.bfloat16, 0.25)])
def test_half_precision_is_near_and_keeps_its_cmvn(variant: U2Model, dtype: torch.dtype, atol: float) -> None:
    half = copy.deepcopy(variant).to(dtype)
    cmvn = half.encoder.global_cmvn
    assert cmvn is not None and cmvn.mean.dtype == cmvn.istd.dtype == torch.float32
    encoded, _ = half.encoder(features(150), torch.tensor([150]))
    expected, _ = variant.encoder(features(150), torch.tensor([150]))
    assert encoded.dtype == dtype
    torch.testing.assert_close(encoded.float(), expected, rtol=0.0, atol=atol)
    left, _ = half.forward_attention_decoder(*hypotheses(), encoded, 0.3)
    assert left.dtype == dtype and bool(left.isfinite().all())


def test_everything_follows_the_weights_to_their_device(variant: U2Model) -> None:
    """PyTorch's `meta` device holds no numbers, and refuses to compute with a tensor that is elsewhere."""
    moved = copy.deepcopy(variant).to("meta")
    x = features(211).to("meta")
    encoded, mask = moved.encoder(x, torch.tensor([211], device="meta"))
    assert encoded.is_meta and mask.is_meta
    if variant.encoder.streams:
        assert moved.encoder(x, torch.tensor([211], device="meta"), 4, 2)[0].is_meta
        assert stream(moved, x, 4, 2).is_meta
    tokens, lengths = hypotheses()
    left, right = moved.forward_attention_decoder(tokens.to("meta"), lengths.to("meta"), encoded, 0.3)
    assert left.is_meta and right.is_meta and moved.ctc_activation(encoded).is_meta


def test_every_kind_becomes_torchscript(tmp_path: Path) -> None:
    for name in ("conv2d6", "no_pos", "non_causal", "plain", "transformer"):
        ours = make_model(**VARIANTS[name])
        make_tiny_wenet.save_script(ours, tmp_path / "final.zip")
        theirs = load_script(tmp_path / "final.zip")
        encoded = ours.forward_encoder_chunk(features(100), 0, -1)[0]
        assert_close(theirs.forward_encoder_chunk(features(100), 0, -1)[0], encoded)
        scored = theirs.forward_attention_decoder(*hypotheses(), encoded, 0.3)
        for found, wanted in zip(scored, ours.forward_attention_decoder(*hypotheses(), encoded, 0.3), strict=True):
            assert_close(found, wanted)
        assert theirs.is_bidirectional_decoder() is ours.is_bidirectional_decoder()


def test_a_decoder_of_one_direction_has_no_other() -> None:
    one_way = make_model(decoder="transformer")
    encoded, _, _ = one_way.forward_encoder_chunk(features(160), 0, -1)
    left, right = one_way.forward_attention_decoder(*hypotheses(), encoded, 0.3)
    assert one_way.is_bidirectional_decoder() is False
    assert left.shape == (4, 7, VOCABULARY) and right.shape == () and right.item() == 0.0
    names = {name.split(".")[1] for name in one_way.state_dict() if name.startswith("decoder.")}
    assert names == {"embed", "decoders", "after_norm", "output_layer"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subsampling": "conv1d"}, "subsampling is 'conv1d', which is not one of conv2d, conv2d6, conv2d8"),
        ({"heads": 5}, "heads"),
        ({"decoder_heads": 5}, "decoder_heads"),
        ({"causal": False}, "kernel is 8"),
        ({"sos": VOCABULARY}, "numbered below 29"),
        ({"blank": -1}, "numbered below 29"),
    ],
)
def test_what_no_network_is_built_from_is_named(changes: dict[str, Any], message: str) -> None:
    sizes = {"vocabulary": VOCABULARY, "sos": SOS, "eos": EOS}
    with pytest.raises(ValueError, match=message):
        U2Config(**(sizes | changes))


def test_ragged_hypotheses_score_as_they_do_alone(model: U2Model) -> None:
    encoded, _, _ = model.forward_encoder_chunk(features(160), 0, -1)
    tokens, lengths = hypotheses()
    left, right = model.forward_attention_decoder(tokens, lengths, encoded, 0.3)
    for row, length in enumerate(lengths.tolist()):
        alone = tokens[row : row + 1, :length]
        alone_left, alone_right = model.forward_attention_decoder(alone, lengths[row : row + 1], encoded, 0.3)
        assert_close(left[row : row + 1, :length], alone_left)
        assert_close(right[row : row + 1, :length], alone_right)


def test_the_right_decoder_reads_the_text_backwards(model: U2Model) -> None:
    encoded, _, _ = model.forward_encoder_chunk(features(160), 0, -1)
    tokens, length = torch.tensor([[SOS, 5, 9, 4]]), torch.tensor([4])
    seen = torch.ones((0, 0, 0), dtype=torch.bool)
    assert isinstance(model.decoder, BiTransformerDecoder)
    backwards = model.decoder.right_decoder.logits(encoded, seen, torch.tensor([[SOS, 4, 9, 5]]), length)
    _, right = model.forward_attention_decoder(tokens, length, encoded, 0.3)
    assert_close(right, torch.log_softmax(backwards, dim=-1))


def test_without_a_reverse_weight_the_right_decoder_rests(model: U2Model) -> None:
    encoded, _, _ = model.forward_encoder_chunk(features(160), 0, -1)
    left, right = model.forward_attention_decoder(*hypotheses(), encoded)
    assert left.shape == (4, 7, VOCABULARY)
    assert right.shape == () and right.item() == 0.0


def test_a_decoder_never_sees_what_comes_later(model: U2Model) -> None:
    encoded, _, _ = model.forward_encoder_chunk(features(160), 0, -1)
    tokens = torch.tensor([[SOS, 5, 9, 4], [SOS, 5, 8, 11]])
    left, _ = model.forward_attention_decoder(tokens, torch.tensor([4, 4]), encoded)
    assert_close(left[0, :2], left[1, :2])
    assert not torch.allclose(left[0, 2], left[1, 2], atol=1e-2)


def test_torchscript_equals_eager(model: U2Model, scripted: torch.jit.ScriptModule) -> None:
    attention, convolution = no_cache(), no_cache()
    for start, offset in ((0, 0), (64, 16)):
        chunk = features(131)[:, start : start + 67]
        expected = model.forward_encoder_chunk(chunk, offset, 16, attention, convolution)
        found = scripted.forward_encoder_chunk(chunk, offset, 16, attention, convolution)
        for ours, theirs in zip(expected, found, strict=True):
            assert_close(theirs, ours)
        encoded, attention, convolution = expected
    assert_close(scripted.ctc_activation(encoded), model.ctc_activation(encoded))
    for weight in (0.0, 0.3):
        wanted = model.forward_attention_decoder(*hypotheses(), encoded, weight)
        scored = scripted.forward_attention_decoder(*hypotheses(), encoded, weight)
        for ours, theirs in zip(wanted, scored, strict=True):
            assert_close(theirs, ours)


def test_torchscript_keeps_the_runtime_interface(scripted: torch.jit.ScriptModule) -> None:
    constants = [scripted.subsampling_rate(), scripted.right_context(), scripted.sos_symbol(), scripted.eos_symbol()]
    assert constants == [4, 6, SOS, EOS]
    assert scripted.is_bidirectional_decoder() is True
    schema = str(scripted.forward_encoder_chunk.schema)
    assert "Tensor xs, int offset, int required_cache_size, Tensor att_cache=" in schema
    assert "Tensor hyps, Tensor hyps_lens, Tensor encoder_out, float reverse_weight=0." in str(
        scripted.forward_attention_decoder.schema
    )


def test_ctc_gives_log_probabilities(model: U2Model) -> None:
    encoded, _, _ = model.forward_encoder_chunk(features(160), 0, -1)
    log_probs = model.ctc_activation(encoded)
    assert log_probs.shape == (1, 39, VOCABULARY)
    torch.testing.assert_close(log_probs.exp().sum(dim=-1), torch.ones(1, 39))


def test_cmvn_is_part_of_the_encoder(model: U2Model) -> None:
    """Losing it in silence is the classic loading bug: shifted features must shift back."""
    cmvn = model.encoder.global_cmvn
    assert cmvn is not None
    plain = GlobalCMVN(torch.zeros(80), torch.ones(80))
    x = features(100)
    expected = model.forward_encoder_chunk(x, 0, -1)[0]
    model.encoder.global_cmvn = plain
    try:
        assert_close(model.forward_encoder_chunk((x - cmvn.mean) * cmvn.istd, 0, -1)[0], expected)
        assert not torch.allclose(model.forward_encoder_chunk(x, 0, -1)[0], expected, atol=1e-2)
    finally:
        model.encoder.global_cmvn = cmvn


@pytest.mark.parametrize(("offset", "atol"), [(7, 1e-6), (6000, 1e-3)])
def test_positions_are_the_papers(offset: int, atol: float) -> None:
    """WeNet's table ends at 5,000; the arithmetic is float32, as WeNet's is."""
    table = PositionalEncoding(6, 0.0).table(offset, 3, torch.zeros(1))
    for row, position in enumerate((offset, offset + 1, offset + 2)):
        for pair in range(3):
            angle = position / 10000 ** (2 * pair / 6)
            assert table[0, row, 2 * pair].item() == pytest.approx(math.sin(angle), abs=atol)
            assert table[0, row, 2 * pair + 1].item() == pytest.approx(math.cos(angle), abs=atol)


def test_masks_and_reversal_by_hand() -> None:
    assert length_mask(torch.tensor([3, 1]), 3).tolist() == [[True, True, True], [True, False, False]]
    assert chunk_mask(5, 2, -1, torch.device("cpu")).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1],
    ]
    assert chunk_mask(5, 2, 1, torch.device("cpu")).int().tolist()[4] == [0, 0, 1, 1, 1]
    tokens, lengths = torch.tensor([[9, 1, 2, 3], [9, 4, 8, 8], [9, 8, 8, 8]]), torch.tensor([4, 2, 1])
    assert reverse_tokens(tokens, lengths, 8).tolist() == [[9, 3, 2, 1], [9, 4, 8, 8], [9, 8, 8, 8]]


def linear(name: str) -> set[str]:
    return {f"{name}.weight", f"{name}.bias"}


def attention(name: str) -> set[str]:
    return set().union(*(linear(f"{name}.linear_{part}") for part in ("q", "k", "v", "out")))


def feed_forward(name: str) -> set[str]:
    return linear(f"{name}.w_1") | linear(f"{name}.w_2")


def wenet_names() -> set[str]:
    """Return the names in a WeNet U2++ checkpoint of the model's size, less its tables of positions."""
    names = {"encoder.global_cmvn.mean", "encoder.global_cmvn.istd"}
    for name in ("embed.conv.0", "embed.conv.2", "embed.out.0", "after_norm"):
        names |= linear(f"encoder.{name}")
    for i in range(LAYERS):
        layer = f"encoder.encoders.{i}"
        names |= attention(f"{layer}.self_attn") | feed_forward(f"{layer}.feed_forward")
        names |= feed_forward(f"{layer}.feed_forward_macaron")
        names |= {f"{layer}.self_attn.{part}" for part in ("linear_pos.weight", "pos_bias_u", "pos_bias_v")}
        for part in ("pointwise_conv1", "depthwise_conv", "norm", "pointwise_conv2"):
            names |= linear(f"{layer}.conv_module.{part}")
        for part in ("ff", "mha", "ff_macaron", "conv", "final"):
            names |= linear(f"{layer}.norm_{part}")
    for side, blocks in (("left", 2), ("right", 1)):
        decoder = f"decoder.{side}_decoder"
        names |= {f"{decoder}.embed.0.weight"} | linear(f"{decoder}.after_norm") | linear(f"{decoder}.output_layer")
        for i in range(blocks):
            layer = f"{decoder}.decoders.{i}"
            names |= attention(f"{layer}.self_attn") | attention(f"{layer}.src_attn")
            names |= feed_forward(f"{layer}.feed_forward")
            names |= set().union(*(linear(f"{layer}.norm{part}") for part in (1, 2, 3)))
    return names | linear("ctc.ctc_lo")


def test_parameters_have_wenets_names(model: U2Model) -> None:
    assert set(model.state_dict()) == wenet_names()


def test_shapes_are_wenets(model: U2Model) -> None:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    assert shapes["encoder.embed.conv.2.weight"] == (WIDTH, WIDTH, 3, 3)
    assert shapes["encoder.embed.out.0.weight"] == (WIDTH, WIDTH * 19)
    assert shapes["encoder.encoders.0.self_attn.pos_bias_u"] == (HEADS, WIDTH // HEADS)
    assert shapes["encoder.encoders.0.conv_module.depthwise_conv.weight"] == (WIDTH, 1, KERNEL)
    assert shapes["decoder.left_decoder.embed.0.weight"] == (VOCABULARY, WIDTH)
    assert shapes["ctc.ctc_lo.weight"] == (VOCABULARY, WIDTH)


def test_nothing_is_random_after_training(model: U2Model) -> None:
    assert not model.training
    first = model.forward_encoder_chunk(features(100), 0, -1)[0]
    assert torch.equal(model.forward_encoder_chunk(features(100), 0, -1)[0], first)
