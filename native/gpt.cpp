// XTTS's GPT as one call for each decode step: weights as 8-bit numbers in strips, read from memory once for all rows.
//
// Decoding is bound by how fast the weights come from memory. torch's own operations add to that a dispatch for each of
// some 700 small ones, and none reads two planes of 8-bit weights (linear.h). What is not a linear layer is computed row
// by row in a fixed order, so that a row's result does not depend on its neighbours.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

#include "buffer.h"
#include "linear.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

// What Python fills in: mirrored in mirrorchat/xtts_native_gpt.py.
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
    Gpt(Team* team, const Model& model)
        : team_(*team), model_(model), size_(model.width / model.heads), taken_(4 * model.layers) {}

    // Runs one input for each of `count` places, `x` (count, width), through the layers; `x` becomes their output.
    void forward(float* x, int64_t count, const int64_t* rows, const int64_t* positions, const CacheView& cache) {
        prepare(count);
        const int64_t longest = *std::max_element(positions, positions + count) + 1;
        weights_.resize(team_.size());
        for (auto& own : weights_) own.resize(std::max<size_t>(own.size(), longest + kLanes));
        team_.run([&](int member) {
            Progress progress;
            for (int64_t layer = 0; layer < model_.layers; ++layer)
                run_layer(member, layer, x, count, rows, positions, cache, progress);
        });
    }

    // Turns the layers' output `x` (count, width) into the last norms' (count, width) and scores (count, outputs).
    void finish(const float* x, int64_t count, float* latents, float* scores) {
        prepare(count);
        const int64_t width = model_.width;
        team_.run([&](int member) {
            Progress progress;
            each_row(member, count, [&](int64_t row) {
                float* latent = latents + row * width;
                normalise(model_.last_norms[0], x + row * width, width, latent);
                normalise(model_.last_norms[1], latent, width, latent);
                activations_.set(row, latent, width);
            });
            multiply(member, progress, model_.head, model_.layer[0].qkv, [&](int64_t row, int64_t output, __m512 value) {
                _mm512_storeu_ps(scores + row * model_.head.outputs + output, value);
            });
        });
    }

  private:
    // One member's way through a computation: how many linear layers it has passed, and its multiplier.
    struct Progress {
        int64_t layers = 0;
        Products products;
    };

    static constexpr int64_t kChunks = 32;  // that a layer is taken in

    void prepare(int64_t count) {
        const int64_t width = model_.width;
        for (auto& next : taken_) next.store(0, std::memory_order_relaxed);
        activations_.resize(count, 4 * width);
        scratch_.reserve(count * 4 * width);
        normed_.reserve(count * width);
    }

    void run_layer(int member, int64_t index, float* x, int64_t count, const int64_t* rows, const int64_t* positions,
                   const CacheView& cache, Progress& progress) {
        const Layer& layer = model_.layer[index];
        const Linear& after = index + 1 < model_.layers ? model_.layer[index + 1].qkv : model_.head;
        const int64_t width = model_.width;
        const auto add_to_x = [&](int64_t row, int64_t output, __m512 value) {
            float* to = x + row * width + output;
            _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), value));
        };
        norm_rows(member, layer.attention_norm, x, count);
        multiply(member, progress, layer.qkv, layer.attention_out, [&](int64_t row, int64_t output, __m512 value) {
            _mm512_storeu_ps(scratch_.data() + row * 3 * width + output, value);
        });
        remember(member, index, count, rows, positions, cache);
        look_back(member, index, count, rows, positions, cache);
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
            normalise(norm, x + row * width, width, normed_.data() + row * width);
            activations_.set(row, normed_.data() + row * width, width);
        });
    }

    void take_rows(int member, const float* x, int64_t inputs, int64_t count) {
        each_row(member, count, [&](int64_t row) { activations_.set(row, x + row * inputs, inputs); });
    }

    // The strips of a layer that are taken together, and the first of a member: each begins with its own, so that it
    // is known early enough to be fetched while the layer before is still being computed.
    static int64_t chunk(const Linear& layer) { return (layer.strips() + kChunks - 1) / kChunks; }

    // Members take strips as they come, since one may be held up by whatever else runs on its core; always the next
    // before they compute the last, for its weights to be fetched. `after` is the layer that follows.
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
    const int64_t size_;                       // of a head
    std::vector<std::atomic<int64_t>> taken_;  // chunks of each linear layer, beside each member's first
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

// Null if there is too little memory.
Gpt* gpt_create(Team* team, const Model* model) {
    try {
        return new Gpt(team, *model);
    } catch (...) {
        return nullptr;
    }
}

void gpt_destroy(Gpt* gpt) { delete gpt; }

// This and `gpt_finish` return 0, or -1 if there is too little memory; then nothing has been computed.
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
