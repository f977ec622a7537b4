// WeNet's networks with 8-bit weights, as a few large functions per layer for mirrorchat/wenet/native.py.
//
// Activations are quantized row by row (8 bits, with a unit per row) directly before the product that reads them.
// Norms, activation functions and residuals are computed while a block of rows is in the cache. Sums of products are
// exact and all other operations go row by row in a fixed order, so the bits of a row do not depend on its batch.

#include <algorithm>
#include <cstring>
#include <mutex>

#include "buffer.h"
#include "linear.h"
#include "norm.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

constexpr int64_t kBlockBytes = 512 * 1024;  // activations of a block, which are read once per strip of weights
constexpr int64_t kMostRows = 128;           // in a block

// Python fills this struct in; mirrorchat/wenet/native.py has the same fields.
struct Product {
    Linear linear;            // padded for the packing
    int64_t inputs, outputs;  // without padding; half of the outputs of a gated product
    const Norm* norm;         // of each input row, or null
    int64_t activation;       // of the outputs, one of Activation
};

enum Activation { kNone, kRelu, kSwish, kGelu, kGate };

inline __m512 sigmoid(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f);
    return _mm512_div_ps(one, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// The error function, with an error below 2e-7 (Abramowitz and Stegun, 7.1.26).
inline __m512 erf(__m512 x) {
    const __m512 one = _mm512_set1_ps(1.0f), size = _mm512_abs_ps(x);
    const __m512 t = _mm512_div_ps(one, _mm512_fmadd_ps(size, _mm512_set1_ps(0.3275911f), one));
    __m512 p = _mm512_set1_ps(1.061405429f);
    for (float c : {-1.453152027f, 1.421413741f, -0.284496736f, 0.254829592f})
        p = _mm512_fmadd_ps(p, t, _mm512_set1_ps(c));
    const __m512 rest = _mm512_mul_ps(_mm512_mul_ps(p, t), exp(_mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(x, x))));
    const __m512 found = _mm512_sub_ps(one, rest);
    return _mm512_mask_sub_ps(found, _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps(), found);
}

template <int ACTIVATION>
inline __m512 activated(__m512 x) {
    if constexpr (ACTIVATION == kRelu) return _mm512_max_ps(_mm512_setzero_ps(), x);
    if constexpr (ACTIVATION == kSwish) return _mm512_mul_ps(x, sigmoid(x));
    if constexpr (ACTIVATION == kGelu) {
        const __m512 half = _mm512_mul_ps(x, _mm512_set1_ps(0.5f));
        return _mm512_fmadd_ps(half, erf(_mm512_mul_ps(x, _mm512_set1_ps(0.70710678f))), half);
    }
    return x;
}

// Calls `work` with the activation as a compile-time constant.
template <typename Work>
void with_activation(int64_t activation, const Work& work) {
    switch (activation) {
        case kRelu: return work(std::integral_constant<int, kRelu>{});
        case kSwish: return work(std::integral_constant<int, kSwish>{});
        case kGelu: return work(std::integral_constant<int, kGelu>{});
        case kGate: return work(std::integral_constant<int, kGate>{});
        default: return work(std::integral_constant<int, kNone>{});
    }
}

inline __mmask16 lanes_to(int64_t count) { return count >= kLanes ? 0xffff : count > 0 ? (1 << count) - 1 : 0; }

// Rows for outputs: `width` numbers each, at every `stride`.
struct Rows {
    float* data;
    int64_t width, stride;

    // Stores 16 outputs of a product. Gated products give pairs of panels: the values, and then their gates.
    template <int ACTIVATION>
    void put(int64_t row, int64_t output, __m512 value) const {
        if constexpr (ACTIVATION == kGate) {
            const int64_t at = output / (2 * kLanes) * kLanes;
            float* to = data + row * stride + at;
            if (output % (2 * kLanes)) value = _mm512_mul_ps(_mm512_loadu_ps(to), sigmoid(value));
            _mm512_storeu_ps(to, value);
        } else {
            _mm512_mask_storeu_ps(data + row * stride + output, lanes_to(width - output), activated<ACTIVATION>(value));
        }
    }

    // Adds 16 outputs times `share`.
    void add(int64_t row, int64_t output, __m512 value, float share) const {
        const __mmask16 real = lanes_to(width - output);
        float* to = data + row * stride + output;
        const __m512 before = _mm512_maskz_loadu_ps(real, to);
        _mm512_mask_storeu_ps(to, real, _mm512_fmadd_ps(value, _mm512_set1_ps(share), before));
    }
};

// A convolution over time and bins as a product: its inputs are `kernel` x `kernel` places, at every `stride`.
struct Windows {
    const float* x;  // (times, bins, channels)
    int64_t bins, channels, kernel, stride, bins_out;

    void gather(int64_t row, float* to) const {
        const int64_t time = row / bins_out * stride, bin = row % bins_out * stride, some = kernel * channels;
        for (int64_t tap = 0; tap < kernel; ++tap)
            std::memcpy(to + tap * some, x + ((time + tap) * bins + bin) * channels, some * sizeof(float));
    }
};

// The team and the scratch memory of these functions. One caller at a time.
class Room {
  public:
    explicit Room(Team* team) : team_(*team), scratch_(team->size()) {}

    // Multiplies `count` rows `x` (count, inputs), and sets `out`, or adds the result times `share` to it.
    void multiply(const Product& product, const float* x, int64_t count, float share, Rows out) {
        const auto row_of = [&](int64_t row, float*) { return x + row * product.inputs; };
        run(product, count, row_of, share, out);
    }

    void convolve(const Product& product, const Windows& windows, int64_t count, float* out) {
        const auto row_of = [&](int64_t row, float* scratch) {
            windows.gather(row, scratch);
            return scratch;
        };
        run(product, count, row_of, 0.0f, {out, product.outputs, product.outputs});
    }

    // Two products of rows `x`, with the activation of `first` between them. Adds the result times `share` to `out`, or
    // sets it if `share` is 0.
    void feed_forward(const Product& first, const Product& second, const float* x, int64_t count, float share,
                      float* out) {
        std::lock_guard one_caller(mutex_);
        const int64_t most = rows_of(second), width = second.linear.inputs;
        hidden_.reserve(most * width);
        std::fill_n(hidden_.data(), most * width, 0.0f);  // some columns are only padding
        reserve(most, std::max(first.linear.inputs, width));
        team_.run([&](int member) {
            Products products;
            for (int64_t start = 0; start < count; start += most) {
                const int64_t rows = std::min(most, count - start);
                take(member, first, rows, [&](int64_t row, float*) { return x + (start + row) * first.inputs; });
                with_activation(first.activation, [&](auto activation) {
                    const Rows to{hidden_.data(), first.outputs, width};
                    each(member, first, products, [&](int64_t row, int64_t output, __m512 value) {
                        to.put<activation()>(row, output, value);
                    });
                });
                take(member, second, rows, [&](int64_t row, float*) { return hidden_.data() + row * width; });
                emit(member, second, products, share, {out + start * second.outputs, second.outputs, second.outputs});
            }
        });
    }

    Team& team() { return team_; }

  private:
    // The rows of a block, whose bytes fit in the cache of a core.
    static int64_t rows_of(const Product& product) {
        return std::clamp<int64_t>(kBlockBytes / product.linear.inputs / (2 * kLines) * (2 * kLines), 2 * kLines, kMostRows);
    }

    template <typename RowOf>
    void run(const Product& product, int64_t count, const RowOf& row_of, float share, Rows out) {
        std::lock_guard one_caller(mutex_);
        const int64_t most = rows_of(product);
        reserve(most, product.linear.inputs);
        team_.run([&](int member) {
            Products products;
            for (int64_t start = 0; start < count; start += most) {
                take(member, product, std::min(most, count - start),
                     [&](int64_t row, float* scratch) { return row_of(start + row, scratch); });
                emit(member, product, products, share, {out.data + start * out.stride, out.width, out.stride});
            }
        });
    }

    void reserve(int64_t rows, int64_t inputs) {  // before the team works, which cannot report a failure
        activations_.resize(rows, inputs);
        for (auto& each : scratch_) each.reserve(2 * inputs);
    }

    // Quantizes the rows of a block. `row_of` may write the row into its scratch argument.
    template <typename RowOf>
    void take(int member, const Product& product, int64_t rows, const RowOf& row_of) {
        if (member == 0) activations_.resize(rows, product.linear.inputs);
        team_.meet();
        const int64_t inputs = product.linear.inputs;
        float *scratch = scratch_[member].data(), *second = scratch + inputs;
        const Share share = team_.share(member, rows);
        for (int64_t row = share.first; row < share.last; ++row) {
            const float* x = row_of(row, scratch);
            if (product.norm != nullptr) {
                normalize(*product.norm, x, product.inputs, second);
                x = second;
            } else if (product.inputs < inputs) {
                std::memcpy(second, x, product.inputs * sizeof(float));
                x = second;
            }
            if (x == second) std::fill(second + product.inputs, second + inputs, 0.0f);
            activations_.set(row, x, inputs);
        }
        team_.meet();
    }

    template <typename Emit>
    void each(int member, const Product& product, Products& products, const Emit& emit) {
        const Linear& layer = product.linear;
        linear(layer, activations_, team_.share(member, layer.strips()), layer.packed, products, emit);
        team_.meet();
    }

    void emit(int member, const Product& product, Products& products, float share, Rows out) {
        if (share != 0.0f) {
            return each(member, product, products,
                        [&](int64_t row, int64_t output, __m512 value) { out.add(row, output, value, share); });
        }
        with_activation(product.activation, [&](auto activation) {
            each(member, product, products,
                 [&](int64_t row, int64_t output, __m512 value) { out.put<activation()>(row, output, value); });
        });
    }

    Team& team_;
    std::mutex mutex_;
    Activations activations_{1};
    Buffer<float> hidden_;
    std::vector<Buffer<float>> scratch_;
};

// A depthwise convolution over time, an optional norm, and an activation.
struct Depthwise {
    int64_t width, kernel, before;  // taps before the frame; the others are the frame and later ones
    const float *weight, *bias;     // (kernel, width), (width)
    const Norm* norm;
    int64_t activation;
};

template <int ACTIVATION>
void depthwise_row(const Depthwise& layer, const float* x, const float* earlier, int64_t frames, int64_t frame,
                   float* out) {
    const int64_t width = layer.width;
    for (int64_t i = 0; i < width; i += kLanes) {
        __m512 sum = _mm512_loadu_ps(layer.bias + i);
        for (int64_t tap = 0; tap < layer.kernel; ++tap) {
            const int64_t at = frame + tap - layer.before;
            if (at >= frames || (at < 0 && earlier == nullptr)) continue;
            const float* from = at < 0 ? earlier + (layer.before + at) * width : x + at * width;
            sum = _mm512_fmadd_ps(_mm512_loadu_ps(layer.weight + tap * width + i), _mm512_loadu_ps(from + i), sum);
        }
        _mm512_storeu_ps(out + i, layer.norm ? sum : activated<ACTIVATION>(sum));
    }
    if (layer.norm == nullptr) return;
    normalize(*layer.norm, out, width, out);
    for (int64_t i = 0; i < width; i += kLanes)
        _mm512_storeu_ps(out + i, activated<ACTIVATION>(_mm512_loadu_ps(out + i)));
}

// The first convolution of the subsampling, with one input channel and a ReLU: `channels` outputs at one place.
struct FirstConvolution {
    int64_t bins, channels, kernel, stride, bins_out;
    const float *weight, *bias;  // (kernel, kernel, channels), (channels)
};

template <int VECTORS>
void first_outputs(const FirstConvolution& layer, const float* x, int64_t channel, float* out) {
    __m512 sum[VECTORS];
    for (int i = 0; i < VECTORS; ++i) sum[i] = _mm512_loadu_ps(layer.bias + channel + i * kLanes);
    for (int64_t down = 0; down < layer.kernel; ++down)
        for (int64_t across = 0; across < layer.kernel; ++across) {
            const __m512 value = _mm512_set1_ps(x[down * layer.bins + across]);
            const float* weight = layer.weight + (down * layer.kernel + across) * layer.channels + channel;
            for (int i = 0; i < VECTORS; ++i)
                sum[i] = _mm512_fmadd_ps(value, _mm512_loadu_ps(weight + i * kLanes), sum[i]);
        }
    for (int i = 0; i < VECTORS; ++i)
        _mm512_storeu_ps(out + channel + i * kLanes, _mm512_max_ps(_mm512_setzero_ps(), sum[i]));
}

void first_row(const FirstConvolution& layer, const float* x, int64_t row, float* out) {
    const float* from = x + (row / layer.bins_out * layer.bins + row % layer.bins_out) * layer.stride;
    int64_t channel = 0;
    for (; channel + 8 * kLanes <= layer.channels; channel += 8 * kLanes) first_outputs<8>(layer, from, channel, out);
    for (; channel < layer.channels; channel += kLanes) first_outputs<1>(layer, from, channel, out);
}

}  // namespace
}  // namespace mirrorchat

using namespace mirrorchat;

extern "C" {

// Returns null if the memory is exhausted. The other functions then return a value other than 0.
Room* wenet_create(Team* team) {
    try {
        return new Room(team);
    } catch (...) {
        return nullptr;
    }
}

void wenet_destroy(Room* room) { delete room; }

int wenet_multiply(Room* room, const Product* product, const float* x, int64_t count, double share, float* out) {
    try {
        room->multiply(*product, x, count, static_cast<float>(share), {out, product->outputs, product->outputs});
        return 0;
    } catch (...) {
        return -1;
    }
}

int wenet_feed_forward(Room* room, const Product* first, const Product* second, const float* x, int64_t count,
                       double share, float* out) {
    try {
        room->feed_forward(*first, *second, x, count, static_cast<float>(share), out);
        return 0;
    } catch (...) {
        return -1;
    }
}

// `x` is (times, bins, channels), `out` (times_out, bins_out, outputs).
int wenet_convolve(Room* room, const Product* product, const float* x, int64_t bins, int64_t channels, int64_t kernel,
                   int64_t stride, int64_t times_out, int64_t bins_out, float* out) {
    try {
        room->convolve(*product, {x, bins, channels, kernel, stride, bins_out}, times_out * bins_out, out);
        return 0;
    } catch (...) {
        return -1;
    }
}

// `x` is (times, bins), `out` (times_out, bins_out, channels).
void wenet_first_convolution(Team* team, const FirstConvolution* layer, const float* x, int64_t times_out, float* out) {
    team->run([&](int member) {
        const Share share = team->share(member, times_out * layer->bins_out);
        for (int64_t row = share.first; row < share.last; ++row) first_row(*layer, x, row, out + row * layer->channels);
    });
}

// `x` and `out` are (batch, frames, width). `earlier` (before, width) precedes each utterance; null means zeros.
void wenet_depthwise(Team* team, const Depthwise* layer, const float* x, const float* earlier, int64_t batch,
                     int64_t frames, float* out) {
    with_activation(layer->activation, [&](auto activation) {
        team->run([&](int member) {
            const Share share = team->share(member, batch * frames);
            for (int64_t row = share.first; row < share.last; ++row) {
                const float* utterance = x + row / frames * frames * layer->width;
                depthwise_row<activation()>(*layer, utterance, earlier, frames, row % frames, out + row * layer->width);
            }
        });
    });
}
}
