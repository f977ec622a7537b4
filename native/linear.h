// Linear layers with weights in planes of 8-bit numbers: their packing, and rows of activations multiplied by them.
//
// A weight is scale * high, or scale * (high + low / 254) with two planes; an activation is unit * (high + low / 254).
// Sums of products are exact (32-bit integers) and every row has its own unit: a row's result is the same to the last
// bit alone and in any batch, on AMX and on AVX512-VNNI.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

constexpr int kDepth = 64;          // inputs that one tile multiplies
constexpr int kTile = kDepth * 16;  // bytes of one plane's weights: 16 outputs of kDepth inputs
constexpr int kRows = 8;            // activation rows of a group: their two planes fill a tile's 16 lines
constexpr float kLargest = 127.0f, kPlaneRatio = 254.0f, kSmallest = 1e-30f;

// A packed layer, filled in by mirrorchat/xtts_native_gpt.py.
struct Linear {
    int64_t inputs, outputs;  // multiples of kDepth and 16
    int64_t planes;
    const int8_t* packed;   // (outputs / 16, inputs / kDepth, planes, kDepth / 4, 16, 4)
    const float* scales;    // (outputs)
    const int32_t* totals;  // (planes, outputs): sums of each output's weights
    const float* bias;      // (outputs)
};

inline __m512i quantise_high(__m512 x) { return _mm512_cvtps_epi32(x); }

inline __m512i quantise_low(__m512 x, __m512i high) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, _mm512_cvtepi32_ps(high)), _mm512_set1_ps(kPlaneRatio)));
}

// Rows of activations in two planes of 8 bits, in groups: for each kDepth inputs the group's high lines, then its low.
class Activations {
  public:
    void resize(int64_t rows, int64_t most_inputs) {
        rows_ = rows;
        bytes_.resize(std::max<size_t>(bytes_.size(), 2 * rows * most_inputs));
        units_.resize(std::max<size_t>(units_.size(), rows));
    }

    int64_t groups() const { return (rows_ + kRows - 1) / kRows; }
    int rows_in(int64_t group) const { return static_cast<int>(std::min<int64_t>(kRows, rows_ - group * kRows)); }
    float unit(int64_t row) const { return units_[row]; }
    const int8_t* group(int64_t index, int64_t inputs) const { return bytes_.data() + 2 * index * kRows * inputs; }

    // Takes `row` in. What is no number makes its unit none, and so everything that is computed of it.
    void set(int64_t row, const float* x, int64_t inputs) {
        __m512 most = _mm512_setzero_ps(), strange = _mm512_setzero_ps();
        for (int64_t i = 0; i < inputs; i += kLanes) {
            const __m512 value = _mm512_loadu_ps(x + i);
            most = _mm512_max_ps(most, _mm512_abs_ps(value));
            strange = _mm512_fmadd_ps(value, _mm512_setzero_ps(), strange);
        }
        const float largest = std::max(_mm512_reduce_max_ps(most), kSmallest);
        units_[row] = largest / kLargest + _mm512_reduce_add_ps(strange);
        write(row, x, inputs, _mm512_set1_ps(kLargest / largest));
    }

  private:
    void write(int64_t row, const float* x, int64_t inputs, __m512 inverse) {
        const int rows = rows_in(row / kRows), line = static_cast<int>(row % kRows);
        int8_t* bytes = bytes_.data() + 2 * (row / kRows) * kRows * inputs + line * kDepth;
        for (int64_t i = 0; i < inputs; i += kLanes) {
            const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + i), inverse);
            const __m512i high = quantise_high(scaled), low = quantise_low(scaled, high);
            int8_t* to = bytes + (i / kDepth) * 2 * rows * kDepth + i % kDepth;
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(high));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + rows * kDepth), _mm512_cvtsepi32_epi8(low));
        }
    }

    int64_t rows_ = 0;
    std::vector<int8_t> bytes_;
    std::vector<float> units_;
};

// One or two blocks of 16 outputs' weights that are multiplied together: a panel's two planes, or two panels.
struct Weights {
    const int8_t* first;
    int64_t apart, step;  // bytes from one block to the other, and from kDepth inputs to the next

    const int8_t* block(int index) const { return first + index * apart; }
};

// Sums of products of a group's lines (at most 16) with each of the blocks.
struct Sums {
    alignas(64) int32_t value[2][16][16];  // block, line, output
};

#ifdef __AMX_INT8__

// Tiles: 0 to 3 the sums of each group and block, 4 and 5 the groups' activations, 6 and 7 the blocks' weights.
class Products {
  public:
    ~Products() { _tile_release(); }

    // Two groups at once use the weights twice while they are at hand; `second` is null where there is one.
    template <int BLOCKS>
    void compute(Weights weights, int64_t inputs, const int8_t* x, int rows, const int8_t* second, int more, Sums* sums) {
        configure(rows, more);
        if (second == nullptr) {
            one<BLOCKS>(weights, inputs, x, rows, sums[0]);
        } else {
            two<BLOCKS>(weights, inputs, x, rows, second, more, sums);
        }
    }

  private:
    void configure(int rows, int more) {
        if (rows == rows_ && more == more_) return;
        rows_ = rows, more_ = more;
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t lines[16] = {};
        } config;
        for (int tile = 0; tile < 8; ++tile) {
            const bool for_second = tile == 2 || tile == 3 || tile == 5;
            config.bytes[tile] = 64;
            config.lines[tile] = tile >= 6 ? 16 : 2 * (for_second && more ? more : rows);
        }
        _tile_loadconfig(&config);
    }

    static void fetch(const int8_t* weights) {  // the processor's own prefetch stops at each page's end
        for (int line = 0; line < kTile; line += 64)
            _mm_prefetch(reinterpret_cast<const char*>(weights + kAhead + line), _MM_HINT_T0);
    }

    template <int BLOCKS>
    static void one(Weights weights, int64_t inputs, const int8_t* x, int rows, Sums& sums) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t depth = 0; depth < inputs; depth += kDepth, weights.first += weights.step) {
            for (int block = 0; block < BLOCKS; ++block) fetch(weights.block(block));
            _tile_loadd(4, x, kDepth);
            _tile_loadd(6, weights.first, 64);
            _tile_dpbssd(0, 4, 6);
            if constexpr (BLOCKS == 2) {
                _tile_loadd(7, weights.block(1), 64);
                _tile_dpbssd(1, 4, 7);
            }
            x += 2 * rows * kDepth;
        }
        _tile_stored(0, sums.value[0], 64);
        if constexpr (BLOCKS == 2) _tile_stored(1, sums.value[1], 64);
    }

    // No prefetch: many rows wait for the products, not for the memory.
    template <int BLOCKS>
    static void two(Weights weights, int64_t inputs, const int8_t* x, int rows, const int8_t* second, int more,
                    Sums* sums) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t depth = 0; depth < inputs; depth += kDepth, weights.first += weights.step) {
            _tile_loadd(4, x, kDepth);
            _tile_loadd(6, weights.first, 64);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(5, second, kDepth);
            _tile_dpbssd(2, 5, 6);
            if constexpr (BLOCKS == 2) {
                _tile_loadd(7, weights.block(1), 64);
                _tile_dpbssd(1, 4, 7);
                _tile_dpbssd(3, 5, 7);
            }
            x += 2 * rows * kDepth, second += 2 * more * kDepth;
        }
        _tile_stored(0, sums[0].value[0], 64);
        _tile_stored(2, sums[1].value[0], 64);
        if constexpr (BLOCKS == 2) {
            _tile_stored(1, sums[0].value[1], 64);
            _tile_stored(3, sums[1].value[1], 64);
        }
    }

    static constexpr int kAhead = 8 * kTile;
    int rows_ = 0, more_ = -1;
};

inline __m512i corrected(const Sums& sums, int block, int line, const int32_t*) {
    return _mm512_load_si512(sums.value[block][line]);
}

#else

// AVX512-VNNI multiplies unsigned by signed numbers: activations are raised by 128, and `corrected` takes that out.
class Products {
  public:
    template <int BLOCKS>
    void compute(Weights weights, int64_t inputs, const int8_t* x, int rows, const int8_t* second, int more, Sums* sums) {
        group<BLOCKS>(weights, inputs, x, rows, sums[0]);
        if (second != nullptr) group<BLOCKS>(weights, inputs, second, more, sums[1]);
    }

  private:
    static constexpr int kLines = 4;  // at once: with two blocks 8 sums, as many as hide an addition's latency

    template <int BLOCKS>
    static void group(Weights weights, int64_t inputs, const int8_t* x, int rows, Sums& sums) {
        for (int line = 0; line < 2 * rows; line += kLines) {
            if (2 * rows - line >= kLines) {
                lines<BLOCKS, kLines>(weights, inputs, x + line * kDepth, 2 * rows, sums, line);
            } else {
                lines<BLOCKS, 2>(weights, inputs, x + line * kDepth, 2 * rows, sums, line);
            }
        }
    }

    template <int BLOCKS, int LINES>
    static void lines(Weights weights, int64_t inputs, const int8_t* x, int stride, Sums& sums, int first) {
        __m512i total[BLOCKS][LINES] = {};
        for (int64_t depth = 0; depth < inputs; depth += kDepth, x += stride * kDepth, weights.first += weights.step) {
            for (int four = 0; four < kDepth; four += 4) {
                __m512i raised[LINES];
                for (int line = 0; line < LINES; ++line) raised[line] = four_inputs(x + line * kDepth + four);
                for (int block = 0; block < BLOCKS; ++block) {
                    const __m512i weight = _mm512_loadu_si512(weights.block(block) + four * kLanes);
                    for (int line = 0; line < LINES; ++line)
                        total[block][line] = _mm512_dpbusd_epi32(total[block][line], raised[line], weight);
                }
            }
        }
        for (int block = 0; block < BLOCKS; ++block)
            for (int line = 0; line < LINES; ++line)
                _mm512_store_si512(sums.value[block][first + line], total[block][line]);
    }

    static __m512i four_inputs(const int8_t* x) {
        int32_t four;
        std::memcpy(&four, x, 4);
        return _mm512_set1_epi32(four ^ static_cast<int32_t>(0x80808080));
    }
};

inline __m512i corrected(const Sums& sums, int block, int line, const int32_t* totals) {
    return _mm512_sub_epi32(_mm512_load_si512(sums.value[block][line]), _mm512_slli_epi32(_mm512_loadu_si512(totals), 7));
}

#endif

// Both planes of activation row `row` of a group of `rows` times one block, in units of the row and the output.
inline __m512 both_planes(const Sums& sums, int block, int rows, int row, const int32_t* totals) {
    const __m512 high = _mm512_cvtepi32_ps(corrected(sums, block, row, totals));
    const __m512 low = _mm512_cvtepi32_ps(corrected(sums, block, rows + row, totals));
    return _mm512_fmadd_ps(low, _mm512_set1_ps(1 / kPlaneRatio), high);
}

// Calls `emit(row, first output, values)` for a group's rows with what the blocks of panel `panel` on have given.
template <int BLOCKS, typename Emit>
void emit_group(const Linear& layer, const Activations& x, int64_t group, int64_t panel, const Sums& sums,
                const Emit& emit) {
    const int rows = x.rows_in(group), panels = layer.planes == 1 ? BLOCKS : 1;
    for (int each = 0; each < panels; ++each) {
        const int64_t output = (panel + each) * kLanes;
        const int32_t* totals = layer.totals + output;
        const __m512 scale = _mm512_loadu_ps(layer.scales + output), bias = _mm512_loadu_ps(layer.bias + output);
        for (int row = 0; row < rows; ++row) {
            __m512 found = both_planes(sums, each, rows, row, totals);
            if (layer.planes == 2) {
                const __m512 low = both_planes(sums, 1, rows, row, totals + layer.outputs);
                found = _mm512_fmadd_ps(low, _mm512_set1_ps(1 / kPlaneRatio), found);
            }
            const int64_t index = group * kRows + row;
            emit(index, output, _mm512_fmadd_ps(found, _mm512_mul_ps(scale, _mm512_set1_ps(x.unit(index))), bias));
        }
    }
}

template <int BLOCKS, typename Emit>
void multiply_panel(const Linear& layer, const Activations& x, int64_t panel, Products& products, const Emit& emit) {
    const int64_t bytes = layer.inputs * kLanes;
    const Weights weights{layer.packed + panel * layer.planes * bytes, layer.planes == 2 ? kTile : bytes,
                          layer.planes * kTile};
    Sums sums[2];
    for (int64_t group = 0; group < x.groups(); group += 2) {
        const bool both = group + 1 < x.groups();
        products.template compute<BLOCKS>(weights, layer.inputs, x.group(group, layer.inputs), x.rows_in(group),
                                          both ? x.group(group + 1, layer.inputs) : nullptr,
                                          both ? x.rows_in(group + 1) : 0, sums);
        emit_group<BLOCKS>(layer, x, group, panel, sums[0], emit);
        if (both) emit_group<BLOCKS>(layer, x, group + 1, panel, sums[1], emit);
    }
}

// Calls `emit(row, first output, values)` with 16 outputs at a time of the member's share of the layer.
template <typename Emit>
void linear(const Linear& layer, const Activations& x, Share panels, Products& products, const Emit& emit) {
    int64_t panel = panels.first;
    const int at_once = layer.planes == 1 ? 2 : 1;
    for (; panel + at_once <= panels.last; panel += at_once) multiply_panel<2>(layer, x, panel, products, emit);
    for (; panel < panels.last; ++panel) multiply_panel<1>(layer, x, panel, products, emit);
}

// Packing: a member goes through its share of the outputs row by row, as the matrix lies in memory.
struct Packing {
    const float* matrix;  // (inputs, outputs given)
    int64_t inputs, given, planes;
    int8_t* packed;
    float* scales;
    int32_t* totals;
    int64_t outputs;  // `given` rounded up to 16

    __mmask16 real(int64_t output) const {
        const int64_t left = given - output;
        return left >= kLanes ? 0xffff : (1 << std::max<int64_t>(left, 0)) - 1;
    }

    __m512 row(int64_t input, int64_t output) const {
        return _mm512_maskz_loadu_ps(real(output), matrix + input * given + output);
    }

    void find_scales(int64_t first, int64_t last) const {
        std::fill(scales + first, scales + last, kSmallest);
        for (int64_t input = 0; input < inputs; ++input)
            for (int64_t output = first; output < last; output += kLanes) {
                const __m512 most = _mm512_loadu_ps(scales + output);
                _mm512_storeu_ps(scales + output, _mm512_max_ps(most, _mm512_abs_ps(row(input, output))));
            }
        for (int64_t output = first; output < last; ++output) scales[output] /= kLargest;
    }

    void write(int64_t first, int64_t last) const {
        for (int64_t plane = 0; plane < planes; ++plane)
            std::fill(totals + plane * outputs + first, totals + plane * outputs + last, 0);
        for (int64_t input = 0; input < inputs; input += 4)
            for (int64_t output = first; output < last; output += kLanes) write_four(input, output);
    }

    void write_four(int64_t input, int64_t output) const {
        const __m512 inverse = _mm512_div_ps(_mm512_set1_ps(1.0f), _mm512_loadu_ps(scales + output));
        __m512i bytes[2] = {}, total[2] = {};
        for (int64_t i = 0; i < 4; ++i) {
            const __m512 scaled = _mm512_mul_ps(row(input + i, output), inverse);
            const __m512i high = quantise_high(scaled), parts[2] = {high, quantise_low(scaled, high)};
            for (int plane = 0; plane < 2; ++plane) {
                total[plane] = _mm512_add_epi32(total[plane], parts[plane]);
                const __m512i byte = _mm512_and_si512(parts[plane], _mm512_set1_epi32(0xff));
                bytes[plane] = _mm512_or_si512(bytes[plane], _mm512_sllv_epi32(byte, _mm512_set1_epi32(8 * i)));
            }
        }
        int8_t* to = packed + (output / kLanes * inputs + input / kDepth * kDepth) * planes * kLanes;
        for (int64_t plane = 0; plane < planes; ++plane) {
            _mm512_storeu_si512(to + plane * kTile + input % kDepth * kLanes, bytes[plane]);
            int32_t* sum = totals + plane * outputs + output;
            _mm512_storeu_si512(sum, _mm512_add_epi32(_mm512_loadu_si512(sum), total[plane]));
        }
    }
};

}  // namespace
}  // namespace mirrorchat
