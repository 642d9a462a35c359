// merge_states_n, step 1: one thread an element.
//
// Two passes over the K log-sum-exps of the row, the same for each of its elements; the second reads
// the states, one after the other. A state that saw no key is not read.
#pragma once

#include "merge_states_n/states.cuh"

namespace yaie::merge_states_n {

template <class T>
__global__ void naive(States states, T* out, float* lse, int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const Heads& shape = states.first.out;
    const int64_t row = i / shape.dim, token = row / shape.heads;
    const int head = static_cast<int>(row % shape.heads), d = static_cast<int>(i % shape.dim);

    float most = -INFINITY;
    for (int k = 0; k < states.count; ++k) most = fmaxf(most, states.lse_at(k, token, head));
    float sum = 0.0f, total = 0.0f;
    for (int k = 0; k < states.count; ++k) {
        const float weight = merging::weight(states.lse_at(k, token, head), most);
        if (weight > 0.0f) sum += weight * simt::to_float(states.at<T>(k, token, head)[d]);
        total += weight;
    }
    out[i] = simt::from_float<T>(total > 0.0f ? sum / total : 0.0f);
    if (d == 0) lse[row] = merging::merged_lse(most, total);
}

}  // namespace yaie::merge_states_n
