// Packed heads [T,H,D] as kernels see them, and the words in which fast variants move a head.
#pragma once

#include "simt/simt.h"

namespace yaie {

struct Heads {
    void* data;
    int64_t token_stride;  // in elements
    int64_t head_stride;
    int heads, dim;

    template <class T>
    __device__ T* at(int64_t token, int head) const {
        return static_cast<T*>(data) + token * token_stride + head * head_stride;
    }
};

// A word of memory and the numbers in it.
template <class T, class Word>
union Packed {
    static constexpr int kCount = sizeof(Word) / sizeof(T);
    Word word;
    T element[kCount];
};

template <class T, class Word>
__device__ void unpack(float (&to)[Packed<T, Word>::kCount], const Word& word) {
    Packed<T, Word> packed;
    packed.word = word;
#pragma unroll
    for (int i = 0; i < Packed<T, Word>::kCount; ++i) to[i] = simt::to_float(packed.element[i]);
}

template <class T, class Word>
__device__ Word pack(const float (&from)[Packed<T, Word>::kCount]) {
    Packed<T, Word> packed;
#pragma unroll
    for (int i = 0; i < Packed<T, Word>::kCount; ++i)
        packed.element[i] = simt::from_float<T>(from[i]);
    return packed.word;
}

}  // namespace yaie
