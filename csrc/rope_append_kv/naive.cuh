// rope_append_kv, step 1: one thread an element of a token's queries, keys and values.
//
// The rotated key goes straight to its slot: it is never written to memory of its own and read
// again, which the two ops one after the other do.
#pragma once

#include "common/rope.cuh"

namespace yaie::rope_append_kv {

template <class T>
__global__ void naive(Heads q, Heads k, Heads v, T* q_out, T* k_cache, T* v_cache, const int* slots,
                      rotary::Table table, int64_t elements) {
    const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= elements) return;
    const int64_t queries = int64_t(q.heads) * q.dim;  // elements of a token
    const int64_t keys = int64_t(k.heads) * k.dim, values = int64_t(v.heads) * v.dim;
    const int64_t token = i / (queries + keys + values);
    int64_t at = i % (queries + keys + values);

    if (at < queries) {
        const T* head = q.at<const T>(token, static_cast<int>(at / q.dim));
        q_out[token * queries + at] =
            rotary::rotated(head, static_cast<int>(at % q.dim), table, table.row(token));
        return;
    }
    at -= queries;
    const int64_t slot = slots[token];
    if (slot < 0) return;  // the token's key and value are not stored
    if (at < keys) {
        const T* head = k.at<const T>(token, static_cast<int>(at / k.dim));
        k_cache[slot * keys + at] =
            rotary::rotated(head, static_cast<int>(at % k.dim), table, table.row(token));
        return;
    }
    at -= keys;
    v_cache[slot * values + at] = v.at<const T>(token, static_cast<int>(at / v.dim))[at % v.dim];
}

}  // namespace yaie::rope_append_kv
