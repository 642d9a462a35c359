// paged_attention, step 1: one block for each query row and head, exact softmax over tiles of keys.
//
// One thread computes one score of the tile (a dot product over D, its row of K read alone: no two
// threads of a warp touch the same line, which is slow), then the block rescales what it has and
// adds the tile's share of V, one thread for one column. K and V are read once for every query head
// of a group. Any D, any page size, any mask.
#pragma once

#include <math.h>

#include "common/attention.cuh"

namespace yaie::paged_attention {

constexpr int kTile = 128;  // most keys of a tile, and most threads of a block: one thread a key

// Largest (or sum) of one value a thread, over the block; `scratch` holds a float a warp.
template <bool kMax>
__device__ float reduce_block(float x, float* scratch) {
    for (int step = 16; step > 0; step /= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, x, step);
        x = kMax ? fmaxf(x, other) : x + other;
    }
    if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = x;
    __syncthreads();
    x = scratch[0];
    for (int warp = 1; warp < int(blockDim.x) / 32; ++warp)
        x = kMax ? fmaxf(x, scratch[warp]) : x + scratch[warp];
    __syncthreads();  // scratch may be written again
    return x;
}

template <class T>
__device__ float dot(const float* q, const T* key, int dim) {
    float sum = 0.0f;
    for (int d = 0; d < dim; ++d) sum += q[d] * simt::to_float(key[d]);
    return sum;
}

template <class T>
__global__ void __launch_bounds__(kTile)
    naive(T* out, float* lse, const T* q, int64_t q_stride, int64_t q_head_stride, int heads,
          attention::Paged kv, attention::Options options) {
    SIMT_SHARED(float, weights, [kTile]);
    SIMT_SHARED(float, scratch, [kTile / 32]);
    float* query = simt::dynamic_shared<float>();  // [D]
    float* sums = query + kv.dim;                  // [Dv], sum of weight * v so far

    const int64_t row = blockIdx.x / heads;
    const int head = blockIdx.x % heads;
    const int kv_head = head / (heads / kv.kv_heads);
    const int tid = threadIdx.x, threads = blockDim.x;
    const attention::Query span = attention::find_query(kv, options, row);

    for (int d = tid; d < kv.dim; d += threads)
        query[d] = simt::to_float(q[row * q_stride + head * q_head_stride + d]);
    for (int d = tid; d < kv.v_dim; d += threads) sums[d] = 0.0f;
    float most = -INFINITY, total = 0.0f;  // running maximum, sum of exp(score - most)
    __syncthreads();

    for (int tile = span.first; tile < span.last; tile += threads) {
        const int keys = min(threads, span.last - tile);

        // pass 1: one score a thread, and the tile's maximum
        float score = -INFINITY;
        if (tid < keys) {
            const int64_t key = kv.slot(span.sequence, tile + tid) * kv.kv_heads + kv_head;
            score = options.scale * dot(query, static_cast<const T*>(kv.k) + key * kv.dim, kv.dim);
            score = attention::capped(score, options.softcap);
        }
        const float new_most = fmaxf(most, reduce_block<true>(score, scratch));

        // pass 2: weights, and what they sum to
        const float weight = tid < keys ? expf(score - new_most) : 0.0f;
        const float rescale = expf(most - new_most);  // 0 for the first tile
        weights[tid] = weight;
        total = total * rescale + reduce_block<false>(weight, scratch);
        most = new_most;

        // pass 3: values, one column a thread; keys beyond the tile are not read
        for (int d = tid; d < kv.v_dim; d += threads) {
            float sum = sums[d] * rescale;
            for (int j = 0; j < keys; ++j) {
                const int64_t key = kv.slot(span.sequence, tile + j) * kv.kv_heads + kv_head;
                sum += weights[j] * simt::to_float(static_cast<const T*>(kv.v)[key * kv.v_dim + d]);
            }
            sums[d] = sum;
        }
        // The reductions of the next tile stand between these reads of weights and its writes.
    }

    const int64_t result = row * heads + head;
    for (int d = tid; d < kv.v_dim; d += threads)
        out[result * kv.v_dim + d] = simt::from_float<T>(total > 0.0f ? sums[d] / total : 0.0f);
    if (tid == 0) lse[result] = total > 0.0f ? most + logf(total) : -INFINITY;
}

}  // namespace yaie::paged_attention
