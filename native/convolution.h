// Convolutions over time as products of bfloat16 tiles (AMX): the packing, and the steps after a convolution's sums.
//
// Activations have the layout (time, channels), so a tile of 16 times x 32 channels is read in place, shifted by a tap
// of the convolution: the taps need no copy of the input. Every output sums channels and taps in the same order,
// independent of its position in a window and of the thread, so its bits depend only on its inputs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "buffer.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {

// A convolution as Python describes it. With a `stride` over 1 it is transposed and has a weight (inputs, outputs,
// kernel), otherwise (outputs, inputs, kernel). Both are float32. `bias` may be null.
struct LayerSpec {
    const float* weight;
    const float* bias;
    int64_t inputs, outputs, kernel, stride, dilation, padding;
};

namespace {

using bf16 = uint16_t;

constexpr int64_t kTile = 16;            // rows of a tile, and outputs
constexpr int64_t kBlock = 2 * kTile;    // rows and outputs of one computation; channels in a tile of inputs
constexpr int64_t kTileSize = 16 * 32;   // bfloat16 numbers
constexpr float kSlope = 0.1f, kLastSlope = 0.01f;  // slopes of the leaky ReLU: inside, and before the last convolution

struct Range {
    int64_t first, last;  // exclusive
    int64_t size() const { return std::max<int64_t>(0, last - first); }
    Range widened(int64_t by) const { return {first - by, last + by}; }
    Range within(int64_t count) const { return {std::max<int64_t>(first, 0), std::min(last, count)}; }
};

int64_t padded(int64_t channels) { return (channels + kBlock - 1) / kBlock * kBlock; }
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Rows (times) of `width` channels. The first one in memory is row `origin`.
template <typename T>
struct Matrix {
    T* data = nullptr;
    int64_t width = 0, origin = 0;
    int64_t low = 0;  // the offset of the rounding errors, if they are stored
    T* row(int64_t index) const { return data + (index - origin) * width; }
};

using Floats = Matrix<float>;
using Operand = Matrix<bf16>;

// The larger of both, or NaN: the CPU's maximum then returns its second operand.
__m512 leaky(__m512 x, __m512 slope) { return _mm512_max_ps(_mm512_mul_ps(x, slope), x); }

// Stores 32 floats as bfloat16, and with kExact also their rounding errors.
template <bool kExact>
void store_rounded(bf16* to, int64_t low, __m512 a, __m512 b) {
    const __m512i high = (__m512i)_mm512_cvtne2ps_pbh(b, a);
    _mm512_storeu_si512(to, high);
    if constexpr (kExact) {
        const __m512i as_a = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_castsi512_si256(high)), 16);
        const __m512i as_b = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(high, 1)), 16);
        a = _mm512_sub_ps(a, _mm512_castsi512_ps(as_a));
        b = _mm512_sub_ps(b, _mm512_castsi512_ps(as_b));
        _mm512_storeu_si512(to + low, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
}

// A convolution packed for tiles. A transposed one is `stride` plain ones over the inputs, one for each phase of the
// outputs, with the taps that meet an input.
struct Convolution {
    int64_t inputs, outputs, channels;         // outputs without, inputs with the padding of blocks: see `pack`
    int64_t stride, padding;
    std::vector<std::vector<int64_t>> shifts;  // of each phase: the rows that its taps read, relative to the output row
    std::vector<float> bias;
    std::vector<int64_t> panels;  // of each phase and block of outputs: the offset of its weights
    Buffer<bf16> weight;          // panel: (inputs / 32, taps, high and perhaps low part, 2 tiles)

    int64_t blocks() const { return outputs / kBlock; }
    int64_t first_shift() const { return shifts.front().front(); }
    int64_t last_shift() const { return shifts.back().back(); }
    Range inputs_of(Range rows) const {  // the inputs of these rows of outputs (from 0 on)
        const int64_t last = rows.last - 1;
        return {rows.first / stride + shifts[rows.first % stride].front(),
                last / stride + shifts[last % stride].back() + 1};
    }
};

// The tap of `spec` with which a phase multiplies the input shifted by `shift`. It may lie outside of the kernel.
int64_t tap_at(const LayerSpec& spec, int64_t phase, int64_t shift) {
    if (spec.stride > 1) return phase + spec.padding - spec.stride * shift;
    return (shift + spec.padding) / spec.dilation;
}

std::vector<int64_t> shifts_of(const LayerSpec& spec, int64_t phase) {
    std::vector<int64_t> shifts;
    if (spec.stride == 1) {
        for (int64_t tap = 0; tap < spec.kernel; ++tap) shifts.push_back(tap * spec.dilation - spec.padding);
    } else {
        const int64_t first = ceil_div(phase + spec.padding - spec.kernel + 1, spec.stride);
        for (int64_t shift = first; tap_at(spec, phase, shift) >= 0; ++shift) shifts.push_back(shift);
    }
    return shifts;
}

// Packs the tile of 32 inputs from `input` and 16 outputs from `output`: rows of pairs of inputs, interleaved.
template <bool kExact>
void pack_tile(const LayerSpec& spec, int64_t input, int64_t output, int64_t tap, bf16* to, int64_t low) {
    const int64_t over_in = spec.stride > 1 ? spec.outputs * spec.kernel : spec.kernel;
    const int64_t over_out = spec.stride > 1 ? spec.kernel : spec.inputs * spec.kernel;
    for (int64_t pair = 0; pair < kTile; ++pair) {
        alignas(64) float values[32] = {};
        const int64_t in = input + 2 * pair;
        for (int64_t n = 0; n < std::min(kTile, spec.outputs - output); ++n)
            for (int64_t i = 0; i < std::min<int64_t>(2, spec.inputs - in); ++i)
                values[2 * n + i] = spec.weight[(in + i) * over_in + (output + n) * over_out + tap];
        store_rounded<kExact>(to + 32 * pair, low, _mm512_load_ps(values), _mm512_load_ps(values + 16));
    }
}

template <bool kExact>
void pack_panel(const LayerSpec& spec, const std::vector<int64_t>& shifts, int64_t phase, int64_t output, bf16* to) {
    for (int64_t input = 0; input < padded(spec.inputs); input += kBlock) {
        for (const int64_t shift : shifts) {
            const int64_t tap = tap_at(spec, phase, shift);
            for (int64_t half : {0, 1})
                pack_tile<kExact>(spec, input, output + half * kTile, tap, to + half * kTileSize, 2 * kTileSize);
            to += (kExact ? 4 : 2) * kTileSize;
        }
    }
}

template <bool kExact>
Convolution pack(const LayerSpec& spec, Team& team) {
    Convolution layer{padded(spec.inputs), padded(spec.outputs), spec.outputs, spec.stride, spec.padding, {}, {}, {},
                      {}};
    layer.bias.assign(layer.outputs, 0.0f);
    if (spec.bias) std::copy_n(spec.bias, spec.outputs, layer.bias.begin());
    int64_t size = 0;
    for (int64_t phase = 0; phase < spec.stride; ++phase) {
        layer.shifts.push_back(shifts_of(spec, phase));
        for (int64_t block = 0; block < layer.blocks(); ++block) {
            layer.panels.push_back(size);
            size += layer.inputs * kBlock * static_cast<int64_t>(layer.shifts.back().size()) * (kExact ? 2 : 1);
        }
    }
    bf16* weight = layer.weight.reserve(size);
    team.run([&](int member) {
        const Share mine = team.share(member, static_cast<int64_t>(layer.panels.size()));
        for (int64_t panel = mine.first; panel < mine.last; ++panel) {
            const int64_t phase = panel / layer.blocks(), output = panel % layer.blocks() * kBlock;
            pack_panel<kExact>(spec, layer.shifts[phase], phase, output, weight + layer.panels[panel]);
        }
    });
    return layer;
}

// Configures the eight tiles of this thread to their full size during its lifetime.
struct Tiles {
    Tiles() {
        struct Config {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        };
        alignas(64) static const Config config;
        _tile_loadconfig(&config);
    }
    ~Tiles() { _tile_release(); }
};

// Adds the products of the inputs in tiles 4 and 5 with the weights in tiles 6 and 7. With kHalf only of tile 4.
template <bool kHalf>
inline void add_products() {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (!kHalf) {
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
}

template <bool kHalf>
inline void load_inputs(const bf16* first, int64_t width) {
    const int64_t stride = width * static_cast<int64_t>(sizeof(bf16));
    _tile_loadd(4, first, stride);
    if constexpr (!kHalf) _tile_loadd(5, first + kTile * width, stride);
}

inline void load_weights(const bf16* first) {
    _tile_loadd(6, first, 64);
    _tile_loadd(7, first + kTileSize, 64);
}

template <bool kHalf>
inline void store_sums(float* sums) {
    constexpr int64_t kStride = kBlock * sizeof(float);
    _tile_stored(0, sums, kStride);
    _tile_stored(1, sums + kTile, kStride);
    if constexpr (!kHalf) {
        _tile_stored(2, sums + kTile * kBlock, kStride);
        _tile_stored(3, sums + kTile * kBlock + kTile, kStride);
    }
}

// `sums` (32, 32) = the products of 32 rows of inputs (16 with kHalf) with a panel of weights, over all taps. If
// kExact, these are high x high + high x low + low x high.
template <bool kExact, bool kHalf>
void multiply(const Operand& in, int64_t row, const std::vector<int64_t>& shifts, const bf16* panel, float* sums) {
    asm volatile("" ::: "memory");  // GCC does not know that loading a tile reads memory
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t channel = 0; channel < in.width; channel += kBlock) {
        const bf16* at = in.row(row) + channel;
        for (const int64_t shift : shifts) {
            load_inputs<kHalf>(at + shift * in.width, in.width);
            if constexpr (kExact) {
                load_weights(panel + 2 * kTileSize);
                add_products<kHalf>();
            }
            load_weights(panel);
            add_products<kHalf>();
            if constexpr (kExact) {
                load_inputs<kHalf>(at + shift * in.width + in.low, in.width);
                add_products<kHalf>();
            }
            panel += (kExact ? 4 : 2) * kTileSize;
        }
    }
    store_sums<kHalf>(sums);
}

// The steps after a convolution: (sum + bias + residual + total) * scale is stored as floats, and rectified as the
// operand of the next convolution. Null members are omitted.
struct Output {
    const float* bias = nullptr;
    Floats residual = {}, total = {};
    float scale = 1.0f;
    Floats floats = {};
    Operand operand = {};
};

// Finishes `count` rows of sums: every `step`-th row from `row` on, from channel `column` on.
template <bool kExact>
void finish(const float* sums, int64_t count, const Output& out, int64_t row, int64_t step, int64_t column) {
    const __m512 bias[2] = {_mm512_loadu_ps(out.bias + column), _mm512_loadu_ps(out.bias + column + 16)};
    const __m512 scale = _mm512_set1_ps(out.scale), slope = _mm512_set1_ps(kSlope);
    for (int64_t r = 0; r < count; ++r, row += step) {
        __m512 v[2];
        for (int half : {0, 1}) {
            const int64_t c = column + 16 * half;
            v[half] = _mm512_add_ps(_mm512_load_ps(sums + r * kBlock + 16 * half), bias[half]);
            if (out.residual.data) v[half] = _mm512_add_ps(v[half], _mm512_loadu_ps(out.residual.row(row) + c));
            if (out.total.data) v[half] = _mm512_add_ps(v[half], _mm512_loadu_ps(out.total.row(row) + c));
            v[half] = _mm512_mul_ps(v[half], scale);
            if (out.floats.data) _mm512_storeu_ps(out.floats.row(row) + c, v[half]);
        }
        if (out.operand.data)
            store_rounded<kExact>(out.operand.row(row) + column, out.operand.low, leaky(v[0], slope),
                                  leaky(v[1], slope));
    }
}

// Computes the outputs of the input rows in `rows`; of a transposed convolution, `stride` rows each. Only `panels`.
template <bool kExact>
void convolve(const Convolution& layer, const Operand& in, Range rows, const Output& out, Range panels) {
    alignas(64) float sums[kBlock * kBlock];
    for (int64_t panel = panels.first; panel < panels.last; ++panel) {
        const int64_t phase = panel / layer.blocks(), column = panel % layer.blocks() * kBlock;
        const auto& shifts = layer.shifts[phase];
        const bf16* weight = layer.weight.data() + layer.panels[panel];
        for (int64_t row = rows.first; row < rows.last; row += kBlock) {
            const int64_t count = std::min(kBlock, rows.last - row);
            if (count > kTile) {
                multiply<kExact, false>(in, row, shifts, weight, sums);
            } else {
                multiply<kExact, true>(in, row, shifts, weight, sums);
            }
            finish<kExact>(sums, count, out, row * layer.stride + phase, layer.stride, column);
        }
    }
}

template <bool kExact>
void convolve(const Convolution& layer, const Operand& in, Range rows, const Output& out) {
    convolve<kExact>(layer, in, rows, out, {0, static_cast<int64_t>(layer.panels.size())});
}

}  // namespace
}  // namespace mirrorchat
