// Linear layers with weights in planes of 8-bit numbers: their packing, and their product with rows of activations.
//
// A weight is scale * high, or with two planes scale * (high + low / 254). An activation is the same, with the unit of
// its row. Sums of products are exact (32-bit integers) and every row has its own unit, so the bits of a row's result
// do not depend on its batch, and are equal on AMX and AVX512-VNNI.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "buffer.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

constexpr int kDepth = 64;          // inputs that one tile multiplies
constexpr int kTile = kDepth * 16;  // bytes of one plane's weights: 16 outputs of kDepth inputs
constexpr int kLines = 16;          // lines of a tile: the planes of a group of activation rows
constexpr float kLargest = 127.0f, kPlaneRatio = 254.0f, kSmallest = 1e-30f;

// A packed layer. mirrorchat/hardware/native_layers.py fills it in.
struct Linear {
    int64_t inputs, outputs;  // multiples of kDepth, and of the outputs of a strip
    int64_t planes;
    const int8_t* packed;   // strips of two blocks, (strip, inputs / kDepth, 2, kDepth / 4, 16, 4): see below
    const float* scales;    // (outputs)
    const int32_t* totals;  // (planes, outputs): sums of each output's weights
    const float* bias;      // (outputs)

    // The two blocks of a strip are both planes of 16 outputs, or one plane of 32 outputs.
    int64_t panels() const { return planes == 1 ? 2 : 1; }  // panels of 16 outputs in a strip
    int64_t strips() const { return outputs / (panels() * kLanes); }
    int64_t strip_bytes() const { return inputs * 2 * kLanes; }
    const int8_t* strip(int64_t index) const { return packed + index * strip_bytes(); }
};

inline __m512i quantize_high(__m512 x) { return _mm512_cvtps_epi32(x); }

inline __m512i quantize_low(__m512 x, __m512i high) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_sub_ps(x, _mm512_cvtepi32_ps(high)), _mm512_set1_ps(kPlaneRatio)));
}

// Rows of activations in 8-bit planes, in groups. For each kDepth inputs a group has its high lines, then its low ones.
class Activations {
  public:
    explicit Activations(int planes = 2) : planes_(planes) {}

    void resize(int64_t rows, int64_t most_inputs) {
        rows_ = rows;
        bytes_.reserve(planes_ * rows * most_inputs);
        units_.reserve(rows);
    }

    int planes() const { return planes_; }
    int most_rows() const { return kLines / planes_; }  // in a group
    int64_t groups() const { return (rows_ + most_rows() - 1) / most_rows(); }
    int rows_in(int64_t group) const {
        return static_cast<int>(std::min<int64_t>(most_rows(), rows_ - group * most_rows()));
    }
    int lines_in(int64_t group) const { return planes_ * rows_in(group); }
    float unit(int64_t row) const { return units_.data()[row]; }
    const int8_t* group(int64_t index, int64_t inputs) const { return bytes_.data() + index * kLines * inputs; }

    // Quantizes a row. NaN in the row makes its unit NaN, and so all results of the row.
    void set(int64_t row, const float* x, int64_t inputs) {
        __m512 most = _mm512_setzero_ps(), strange = _mm512_setzero_ps();
        for (int64_t i = 0; i < inputs; i += kLanes) {
            const __m512 value = _mm512_loadu_ps(x + i);
            most = _mm512_max_ps(most, _mm512_abs_ps(value));
            strange = _mm512_fmadd_ps(value, _mm512_setzero_ps(), strange);
        }
        const float largest = std::max(_mm512_reduce_max_ps(most), kSmallest);
        units_.data()[row] = largest / kLargest + _mm512_reduce_add_ps(strange);
        write(row, x, inputs, _mm512_set1_ps(kLargest / largest));
    }

  private:
    void write(int64_t row, const float* x, int64_t inputs, __m512 inverse) {
        const int64_t index = row / most_rows();
        const int rows = rows_in(index), line = static_cast<int>(row % most_rows());
        int8_t* bytes = bytes_.data() + index * kLines * inputs + line * kDepth;
        for (int64_t i = 0; i < inputs; i += kLanes) {
            const __m512 scaled = _mm512_mul_ps(_mm512_loadu_ps(x + i), inverse);
            const __m512i high = quantize_high(scaled);
            int8_t* to = bytes + (i / kDepth) * planes_ * rows * kDepth + i % kDepth;
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(high));
            if (planes_ == 1) continue;
            const __m512i low = quantize_low(scaled, high);
            _mm_storeu_si128(reinterpret_cast<__m128i*>(to + rows * kDepth), _mm512_cvtsepi32_epi8(low));
        }
    }

    int planes_;
    int64_t rows_ = 0;
    Buffer<int8_t> bytes_;
    Buffer<float> units_;
};

// The order of reading weights: those at `next` follow after `end`. Weights some tiles ahead are prefetched.
struct Ahead {
    const int8_t *end, *next;

    const int8_t* of(const int8_t* weights) const {
        const int8_t* ahead = weights + kAhead;
        return ahead < end ? ahead : next + (ahead - end);
    }

    static constexpr int kAhead = 16 * kTile;
};

// Sums of products of the lines of a group with each block of a strip.
struct Sums {
    alignas(64) int32_t value[2][kLines][16];  // block, line, output
};

#ifdef __AMX_INT8__

// Tiles 0 to 3 have the sums of each group and block, 4 and 5 the activations of the groups, 6 and 7 the weights.
class Products {
  public:
    ~Products() { _tile_release(); }

    // Two groups together use loaded weights twice. `second` is null for a single group.
    void compute(const int8_t* weights, Ahead ahead, int64_t inputs, const int8_t* x, int lines, const int8_t* second,
                 int more, Sums* sums) {
        configure(lines, more);
        if (second == nullptr) {
            one(weights, ahead, inputs, x, lines, sums[0]);
        } else {
            two(weights, ahead, inputs, x, lines, second, more, sums);
        }
    }

  private:
    void configure(int lines, int more) {
        if (lines == lines_ && more == more_) return;
        lines_ = lines, more_ = more;
        struct alignas(64) {
            uint8_t palette = 1, start = 0, reserved[14] = {};
            uint16_t bytes[16] = {};
            uint8_t lines[16] = {};
        } config;
        for (int tile = 0; tile < 8; ++tile) {
            const bool for_second = tile == 2 || tile == 3 || tile == 5;
            config.bytes[tile] = 64;
            config.lines[tile] = tile >= 6 ? kLines : for_second && more ? more : lines;
        }
        _tile_loadconfig(&config);
    }

    static void fetch(const int8_t* weights) {  // the prefetcher of the processor stops at page boundaries
        for (int line = 0; line < 2 * kTile; line += 64)
            _mm_prefetch(reinterpret_cast<const char*>(weights + line), _MM_HINT_T0);
    }

    static void one(const int8_t* weights, Ahead ahead, int64_t inputs, const int8_t* x, int lines, Sums& sums) {
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t depth = 0; depth < inputs; depth += kDepth) {
            fetch(ahead.of(weights));
            _tile_loadd(4, x, kDepth);
            _tile_loadd(6, weights, 64);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(7, weights + kTile, 64);
            _tile_dpbssd(1, 4, 7);
            weights += 2 * kTile, x += lines * kDepth;
        }
        _tile_stored(0, sums.value[0], 64);
        _tile_stored(1, sums.value[1], 64);
    }

    static void two(const int8_t* weights, Ahead ahead, int64_t inputs, const int8_t* x, int lines,
                    const int8_t* second, int more, Sums* sums) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t depth = 0; depth < inputs; depth += kDepth) {
            _tile_loadd(4, x, kDepth);
            _tile_loadd(6, weights, 64);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(5, second, kDepth);
            _tile_dpbssd(2, 5, 6);
            _tile_loadd(7, weights + kTile, 64);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(3, 5, 7);
            weights += 2 * kTile, x += lines * kDepth, second += more * kDepth;
        }
        _tile_stored(0, sums[0].value[0], 64);
        _tile_stored(1, sums[0].value[1], 64);
        _tile_stored(2, sums[1].value[0], 64);
        _tile_stored(3, sums[1].value[1], 64);
    }

    int lines_ = 0, more_ = -1;
};

inline __m512i corrected(const Sums& sums, int block, int line, const int32_t*) {
    return _mm512_load_si512(sums.value[block][line]);
}

#else

// AVX512-VNNI multiplies unsigned by signed numbers. Activations get an offset of 128, which `corrected` removes.
class Products {
  public:
    void compute(const int8_t* weights, Ahead, int64_t inputs, const int8_t* x, int lines, const int8_t* second,
                 int more, Sums* sums) {
        group(weights, inputs, x, lines, sums[0]);
        if (second != nullptr) group(weights, inputs, second, more, sums[1]);
    }

  private:
    static constexpr int kAtOnce = 4;  // lines; with two blocks that is 8 sums, which hide the latency of an addition

    static void group(const int8_t* weights, int64_t inputs, const int8_t* x, int count, Sums& sums) {
        int line = 0;
        for (; count - line >= kAtOnce; line += kAtOnce)
            lines<kAtOnce>(weights, inputs, x + line * kDepth, count, sums, line);
        for (; count - line >= 2; line += 2) lines<2>(weights, inputs, x + line * kDepth, count, sums, line);
        if (line < count) lines<1>(weights, inputs, x + line * kDepth, count, sums, line);
    }

    template <int LINES>
    static void lines(const int8_t* weights, int64_t inputs, const int8_t* x, int stride, Sums& sums, int first) {
        __m512i total[2][LINES] = {};
        for (int64_t depth = 0; depth < inputs; depth += kDepth, x += stride * kDepth, weights += 2 * kTile) {
            for (int four = 0; four < kDepth; four += 4) {
                __m512i raised[LINES];
                for (int line = 0; line < LINES; ++line) raised[line] = four_inputs(x + line * kDepth + four);
                for (int block = 0; block < 2; ++block) {
                    const __m512i weight = _mm512_loadu_si512(weights + block * kTile + four * kLanes);
                    for (int line = 0; line < LINES; ++line)
                        total[block][line] = _mm512_dpbusd_epi32(total[block][line], raised[line], weight);
                }
            }
        }
        for (int block = 0; block < 2; ++block)
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

// All planes of activation row `row` of a group of `rows` times one block, in units of the row and the output.
inline __m512 all_planes(const Sums& sums, int block, int planes, int rows, int row, const int32_t* totals) {
    const __m512 high = _mm512_cvtepi32_ps(corrected(sums, block, row, totals));
    if (planes == 1) return high;
    const __m512 low = _mm512_cvtepi32_ps(corrected(sums, block, rows + row, totals));
    return _mm512_fmadd_ps(low, _mm512_set1_ps(1 / kPlaneRatio), high);
}

// Calls `emit(row, first output, values)` for the rows of a group with the results of a strip.
template <typename Emit>
void emit_group(const Linear& layer, const Activations& x, int64_t group, int64_t strip, const Sums& sums,
                const Emit& emit) {
    const int rows = x.rows_in(group);
    for (int panel = 0; panel < layer.panels(); ++panel) {
        const int64_t output = (strip * layer.panels() + panel) * kLanes;
        const int32_t* totals = layer.totals + output;
        const __m512 scale = _mm512_loadu_ps(layer.scales + output), bias = _mm512_loadu_ps(layer.bias + output);
        for (int row = 0; row < rows; ++row) {
            __m512 found = all_planes(sums, panel, x.planes(), rows, row, totals);
            if (layer.planes == 2) {
                const __m512 low = all_planes(sums, 1, x.planes(), rows, row, totals + layer.outputs);
                found = _mm512_fmadd_ps(low, _mm512_set1_ps(1 / kPlaneRatio), found);
            }
            const int64_t index = group * x.most_rows() + row;
            emit(index, output, _mm512_fmadd_ps(found, _mm512_mul_ps(scale, _mm512_set1_ps(x.unit(index))), bias));
        }
    }
}

template <typename Emit>
void multiply_strip(const Linear& layer, const Activations& x, int64_t strip, Ahead ahead, Products& products,
                    const Emit& emit) {
    Sums sums[2];
    for (int64_t group = 0; group < x.groups(); group += 2) {
        const bool both = group + 1 < x.groups();
        products.compute(layer.strip(strip), ahead, layer.inputs, x.group(group, layer.inputs), x.lines_in(group),
                         both ? x.group(group + 1, layer.inputs) : nullptr, both ? x.lines_in(group + 1) : 0, sums);
        emit_group(layer, x, group, strip, sums[0], emit);
        if (both) emit_group(layer, x, group + 1, strip, sums[1], emit);
    }
}

// Calls `emit(row, first output, values)` for every 16 outputs of some strips of the layer. `next` has the weights that
// are read after these.
template <typename Emit>
void linear(const Linear& layer, const Activations& x, Share strips, const int8_t* next, Products& products,
            const Emit& emit) {
    const Ahead ahead{layer.strip(strips.last), next};
    for (int64_t strip = strips.first; strip < strips.last; ++strip)
        multiply_strip(layer, x, strip, ahead, products, emit);
}

// Packs a matrix. A member reads its share of the outputs row by row, in the order of memory.
struct Packing {
    const float* matrix;  // (inputs, outputs given)
    int64_t inputs, given, planes;
    int8_t* packed;
    float* scales;
    int32_t* totals;
    int64_t outputs;  // `given` rounded up to whole strips

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
            const __m512i high = quantize_high(scaled), parts[2] = {high, quantize_low(scaled, high)};
            for (int plane = 0; plane < 2; ++plane) {
                total[plane] = _mm512_add_epi32(total[plane], parts[plane]);
                const __m512i byte = _mm512_and_si512(parts[plane], _mm512_set1_epi32(0xff));
                bytes[plane] = _mm512_or_si512(bytes[plane], _mm512_sllv_epi32(byte, _mm512_set1_epi32(8 * i)));
            }
        }
        for (int64_t plane = 0; plane < planes; ++plane) {
            const int64_t block = output / kLanes * planes + plane, tile = (block / 2 * inputs / kDepth + input / kDepth) * 2 + block % 2;
            _mm512_storeu_si512(packed + tile * kTile + input % kDepth * kLanes, bytes[plane]);
            int32_t* sum = totals + plane * outputs + output;
            _mm512_storeu_si512(sum, _mm512_add_epi32(_mm512_loadu_si512(sum), total[plane]));
        }
    }
};

}  // namespace
}  // namespace mirrorchat
