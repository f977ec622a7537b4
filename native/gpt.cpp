// XTTS's GPT as one call for each decode step: weights as 8-bit numbers in panels, read from memory once for all rows.
//
// Decoding is bound by how fast the weights come from memory. torch's own operations add to that a dispatch for each of
// some 700 small ones, and none reads two planes of 8-bit weights. Sums of products are exact (32-bit integers), every
// row has its own scale, and all else is computed row by row in a fixed order: so a row's result is the same to the last
// bit alone and in any batch, on AMX and on AVX512-VNNI.
//
// A weight is scale * high, or scale * (high + low / 254) with two planes; an activation is unit * (high + low / 254).

#include <algorithm>
#include <cmath>
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

// What Python fills in: mirrored in mirrorchat/xtts_native_gpt.py.
struct Linear {
    int64_t inputs, outputs;  // multiples of kDepth and 16
    int64_t planes;
    const int8_t* packed;   // (outputs / 16, inputs / kDepth, planes, kDepth / 4, 16, 4)
    const float* scales;    // (outputs)
    const int32_t* totals;  // (planes, outputs): sums of each output's weights
    const float* bias;      // (outputs)
};

struct Norm {
    const float *weight, *bias;
    double eps;
};

struct Layer {
    Norm attention_norm, mlp_norm;
    Linear qkv, attention_out, mlp_in, mlp_out;
};

struct Model {
    int64_t width, heads, layers;
    const Layer* layer;
    const Norm* last_norms;  // two
    Linear head;
};

// Keys and values: (rows, layers, 2, heads, positions, width / heads) floats.
struct CacheView {
    float* data;
    int64_t row_stride, layer_stride, part_stride, head_stride;
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

void normalise(const Norm& norm, const float* x, int64_t width, float* out) {
    __m512 sum = _mm512_setzero_ps(), square = _mm512_setzero_ps();
    for (int64_t i = 0; i < width; i += kLanes) sum = _mm512_add_ps(sum, _mm512_loadu_ps(x + i));
    const __m512 mean = _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width);
    for (int64_t i = 0; i < width; i += kLanes) {
        const __m512 away = _mm512_sub_ps(_mm512_loadu_ps(x + i), mean);
        square = _mm512_fmadd_ps(away, away, square);
    }
    const float variance = _mm512_reduce_add_ps(square) / width + static_cast<float>(norm.eps);
    const __m512 inverse = _mm512_set1_ps(1.0f / std::sqrt(variance));
    for (int64_t i = 0; i < width; i += kLanes) {
        const __m512 scaled = _mm512_mul_ps(_mm512_sub_ps(_mm512_loadu_ps(x + i), mean), inverse);
        _mm512_storeu_ps(out + i, _mm512_fmadd_ps(scaled, _mm512_loadu_ps(norm.weight + i), _mm512_loadu_ps(norm.bias + i)));
    }
}

// The Gaussian error linear unit in GPT-2's approximation by a hyperbolic tangent.
inline __m512 gelu(__m512 x) {
    const __m512 cubed = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 inner = _mm512_mul_ps(_mm512_fmadd_ps(cubed, _mm512_set1_ps(0.044715f), x), _mm512_set1_ps(0.7978845608f));
    const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    return _mm512_fmadd_ps(half, tanh(inner), half);
}

// Scores of a query of `size` floats with `count` keys, scaled and made into weights that sum to 1; returns nothing.
void attention_weights(const float* query, const float* keys, int64_t count, int64_t size, float* weights) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    float most = -INFINITY;
    for (int64_t position = 0; position < count; ++position) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < size; i += kLanes)
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(query + i), _mm512_loadu_ps(keys + position * size + i), sum);
        weights[position] = _mm512_reduce_add_ps(sum) * scale;
        most = std::max(most, weights[position]);
    }
    for (int64_t rest = count; rest % kLanes; ++rest) weights[rest] = -INFINITY;
    __m512 total = _mm512_setzero_ps();
    for (int64_t i = 0; i < count; i += kLanes) {
        const __mmask16 real = count - i >= kLanes ? 0xffff : (1 << (count - i)) - 1;
        const __m512 power = exp(_mm512_sub_ps(_mm512_loadu_ps(weights + i), _mm512_set1_ps(most)));
        _mm512_storeu_ps(weights + i, power);
        total = _mm512_add_ps(total, _mm512_maskz_mov_ps(real, power));
    }
    const float inverse = 1.0f / _mm512_reduce_add_ps(total);
    for (int64_t i = 0; i < count; i += kLanes)
        _mm512_storeu_ps(weights + i, _mm512_mul_ps(_mm512_loadu_ps(weights + i), _mm512_set1_ps(inverse)));
}

// Four sums run side by side, since each waits for its own last addition.
template <int VECTORS>
void attend_to(const float* weights, const float* values, int64_t count, int64_t size, float* out) {
    __m512 sum[VECTORS] = {};
    for (int64_t position = 0; position < count; ++position) {
        const __m512 weight = _mm512_set1_ps(weights[position]);
        for (int i = 0; i < VECTORS; ++i)
            sum[i] = _mm512_fmadd_ps(weight, _mm512_loadu_ps(values + position * size + i * kLanes), sum[i]);
    }
    for (int i = 0; i < VECTORS; ++i) _mm512_storeu_ps(out + i * kLanes, sum[i]);
}

void attend(const float* weights, const float* values, int64_t count, int64_t size, float* out) {
    int64_t i = 0;
    for (; i + 4 * kLanes <= size; i += 4 * kLanes) attend_to<4>(weights, values + i, count, size, out + i);
    for (; i < size; i += kLanes) attend_to<1>(weights, values + i, count, size, out + i);
}

// The model with what it needs while it computes.
class Gpt {
  public:
    Gpt(Team* team, const Model& model) : team_(*team), model_(model), size_(model.width / model.heads) {}

    // Runs one input for each of `count` places, `x` (count, width), through the layers; `x` becomes their output.
    void forward(float* x, int64_t count, const int64_t* rows, const int64_t* positions, const CacheView& cache) {
        prepare(count);
        const int64_t longest = *std::max_element(positions, positions + count) + 1;
        weights_.resize(team_.size());
        for (auto& own : weights_) own.resize(std::max<size_t>(own.size(), longest + kLanes));
        team_.run([&](int member) {
            Products products;
            for (int64_t layer = 0; layer < model_.layers; ++layer)
                run_layer(member, layer, x, count, rows, positions, cache, products);
        });
    }

    // Turns the layers' output `x` (count, width) into the last norms' (count, width) and scores (count, outputs).
    void finish(const float* x, int64_t count, float* latents, float* scores) {
        prepare(count);
        const int64_t width = model_.width;
        team_.run([&](int member) {
            Products products;
            each_row(member, count, [&](int64_t row) {
                float* latent = latents + row * width;
                normalise(model_.last_norms[0], x + row * width, width, latent);
                normalise(model_.last_norms[1], latent, width, latent);
                activations_.set(row, latent, width);
            });
            multiply(member, model_.head, products, [&](int64_t row, int64_t output, __m512 value) {
                _mm512_storeu_ps(scores + row * model_.head.outputs + output, value);
            });
        });
    }

  private:
    void prepare(int64_t count) {
        const int64_t width = model_.width;
        activations_.resize(count, 4 * width);
        scratch_.resize(std::max<size_t>(scratch_.size(), count * 4 * width));
        normed_.resize(std::max<size_t>(normed_.size(), count * width));
    }

    void run_layer(int member, int64_t index, float* x, int64_t count, const int64_t* rows, const int64_t* positions,
                   const CacheView& cache, Products& products) {
        const Layer& layer = model_.layer[index];
        const int64_t width = model_.width;
        const auto add_to_x = [&](int64_t row, int64_t output, __m512 value) {
            float* to = x + row * width + output;
            _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), value));
        };
        norm_rows(member, layer.attention_norm, x, count);
        multiply(member, layer.qkv, products, [&](int64_t row, int64_t output, __m512 value) {
            _mm512_storeu_ps(scratch_.data() + row * 3 * width + output, value);
        });
        remember(member, index, count, rows, positions, cache);
        look_back(member, index, count, rows, positions, cache);
        take_rows(member, normed_.data(), width, count);
        multiply(member, layer.attention_out, products, add_to_x);
        norm_rows(member, layer.mlp_norm, x, count);
        multiply(member, layer.mlp_in, products, [&](int64_t row, int64_t output, __m512 value) {
            _mm512_storeu_ps(scratch_.data() + row * 4 * width + output, gelu(value));
        });
        take_rows(member, scratch_.data(), 4 * width, count);
        multiply(member, layer.mlp_out, products, add_to_x);
    }

    template <typename Work>
    void each_row(int member, int64_t count, const Work& work) {
        const Share share = team_.share(member, count);
        for (int64_t row = share.first; row < share.last; ++row) work(row);
        team_.meet();
    }

    void norm_rows(int member, const Norm& norm, const float* x, int64_t count) {
        const int64_t width = model_.width;
        each_row(member, count, [&](int64_t row) {
            normalise(norm, x + row * width, width, normed_.data() + row * width);
            activations_.set(row, normed_.data() + row * width, width);
        });
    }

    void take_rows(int member, const float* x, int64_t inputs, int64_t count) {
        each_row(member, count, [&](int64_t row) { activations_.set(row, x + row * inputs, inputs); });
    }

    template <typename Emit>
    void multiply(int member, const Linear& layer, Products& products, const Emit& emit) {
        linear(layer, activations_, team_.share(member, layer.outputs / kLanes), products, emit);
        team_.meet();
    }

    // Puts the new keys and values into the cache. All of them before anyone looks: a text's places see each other.
    void remember(int member, int64_t layer, int64_t count, const int64_t* rows, const int64_t* positions,
                  const CacheView& cache) {
        const Share share = team_.share(member, count * model_.heads);
        for (int64_t item = share.first; item < share.last; ++item) {
            const int64_t place = item / model_.heads, head = item % model_.heads;
            const float* from = scratch_.data() + place * 3 * model_.width + head * size_;
            float* to = part(cache, rows[place], layer, head) + positions[place] * size_;
            std::memcpy(to, from + model_.width, size_ * sizeof(float));
            std::memcpy(to + cache.part_stride, from + 2 * model_.width, size_ * sizeof(float));
        }
        team_.meet();
    }

    void look_back(int member, int64_t layer, int64_t count, const int64_t* rows, const int64_t* positions,
                   const CacheView& cache) {
        const Share share = team_.share(member, count * model_.heads);
        float* weights = weights_[member].data();
        for (int64_t item = share.first; item < share.last; ++item) {
            const int64_t place = item / model_.heads, head = item % model_.heads, seen = positions[place] + 1;
            const float* keys = part(cache, rows[place], layer, head);
            attention_weights(scratch_.data() + place * 3 * model_.width + head * size_, keys, seen, size_, weights);
            attend(weights, keys + cache.part_stride, seen, size_, normed_.data() + place * model_.width + head * size_);
        }
        team_.meet();
    }

    static float* part(const CacheView& cache, int64_t row, int64_t layer, int64_t head) {
        return cache.data + row * cache.row_stride + layer * cache.layer_stride + head * cache.head_stride;
    }

    Team& team_;
    const Model model_;
    const int64_t size_;  // of a head
    Activations activations_;
    std::vector<float> scratch_, normed_;
    std::vector<std::vector<float>> weights_;  // of attention, for each member
};

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

using namespace mirrorchat;

extern "C" {

// Packs `matrix` (inputs, given) into `packed`, `scales` and `totals` as in Linear.
void gpt_pack(Team* team, const float* matrix, int64_t inputs, int64_t given, int64_t planes, int8_t* packed,
              float* scales, int32_t* totals) {
    const int64_t panels = (given + kLanes - 1) / kLanes;
    const Packing packing{matrix, inputs, given, planes, packed, scales, totals, panels * kLanes};
    team->run([&](int member) {
        const Share share = team->share(member, panels);
        packing.find_scales(share.first * kLanes, share.last * kLanes);
        packing.write(share.first * kLanes, share.last * kLanes);
    });
}

// Multiplies `count` rows `x` (count, inputs) by one packed layer: (count, outputs).
void gpt_linear(Team* team, const Linear* layer, const float* x, int64_t count, float* out) {
    Activations activations;
    activations.resize(count, layer->inputs);
    for (int64_t row = 0; row < count; ++row) activations.set(row, x + row * layer->inputs, layer->inputs);
    team->run([&](int member) {
        Products products;
        linear(*layer, activations, team->share(member, layer->outputs / kLanes), products,
               [&](int64_t row, int64_t output, __m512 value) {
                   _mm512_storeu_ps(out + row * layer->outputs + output, value);
               });
    });
}

Gpt* gpt_create(Team* team, const Model* model) { return new Gpt(team, *model); }

void gpt_destroy(Gpt* gpt) { delete gpt; }

void gpt_forward(Gpt* gpt, float* x, int64_t count, const int64_t* rows, const int64_t* positions,
                 const CacheView* cache) {
    gpt->forward(x, count, rows, positions, *cache);
}

void gpt_finish(Gpt* gpt, const float* x, int64_t count, float* latents, float* scores) {
    gpt->finish(x, count, latents, scores);
}
}
