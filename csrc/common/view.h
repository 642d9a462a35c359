// A tensor as kernels see it: pointer, dtype, shape, strides. No torch, no Python.
#pragma once

#include <cstdint>

namespace yaie {

enum class DType { float32, float16, bfloat16, int32, int64, other };

constexpr int kMaxRank = 8;

struct View {
    void* data = nullptr;
    DType dtype = DType::other;
    int itemsize = 0;  // bytes of one element
    int rank = 0;
    int64_t shape[kMaxRank] = {};
    int64_t stride[kMaxRank] = {};  // in elements
    int device = -1;                // CUDA device index, -1: host memory

    template <class T>
    T* as() const {
        return static_cast<T*>(data);
    }

    int64_t size() const {
        int64_t n = 1;
        for (int i = 0; i < rank; ++i) n *= shape[i];
        return n;
    }

    bool contiguous() const {
        int64_t step = 1;
        for (int i = rank - 1; i >= 0; --i) {
            if (shape[i] != 1 && stride[i] != step) return false;
            step *= shape[i];
        }
        return true;
    }
};

// Largest power of two, at most 16, that divides every number folded in: the width in bytes of the
// widest access that pointers, pitches and lengths allow.
class AccessWidth {
   public:
    AccessWidth& fold(int64_t bytes) {
        bits_ |= static_cast<uint64_t>(bytes);
        return *this;
    }
    AccessWidth& fold(const void* pointer) {
        bits_ |= reinterpret_cast<uintptr_t>(pointer);
        return *this;
    }
    int bytes() const { return static_cast<int>(bits_ & (~bits_ + 1)); }

   private:
    uint64_t bits_ = 16;
};

}  // namespace yaie
