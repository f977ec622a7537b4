// A team of threads that compute together: the caller's thread, and workers that sleep between computations.
//
// It replaces OpenMP: GNU's version gives every calling thread its own pool, and when there are more workers than cores
// they sleep between two loops, which takes a third of a decode step or more.
#pragma once

#include <immintrin.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace mirrorchat {

// The items of one member: [first, last).
struct Share {
    int64_t first, last;
};

class Team {
  public:
    explicit Team(int size) : size_(size) {
        for (int member = 1; member < size; ++member) workers_.emplace_back([this, member] { serve(member); });
    }

    ~Team() {
        {
            std::lock_guard lock(mutex_);
            closing_ = true;
        }
        wake_.notify_all();
        for (auto& worker : workers_) worker.join();
    }

    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return size_; }

    // Runs `work(member)` on all members in parallel and returns when all have finished. One caller at a time.
    void run(const std::function<void(int)>& work) {
        std::lock_guard one_caller(callers_);
        work_ = &work;
        unfinished_.store(size_ - 1, std::memory_order_relaxed);
        {
            std::lock_guard lock(mutex_);
            round_.fetch_add(1, std::memory_order_release);
        }
        wake_.notify_all();
        work(0);
        pause_until([this] { return unfinished_.load(std::memory_order_acquire) == 0; });
    }

    // Waits until every member has called it (a barrier). All members call it equally often.
    void meet() {
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.store(phase + 1, std::memory_order_release);
            return;
        }
        pause_until([&] { return phase_.load(std::memory_order_acquire) != phase; });
    }

    Share share(int member, int64_t count) const { return {count * member / size_, count * (member + 1) / size_}; }

  private:
    static constexpr std::chrono::microseconds kLinger{2000};
    static constexpr int kSpins = 20'000;  // about 0.3 ms, longer than any part of a step; then the core is yielded

    template <typename Condition>
    static void pause_until(Condition done) {
        for (int spins = 0; !done(); ++spins) {
            if (spins < kSpins) {
                _mm_pause();
            } else {
                std::this_thread::yield();
            }
        }
    }

    void serve(int member) {
        for (uint64_t seen = 0;; ++seen) {
            linger(seen);
            {
                std::unique_lock lock(mutex_);
                wake_.wait(lock, [&] { return closing_ || round_.load(std::memory_order_relaxed) != seen; });
                if (closing_) return;
            }
            (*work_)(member);
            unfinished_.fetch_sub(1, std::memory_order_acq_rel);
        }
    }

    // Spins for a while after round `seen`: the next part of a step, or the next step, usually follows in this time.
    void linger(uint64_t seen) const {
        const auto end = std::chrono::steady_clock::now() + kLinger;
        while (round_.load(std::memory_order_acquire) == seen && std::chrono::steady_clock::now() < end)
            for (int spins = 0; spins < 64; ++spins) _mm_pause();
    }

    const int size_;
    std::vector<std::thread> workers_;
    std::mutex callers_, mutex_;
    std::condition_variable wake_;
    const std::function<void(int)>* work_ = nullptr;
    std::atomic<uint64_t> round_{0};
    bool closing_ = false;
    std::atomic<int> unfinished_{0}, arrived_{0};
    std::atomic<uint32_t> phase_{0};
};

}  // namespace mirrorchat
