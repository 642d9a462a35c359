// copy_blocks, step 2: all layers in one launch, the widest words that alignment allows, and several
// of them in flight in every thread.
//
// A page of 32 KiB is cut into chunks of kUnroll words a thread, so that few pages still fill the
// machine. What it won over step 1: docs/kernels.md.
#pragma once

#include "simt/simt.h"

namespace yaie::copy_blocks {

constexpr int kThreads = 512;
constexpr int kUnroll = 4;
constexpr int kLayers = 64;  // of one launch: their pointers travel as a kernel parameter

struct Layers {
    void* cache[kLayers];
    int64_t page_words[kLayers];
};

template <class Word>
__global__ void __launch_bounds__(kThreads) vec(Layers layers, const int* pairs, int chunks) {
    const int64_t pair = blockIdx.x / chunks;
    const int64_t src = pairs[2 * pair], dst = pairs[2 * pair + 1];
    const int64_t words = layers.page_words[blockIdx.y];
    const int64_t start = int64_t(blockIdx.x % chunks) * (kThreads * kUnroll) + threadIdx.x;
    if (src == dst) return;
    Word* cache = static_cast<Word*>(layers.cache[blockIdx.y]);

    // pass 1: all loads
    Word word[kUnroll];
#pragma unroll
    for (int i = 0; i < kUnroll; ++i)
        if (start + i * kThreads < words) word[i] = cache[src * words + start + i * kThreads];
    // pass 2: all stores
#pragma unroll
    for (int i = 0; i < kUnroll; ++i)
        if (start + i * kThreads < words) cache[dst * words + start + i * kThreads] = word[i];
}

}  // namespace yaie::copy_blocks
