// Brings the tiles of a stretch of mma_decode to shared memory, some tiles ahead of the arithmetic.
#pragma once

#include "common/attention_mma.cuh"
#include "paged_attention/mma_decode/line.cuh"
#include "paged_attention/mma_decode/tile.cuh"

namespace yaie::paged_attention {

// A tile of the stretch, as all steps see it that come after the cursor has passed.
struct Task {
    Sequence sequence;
    Unit unit;
    int head;
    int tile;     // of the unit
    int ordinal;  // of the unit, of those that this block works on: names its queries' buffer
    bool enters;  // the first tile of the unit that this block does

    __device__ int tiles_left() const { return unit.tiles - 1 - tile; }
};

// Brings the tiles of a stretch to shared memory in three steps, each some tiles ahead of the next: a
// thread a key copies the page of its key, then leaves the place of that row for all threads, which
// copy it 16 bytes at a time. So nothing waits for the block table, which lies at the end of the
// same queue to memory as the rows.
template <class Tile>
struct Loader {
    using T = typename Tile::T;
    static constexpr int kAhead = Tile::kStages - 1;  // tiles that rows are copied ahead
    // Tiles that pages are copied ahead of the rows. Two, because publish reads a task before the
    // barrier of its round: that of a round between must part it from look_up, which wrote the task.
    // And the wait before publish must cover the pages.
    static constexpr int kPagesAhead = 2;
    static_assert(kPagesAhead >= kAhead, "the wait for a tile covers the pages of the next");
    // From the tile looked up in a round down to the one that is worked on.
    static constexpr int kTasks = kAhead + kPagesAhead + 1;

    T* stages;      // [kStages,2,kKeys,kDim]
    int* pages;     // [kPagesAhead,kKeys]
    int64_t* rows;  // [2,kKeys]: offsets in the cache, in elements; -1: no row keeps the key
    Task* tasks;    // [kTasks]
    T* q_tiles;     // [kStages,kRows,kDim]
    attention::Keys* kept;  // [kStages,kRows]: of each row; what is no row keeps none

    __device__ T* stage(int i) const { return stages + i % Tile::kStages * 2 * Tile::kTile; }
    __device__ T* q_tile(const Task& task) const {
        return q_tiles + task.ordinal % Tile::kStages * Tile::kRows * Tile::kDim;
    }
    __device__ attention::Keys* kept_by(const Task& task) const {
        return kept + task.ordinal % Tile::kStages * Tile::kRows;
    }
    __device__ Task& task(int i) const { return tasks[i % kTasks]; }

    __device__ int key(const Task& task) const {
        return task.unit.any.first + task.tile * Tile::kKeys + int(threadIdx.x);
    }

    __device__ void look_up(int i, const Task& now, int sequence,
                            const attention::Paged& kv) const {
        if (threadIdx.x == 0) task(i) = now;
        if (threadIdx.x >= Tile::kKeys || key(now) >= now.unit.any.last) return;
        simt::cp_async<4>(pages + i % kPagesAhead * Tile::kKeys + threadIdx.x,
                          kv.block_table + sequence * kv.table_stride + key(now) / kv.page_size);
    }

    __device__ void publish(int i, const attention::Paged& kv) const {
        if (threadIdx.x >= Tile::kKeys) return;
        const Task& now = task(i);
        int64_t row = -1;
        if (key(now) < now.unit.any.last) {
            const int64_t page = pages[i % kPagesAhead * Tile::kKeys + threadIdx.x];
            const int64_t slot = page * kv.page_size + key(now) % kv.page_size;
            row = (slot * kv.kv_heads + now.head) * kv.dim;
        }
        rows[i % 2 * Tile::kKeys + threadIdx.x] = row;
    }

    // Keys that no row of the unit keeps arrive as zeros, and so do the columns beyond D.
    __device__ void copy(int i, const attention::Paged& kv) const {
        const int chunk = threadIdx.x % Tile::kChunks, first = threadIdx.x / Tile::kChunks;
        const int column = chunk * Tile::kChunk;
        const T* k = static_cast<const T*>(kv.k) + column;
        const T* v = static_cast<const T*>(kv.v) + column;
        const int64_t* row = rows + i % 2 * Tile::kKeys + first;
#pragma unroll
        for (int key = 0; key < Tile::kKeys; key += Tile::kKeysAtOnce) {
            const bool wanted = row[key] >= 0 && column < kv.dim;
            const int64_t from = wanted ? row[key] : -column;
            T* to = stage(i) + attention::chunk_offset<Tile>(key + first, chunk);
            simt::cp_async<16>(to, k + from, wanted);
            simt::cp_async<16>(to + Tile::kTile, v + from, wanted);
        }
    }

    // The rows of a unit; what is no row or column is zero.
    __device__ void copy_queries(const Task& task, const DecodeParams& p,
                                 const attention::Paged& kv) const {
        const int chunk = threadIdx.x % Tile::kChunks, column = chunk * Tile::kChunk;
#pragma unroll
        for (int row = threadIdx.x / Tile::kChunks; row < Tile::kRows; row += Tile::kKeysAtOnce) {
            const bool wanted = row < task.unit.rows && column < kv.dim;
            const int in_sequence = wanted ? task.unit.first_row + row : 0;
            const int64_t token = task.sequence.first_query + in_sequence / p.group;
            const int64_t head = task.head * p.group + in_sequence % p.group;
            const T* from = static_cast<const T*>(p.q);
            if (wanted) from += token * p.q_stride + head * p.q_head_stride + column;
            T* to = q_tile(task) + attention::chunk_offset<Tile>(row, chunk);
            if (p.wide_queries)
                simt::cp_async<16>(to, from, wanted);
            else
                for (int e = 0; e < Tile::kChunk; ++e)
                    to[e] = wanted ? from[e] : simt::from_float<T>(0.0f);
        }
    }

    __device__ void find_kept(const Task& task, int group,
                              const attention::Options& options) const {
        const int row = threadIdx.x;
        if (row >= Tile::kRows) return;
        const int query = (task.unit.first_row + row) / group;
        const int64_t position = int64_t(task.sequence.keys) - task.sequence.queries + query;
        kept_by(task)[row] = row < task.unit.rows
                                 ? attention::kept_keys(position, task.sequence.keys, options)
                                 : attention::Keys{0, 0};
    }
};

}  // namespace yaie::paged_attention
