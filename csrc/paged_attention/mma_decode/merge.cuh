// The second kernel of mma_decode: merges the pieces of units that several blocks worked on.
#pragma once

#include <math.h>

#include "common/attention.cuh"
#include "paged_attention/mma_decode/tile.cuh"

namespace yaie::paged_attention {

// The unit that a block began and did not end: what the merge has to know.
struct Begun {
    int rows;        // 0: there is none
    int last_block;  // that has a piece of it
    int first_query, first_row, head;
};

// What a lane has of a column of a row: some pieces merged.
struct Merged {
    float most;   // log-sum-exp of the largest piece
    float total;  // sum of the weights of this lane's pieces
    float sum;    // of all pieces, weighted
};

// Merges a row, kAtOnce pieces after kAtOnce; all that is read of these is under way together. value
// and lse tell of a piece.
template <int kAtOnce, class Value, class Lse>
__device__ Merged merge_row(int pieces, Value value, Lse lse) {
    const int lane = threadIdx.x % 32;
    Merged merged{-INFINITY, 0.0f, 0.0f};
    for (int first = 0; first < pieces; first += kAtOnce) {
        float values[kAtOnce];
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) values[i] = first + i < pieces ? value(first + i) : 0.0f;
        const bool mine = lane < kAtOnce && first + lane < pieces;
        const float own = mine ? lse(first + lane) : -INFINITY;
        float most = fmaxf(merged.most, own);
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
        const float old = merged.most == -INFINITY ? 0.0f : expf(merged.most - most);
        const float weight = own == -INFINITY ? 0.0f : expf(own - most);
        merged = {most, merged.total * old + weight, merged.sum * old};
#pragma unroll
        for (int i = 0; i < kAtOnce; ++i) merged.sum += __shfl_sync(~0u, weight, i) * values[i];
    }
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        merged.total += __shfl_xor_sync(~0u, merged.total, step);
    return merged;
}

constexpr int kMergeWarps = 4;
constexpr int kMergeColumns = 32;  // of a block of merge_pieces: one a lane

// Block (c, n) merges columns 32 n and on of the unit that block c of mma_decode began and did not
// end. A warp takes every kMergeWarps-th row.
template <class T>
__global__ void __launch_bounds__(32 * kMergeWarps) merge_pieces(DecodeParams p, int dim) {
    simt::await_launch_before();
    const Begun unit = reinterpret_cast<const Begun*>(p.begun)[blockIdx.x];
    const int first_block = blockIdx.x, pieces = unit.last_block - first_block + 1;
    const int d = blockIdx.y * kMergeColumns + threadIdx.x % 32;
    for (int row = threadIdx.x / 32; row < unit.rows; row += kMergeWarps) {
        const auto slot = [&](int piece) {  // counted in rows
            return (2 * int64_t(first_block + piece) + (piece == 0)) * 16 + row;
        };
        const auto value = [&](int piece) {
            return d < dim ? p.part_out[slot(piece) * dim + d] : 0.0f;
        };
        const auto lse = [&](int piece) { return p.part_lse[slot(piece)]; };
        const Merged m =
            pieces <= 8 ? merge_row<8>(pieces, value, lse) : merge_row<32>(pieces, value, lse);
        if (d >= dim) continue;
        const int in_sequence = unit.first_row + row;
        const int64_t result = (unit.first_query + in_sequence / p.group) * int64_t(p.heads) +
                               unit.head * p.group + in_sequence % p.group;
        const bool empty = m.total == 0.0f;
        if (d == 0) p.lse[result] = empty ? -INFINITY : m.most + logf(m.total);
        static_cast<T*>(p.out)[result * dim + d] =
            simt::from_float<T>(empty ? 0.0f : m.sum / m.total);
    }
}

}  // namespace yaie::paged_attention
