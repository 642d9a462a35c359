// What merge_states and merge_states_n share: how much a state counts.
#pragma once

#include <math.h>

#include "common/heads.cuh"

namespace yaie::merging {

// The states of attention over one set of keys: out [T,H,D] and its log-sum-exp [T,H].
struct State {
    Heads out;
    const float* lse;
    int64_t lse_stride;  // of a token

    __device__ float lse_at(int64_t token, int head) const {
        return lse[token * lse_stride + head];
    }
};

// Of a state beside one whose lse is `most`. A state that saw no key does not count, and where none
// did (most = -inf) nothing is subtracted from infinity.
__device__ inline float weight(float lse, float most) {
    return lse == -INFINITY ? 0.0f : expf(lse - most);
}

// The lse of all states, whose weights are `total` in sum.
__device__ inline float merged_lse(float most, float total) {
    return total > 0.0f ? most + logf(total) : -INFINITY;
}

}  // namespace yaie::merging
