// rope_append_kv, step 2: one thread two words of a head, in one launch for q, k and v.
//
// The heads of a token stand in one row: those of q, then of k, then of v, which does not turn. So
// a thread does the same for all of them but for where it stores, and q, k and v of a token are
// asked for at once, before its position's cosines and its slot have arrived: of a skipped token
// they are read for nothing. What rope and append_kv one after the other do besides is to write and
// read k once more.
#pragma once

#include "common/rope.cuh"

namespace yaie::rope_append_kv {

constexpr int kHeads = 2;  // of a token that a thread has in flight

template <class T>
struct Row {
    Heads q, k, v;
    T *q_out, *k_cache, *v_cache;
    const int* slots;

    __device__ int heads() const { return q.heads + k.heads + v.heads; }
    __device__ bool turns(int head) const { return head < q.heads + k.heads; }
    __device__ int dim(int head) const { return turns(head) ? q.dim : v.dim; }

    __device__ const T* from(int64_t token, int head) const {
        if (head < q.heads) return q.at<const T>(token, head);
        head -= q.heads;
        return head < k.heads ? k.at<const T>(token, head) : v.at<const T>(token, head - k.heads);
    }

    // Null: nothing is stored.
    __device__ T* to(int64_t token, int64_t slot, int head) const {
        if (head < q.heads) return q_out + (token * q.heads + head) * q.dim;
        if (slot < 0) return nullptr;
        head -= q.heads;
        if (head < k.heads) return k_cache + (slot * k.heads + head) * k.dim;
        return v_cache + (slot * v.heads + head - k.heads) * v.dim;
    }
};

template <class T, class Word, bool kInterleaved>
__global__ void __launch_bounds__(256) vec(Row<T> row, rotary::Table table, int64_t tokens) {
    constexpr int N = Packed<T, Word>::kCount;
    const int64_t token = int64_t(blockIdx.x) * blockDim.z + threadIdx.z;
    if (token >= tokens) return;
    const int64_t slot = row.slots[token];
    const float* angles_row = table.row(token);
    const int most = max(row.q.dim, row.v.dim) / N, items = (most + 1) / 2;
    for (int i = threadIdx.x; i < items; i += blockDim.x) {
        for (int h = threadIdx.y; h < row.heads(); h += kHeads * blockDim.y) {
            // pass 1: all words of q, k and v
            rotary::Words<Word> part[kHeads];
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head >= row.heads()) break;
                const int half = row.turns(head) ? table.half : 0;
                const rotary::Item item = rotary::item_of<N>(i, half, kInterleaved);
                part[j] = rotary::load<T, Word>(row.from(token, head), item, row.dim(head) / N);
            }
            // pass 2: turn and store
            const rotary::Item turned = rotary::item_of<N>(i, table.half, kInterleaved);
            rotary::Angles<N> angles;
            if (turned.turns) angles = rotary::angles_of<N>(table, angles_row, turned);
#pragma unroll
            for (int j = 0; j < kHeads; ++j) {
                const int head = h + j * blockDim.y;
                if (head >= row.heads()) break;
                const int half = row.turns(head) ? table.half : 0;
                const rotary::Item item = rotary::item_of<N>(i, half, kInterleaved);
                if (item.turns) rotary::turn<T, kInterleaved>(part[j], angles);
                T* to = row.to(token, slot, head);
                if (to) rotary::store(to, item, row.dim(head) / N, part[j]);
            }
        }
    }
}

}  // namespace yaie::rope_append_kv
