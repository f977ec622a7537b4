// Scratch memory that is reused between calls.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace mirrorchat {

// Memory that only grows, aligned to cache lines: a tile's line across two cache lines takes twice as long.
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

}  // namespace mirrorchat
