// XTTS's vocoder, HiFi-GAN's generator (Kong et al., 2020, arXiv:2010.05646), in products of bfloat16 tiles (AMX).
//
// Activations lie as (time, channels), so the 16 times x 32 channels of a tile are read where they are, at the time
// that a tap of the convolution is shifted to: no copy of the input is made for the taps. Each output is summed over
// channels and taps in one order, wherever in a window it lies and whichever thread computes it: its bits depend on
// nothing but its inputs. That is why an utterance may be cut anywhere.
//
// A window is computed stage by stage. Within a stage each thread takes pieces of time for itself, short enough that
// all their layers stay in its cache, and computes of every layer only what the piece's outputs depend on.
#ifdef __AMX_BF16__

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "team.h"
#include "vectors.h"

namespace mirrorchat {

// A convolution as Python describes it. Where `stride` is over 1 it is a transposed one, with a weight of (inputs,
// outputs, kernel), else (outputs, inputs, kernel); both float32. `bias` may be null.
struct LayerSpec {
    const float* weight;
    const float* bias;
    int64_t inputs, outputs, kernel, stride, dilation, padding;
};

namespace {

using bf16 = uint16_t;

constexpr int64_t kTile = 16;            // rows of a tile, and outputs
constexpr int64_t kBlock = 2 * kTile;    // rows and outputs computed at once; channels in a tile of inputs
constexpr int64_t kTileSize = 16 * 32;   // bfloat16 numbers
constexpr int64_t kPieceSize = 64 << 10; // channels x times of a piece: with its layers 1.5 MB
constexpr int64_t kPieceLeast = 512;     // times: with less the overlap of pieces costs more than the cache gains
constexpr float kSlope = 0.1f, kLastSlope = 0.01f;  // of the leaky rectifiers: inside, and before the last convolution

struct Range {
    int64_t first, last;  // exclusive
    int64_t size() const { return std::max<int64_t>(0, last - first); }
    Range widened(int64_t by) const { return {first - by, last + by}; }
    Range within(int64_t count) const { return {std::max<int64_t>(first, 0), std::min(last, count)}; }
};

int64_t padded(int64_t channels) { return (channels + kBlock - 1) / kBlock * kBlock; }
int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b < 0); }
int64_t ceil_div(int64_t a, int64_t b) { return -floor_div(-a, b); }

// Memory that only grows, on the borders of cache lines.
template <typename T>
class Buffer {
  public:
    T* reserve(int64_t count) {
        if (count > count_) {
            memory_.reset(static_cast<T*>(::operator new(count * sizeof(T), std::align_val_t(64))));
            count_ = count;
        }
        return memory_.get();
    }
    T* data() const { return memory_.get(); }

  private:
    struct Free {
        void operator()(T* memory) const { ::operator delete(memory, std::align_val_t(64)); }
    };
    std::unique_ptr<T, Free> memory_;
    int64_t count_ = 0;
};

// Rows (times) of `width` channels, of which the first in memory is row `origin`.
template <typename T>
struct Matrix {
    T* data = nullptr;
    int64_t width = 0, origin = 0;
    int64_t low = 0;  // what was rounded off lies so much further on, where it is kept
    T* row(int64_t index) const { return data + (index - origin) * width; }
};

using Floats = Matrix<float>;
using Operand = Matrix<bf16>;

// The larger of both, or not a number: the CPU's maximum returns its second operand then.
__m512 leaky(__m512 x, __m512 slope) { return _mm512_max_ps(_mm512_mul_ps(x, slope), x); }

// Stores 32 floats as bfloat16; if exact, what rounding took away as well.
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
// outputs, of those taps that meet an input there.
struct Convolution {
    int64_t inputs, outputs, channels;         // outputs without and inputs with the zeros that fill blocks: see `pack`
    int64_t stride, padding;
    std::vector<std::vector<int64_t>> shifts;  // of each phase: where its taps read, relative to the row
    std::vector<float> bias;
    std::vector<int64_t> panels;  // of each phase and block of outputs: where its weights begin
    Buffer<bf16> weight;          // panel: (inputs / 32, taps, high and perhaps low part, 2 tiles)

    int64_t blocks() const { return outputs / kBlock; }
    int64_t first_shift() const { return shifts.front().front(); }
    int64_t last_shift() const { return shifts.back().back(); }
    Range inputs_of(Range rows) const {  // those that rows of outputs (from 0 on) depend on
        const int64_t last = rows.last - 1;
        return {rows.first / stride + shifts[rows.first % stride].front(),
                last / stride + shifts[last % stride].back() + 1};
    }
};

// Which tap of `spec` the outputs of a phase multiply with the input shifted by `shift`; perhaps none of the kernel's.
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

// Sets the CPU's eight tiles to their full size, for as long as it lives; each thread does so for itself.
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

// Adds the products of the rows of inputs in tiles 4 and 5 with the weights in tiles 6 and 7. If kHalf, of 4 only.
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

// `sums` (32, 32) = the products of 32 rows of inputs (16, if kHalf) with a panel of weights, over all its taps.
// If kExact, of the high parts and of each high part with the other's low one.
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

// What becomes of a convolution's sums: (sum + bias + residual + total) * scale is stored as floats, and rectified as
// the next convolution's operand. What is null is left out.
struct Output {
    const float* bias = nullptr;
    Floats residual = {}, total = {};
    float scale = 1.0f;
    Floats floats = {};
    Operand operand = {};
};

// Finishes `count` rows of sums, which are the rows from `row` on, every `step`-th, from channel `column` on.
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

// Sets those rows of `range` to zero that lie before or after the `count` rows of the window.
template <typename T>
void clear_outside(const Matrix<T>& matrix, Range range, int64_t count) {
    const auto clear = [&](int64_t first, int64_t last) {
        if (first >= last) return;
        std::memset(matrix.row(first), 0, (last - first) * matrix.width * sizeof(T));
        if (matrix.low) std::memset(matrix.row(first) + matrix.low, 0, (last - first) * matrix.width * sizeof(T));
    };
    clear(range.first, std::min<int64_t>(range.last, 0));
    clear(std::max(range.first, count), range.last);
}

struct Pair {
    Convolution first, second;
    int64_t reach() const { return first.padding + second.padding; }
};

using Block = std::vector<Pair>;

int64_t reach_of(const Block& block) {
    int64_t reach = 0;
    for (const Pair& pair : block) reach += pair.reach();
    return reach;
}

// One upsampling and the residual blocks whose mean follows it.
struct Stage {
    Convolution up;
    std::vector<Block> blocks;

    int64_t reach() const {
        int64_t most = 0;
        for (const Block& block : blocks) most = std::max(most, reach_of(block));
        return most;
    }
    // The inputs from which all rows in `wide` follow that lie in the window of `count` rows, at their own rate.
    Range inputs(Range wide, int64_t count) const {
        const Range inside = wide.within(count);
        return {inside.first / up.stride, ceil_div(inside.last, up.stride)};
    }
};

// The last convolution, to one channel, on plain vectors: what it rounds would be heard as it is.
struct Last {
    int64_t kernel, padding, width;
    float bias;
    Buffer<float> weight;  // (kernel, width)

    // The sum over the taps and channels of the rows that begin at `in`.
    float at(const float* in) const {
        __m512 even = _mm512_setzero_ps(), odd = even;
        for (int64_t i = 0; i < kernel * width; i += 32) {
            even = _mm512_fmadd_ps(_mm512_load_ps(in + i), _mm512_load_ps(weight.data() + i), even);
            odd = _mm512_fmadd_ps(_mm512_load_ps(in + i + 16), _mm512_load_ps(weight.data() + i + 16), odd);
        }
        return _mm512_reduce_add_ps(_mm512_add_ps(even, odd)) + bias;
    }
};

Last pack_last(const LayerSpec& spec) {
    Last last{spec.kernel, spec.padding, padded(spec.inputs), spec.bias ? *spec.bias : 0.0f, {}};
    float* weight = last.weight.reserve(spec.kernel * last.width);
    std::fill_n(weight, spec.kernel * last.width, 0.0f);
    for (int64_t input = 0; input < spec.inputs; ++input)
        for (int64_t tap = 0; tap < spec.kernel; ++tap)
            weight[tap * last.width + input] = spec.weight[input * spec.kernel + tap];
    return last;
}

// The layers of a piece: the upsampling's outputs, a residual block's, and the sum of all blocks'.
struct Layers {
    Floats x, y, total;
    Operand x_operand, y_operand, middle;  // `middle`: between the two convolutions of a pair
};

// One thread's memory for them.
struct Scratch {
    Buffer<float> x, y, total;
    Buffer<bf16> x_operand, y_operand, middle;
};

// A window that is being computed, and where the memory lies that all threads share.
struct Window {
    const float* frames;  // (count, width)
    int64_t count;
    Range kept;  // frames that become samples
    float* samples;
    std::vector<Range> needed;             // rows of the frames, the first convolution and each stage: see `needs`
    std::vector<Operand> operands;         // of all these but the last stage
    std::vector<std::vector<float>> bias;  // with what the speaker adds: first convolution, each stage's upsampling
    std::vector<int64_t> pieces;           // of each stage
};

class Vocoder {
  public:
    virtual ~Vocoder() = default;
    virtual int64_t context() const = 0;
    virtual void run(Team& team, const float* frames, int64_t count, Range kept, const float* condition,
                     float* samples) = 0;
};

template <bool kExact>
class Generator : public Vocoder {
  public:
    // `spec`: the first convolution, of each stage its upsampling and its blocks' pairs, and the last convolution.
    Generator(const LayerSpec* spec, int64_t stages, int64_t blocks, int64_t pairs, Team& team) {
        width_ = spec->inputs;
        first_ = pack<kExact>(*spec++, team);
        for (int64_t stage = 0; stage < stages; ++stage) {
            stages_.push_back({pack<kExact>(*spec++, team), {}});
            stages_.back().blocks.resize(blocks);
            for (Block& block : stages_.back().blocks)
                for (int64_t pair = 0; pair < pairs; ++pair, spec += 2)
                    block.push_back({pack<kExact>(spec[0], team), pack<kExact>(spec[1], team)});
            hop_ *= stages_.back().up.stride;
        }
        last_ = pack_last(*spec);
    }

    // How many frames on either side a frame's samples depend on.
    int64_t context() const override {
        constexpr int64_t kMiddle = 1 << 20;
        Range range = Range{kMiddle * hop_, (kMiddle + 1) * hop_}.widened(last_.padding);
        for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage)
            range = stage->up.inputs_of(range.widened(stage->reach()));
        range = first_.inputs_of(range);
        return std::max(kMiddle - range.first, range.last - kMiddle - 1);
    }

    void run(Team& team, const float* frames, int64_t count, Range kept, const float* condition,
             float* samples) override {
        std::lock_guard lock(mutex_);
        const Window window = prepare({frames, count, kept, samples, needs(kept, count), {}, {}, {}}, condition, team);
        std::vector<std::atomic<int64_t>> next(stages_.size());
        team.run([&](int member) {
            const Tiles tiles;
            read_frames(window, team.share(member, window.needed[0].within(count).size()));
            team.meet();
            const Share panels = team.share(member, first_.blocks());
            convolve<kExact>(first_, window.operands[0], window.needed[1].within(count),
                             {.bias = window.bias[0].data(), .operand = window.operands[1]},
                             {panels.first, panels.last});
            team.meet();
            for (size_t stage = 0; stage < stages_.size(); ++stage) {
                for (int64_t piece; (piece = next[stage].fetch_add(1)) < window.pieces[stage];)
                    compute(window, stage, piece, scratch_[member]);
                team.meet();
            }
        });
    }

  private:
    int64_t rate(size_t stage) const {  // rows that a stage has for each frame
        int64_t rows = 1;
        for (size_t each = 0; each <= stage; ++each) rows *= stages_[each].up.stride;
        return rows;
    }

    bool is_last(size_t stage) const { return stage + 1 == stages_.size(); }

    // The rows of the frames, of the first convolution and of each stage that the samples of frames `kept` need. At
    // the window's edges that includes the zeros which a layer reads beyond them.
    std::vector<Range> needs(Range kept, int64_t count) const {
        std::vector<Range> needed(stages_.size() + 2);
        Range range = Range{kept.first * hop_, kept.last * hop_}.widened(last_.padding);
        for (size_t stage = stages_.size(); stage-- > 0;) {
            needed[stage + 2] = range;
            const Stage& own = stages_[stage];
            range = own.inputs(range.widened(own.reach()), count * rate(stage));
            range = {range.first + own.up.first_shift(), range.last + own.up.last_shift()};
        }
        needed[1] = range;
        needed[0] = range.within(count).widened(first_.padding);
        return needed;
    }

    Window prepare(Window window, const float* condition, const Team& team) {
        add_condition(window, condition);
        lay_out(window);
        scratch_.resize(std::max<size_t>(scratch_.size(), team.size()));
        for (size_t stage = 0; stage < stages_.size(); ++stage) {
            const int64_t longest = std::max(kPieceLeast, kPieceSize / stages_[stage].up.outputs);
            const int64_t rounds = ceil_div(samples_of(window, stage).size(), longest * team.size());
            window.pieces.push_back(rounds * team.size());
            for (Scratch& own : scratch_) reserve(own, stage, window);
        }
        return window;
    }

    void add_condition(Window& window, const float* condition) const {
        window.bias.push_back(first_.bias);
        for (const Stage& stage : stages_) window.bias.push_back(stage.up.bias);
        for (size_t layer = 0; layer < window.bias.size(); ++layer)
            for (int64_t c = 0; c < (layer ? stages_[layer - 1].up : first_).channels; ++c)
                window.bias[layer][c] += *condition++;
    }

    void lay_out(Window& window) {
        shared_.resize(stages_.size() + 1);
        for (size_t layer = 0; layer < shared_.size(); ++layer) {
            const int64_t width = layer < 2 ? (layer ? first_.outputs : first_.inputs) : stages_[layer - 2].up.outputs;
            const int64_t rows = window.needed[layer].size() + kBlock;  // a block of rows may begin at the last one
            bf16* data = shared_[layer].reserve(rows * width * (kExact ? 2 : 1));
            window.operands.push_back({data, width, window.needed[layer].first, kExact ? rows * width : 0});
            const int64_t count = window.count * (layer < 2 ? 1 : rate(layer - 2));
            clear_outside(window.operands.back(), window.needed[layer], count);
        }
    }

    void read_frames(const Window& window, Share rows) const {
        const int64_t skipped = window.needed[0].within(window.count).first;
        const Operand& to = window.operands[0];
        for (int64_t row = skipped + rows.first; row < skipped + rows.last; ++row) {
            for (int64_t c = 0; c < to.width; c += 32) {
                const __mmask32 mask = static_cast<__mmask32>((int64_t{1} << std::min<int64_t>(32, width_ - c)) - 1);
                const float* at = window.frames + row * width_ + c;
                store_rounded<kExact>(to.row(row) + c, to.low, _mm512_maskz_loadu_ps(mask & 0xffff, at),
                                      _mm512_maskz_loadu_ps(mask >> 16, at + 16));
            }
        }
    }

    // What a stage is to compute: rows of its outputs, of the last stage samples.
    Range samples_of(const Window& window, size_t stage) const {
        if (is_last(stage)) return {window.kept.first * hop_, window.kept.last * hop_};
        return window.needed[stage + 2].within(window.count * rate(stage));
    }

    Range piece_of(const Window& window, size_t stage, int64_t piece) const {
        const Range all = samples_of(window, stage);
        const int64_t pieces = window.pieces[stage];
        return {all.first + all.size() * piece / pieces, all.first + all.size() * (piece + 1) / pieces};
    }

    int64_t rows_of_piece(const Window& window, size_t stage) const {
        const Stage& own = stages_[stage];
        const int64_t rows = ceil_div(samples_of(window, stage).size(), window.pieces[stage]);
        return rows + 2 * (own.reach() + last_.padding + own.up.stride) + kBlock;
    }

    void reserve(Scratch& own, size_t stage, const Window& window) const {
        const int64_t size = rows_of_piece(window, stage) * stages_[stage].up.outputs;
        for (Buffer<float>* floats : {&own.x, &own.y, &own.total}) floats->reserve(size);
        for (Buffer<bf16>* operand : {&own.x_operand, &own.y_operand, &own.middle}) operand->reserve(2 * size);
    }

    // Returns the matrices in `scratch` whose first row in memory is `origin`.
    Layers layers_in(const Scratch& scratch, int64_t width, int64_t origin, int64_t rows) const {
        const int64_t low = kExact ? rows * width : 0;
        const auto floats = [&](const Buffer<float>& memory) { return Floats{memory.data(), width, origin, 0}; };
        const auto operand = [&](const Buffer<bf16>& memory) { return Operand{memory.data(), width, origin, low}; };
        return {floats(scratch.x),          floats(scratch.y),          floats(scratch.total),
                operand(scratch.x_operand), operand(scratch.y_operand), operand(scratch.middle)};
    }

    // Computes one piece of a stage on one thread.
    void compute(const Window& window, size_t stage, int64_t piece, const Scratch& scratch) const {
        const Range samples = piece_of(window, stage, piece);
        if (!samples.size()) return;
        const Stage& own = stages_[stage];
        const int64_t count = window.count * rate(stage);
        const Range rows = is_last(stage) ? samples.widened(last_.padding) : samples;
        const Range wide = rows.widened(own.reach()), inputs = own.inputs(wide, count);
        const int64_t origin = std::min(wide.first, inputs.first * own.up.stride);
        const Layers layers = layers_in(scratch, own.up.outputs, origin, rows_of_piece(window, stage));
        Output start{.bias = window.bias[stage + 1].data(), .floats = layers.x, .operand = layers.x_operand};
        convolve<kExact>(own.up, window.operands[stage + 1], inputs, start);
        clear_outside(layers.x_operand, wide, count);
        for (size_t block = 0; block + 1 < own.blocks.size(); ++block)
            residual(own.blocks[block], layers, rows, count,
                     {.total = block ? layers.total : Floats{}, .floats = layers.total});
        Output mean{.total = own.blocks.size() > 1 ? layers.total : Floats{}};
        mean.scale = 1.0f / static_cast<float>(own.blocks.size());
        if (is_last(stage)) {
            mean.floats = layers.total;
        } else {
            mean.operand = window.operands[stage + 2];
        }
        residual(own.blocks.back(), layers, rows, count, mean);
        if (is_last(stage)) speak(layers.total, samples, count, window.samples - window.kept.first * hop_);
    }

    // Computes a residual block's outputs in `rows` of the window's `count`; `out` says where they go.
    void residual(const Block& block, const Layers& layers, Range rows, int64_t count, Output out) const {
        Range range = rows.widened(reach_of(block));
        Operand in = layers.x_operand;
        out.residual = layers.x;
        for (const Pair& pair : block) {
            range = range.widened(-pair.first.padding);
            convolve<kExact>(pair.first, in, range.within(count),
                             {.bias = pair.first.bias.data(), .operand = layers.middle});
            clear_outside(layers.middle, range, count);
            range = range.widened(-pair.second.padding);
            Output own{.residual = out.residual, .floats = layers.y, .operand = layers.y_operand};
            if (&pair == &block.back()) own = out;
            own.bias = pair.second.bias.data();
            convolve<kExact>(pair.second, layers.middle, range.within(count), own);
            if (&pair == &block.back()) return;
            clear_outside(layers.y_operand, range, count);
            in = layers.y_operand;
            out.residual = layers.y;
        }
    }

    // Turns the last stage's outputs into the samples in `range`; `to` is where sample 0 of the window would lie.
    void speak(const Floats& in, Range range, int64_t count, float* to) const {
        const Range wide = range.widened(last_.padding), inside = wide.within(count);
        clear_outside(in, wide, count);
        for (float* at = in.row(inside.first); at < in.row(inside.last); at += kLanes)
            _mm512_store_ps(at, leaky(_mm512_load_ps(at), _mm512_set1_ps(kLastSlope)));
        for (int64_t sample = range.first; sample < range.last; sample += kLanes) {
            alignas(64) float sums[kLanes] = {};
            const int64_t lanes = std::min<int64_t>(kLanes, range.last - sample);
            for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] = last_.at(in.row(sample + lane - last_.padding));
            const __mmask16 mask = static_cast<__mmask16>((1 << lanes) - 1);
            _mm512_mask_storeu_ps(to + sample, mask, tanh(_mm512_load_ps(sums)));
        }
    }

    int64_t width_, hop_ = 1;
    Convolution first_;
    std::vector<Stage> stages_;
    Last last_;
    std::mutex mutex_;  // of the memory below
    std::vector<Scratch> scratch_;
    std::vector<Buffer<bf16>> shared_;
};

}  // namespace
}  // namespace mirrorchat

using mirrorchat::LayerSpec;
using mirrorchat::Team;
using mirrorchat::Vocoder;

extern "C" {

// Copies the layers of `spec`, in the order in which they are computed. Null if there is too little memory.
Vocoder* vocoder_create(const LayerSpec* spec, int64_t stages, int64_t blocks, int64_t pairs, int exact, Team* team) {
    try {
        if (exact) return new mirrorchat::Generator<true>(spec, stages, blocks, pairs, *team);
        return new mirrorchat::Generator<false>(spec, stages, blocks, pairs, *team);
    } catch (...) {
        return nullptr;
    }
}

void vocoder_destroy(Vocoder* vocoder) { delete vocoder; }

int64_t vocoder_context(const Vocoder* vocoder) { return vocoder->context(); }

// Computes the samples of frames `first` to `last` (exclusive) of a window of `count`, (count, inputs) float32, where
// `condition` is what the speaker adds to the first convolution and to each upsampling. Returns 0, or -1 if there is
// too little memory.
int vocoder_run(Vocoder* vocoder, Team* team, const float* frames, int64_t count, int64_t first, int64_t last,
                const float* condition, float* samples) {
    try {
        vocoder->run(*team, frames, count, {first, last}, condition, samples);
        return 0;
    } catch (...) {
        return -1;
    }
}
}
#endif
