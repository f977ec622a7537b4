// XTTS's vocoder, HiFi-GAN's generator (Kong et al., 2020, arXiv:2010.05646), in products of bfloat16 tiles (AMX).
//
// A window is computed stage by stage. Within a stage each thread computes pieces of time that are short enough to keep
// all their layers in its cache. It computes only the part of a layer on which the outputs of the piece depend. No
// output depends on its position in a window, so an utterance may be cut anywhere.
#ifdef __AMX_BF16__

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "convolution.h"
#include "team.h"
#include "vectors.h"

namespace mirrorchat {
namespace {

constexpr int64_t kPieceSize = 64 << 10;  // channels x times of a piece, which takes 1.5 MB with its layers
constexpr int64_t kPieceLeast = 512;      // times; in shorter pieces the overlap costs more than the cache saves

// Sets the rows of `range` outside of the `count` rows of the window to zero.
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

// One upsampling and the mean of its residual blocks.
struct Stage {
    Convolution up;
    std::vector<Block> blocks;

    int64_t reach() const {
        int64_t most = 0;
        for (const Block& block : blocks) most = std::max(most, reach_of(block));
        return most;
    }
    // The inputs, at their own rate, for all rows of `wide` inside the window of `count` rows.
    Range inputs(Range wide, int64_t count) const {
        const Range inside = wide.within(count);
        return {inside.first / up.stride, ceil_div(inside.last, up.stride)};
    }
};

// The last convolution, to one channel, on float vectors: rounding errors would be audible.
struct Last {
    int64_t kernel, padding, width;
    float bias;
    Buffer<float> weight;  // (kernel, width)

    // The sum over taps and channels of the rows from `in` on.
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

// The layers of a piece: the outputs of the upsampling and of a residual block, and the sum of all blocks.
struct Layers {
    Floats x, y, total;
    Operand x_operand, y_operand, middle;  // `middle`: between the two convolutions of a pair
};

// The scratch memory of one thread for these layers.
struct Scratch {
    Buffer<float> x, y, total;
    Buffer<bf16> x_operand, y_operand, middle;
};

// A window in computation, and the memory that all threads share.
struct Window {
    const float* frames;  // (count, width)
    int64_t count;
    Range kept;  // frames that become samples
    float* samples;
    std::vector<Range> needed;             // rows of the frames, the first convolution and each stage: see `needs`
    std::vector<Operand> operands;         // of all these but the last stage
    std::vector<std::vector<float>> bias;  // including the speaker: first convolution, the upsampling of each stage
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
    // `spec` has the first convolution, the upsampling and the pairs of the blocks of each stage, the last convolution.
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

    // The number of frames on either side on which the samples of a frame depend.
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
    int64_t rate(size_t stage) const {  // rows of a stage per frame
        int64_t rows = 1;
        for (size_t each = 0; each <= stage; ++each) rows *= stages_[each].up.stride;
        return rows;
    }

    bool is_last(size_t stage) const { return stage + 1 == stages_.size(); }

    // The rows of the frames, of the first convolution and of each stage that the samples of frames `kept` need. At the
    // edges of the window they include the zeros that a layer reads outside of it.
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
            const int64_t rows = window.needed[layer].size() + kBlock;  // a block of rows may start at the last one
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

    // The rows of outputs that a stage computes, or the samples of the last stage.
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

    // Returns the matrices in `scratch` with row `origin` as the first in memory.
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

    // Computes the outputs of a residual block in `rows` of the window's `count`, and stores them in `out`.
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

    // Computes the samples in `range` from the outputs of the last stage. `to` is the address of sample 0 of the
    // window.
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
    std::mutex mutex_;  // protects the memory below
    std::vector<Scratch> scratch_;
    std::vector<Buffer<bf16>> shared_;
};

}  // namespace
}  // namespace mirrorchat

using mirrorchat::LayerSpec;
using mirrorchat::Team;
using mirrorchat::Vocoder;

extern "C" {

// Copies the layers of `spec`, in the order of computation. Returns null if the memory is exhausted.
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
// `condition` has the values that the speaker adds to the first convolution and to each upsampling. Returns 0, or -1 if
// the memory is exhausted.
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
