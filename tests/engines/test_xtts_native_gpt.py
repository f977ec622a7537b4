"""The GPT in C++ against torch with the same weights, on every variant that this CPU runs."""

import ctypes
import shutil
from pathlib import Path

import pytest
import torch
from make_tiny_xtts import make_checkpoint
from support.native_variants import NAMES, variant_or_skip

from mirrorchat.hardware import native
from mirrorchat.hardware.native_layers import STRIP, PackedLinears
from mirrorchat.xtts.checkpoint import read_weights
from mirrorchat.xtts.gpt import Cache, TorchGpt
from mirrorchat.xtts.linear import WeightMode
from mirrorchat.xtts.model import Network, load_network
from mirrorchat.xtts.native_gpt import NativeGpt

CPU = torch.device("cpu")
POSITIONS = 120
MODES = (WeightMode.FP16W, WeightMode.INT8)

variants = pytest.mark.parametrize("library", NAMES, indirect=True)
planes_of = {WeightMode.FP16W: 2, WeightMode.INT8: 1}


@pytest.fixture
def library(request: pytest.FixtureRequest) -> native.Library:
    return variant_or_skip(request.param)


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def in_planes(x: torch.Tensor, planes: int) -> torch.Tensor:
    """Return the numbers that rows of `x` become in planes of 8 bits, in float64: the method, slowly."""
    unit = x.double().abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    exact = x.double() / unit
    high = exact.round()
    low = ((exact - high) * 254).round() if planes == 2 else torch.zeros_like(high)
    return unit * (high + low / 254)


def as_packed(network: Network, planes: int) -> Network:
    """Give `network` the weights that packing keeps of its own."""
    for layer in network.gpt.gpt.h:
        for parameter in layer.parameters():
            if parameter.dim() == 2:
                parameter.data = in_planes(parameter.data.T, planes).T.float().contiguous()
    head = network.gpt.mel_head.weight
    head.data = in_planes(head.data, planes).float()
    return network


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("xtts")
    make_checkpoint(folder, seed=3)
    return folder


def run(gpt: NativeGpt | TorchGpt, prefixes: list[torch.Tensor], steps: int) -> torch.Tensor:
    """Prefill each prefix in two parts, then step all together; return every latent and score, (steps, n, ...)."""
    cache = Cache(len(prefixes), POSITIONS, gpt)
    slots = list(range(len(prefixes)))
    for slot, prefix in zip(slots, prefixes, strict=True):
        gpt.prefill(prefix[:5], cache, slot, 0)
        gpt.prefill(prefix[5:], cache, slot, 5)
    results = []
    for step in range(steps):
        x = gpt.audio_inputs([(7 * slot + step) % 60 for slot in slots], [step + 1] * len(slots))
        out = gpt.step(x, cache, slots, [len(prefix) + step for prefix in prefixes])
        results.append(torch.cat(gpt.latents_and_scores(out), dim=1))
    return torch.stack(results)


def prefixes(count: int) -> list[torch.Tensor]:
    return [random(20 + 7 * index, 64, seed=index) for index in range(count)]


class TestLinear:
    @variants
    @pytest.mark.parametrize("planes", [1, 2])
    @pytest.mark.parametrize(("inputs", "outputs"), [(64, 16), (64, 66), (1024, 48), (4096, 32)])
    @pytest.mark.parametrize("rows", [1, 2, 7, 8, 9, 16, 27])
    def test_equals_the_method_in_float64(
        self, library: native.Library, planes: int, inputs: int, outputs: int, rows: int
    ) -> None:
        weight = random(inputs, outputs, seed=1) * torch.logspace(-3, 1, outputs)
        bias = random(outputs, seed=2)
        x = random(rows, inputs, seed=3) * torch.logspace(-4, 4, rows)[:, None]
        expected = in_planes(x, 2) @ in_planes(weight.T, planes).T + bias.double()
        found = multiply(library, weight, bias, x, planes)
        size = x.norm(dim=1, keepdim=True) * weight.norm(dim=0) + bias.abs()
        assert float(((found - expected).abs() / size).max()) < 1e-5  # a rounding to the next step, rarely, and float32

    @pytest.mark.parametrize("planes", [1, 2])
    def test_variants_agree_to_the_last_bit(self, planes: int) -> None:
        weight, bias, x = random(1024, 80, seed=1), random(80, seed=2), random(19, 1024, seed=3)
        first, *others = (multiply(variant_or_skip(name), weight, bias, x, planes) for name in NAMES)
        assert all(torch.equal(first, other) for other in others)

    @variants
    def test_sums_are_exact_at_the_largest_numbers(self, library: native.Library) -> None:
        """A CPU that adds pairs of products in 16 bits saturates here."""
        weight, x = torch.full((4096, 16), 127.0), torch.full((1, 4096), -127.0)
        assert torch.equal(multiply(library, weight, torch.zeros(16), x, 1), torch.full((1, 16), -127.0 * 127 * 4096))

    @variants
    def test_zeros_give_the_bias(self, library: native.Library) -> None:
        bias = random(16, seed=1)
        assert torch.equal(multiply(library, random(64, 16, seed=2), bias, torch.zeros(3, 64), 2), bias.expand(3, 16))
        assert torch.equal(multiply(library, torch.zeros(64, 16), bias, random(3, 64, seed=2), 2), bias.expand(3, 16))

    @variants
    def test_what_cannot_be_packed_is_refused(self, library: native.Library) -> None:
        linears = PackedLinears(library, native.Team(library, 1), planes=1, room=64 * STRIP)
        with pytest.raises(ValueError, match="100 inputs"):
            linears.add(torch.zeros(100, 4), torch.zeros(4))
        linears.add(torch.zeros(64, 4), torch.zeros(4))
        with pytest.raises(ValueError, match="cannot be packed"):  # no room is left
            linears.add(torch.zeros(64, 4), torch.zeros(4))


def multiply(
    library: native.Library, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor, planes: int
) -> torch.Tensor:
    room = PackedLinears.room_for(weight.shape[0], weight.shape[1], planes)
    linears = PackedLinears(library, native.Team(library, 2), planes=planes, room=room)
    return linears.multiply(linears.add(weight, bias), x)[:, : weight.shape[1]]


class TestGpt:
    @variants
    @pytest.mark.parametrize("mode", MODES)
    def test_equals_torch_with_the_same_weights(self, library: native.Library, folder: Path, mode: WeightMode) -> None:
        found = run(NativeGpt(load_network(folder), mode, library, 2), prefixes(3), 12)
        reference = TorchGpt(as_packed(load_network(folder), planes_of[mode]), WeightMode.FP32, CPU)
        expected = run(reference, prefixes(3), 12)
        assert found.shape == expected.shape
        # Activations have 16 bits, keys and values 11 or more; 8 bits would be off by 1e-2.
        assert float((found - expected).norm() / expected.norm()) < 1e-3

    @variants
    @pytest.mark.parametrize("mode", MODES)
    def test_a_sequence_is_the_same_to_the_last_bit_in_any_batch_and_with_any_threads(
        self, library: native.Library, folder: Path, mode: WeightMode
    ) -> None:
        together = run(NativeGpt(load_network(folder), mode, library, 3), prefixes(11), 6)
        alone = NativeGpt(load_network(folder), mode, library, 1)
        for index in (0, 4, 7, 8, 10):
            cache = Cache(1, POSITIONS, alone)
            prefix = prefixes(11)[index]
            alone.prefill(prefix, cache, 0, 0)
            for step in range(6):
                x = alone.audio_inputs([(7 * index + step) % 60], [step + 1])
                out = alone.step(x, cache, [0], [len(prefix) + step])
                assert torch.equal(torch.cat(alone.latents_and_scores(out), dim=1)[0], together[step, index])

    @variants
    @pytest.mark.parametrize("mode", MODES)
    def test_a_sequence_goes_on_as_before_in_another_row(
        self, library: native.Library, folder: Path, mode: WeightMode
    ) -> None:
        gpt, prefix, x = NativeGpt(load_network(folder), mode, library, 2), prefixes(3)[2], random(1, 64, seed=9)
        cache = Cache(3, POSITIONS, gpt)
        gpt.prefill(prefix, cache, 0, 0)
        saved = cache.save(0, len(prefix))
        assert saved.dtype == cache.data.dtype == (torch.float16 if mode is WeightMode.INT8 else torch.float32)
        expected = gpt.step(x, cache, [0], [len(prefix)])
        cache.data[0] = torch.nan
        cache.load(2, saved)
        assert torch.equal(gpt.step(x, cache, [2], [len(prefix)]), expected)

    @variants
    def test_half_precision_is_the_nearest_to_what_float32_would_keep(
        self, library: native.Library, folder: Path
    ) -> None:
        gpt, x = NativeGpt(load_network(folder), WeightMode.INT8, library, 2), random(30, 64, seed=9)
        halves, floats = Cache(1, len(x), gpt), Cache(1, len(x), gpt)
        floats.data = floats.data.float()
        for cache in (halves, floats):
            gpt.prefill(x, cache, 0, 0)
        assert torch.equal(halves.data[:, 0], floats.data[:, 0].half())  # later layers see the rounding of earlier ones

    @variants
    def test_what_half_precision_cannot_hold_fails_its_sequence_alone(
        self, library: native.Library, folder: Path
    ) -> None:
        network = load_network(folder)
        layer = network.gpt.gpt.h[0]
        layer.attn.c_attn.weight.data[0, 64] = 1e6  # from the first input to the first number of a key
        layer.ln_1.bias.data[0] = 0
        gpt = NativeGpt(network, WeightMode.INT8, library, 2)
        x = random(3, 64, seed=9)
        x[:, 0] = x[:, 1:].mean(1)  # near 0 after the norm
        cache = Cache(3, POSITIONS, gpt)
        first = gpt.step(x, cache, [0, 1, 2], [0, 0, 0])
        assert first.isfinite().all()
        x[1:, 0] = torch.tensor([50.0, -50.0])  # a key that scores highest and one that scores lowest
        found = gpt.step(x, cache, [0, 1, 2], [1, 1, 1])
        assert found[0].isfinite().all()
        assert found[1:].isnan().all()

    @variants
    @pytest.mark.parametrize("mode", MODES)
    def test_what_is_no_number_stays_in_its_sequence(
        self, library: native.Library, folder: Path, mode: WeightMode
    ) -> None:
        gpt = NativeGpt(load_network(folder), mode, library, 2)
        broken = prefixes(3)
        broken[1][3, 5] = torch.nan
        found, expected = run(gpt, broken, 3), run(gpt, prefixes(3), 3)
        assert found[:, 1].isnan().all()
        assert torch.equal(found[:, [0, 2]], expected[:, [0, 2]])

    @variants
    def test_places_outside_the_cache_are_refused(self, library: native.Library, folder: Path) -> None:
        gpt = NativeGpt(load_network(folder), WeightMode.INT8, library, 1)
        cache = Cache(2, POSITIONS, gpt)
        x = torch.zeros(1, 64)
        for slot, position in ((2, 0), (-1, 0), (0, POSITIONS), (0, -1)):
            with pytest.raises(ValueError, match="outside the cache"):
                gpt.step(x, cache, [slot], [position])
        for wrong in (torch.zeros(2, 64), torch.zeros(1, 32)):
            with pytest.raises(ValueError, match="inputs of shape"):
                gpt.step(wrong, cache, [0], [0])

    @variants
    def test_too_little_memory_is_an_error(self, library: native.Library, folder: Path) -> None:
        gpt, count = NativeGpt(load_network(folder), WeightMode.INT8, library, 2), 1 << 50
        for function, places in ((library.functions.gpt_forward, 4), (library.functions.gpt_finish, 3)):
            # more rows than any memory holds; the library sees that before it looks at them
            arguments = [ctypes.c_void_p(None)] * places
            assert function(gpt._model.pointer, arguments[0], ctypes.c_int64(count), *arguments[1:]) == -1

    @variants
    def test_keeps_nothing_of_the_network(self, library: native.Library, folder: Path) -> None:
        network = load_network(folder)
        gpt = NativeGpt(network, WeightMode.FP16W, library, 2)
        expected = run(gpt, prefixes(2), 2)
        for parameter in network.gpt.gpt.parameters():
            parameter.data = torch.full_like(parameter, torch.nan)
        assert torch.equal(run(gpt, prefixes(2), 2), expected)


class TestLibrary:
    def test_is_the_best_variant_that_runs(self) -> None:
        running = [native.variant(name) for name in NAMES if native.variant(name) is not None]
        assert native.library() is (running[0] if running else None)

    @pytest.mark.parametrize("name", NAMES)
    def test_is_there_where_there_is_a_compiler(self, name: str) -> None:
        if shutil.which("g++") is None:
            pytest.skip("no compiled library: there is no g++ to compile it")
        assert native.compiled(name) is not None

    def test_none_is_found_where_none_was_compiled(self) -> None:
        assert native.compiled("_native_of_another_kind") is None

    def test_mapped_weights_are_let_go_of_and_read_again(self, folder: Path) -> None:
        weights = read_weights(folder)
        name = max(weights, key=lambda name: weights[name].nbytes)
        before = weights[name].clone()
        with native.mapped_in(weights[name]):
            assert torch.equal(weights[name], before)
        assert torch.equal(weights[name], before)

    def test_memory_that_no_file_holds_is_left_alone(self) -> None:
        kept = torch.arange(1 << 20)
        with native.mapped_in(kept):
            pass
        assert torch.equal(kept, torch.arange(1 << 20))
