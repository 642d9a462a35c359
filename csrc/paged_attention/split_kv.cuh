// paged_attention, step 2: decode on CUDA cores. The keys of a query are split over blocks, and a
// second kernel merges the partial results.
//
// With one query a sequence there is nothing to reuse but the group: a block takes one KV head, up
// to kHeads of its query heads, and one range of keys, so K and V are read once for those heads.
// A row of K is read by kLanes neighbouring lanes, 8 elements (16 bytes of a 16-bit type) each; the
// lanes of one row reduce the dot product with shuffles. Every such group of lanes runs a softmax of
// its own over its own keys, so that the loop has no barrier; they meet once, at the end.
// What it won over step 1, and where it loses: docs/kernels.md.
#pragma once

#include <math.h>

#include "common/attention.cuh"

namespace yaie::paged_attention {

constexpr int kThreads = 128;  // most of a block; a short context needs fewer
constexpr int kVec = 8;        // elements of a row that one lane holds
constexpr int kInFlight = 2;   // keys that a lane group loads before it uses the first

struct SplitParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, splits;
    void* out;           // T [T,Hq,D]: written when there is one split
    float* lse;          // [T,Hq]
    float* partial_out;  // [splits,T,Hq,D]: written when there are several
    float* partial_lse;  // [splits,T,Hq]
    int64_t rows;        // T
    bool wide_loads;     // rows of the caches start at multiples of 16 bytes
};

// Eight neighbouring elements as floats.
template <class T>
__device__ void load8(float (&to)[kVec], const T* from, bool wide) {
    union {
        uint4 words[sizeof(T) * kVec / 16];
        T elements[kVec];
    } raw;
    if (wide) {
#pragma unroll
        for (int i = 0; i < int(sizeof(T) * kVec / 16); ++i)
            raw.words[i] = reinterpret_cast<const uint4*>(from)[i];
    } else {
#pragma unroll
        for (int i = 0; i < kVec; ++i) raw.elements[i] = from[i];
    }
#pragma unroll
    for (int i = 0; i < kVec; ++i) to[i] = simt::to_float(raw.elements[i]);
}

// Softmax state of one query head in one lane: its share of the row sum(weight * v).
struct State {
    float most;   // largest score so far
    float total;  // sum of exp(score - most)
    float sums[kVec];
};

__device__ inline void clear(State& state) {
    state.most = -INFINITY;
    state.total = 0.0f;
#pragma unroll
    for (int i = 0; i < kVec; ++i) state.sums[i] = 0.0f;
}

// How much a part with maximum `most` counts beside one with `new_most`; an empty part not at all.
__device__ inline float share(float most, float new_most) {
    return most == -INFINITY ? 0.0f : expf(most - new_most);
}

__device__ inline void add_key(State& state, float score, const float (&value)[kVec]) {
    const float new_most = fmaxf(state.most, score);
    const float old = share(state.most, new_most), weight = expf(score - new_most);
    state.total = state.total * old + weight;
#pragma unroll
    for (int i = 0; i < kVec; ++i) state.sums[i] = state.sums[i] * old + weight * value[i];
    state.most = new_most;
}

template <class T>
__device__ void store(const SplitParams& p, int64_t row, int split, int head, int dim, int d,
                      const float (&value)[kVec], float lse) {
    const int64_t result = row * p.heads + head;
    const bool merged_later = p.splits > 1;
    if (merged_later) {
        const int64_t part = split * p.rows * p.heads + result;
        if (d == 0) p.partial_lse[part] = lse;
        if (lse == -INFINITY) return;  // the merge does not read it
#pragma unroll
        for (int i = 0; i < kVec; ++i) p.partial_out[part * dim + d + i] = value[i];
        return;
    }
    if (d == 0) p.lse[result] = lse;
#pragma unroll
    for (int i = 0; i < kVec; ++i)
        static_cast<T*>(p.out)[result * dim + d + i] = simt::from_float<T>(value[i]);
}

// Grid: x = query row, KV head and chunk of its group; y = split.
template <class T, int kLanes, int kHeads>
__global__ void __launch_bounds__(kThreads)
    split_kv(SplitParams p, attention::Paged kv, attention::Options options) {
    simt::let_launch_after_start();
    constexpr int kGroups = kThreads / kLanes;  // most lane groups of a block
    SIMT_SHARED(float, group_most, [kGroups][kHeads]);
    SIMT_SHARED(float, group_total, [kGroups][kHeads]);
    SIMT_SHARED(float, group_sums, [kGroups][kLanes * kVec + 4]);

    const int group_size = p.heads / kv.kv_heads;  // G
    const int chunks = (group_size + kHeads - 1) / kHeads;
    const int chunk = blockIdx.x % chunks;
    const int kv_head = blockIdx.x / chunks % kv.kv_heads;
    const int64_t row = blockIdx.x / chunks / kv.kv_heads;
    const int first_head = kv_head * group_size + chunk * kHeads;
    const int heads = min(kHeads, group_size - chunk * kHeads);
    const int lane = threadIdx.x % kLanes, group = threadIdx.x / kLanes;
    const int groups = blockDim.x / kLanes;
    const int d = lane * kVec;
    const bool active = d < kv.dim;  // lanes beyond D only take part in shuffles

    // this block's range of the keys that the row keeps
    const attention::Query span = attention::find_query(kv, options, row);
    const int range = (span.last - span.first + p.splits - 1) / p.splits;
    const int first = min(span.last, span.first + int(blockIdx.y) * range);
    const int last = min(span.last, first + range);

    float query[kHeads][kVec];
    State state[kHeads];
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
        clear(state[h]);
        const int64_t at = row * p.q_stride + (first_head + h) * p.q_head_stride + d;
#pragma unroll
        for (int i = 0; i < kVec; ++i)
            query[h][i] =
                active && h < heads ? simt::to_float(static_cast<const T*>(p.q)[at + i]) : 0.0f;
    }

    // Every group takes the same number of turns, so that shuffles find all lanes of a warp.
    const T* k_cache = static_cast<const T*>(kv.k);
    const T* v_cache = static_cast<const T*>(kv.v);
    for (int turn = first; turn < last; turn += groups * kInFlight) {
        float key[kInFlight][kVec], value[kInFlight][kVec];

        // pass 1: loads, several keys in flight
#pragma unroll
        for (int f = 0; f < kInFlight; ++f) {
            const int j = turn + f * groups + group;
#pragma unroll
            for (int i = 0; i < kVec; ++i) key[f][i] = value[f][i] = 0.0f;
            if (j < last && active) {
                const int64_t at = (kv.slot(span.sequence, j) * kv.kv_heads + kv_head) * kv.dim + d;
                load8(key[f], k_cache + at, p.wide_loads);
                load8(value[f], v_cache + at, p.wide_loads);
            }
        }
        // pass 2: scores, then weights and values
#pragma unroll
        for (int f = 0; f < kInFlight; ++f) {
            const bool kept = turn + f * groups + group < last;
#pragma unroll
            for (int h = 0; h < kHeads; ++h) {
                float score = 0.0f;
#pragma unroll
                for (int i = 0; i < kVec; ++i) score += query[h][i] * key[f][i];
#pragma unroll
                for (int step = kLanes / 2; step > 0; step /= 2)
                    score += __shfl_xor_sync(0xffffffffu, score, step);
                if (kept)
                    add_key(state[h], attention::capped(options.scale * score, options.softcap),
                            value[f]);
            }
        }
    }

    // pass 3: the groups of the block meet
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
        if (lane == 0) {
            group_most[group][h] = state[h].most;
            group_total[group][h] = state[h].total;
        }
    }
    __syncthreads();
#pragma unroll
    for (int h = 0; h < kHeads; ++h) {
        float most = -INFINITY, total = 0.0f;
        for (int g = 0; g < groups; ++g) most = fmaxf(most, group_most[g][h]);
        for (int g = 0; g < groups; ++g) total += group_total[g][h] * share(group_most[g][h], most);
        const float own = share(state[h].most, most);
#pragma unroll
        for (int i = 0; i < kVec; ++i) group_sums[group][d + i] = state[h].sums[i] * own;
        __syncthreads();
        if (group == 0 && active && h < heads) {
            float result[kVec];
#pragma unroll
            for (int i = 0; i < kVec; ++i) {
                float sum = 0.0f;
                for (int g = 0; g < groups; ++g) sum += group_sums[g][d + i];
                result[i] = total > 0.0f ? sum / total : 0.0f;
            }
            const float lse = total > 0.0f ? most + logf(total) : -INFINITY;
            store<T>(p, row, blockIdx.y, first_head + h, kv.dim, d, result, lse);
        }
        __syncthreads();  // group_sums may be written again
    }
}

// Merges the partial results of one query row and head: one block each, one column a thread.
// A part without keys has lse = -inf and is not read.
template <class T>
__global__ void merge_splits(T* out, float* lse, const float* partial_out, const float* partial_lse,
                             int64_t results, int splits, int dim) {
    simt::await_launch_before();
    const int64_t result = blockIdx.x;
    float most = -INFINITY;
    for (int s = 0; s < splits; ++s) most = fmaxf(most, partial_lse[s * results + result]);
    float total = 0.0f;
    for (int s = 0; s < splits; ++s) total += share(partial_lse[s * results + result], most);

    for (int d = threadIdx.x; d < dim; d += blockDim.x) {
        float sum = 0.0f;
        for (int s = 0; s < splits; ++s) {
            const float weight = share(partial_lse[s * results + result], most);
            if (weight > 0.0f) sum += weight * partial_out[(s * results + result) * dim + d];
        }
        out[result * dim + d] = simt::from_float<T>(total > 0.0f ? sum / total : 0.0f);
    }
    if (threadIdx.x == 0) lse[result] = total > 0.0f ? most + logf(total) : -INFINITY;
}

}  // namespace yaie::paged_attention
