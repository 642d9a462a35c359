// merge_states, step 1: one thread an element.
//
// Every element of a row works out the same two weights again. A side that saw no key is not read.
#pragma once

#include "common/merge.cuh"

namespace yaie::merge_states {

template <class T>
__global__ void naive(merging::State a, merging::State b, T* out, float* lse, int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const int64_t row = i / a.out.dim, token = row / a.out.heads;
    const int head = static_cast<int>(row % a.out.heads), d = static_cast<int>(i % a.out.dim);

    const float lse_a = a.lse_at(token, head), lse_b = b.lse_at(token, head);
    const float most = fmaxf(lse_a, lse_b);
    const float weight_a = merging::weight(lse_a, most), weight_b = merging::weight(lse_b, most);
    const float total = weight_a + weight_b;
    float sum = 0.0f;
    if (weight_a > 0.0f) sum += weight_a * simt::to_float(a.out.at<const T>(token, head)[d]);
    if (weight_b > 0.0f) sum += weight_b * simt::to_float(b.out.at<const T>(token, head)[d]);
    out[i] = simt::from_float<T>(total > 0.0f ? sum / total : 0.0f);
    if (d == 0) lse[row] = merging::merged_lse(most, total);
}

}  // namespace yaie::merge_states
