// varlen_attention, step 1: one warp for each query row and head, a key a lane.
//
// 32 keys at a time: a lane computes the score of its key, then all lanes add up the values of the
// 32 keys, a lane every 32nd column. Lanes read rows of K far apart, so most of what a line brings
// is wasted until the next dimension, and K and V are read once for every query. Any D, any Dv, any
// stride, any mask.
#pragma once

#include <math.h>

#include "common/attention.cuh"

namespace yaie::varlen_attention {

template <class T>
__device__ float dot(const T* q, const T* key, int dim) {
    float sum = 0.0f;
    for (int d = 0; d < dim; ++d) sum += simt::to_float(q[d]) * simt::to_float(key[d]);
    return sum;
}

template <bool kMax>
__device__ float reduce_warp(float x) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(~0u, x, step);
        x = kMax ? fmaxf(x, other) : x + other;
    }
    return x;
}

template <class T>
__global__ void naive(T* out, float* lse, const T* q, int64_t q_stride, int64_t q_head_stride,
                      int heads, attention::Packed kv, attention::Options options) {
    float* sums = simt::dynamic_shared<float>();  // [Dv], sum of weight * v so far
    const int64_t row = blockIdx.x / heads;
    const int head = blockIdx.x % heads, lane = threadIdx.x;
    const int kv_head = head / (heads / kv.kv_heads);
    const attention::Query span = attention::find_query(kv, options, row);
    const int64_t start = kv.kv_indptr[span.sequence];
    const T* query = q + row * q_stride + head * q_head_stride;
    const T* k = static_cast<const T*>(kv.k) + start * kv.k_stride + kv_head * kv.k_head_stride;
    const T* v = static_cast<const T*>(kv.v) + start * kv.v_stride + kv_head * kv.v_head_stride;

    for (int d = lane; d < kv.v_dim; d += 32) sums[d] = 0.0f;
    float most = -INFINITY, total = 0.0f;  // running maximum, sum of exp(score - most)
    for (int tile = span.first; tile < span.last; tile += 32) {
        const int keys = min(32, span.last - tile);

        // pass 1: a score a lane, and the maximum
        float score = -INFINITY;
        if (lane < keys) {
            score = options.scale * dot(query, k + (tile + lane) * kv.k_stride, kv.dim);
            score = attention::capped(score, options.softcap);
        }
        const float new_most = fmaxf(most, reduce_warp<true>(score));

        // pass 2: weights, and what they sum to
        const float weight = lane < keys ? expf(score - new_most) : 0.0f;
        const float rescale = expf(most - new_most);  // 0 for the first tile
        total = total * rescale + reduce_warp<false>(weight);
        most = new_most;

        // pass 3: values; keys beyond the tile are not read
        for (int d = lane; d < kv.v_dim; d += 32) sums[d] *= rescale;
        for (int j = 0; j < keys; ++j) {
            const float share = __shfl_sync(~0u, weight, j);
            for (int d = lane; d < kv.v_dim; d += 32)
                sums[d] += share * simt::to_float(v[(tile + j) * kv.v_stride + d]);
        }
    }

    const int64_t result = row * heads + head;
    for (int d = lane; d < kv.v_dim; d += 32)
        out[result * kv.v_dim + d] = simt::from_float<T>(total == 0.0f ? 0.0f : sums[d] / total);
    if (lane == 0) lse[result] = total == 0.0f ? -INFINITY : most + logf(total);
}

}  // namespace yaie::varlen_attention
