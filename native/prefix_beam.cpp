// CTC prefix beam search (Hannun et al., arXiv:1408.2873) with WeNet's pruning, times and hot words, about twenty times
// as fast as mirrorchat/wenet/ctc/plain.py.
//
// Both do the same operations on the same doubles in the same order, with the same exp and log1p, so their results have
// the same bits. Searches share no data.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <unordered_map>
#include <vector>

namespace mirrorchat {
namespace {

constexpr int32_t kBlank = 0;
constexpr int32_t kNone = -1;
constexpr int kBlock = 32;  // scores of one comparison
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

enum Status : int { kDone = 0, kNoMemory = -1, kNotNumbers = -2 };

// The automaton of hot words: `_Arrays` in mirrorchat/wenet/ctc/context.py. The arrays live longer than the search.
struct Graph {
    const int32_t* first;
    const int32_t* tokens;
    const int32_t* targets;
    const int32_t* fail;
    const double* reached;
    const double* completed;
    double score;

    // The target state of the arc of `token`, or kNone.
    int32_t arc(int32_t state, int32_t token) const {
        const int32_t* end = tokens + first[state + 1];
        const int32_t* found = std::lower_bound(tokens + first[state], end, token);
        return found != end && *found == token ? targets[found - tokens] : kNone;
    }

    // Advances `state` with `token`, and returns the change of the bonus.
    double step(int32_t& state, int32_t token) const {
        const int32_t from = state, direct = arc(from, token);
        int32_t target = direct;
        while (target == kNone && state != 0) target = arc(state = fail[state], token);
        state = std::max(target, 0);
        const double bonus = direct != kNone ? score : reached[state] - reached[from];
        return bonus + completed[state];
    }
};

double log_add(double a, double b) {
    if (a < b) std::swap(a, b);
    return b == kImpossible ? a : a + std::log1p(std::exp(b - a));
}

// One of the best tokens of a frame.
struct Choice {
    float score;
    int32_t token;
};

// Tells whether none of kBlock scores is above `least`. False for NaN.
bool none_above(const float* scores, float least) {
    int above = 0;
    for (int i = 0; i < kBlock; ++i) above |= !(scores[i] <= least);
    return above == 0;
}

// Writes the `count` best tokens of a frame, best first, the lower token first for equal scores. False for NaN and
// infinity.
bool choose(const float* frame, int64_t tokens, int64_t count, Choice* best) {
    int64_t held = 0;
    for (int64_t token = 0; token < tokens; ++token) {
        if (held == count) {
            const float least = best[count - 1].score;
            while (token + kBlock <= tokens && none_above(frame + token, least)) token += kBlock;
            while (token < tokens && frame[token] <= least) ++token;
            if (token == tokens) break;
        }
        const float score = frame[token];
        if (!(score < std::numeric_limits<float>::infinity())) return false;
        int64_t place = held < count ? held++ : count - 1;
        for (; place > 0 && best[place - 1].score < score; --place) best[place] = best[place - 1];
        best[place] = {score, static_cast<int32_t>(token)};
    }
    return true;
}

// The times of the last token of a path, and a link to the earlier tokens.
struct Spoken {
    int32_t before;
    int32_t frame;
    float peak;  // the largest log probability of the token during its repetition
};

// The paths to a prefix with the same kind of end: a blank, or the last token.
struct Paths {
    double total = kImpossible;  // log probability of all of them
    double best = kImpossible;   // of the most probable path
    int32_t spoken = kNone;      // times of the most probable path
};

struct Prefix {
    int32_t parent, last;  // its parent in the tree; its last token, kNone for the empty prefix
    int32_t number;        // in the tree; kNone for a prefix that has not survived a frame
    int32_t state;         // of the automaton
    double bonus;          // for hot words
    double total;          // log probability of all paths, without hot words
    Paths blank, token;

    const Paths& likeliest() const { return blank.best > token.best ? blank : token; }
};

// A prefix found in a frame. The times of its last token become a link only if the prefix survives.
struct Met : Prefix {
    bool ends_blank = false, ends_token = false;
    Spoken spoken{};

    // Adds paths to which the last token was just appended.
    void append(double log, double likeliest, const Spoken& said) {
        token.total = log_add(token.total, log);
        if (!(token.best < likeliest) && ends_token) return;
        token.best = likeliest;
        spoken = said;
        ends_token = true;
    }

    // Adds `paths`, whose last token (with the times `said`) was just repeated. The times of paths to which it was just
    // appended stay, as in WeNet.
    void hold(const Paths& paths, float score, const Spoken& said) {
        token.total = log_add(token.total, paths.total + score);
        if (token.best == kImpossible) spoken = said;
        token.best = std::max(token.best, paths.best + score);
        ends_token = true;
    }
};

// All prefixes that have survived a frame. Each has a number, so that prefixes are not copied or compared.
class Tree {
  public:
    int32_t number(int32_t parent, int32_t token) {
        const uint64_t key = static_cast<uint64_t>(parent) << 32 | static_cast<uint32_t>(token);
        const auto [place, fresh] = numbers_.try_emplace(key, static_cast<int32_t>(nodes_.size()));
        if (fresh) nodes_.push_back({parent, token, nodes_[parent].depth + 1});
        return place->second;
    }

    int32_t depth(int32_t number) const { return nodes_[number].depth; }

    // Writes the tokens of a prefix, from the first to the last.
    void spell(int32_t number, int32_t* tokens) const {
        for (; number > 0; number = nodes_[number].parent) tokens[nodes_[number].depth - 1] = nodes_[number].token;
    }

    // The longest common prefix of both.
    int32_t common(int32_t a, int32_t b) const {
        while (a != b) (depth(a) > depth(b) ? a : b) = nodes_[depth(a) > depth(b) ? a : b].parent;
        return a;
    }

  private:
    struct Node {
        int32_t parent, token, depth;
    };
    std::vector<Node> nodes_{{kNone, kNone, 0}};
    std::unordered_map<uint64_t, int32_t> numbers_;
};

class Search {
  public:
    Search(int32_t beam, const Graph* graph) : beam_(beam), graph_(graph ? *graph : Graph{}), hot_(graph != nullptr) {
        Prefix start{kNone, kNone, 0, 0, 0.0, 0.0, {}, {}};
        start.blank.total = start.blank.best = 0.0;
        live_.push_back(start);
    }

    // Processes all frames, or none if one has NaN or infinity.
    Status advance(const float* log_probs, int64_t frames, int64_t tokens) {
        const int64_t count = std::min<int64_t>(beam_, tokens);
        choices_.resize(frames * count);
        for (int64_t i = 0; i < frames; ++i) {
            if (!choose(log_probs + i * tokens, tokens, count, choices_.data() + i * count)) return kNotNumbers;
        }
        for (int64_t i = 0; i < frames; ++i, ++frame_) step(choices_.data() + i * count, count);
        return kDone;
    }

    int64_t count() const { return static_cast<int64_t>(live_.size()); }

    // The number of tokens of all live prefixes together.
    int64_t tokens() const {
        int64_t sum = 0;
        for (const Prefix& prefix : live_) sum += tree_.depth(prefix.number);
        return sum;
    }

    // Writes the live prefixes, best first, with the scores of an end at this frame. Their tokens follow one another.
    void read(int32_t* lengths, double* scores, int32_t* tokens, int32_t* frames, float* peaks) const {
        std::vector<std::pair<double, int32_t>> order;
        for (int32_t i = 0; i < count(); ++i) order.emplace_back(final_score(live_[i]), i);
        std::stable_sort(order.begin(), order.end(), [](auto& a, auto& b) { return a.first > b.first; });
        for (const auto& [score, i] : order) {
            const int32_t length = tree_.depth(live_[i].number);
            tree_.spell(live_[i].number, tokens);
            trace(live_[i].likeliest().spoken, length, frames, peaks);
            *lengths++ = length, *scores++ = score;
            tokens += length, frames += length, peaks += length;
        }
    }

    // The number of the longest common prefix of all live ones.
    int32_t agreed() const {
        int32_t number = live_[0].number;
        for (const Prefix& prefix : live_) number = tree_.common(number, prefix.number);
        return number;
    }

    const Tree& tree() const { return tree_; }

  private:
    // Replaces the live prefixes by the best ones after one more frame. The first found wins between equal scores.
    void step(const Choice* choices, int64_t count) {
        met_.clear();
        again_.assign(live_.size(), kNone);
        link_live();
        for (int64_t i = 0; i < count; ++i) {
            for (int32_t from = 0; from < static_cast<int32_t>(live_.size()); ++from) {
                if (choices[i].token == kBlank) {
                    stay(from, choices[i].score);
                } else {
                    append(from, choices[i]);
                }
            }
        }
        keep(rank());
    }

    // Finds live prefixes that extend another live one by a token: only these can be found in two ways.
    void link_live() {
        const int32_t count = static_cast<int32_t>(live_.size());
        child_.assign(count, kNone);
        sibling_.assign(count, kNone);
        for (int32_t i = 0; i < count; ++i) {
            for (int32_t parent = 0; parent < count; ++parent) {
                if (live_[parent].number != live_[i].parent) continue;
                sibling_[i] = child_[parent];
                child_[parent] = i;
            }
        }
    }

    // The candidate for the live prefix `from` itself.
    Met& again(int32_t from) {
        if (again_[from] == kNone) {
            again_[from] = static_cast<int32_t>(met_.size());
            const Prefix& prefix = live_[from];
            met_.push_back({{prefix.parent, prefix.last, prefix.number, prefix.state, prefix.bonus, 0.0, {}, {}}});
        }
        return met_[again_[from]];
    }

    // The candidate for the live prefix `from` followed by `token`.
    Met& longer(int32_t from, int32_t token) {
        for (int32_t child = child_[from]; child != kNone; child = sibling_[child]) {
            if (live_[child].last == token) return again(child);
        }
        const Prefix& prefix = live_[from];
        int32_t state = prefix.state;
        const double bonus = prefix.bonus + (hot_ ? graph_.step(state, token) : 0.0);
        met_.push_back({{prefix.number, token, kNone, state, bonus, 0.0, {}, {}}});
        return met_.back();
    }

    void stay(int32_t from, float score) {
        const Paths& likeliest = live_[from].likeliest();
        Met& met = again(from);
        met.blank = {live_[from].total + score, likeliest.best + score, likeliest.spoken};
        met.ends_blank = true;
    }

    void append(int32_t from, const Choice& choice) {
        const Prefix& prefix = live_[from];
        const float score = choice.score;
        if (choice.token != prefix.last) {
            const Paths& paths = prefix.likeliest();
            longer(from, choice.token).append(prefix.total + score, paths.best + score, {paths.spoken, frame_, score});
            return;
        }
        // A repeated token is one token, unless a blank is between.
        const Spoken& said = spoken_[prefix.token.spoken];
        again(from).hold(prefix.token, score, {said.before, frame_, std::max(said.peak, score)});
        const Paths& paths = prefix.blank;
        longer(from, choice.token).append(paths.total + score, paths.best + score, {paths.spoken, frame_, score});
    }

    // Returns the number of surviving prefixes, which come first in `order_`, best first.
    int64_t rank() {
        order_.resize(met_.size());
        ranks_.resize(met_.size());
        for (size_t i = 0; i < met_.size(); ++i) {
            met_[i].total = log_add(met_[i].blank.total, met_[i].token.total);
            ranks_[i] = met_[i].total + met_[i].bonus;
            order_[i] = static_cast<int32_t>(i);
        }
        const int64_t survivors = std::min<int64_t>(beam_, met_.size());
        std::partial_sort(order_.begin(), order_.begin() + survivors, order_.end(), [this](int32_t a, int32_t b) {
            return ranks_[a] != ranks_[b] ? ranks_[a] > ranks_[b] : a < b;
        });
        return survivors;
    }

    void keep(int64_t survivors) {
        live_.clear();
        for (int64_t i = 0; i < survivors; ++i) {
            Met& met = met_[order_[i]];
            if (met.number == kNone) met.number = tree_.number(met.parent, met.last);
            // Impossible paths need frames, too: an impossible hypothesis still has one frame for each token.
            met.token.spoken = met.ends_token ? static_cast<int32_t>(spoken_.size()) : met.blank.spoken;
            if (met.ends_token) spoken_.push_back(met.spoken);
            if (!met.ends_blank) met.blank.spoken = met.token.spoken;
            live_.push_back(met);
        }
    }

    double final_score(const Prefix& prefix) const {
        return prefix.total + (prefix.bonus - (hot_ ? graph_.reached[prefix.state] : 0.0));
    }

    void trace(int32_t spoken, int32_t length, int32_t* frames, float* peaks) const {
        for (int32_t i = length - 1; i >= 0; --i, spoken = spoken_[spoken].before) {
            frames[i] = spoken_[spoken].frame;
            peaks[i] = spoken_[spoken].peak;
        }
    }

    int32_t beam_;
    Graph graph_;
    bool hot_;
    int32_t frame_ = 0;
    Tree tree_;
    std::vector<Spoken> spoken_;
    std::vector<Prefix> live_;
    // Scratch memory of a frame: the candidates, and for each live prefix the index of its candidate, its first live
    // child and its next sibling.
    std::vector<Met> met_;
    std::vector<int32_t> again_, child_, sibling_, order_;
    std::vector<double> ranks_;
    std::vector<Choice> choices_;
};

}  // namespace
}  // namespace mirrorchat

using mirrorchat::Graph;
using mirrorchat::Search;

extern "C" {

// Returns null if the memory is exhausted. `graph` may be null.
Search* prefix_search_create(int32_t beam, const Graph* graph) {
    try {
        return new Search(beam, graph);
    } catch (...) {
        return nullptr;
    }
}

void prefix_search_destroy(Search* search) { delete search; }

// Processes log probabilities (frames, tokens). After kNoMemory the search can only be destroyed.
int prefix_search_advance(Search* search, const float* log_probs, int64_t frames, int64_t tokens) {
    try {
        return search->advance(log_probs, frames, tokens);
    } catch (...) {
        return mirrorchat::kNoMemory;
    }
}

// Returns the number of hypotheses, and in `tokens` the number of tokens of all of them.
int64_t prefix_search_size(const Search* search, int64_t* tokens) {
    *tokens = search->tokens();
    return search->count();
}

// Writes all hypotheses into arrays of the size that prefix_search_size gives.
int prefix_search_read(const Search* search, int32_t* lengths, double* scores, int32_t* tokens, int32_t* frames,
                       float* peaks) {
    try {
        search->read(lengths, scores, tokens, frames, peaks);
        return mirrorchat::kDone;
    } catch (...) {
        return mirrorchat::kNoMemory;
    }
}

// Writes the common prefix of all hypotheses and returns its length; more than `capacity` tokens are not written.
int64_t prefix_search_stable(const Search* search, int64_t capacity, int32_t* tokens) {
    const int32_t agreed = search->agreed();
    const int64_t length = search->tree().depth(agreed);
    if (length <= capacity) search->tree().spell(agreed, tokens);
    return length;
}
}
