// What every attention kernel shares: where a query stands, which keys it keeps, the score, and the
// two ways in which keys and values lie in memory. The keys that one query keeps are one interval
// [first, last), so kernels that take queries one by one need no mask.
#pragma once

#include "simt/simt.h"

namespace yaie::attention {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;

struct Options {
    float scale;
    float softcap;  // 0: off
    int left;       // keys to the left, -1: no limit
    int right;      // keys to the right, -1: no limit (causal: 0)
};

// A paged cache [P,S,H,D] and the batch that reads it.
struct Paged {
    const void* k;
    const void* v;
    const int* block_table;  // [B,W]
    const int* kv_lens;      // [B]
    const int* q_indptr;     // [B+1]
    int64_t table_stride;    // of a row, in elements
    int sequences, page_size, kv_heads, dim, v_dim;

    __device__ int kv_len(int b) const { return kv_lens[b]; }

    // Index of position j of sequence b, counted in tokens of the cache.
    __device__ int64_t slot(int b, int j) const {
        const int64_t page = block_table[b * table_stride + j / page_size];
        return page * page_size + j % page_size;
    }
};

// Keys [N,H,D] and values [N,H,Dv], packed over the batch.
struct Packed {
    const void* k;
    const void* v;
    const int* kv_indptr;  // [B+1]
    const int* q_indptr;   // [B+1]
    int64_t k_stride, k_head_stride, v_stride, v_head_stride;
    int sequences, kv_heads, dim, v_dim;

    __device__ int kv_len(int b) const { return kv_indptr[b + 1] - kv_indptr[b]; }
};

struct Keys {
    int first, last;  // [first, last)
};

// The keys that the query at `position` keeps. 64 bits: a window may be as wide as an int, and a
// position may be negative.
__device__ inline Keys kept_keys(int64_t position, int kv_len, const Options& options) {
    int64_t first = 0, last = kv_len;
    if (options.left >= 0 && position > options.left) first = position - options.left;
    if (options.right >= 0 && position + 1 + options.right < last)
        last = position + 1 + options.right;
    if (last < first) last = first;
    return {static_cast<int>(first), static_cast<int>(last)};
}

struct Query {
    int sequence;
    int first, last;  // keys kept: [first, last)
};

// The sequence of packed query row t: the last b with q_indptr[b] <= t (those without queries are
// stepped over), and the keys that the row keeps. KV is Paged or Packed.
template <class KV>
__device__ Query find_query(const KV& kv, const Options& options, int64_t t) {
    int low = 0, high = kv.sequences;  // q_indptr[low] <= t < q_indptr[high]
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (kv.q_indptr[middle] <= t)
            low = middle;
        else
            high = middle;
    }
    const int kv_len = kv.kv_len(low);
    const int64_t position = kv_len - (kv.q_indptr[low + 1] - t);
    const Keys keys = kept_keys(position, kv_len, options);
    return {low, keys.first, keys.last};
}

__device__ inline float capped(float score, float softcap) {
    return softcap > 0.0f ? softcap * tanhf(score / softcap) : score;
}

}  // namespace yaie::attention
