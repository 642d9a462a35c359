// Rows in parts: a row is read by several blocks, 16 bytes at a time wherever it starts, and what
// each of them found is folded. No block waits for another.
//
// A chunk is four neighbouring logits at a multiple of 16 bytes. A row that does not start at one
// has `lead` elements too many in its first chunk, and one whose end is not such a multiple some in
// its last: these read as `outside`, from no memory.
#pragma once

#include "common/sampling.cuh"

namespace yaie::sampling {

constexpr int kPartThreads = 512;  // most threads of a block that works on a part of a row
constexpr int kAhead = 8;          // chunks that a thread asks for before it uses the first
constexpr int kFewAhead = 4;       // likewise where there is much to do with each

__device__ inline float4 four(float x) { return make_float4(x, x, x, x); }

struct Chunks {  // a row
    const float* row;
    int lead, vocabulary;

    __device__ Chunks(const Rows& rows, int64_t b)
        : row(rows.row(b)),
          lead(static_cast<int>(reinterpret_cast<uintptr_t>(row) / 4 % 4)),
          vocabulary(rows.vocabulary) {}

    __device__ int count() const { return (lead + vocabulary + 3) / 4; }
    __device__ int first_token(int chunk) const { return chunk * 4 - lead; }  // may be below 0
    __device__ bool whole(int chunk) const {
        const int v = first_token(chunk);
        return v >= 0 && v + 4 <= vocabulary;
    }
    __device__ bool has(int v) const { return v >= 0 && v < vocabulary; }
    __device__ float element(int v, float outside) const { return has(v) ? row[v] : outside; }
    __device__ float4 load_whole(int chunk) const {
        return *reinterpret_cast<const float4*>(row + first_token(chunk));
    }
    __device__ float4 load(int chunk, float outside) const {
        const int v = first_token(chunk);
        if (whole(chunk)) return load_whole(chunk);
        return make_float4(element(v, outside), element(v + 1, outside), element(v + 2, outside),
                           element(v + 3, outside));
    }
};

// The chunks of one block: `chunks_a_part` for each of `parts` blocks a row.
struct Part {
    int64_t row;
    int part, first, last;

    __device__ Part(int parts, int chunks_a_part, int chunks)
        : row(blockIdx.x / parts),
          part(blockIdx.x % parts),
          first(min(part * chunks_a_part, chunks)),
          last(min(first + chunks_a_part, chunks)) {}
};

// The chunks of one thread, n of them, loaded before the first is used. A thread that has no
// chunk left gets elements that are `outside`, so that whole warps go through a batch together.
template <int n>
struct Batch {
    int from;  // chunk of the block's first thread
    float4 ahead[n];

    __device__ Batch(const Chunks& row, const Part& part, int from, float outside) : from(from) {
        const int last = from + n * int(blockDim.x) - 1;
        if (last < part.last && row.whole(from) && row.whole(last)) {  // of all threads, or of none
#pragma unroll
            for (int i = 0; i < n; ++i) ahead[i] = row.load_whole(chunk(i));
            return;
        }
#pragma unroll
        for (int i = 0; i < n; ++i)
            ahead[i] = chunk(i) < part.last ? row.load(chunk(i), outside) : four(outside);
    }
    __device__ int chunk(int i) const { return from + i * int(blockDim.x) + int(threadIdx.x); }

    // Calls take(chunk, its four elements), in ascending order.
    template <class Take>
    __device__ void each(Take take) const {
#pragma unroll
        for (int i = 0; i < n; ++i) take(chunk(i), ahead[i]);
    }
};

// Calls take(chunk, its four elements) with this thread's chunks, batch by batch; all threads of a
// block equally often.
template <int n, class Take>
__device__ void for_chunks(const Chunks& row, const Part& part, float outside, Take take) {
    for (int from = part.first; from < part.last; from += n * blockDim.x)
        Batch<n>(row, part, from, outside).each(take);
}

// The random bits of tokens v to v + 3: one Philox block, or two where they straddle.
__device__ inline uint4 bits_of_four(int v, unsigned position, uint64_t seed) {
    const unsigned block = static_cast<unsigned>(v >> 2);
    const uint4 a = philox(block, position, seed);
    if (v % 4 == 0) return a;
    const uint4 b = philox(block + 1, position, seed);
    switch (v & 3) {
        case 1:
            return make_uint4(a.y, a.z, a.w, b.x);
        case 2:
            return make_uint4(a.z, a.w, b.x, b.y);
        default:
            return make_uint4(a.w, b.x, b.y, b.z);
    }
}

// The token of a row from the best candidates of its parts, [B,parts]: one block of kFold threads a
// row. An infinite score is that of an invalid row.
template <int kFold>
__global__ void fold_parts(int* token, const Candidate* best_of_part, int parts) {
    simt::await_launch_before();
    const int64_t b = blockIdx.x;
    Candidate best = kNobody;
    for (int part = threadIdx.x; part < parts; part += kFold)
        best = Better()(best, best_of_part[b * parts + part]);
    best = reduce_block(best, Better());
    if (threadIdx.x == 0) token[b] = isinf(best.score) ? -1 : best.token;
}

// What a block found in its part: the row's token if it has one part, else fold_parts' business.
__device__ inline void settle_part(int* token, Candidate* best_of_part, int parts, Candidate best) {
    if (threadIdx.x != 0) return;
    if (parts > 1)
        best_of_part[blockIdx.x] = best;
    else
        token[blockIdx.x] = isinf(best.score) ? -1 : best.token;
}

}  // namespace yaie::sampling
