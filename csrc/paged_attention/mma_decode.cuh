// paged_attention, step 3: decode on tensor cores, with the work dealt out evenly.
//
// The query heads of a KV head share its keys, so up to 16 rows (query, head of the group) form one
// tile [16,D] of mma.sync. The keys of such a unit of work come in tiles of 64. All tiles of all
// units stand in one line, and every block takes an equal stretch of it, whatever the lengths of the
// sequences are: a block may end one unit, do several whole ones and begin another. Pieces of a unit
// go to `parts`, and a second kernel merges them; whole units go straight to the result.
//
//      unit 0        unit 1   unit 2                unit 3
//   |--------------|--------|---------------------|------|     tiles
//   |   block 0  |   block 1  |   block 2  |   block 3   |     stretches
//
// Copies to shared memory run kStages - 1 tiles ahead of the arithmetic, those of page ids two more,
// and they go on over the end of a unit: with the memory busy, a plain read would wait as long as two
// tiles take. Each of the four warps takes 16 keys of a tile and runs a softmax of its own; they meet
// once a unit. What this won over step 2: docs/kernels.md; a drawing: docs/attention.md.
//
// Here is the arithmetic and the kernel; in mma_decode/ the line of tiles and how it is dealt out, the
// copies ahead, and the merge of pieces.
#pragma once

#include <math.h>

#include "common/attention_mma.cuh"
#include "paged_attention/mma_decode/line.cuh"
#include "paged_attention/mma_decode/loader.cuh"
#include "paged_attention/mma_decode/merge.cuh"
#include "paged_attention/mma_decode/tile.cuh"

namespace yaie::paged_attention {

// Adds the 16 keys of this warp of a tile.
template <class Tile>
__device__ void add_keys(attention::Accumulator<typename Tile::Warp>& acc,
                         const typename Tile::T* q_tile, const typename Tile::T* stage,
                         const attention::Keys* kept, const Task& task,
                         const attention::Options& options, float factor) {
    using Warp = typename Tile::Warp;
    const int row = threadIdx.x / 32 * Warp::kKeys;  // of the tile
    const int key = task.unit.any.first + task.tile * Tile::kKeys + row;
    const auto* keys = stage + row * Tile::kDim;
    attention::Scores<Warp> score;
    attention::multiply_keys<Warp>(score, attention::SharedQueries<Warp>{q_tile}, keys);
    if (options.softcap > 0.0f || options.scale <= 0.0f)
        attention::cap_scores_at_once<Warp>(score, options);
    if (key < task.unit.all.first || key + Warp::kKeys > task.unit.all.last)
        attention::mask_scores<Warp>(score, kept, key);
    attention::raise_maxima<Warp>(acc, score, factor);
    attention::add_values<Warp>(acc, score, keys + Tile::kTile, factor);
}

// The piece of a unit that a block did: all of it, or the part of it that goes to a slot.
struct Piece {
    bool whole;
    int slot;
};

// Where column `column` of a row of a warp stands in the merge. The swizzle keeps the rows that a warp
// writes at once out of each other's banks.
template <class Tile>
__device__ int merge_offset(int warp, int row, int column) {
    return (warp * Tile::kRows + row) * Tile::kDim + (column ^ (row % 4 * 8));
}

// Merges the four warps in `merge`, [kWarps,kRows,kDim], and writes the rows.
template <class Tile>
__device__ void finish(attention::Accumulator<typename Tile::Warp>& acc, float factor, float* merge,
                       Piece piece, const DecodeParams& p, const attention::Paged& kv,
                       const Task& task) {
    using T = typename Tile::T;
    SIMT_SHARED(float, warp_most, [Tile::kWarps][Tile::kRows]);
    SIMT_SHARED(float, warp_total, [Tile::kWarps][Tile::kRows]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    __syncthreads();  // the tile that stood in `merge` is no longer read, nor the maxima before
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const int row = lane / 4 + 8 * i;
        float total = acc.total[0][i];
        total += __shfl_xor_sync(~0u, total, 1);
        total += __shfl_xor_sync(~0u, total, 2);
        if (row >= task.unit.rows) continue;
        if (lane % 4 == 0) {
            warp_most[warp][row] = acc.most[0][i] * factor;  // in units of log 2
            warp_total[warp][row] = total;
        }
#pragma unroll
        for (int n = 0; n < Tile::kDim / 8; ++n)
            *reinterpret_cast<float2*>(merge +
                                       merge_offset<Tile>(warp, row, n * 8 + lane % 4 * 2)) =
                make_float2(acc.out[0][n][2 * i], acc.out[0][n][2 * i + 1]);
    }
    __syncthreads();  // the rows of all warps are there
    for (int e = threadIdx.x; e < task.unit.rows * Tile::kDim; e += Tile::kThreads) {
        const int row = e / Tile::kDim, d = e % Tile::kDim;
        if (d >= kv.dim) continue;
        float most = -INFINITY, total = 0.0f, sum = 0.0f;
#pragma unroll
        for (int w = 0; w < Tile::kWarps; ++w) most = fmaxf(most, warp_most[w][row]);
#pragma unroll
        for (int w = 0; w < Tile::kWarps; ++w) {
            if (warp_most[w][row] == -INFINITY) continue;
            const float share = exp2f(warp_most[w][row] - most);
            total += share * warp_total[w][row];
            sum += share * merge[merge_offset<Tile>(w, row, d)];
        }
        const float value = total == 0.0f ? 0.0f : sum / total;
        const float lse = total == 0.0f ? -INFINITY : most * attention::kLn2 + logf(total);
        if (piece.whole) {
            const int in_sequence = task.unit.first_row + row;
            const int64_t at =
                (task.sequence.first_query + in_sequence / p.group) * int64_t(p.heads) +
                task.head * p.group + in_sequence % p.group;
            static_cast<T*>(p.out)[at * kv.dim + d] = simt::from_float<T>(value);
            if (d == 0) p.lse[at] = lse;
        } else {
            const int64_t at = int64_t(piece.slot) * Tile::kRows + row;
            p.part_out[at * kv.dim + d] = value;
            if (d == 0) p.part_lse[at] = lse;
        }
    }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kDim <= 128 ? 2 : 1)
    mma_decode(DecodeParams p, attention::Paged kv, attention::Options options) {
    using T = typename Tile::T;
    using Warp = typename Tile::Warp;
    using Tiles = Loader<Tile>;
    simt::let_launch_after_start();
    SIMT_SHARED(Task, tasks, [Tiles::kTasks]);
    SIMT_SHARED(attention::Keys, kept, [Tile::kStages * Tile::kRows]);
    SIMT_SHARED(int, pages, [Tiles::kPagesAhead * Tile::kKeys]);
    SIMT_SHARED(int64_t, rows, [2 * Tile::kKeys]);
    const Tiles loader{simt::dynamic_shared<T>(),
                       pages,
                       rows,
                       tasks,
                       simt::dynamic_shared<T>(Tile::kStageBytes),
                       kept};

    Cursor cursor;
    const Deal deal = find_start<Tile>(cursor, p.group, kv, options);
    const int64_t start = deal.start(blockIdx.x);
    const int tiles = static_cast<int>(deal.start(blockIdx.x + 1) - start);  // of this block
    const bool by_factor = options.softcap <= 0.0f && options.scale > 0.0f;
    const float factor = by_factor ? options.scale * attention::kLog2E : 1.0f;
    Begun begun{};
    attention::Accumulator<Warp> acc;
    bool began = true;  // this block began the unit
    int units = 0;      // entered by the cursor

    // In the first rounds only pages, then only pages and rows are copied.
#pragma unroll 1
    for (int i = -Tiles::kAhead - Tiles::kPagesAhead; i < tiles; ++i) {
        const int next = i + Tiles::kAhead, after = next + Tiles::kPagesAhead;
        simt::cp_async_wait<Tiles::kAhead - 1>();
        if (next >= 0 && next < tiles) loader.publish(next, kv);
        __syncthreads();  // tile i is there for all, and tile i - 1 is no longer read
        if (next >= 0 && next < tiles) {
            loader.copy(next, kv);
            const Task& task = loader.task(next);
            if (task.enters) {
                loader.copy_queries(task, p, kv);
                loader.find_kept(task, p.group, options);
            }
        }
        if (after < tiles) {
            if (after > 0) cursor.advance(kv, p.group, Tile::kKeys, options);
            const bool enters = after == 0 || cursor.tile == 0;
            units += enters;
            const Task task{cursor.sequence, cursor.unit, cursor.head, cursor.tile, units, enters};
            loader.look_up(after, task, cursor.b, kv);
        }
        simt::cp_async_commit();  // a group for every round: waiting counts them
        if (i < 0) continue;

        const Task& task = loader.task(i);
        if (task.enters) {
            acc.clear();
            began = task.tile == 0;
        }
        add_keys<Tile>(acc, loader.q_tile(task), loader.stage(i), loader.kept_by(task), task,
                       options, factor);
        const int rest = task.tiles_left();
        if (rest == 0 || i + 1 == tiles) {
            const Piece piece{began && rest == 0, 2 * int(blockIdx.x) + began};
            finish<Tile>(acc, factor, reinterpret_cast<float*>(loader.stage(i)), piece, p, kv,
                         task);
            if (began && rest > 0)
                begun = {task.unit.rows, deal.owner(start + i + rest), task.sequence.first_query,
                         task.unit.first_row, task.head};
        }
    }
    if (threadIdx.x == 0) reinterpret_cast<Begun*>(p.begun)[blockIdx.x] = begun;
}

}  // namespace yaie::paged_attention
