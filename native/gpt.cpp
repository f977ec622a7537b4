// XTTS's GPT with one call per decode step. Weights are 8-bit numbers in strips, read from memory once for all rows.
//
// The memory bandwidth of the weights limits decoding. torch adds the dispatch of some 700 small operations, and has no
// product with two planes of 8-bit weights (linear.h). All other layers are computed row by row in a fixed order, so a
// row's result does not depend on the other rows.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "buffer.h"
#include "linear.h"
#include "norm.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

// Python fills this struct in; mirrorchat/xtts/native_gpt.py has the same fields.
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

using Half = uint16_t;  // the bits of a number of half precision

// Keys and values: (rows, layers, 2, heads, positions, width / heads) numbers, Half if `half`, else float. The strides
// count numbers.
struct CacheView {
    void* data;
    int64_t row_stride, layer_stride, part_stride, head_stride, half;
};

// The inputs of a call are at `positions` of `rows`. A row may occur several times.
struct Places {
    int64_t count;
    const int64_t *rows, *positions;
    bool share_rows;
};

bool any_twice(const int64_t* rows, int64_t count) {
    std::vector<int64_t> sorted(rows, rows + count);
    std::sort(sorted.begin(), sorted.end());
    return std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end();
}

inline __m512 load(const float* from) { return _mm512_loadu_ps(from); }

inline __m512 load(const Half* from) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}

inline void store(float* to, __m512 x) { _mm512_storeu_ps(to, x); }

// A number that is too large becomes NaN, so that only its sequence fails. An infinite key could give a score of minus
// infinity, which would silently hide its position. XTTS's keys and values are much smaller.
inline void store(Half* to, __m512 x) {
    const __mmask16 fits = _mm512_cmp_ps_mask(_mm512_abs_ps(x), _mm512_set1_ps(65520.0f), _CMP_LT_OQ);
    x = _mm512_mask_mov_ps(_mm512_set1_ps(NAN), fits, x);
    const __m256i halves = _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), halves);
}

// GELU in GPT-2's approximation with a hyperbolic tangent.
inline __m512 gelu(__m512 x) {
    const __m512 cubed = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    const __m512 inner = _mm512_mul_ps(_mm512_fmadd_ps(cubed, _mm512_set1_ps(0.044715f), x), _mm512_set1_ps(0.7978845608f));
    const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
    return _mm512_fmadd_ps(half, tanh(inner), half);
}

// Softmax of the scaled scores of a query of `size` floats with `count` keys.
template <typename Number>
void attention_weights(const float* query, const Number* keys, int64_t count, int64_t size, float* weights) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(size));
    float most = -INFINITY;
    for (int64_t position = 0; position < count; ++position) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t i = 0; i < size; i += kLanes)
            sum = _mm512_fmadd_ps(load(query + i), load(keys + position * size + i), sum);
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

// Four sums in parallel hide the latency of the additions.
template <int VECTORS, typename Number>
void attend_to(const float* weights, const Number* values, int64_t count, int64_t size, float* out) {
    __m512 sum[VECTORS] = {};
    for (int64_t position = 0; position < count; ++position) {
        const __m512 weight = _mm512_set1_ps(weights[position]);
        for (int i = 0; i < VECTORS; ++i)
            sum[i] = _mm512_fmadd_ps(weight, load(values + position * size + i * kLanes), sum[i]);
    }
    for (int i = 0; i < VECTORS; ++i) _mm512_storeu_ps(out + i * kLanes, sum[i]);
}

template <typename Number>
void attend(const float* weights, const Number* values, int64_t count, int64_t size, float* out) {
    int64_t i = 0;
    for (; i + 4 * kLanes <= size; i += 4 * kLanes) attend_to<4>(weights, values + i, count, size, out + i);
    for (; i < size; i += kLanes) attend_to<1>(weights, values + i, count, size, out + i);
}

// The model with its scratch memory.
class Gpt {
  public:
    Gpt(Team* team, const Model& model)
        : team_(*team), model_(model), size_(model.width / model.heads), taken_(4 * model.layers) {}

    // Runs one input for each of `count` places, `x` (count, width), through the layers. `x` becomes the output.
    void forward(float* x, int64_t count, const int64_t* rows, const int64_t* positions, const CacheView& cache) {
        prepare(count);
        const Places places{count, rows, positions, any_twice(rows, count)};
        const int64_t longest = *std::max_element(positions, positions + count) + 1;
        weights_.resize(team_.size());
        for (auto& own : weights_) own.resize(std::max<size_t>(own.size(), longest + kLanes));
        team_.run([&](int member) {
            Progress progress;
            for (int64_t layer = 0; layer < model_.layers; ++layer)
                run_layer(member, layer, x, places, cache, progress);
        });
    }

    // Computes the last norms (count, width) and the scores (count, outputs) from the output `x` (count, width).
    void finish(const float* x, int64_t count, float* latents, float* scores) {
        prepare(count);
        const int64_t width = model_.width;
        team_.run([&](int member) {
            Progress progress;
            each_row(member, count, [&](int64_t row) {
                float* latent = latents + row * width;
                normalize(model_.last_norms[0], x + row * width, width, latent);
                normalize(model_.last_norms[1], latent, width, latent);
                activations_.set(row, latent, width);
            });
            multiply(member, progress, model_.head, model_.layer[0].qkv, [&](int64_t row, int64_t output, __m512 value) {
                _mm512_storeu_ps(scores + row * model_.head.outputs + output, value);
            });
        });
    }

  private:
    // The state of one member in a computation: the number of finished linear layers, and its multiplier.
    struct Progress {
        int64_t layers = 0;
        Products products;
    };

    static constexpr int64_t kChunks = 32;  // chunks of a layer

    void prepare(int64_t count) {
        const int64_t width = model_.width;
        for (auto& next : taken_) next.store(0, std::memory_order_relaxed);
        activations_.resize(count, 4 * width);
        scratch_.reserve(count * 4 * width);
        normed_.reserve(count * width);
    }

    void run_layer(int member, int64_t index, float* x, const Places& places, const CacheView& cache,
                   Progress& progress) {
        const Layer& layer = model_.layer[index];
        const Linear& after = index + 1 < model_.layers ? model_.layer[index + 1].qkv : model_.head;
        const int64_t width = model_.width, count = places.count;
        const auto add_to_x = [&](int64_t row, int64_t output, __m512 value) {
            float* to = x + row * width + output;
            _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), value));
        };
        norm_rows(member, layer.attention_norm, x, count);
        multiply(member, progress, layer.qkv, layer.attention_out, [&](int64_t row, int64_t output, __m512 value) {
            _mm512_storeu_ps(scratch_.data() + row * 3 * width + output, value);
        });
        if (cache.half) {
            find_attended<Half>(member, index, places, cache);
        } else {
            find_attended<float>(member, index, places, cache);
        }
        take_rows(member, normed_.data(), width, count);
        multiply(member, progress, layer.attention_out, layer.mlp_in, add_to_x);
        norm_rows(member, layer.mlp_norm, x, count);
        multiply(member, progress, layer.mlp_in, layer.mlp_out, [&](int64_t row, int64_t output, __m512 value) {
            _mm512_storeu_ps(scratch_.data() + row * 4 * width + output, gelu(value));
        });
        take_rows(member, scratch_.data(), 4 * width, count);
        multiply(member, progress, layer.mlp_out, after, add_to_x);
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
            normalize(norm, x + row * width, width, normed_.data() + row * width);
            activations_.set(row, normed_.data() + row * width, width);
        });
    }

    void take_rows(int member, const float* x, int64_t inputs, int64_t count) {
        each_row(member, count, [&](int64_t row) { activations_.set(row, x + row * inputs, inputs); });
    }

    // The chunks of a layer, and the first chunk of a member. It is fixed, so that its weights can be prefetched during
    // the previous layer.
    static int64_t chunk(const Linear& layer) { return (layer.strips() + kChunks - 1) / kChunks; }

    // Members take further chunks dynamically, because other programs may delay a core. A member takes its next chunk
    // before it computes the present one, to prefetch the weights. `after` is the next layer.
    template <typename Emit>
    void multiply(int member, Progress& progress, const Linear& layer, const Linear& after, const Emit& emit) {
        const int64_t strips = layer.strips(), size = chunk(layer);
        const int8_t* afterwards = after.strip(member * chunk(after));
        std::atomic<int64_t>& untaken = taken_[progress.layers++];
        for (int64_t first = member * size, next; first < strips; first = next) {
            next = (team_.size() + untaken.fetch_add(1, std::memory_order_relaxed)) * size;
            linear(layer, activations_, {first, std::min(first + size, strips)},
                   next < strips ? layer.strip(next) : afterwards, progress.products, emit);
        }
        team_.meet();
    }

    // Computes attention. If the places of a text attend to each other, all new keys and values are stored before the
    // first is read. A single place of a row reads only keys and values that its own member has just stored, because a
    // member stores and attends with the same items.
    template <typename Number>
    void find_attended(int member, int64_t layer, const Places& places, const CacheView& cache) {
        const Share share = team_.share(member, places.count * model_.heads);
        for (int64_t item = share.first; item < share.last; ++item) remember<Number>(item, layer, places, cache);
        if (places.share_rows) team_.meet();
        float* weights = weights_[member].data();
        for (int64_t item = share.first; item < share.last; ++item)
            look_back<Number>(item, layer, places, cache, weights);
        team_.meet();
    }

    // Stores the new key and value of one head of one place in the cache.
    template <typename Number>
    void remember(int64_t item, int64_t layer, const Places& places, const CacheView& cache) {
        const int64_t place = item / model_.heads, head = item % model_.heads;
        const float* key = scratch_.data() + (3 * place + 1) * model_.width + head * size_;
        Number* to = part<Number>(cache, places.rows[place], layer, head) + places.positions[place] * size_;
        for (int64_t i = 0; i < size_; i += kLanes) {
            store(to + i, load(key + i));
            store(to + cache.part_stride + i, load(key + model_.width + i));
        }
    }

    // Attends with one head of one place to all earlier positions of its row.
    template <typename Number>
    void look_back(int64_t item, int64_t layer, const Places& places, const CacheView& cache, float* weights) {
        const int64_t place = item / model_.heads, head = item % model_.heads, seen = places.positions[place] + 1;
        const Number* keys = part<Number>(cache, places.rows[place], layer, head);
        attention_weights(scratch_.data() + place * 3 * model_.width + head * size_, keys, seen, size_, weights);
        attend(weights, keys + cache.part_stride, seen, size_, normed_.data() + place * model_.width + head * size_);
    }

    template <typename Number>
    static Number* part(const CacheView& cache, int64_t row, int64_t layer, int64_t head) {
        return static_cast<Number*>(cache.data) + row * cache.row_stride + layer * cache.layer_stride +
               head * cache.head_stride;
    }

    Team& team_;
    const Model model_;
    const int64_t size_;                       // of a head
    std::vector<std::atomic<int64_t>> taken_;  // dynamically taken chunks of each linear layer
    Activations activations_;
    Buffer<float> scratch_, normed_;
    std::vector<std::vector<float>> weights_;  // of attention, for each member
};

}  // namespace
}  // namespace mirrorchat

using namespace mirrorchat;

extern "C" {

// Packs `matrix` (inputs, given) into `packed`, `scales` and `totals` of so many `outputs`, as in Linear.
void gpt_pack(Team* team, const float* matrix, int64_t inputs, int64_t given, int64_t outputs, int64_t planes,
              int8_t* packed, float* scales, int32_t* totals) {
    const int64_t panels = outputs / kLanes;
    const Packing packing{matrix, inputs, given, planes, packed, scales, totals, outputs};
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
        linear(*layer, activations, team->share(member, layer->strips()), layer->packed, products,
               [&](int64_t row, int64_t output, __m512 value) {
                   _mm512_storeu_ps(out + row * layer->outputs + output, value);
               });
    });
}

// Returns null if the memory is exhausted.
Gpt* gpt_create(Team* team, const Model* model) {
    try {
        return new Gpt(team, *model);
    } catch (...) {
        return nullptr;
    }
}

void gpt_destroy(Gpt* gpt) { delete gpt; }

// This and `gpt_finish` return 0, or -1 without a result if the memory is exhausted.
int gpt_forward(Gpt* gpt, float* x, int64_t count, const int64_t* rows, const int64_t* positions,
                const CacheView* cache) {
    try {
        gpt->forward(x, count, rows, positions, *cache);
        return 0;
    } catch (...) {
        return -1;
    }
}

int gpt_finish(Gpt* gpt, const float* x, int64_t count, float* latents, float* scores) {
    try {
        gpt->finish(x, count, latents, scores);
        return 0;
    } catch (...) {
        return -1;
    }
}
}
