// What launchers of kernels over packed heads [T,H,D] share.
#pragma once

#include <algorithm>

#include "common/heads.cuh"
#include "common/view.h"

namespace yaie {

inline Heads heads(const View& view) {
    return {view.data, view.stride[0], view.stride[1], static_cast<int>(view.shape[1]),
            static_cast<int>(view.shape[2])};
}

// Folds in all that decides how wide a word of every head of the tensor may be.
inline AccessWidth& fold(AccessWidth& width, const View& view) {
    width.fold(view.data);
    for (int i = 0; i < view.rank - 1; ++i)
        if (view.shape[i] > 1) width.fold(view.stride[i] * view.itemsize);
    return width.fold(view.shape[view.rank - 1] * view.itemsize);
}

// A block whose threads are [tokens, heads, pieces of a head] = [z, y, x], so that a kernel finds
// its place without a division. Small tokens share a block; what does not fit, threads loop over.
inline dim3 token_block(int pieces, int heads, int heads_a_thread) {
    constexpr int kMost = 256, kEnough = 128, kMostTokens = 64;
    const int x = std::clamp(pieces, 1, kMost);
    const int y = std::clamp((heads + heads_a_thread - 1) / heads_a_thread, 1, kMost / x);
    return dim3(x, y, std::clamp(kEnough / (x * y), 1, kMostTokens));
}

// Blocks for all tokens.
inline int64_t token_blocks(int64_t tokens, const dim3& block) {
    return (tokens + block.z - 1) / block.z;
}

}  // namespace yaie
