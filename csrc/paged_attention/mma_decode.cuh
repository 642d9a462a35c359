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
#pragma once

#include <math.h>

#include "common/attention_mma.cuh"

namespace yaie::paged_attention {

// kColumns: D, rounded up; the columns beyond D are zero.
template <class Element, int kColumns>
struct DecodeTile {
    using T = Element;
    static constexpr int kDim = kColumns;
    static constexpr int kRows = 16;  // of an mma
    static constexpr int kKeys = 64;
    static constexpr int kWarps = 4;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kStages = kDim <= 128 ? 3 : 2;
    static constexpr int kChunk = 8;  // elements of 16 bytes, which one copy moves
    static constexpr int kChunks = kDim / kChunk;
    static constexpr int kKeysAtOnce = kThreads / kChunks;  // that all threads copy together
    static constexpr int kTile = kKeys * kDim;              // elements of K or of V in a stage
    static constexpr int kQueryBytes = kRows * kDim * sizeof(T);
    static constexpr int kStageBytes = kStages * 2 * kTile * sizeof(T);
    static constexpr int kSharedBytes = kStageBytes + kStages * kQueryBytes;
    static_assert(kKeysAtOnce % 4 == 0 && kThreads >= kKeys, "a thread a key");
    static_assert(kWarps * kRows * kDim * sizeof(float) <= 2 * kTile * sizeof(T),
                  "the rows of all warps are merged in the stage that was read last");

    // What a warp adds at once: its 16 keys of a tile.
    struct Warp {
        using T = Element;
        static constexpr int kDim = kColumns;
        static constexpr int kChunk = 8;
        static constexpr int kMmaRows = 1;
        static constexpr int kKeys = 64 / kWarps;
    };
};

struct DecodeParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, group;
    bool wide_queries;  // rows of q start at multiples of 16 bytes
    void* out;          // T [T,Hq,D]
    float* lse;         // [T,Hq]
    float* part_out;    // [2 * blocks,16,D]: slot 2c holds the piece with which block c begins,
    float* part_lse;    // [2 * blocks,16]    slot 2c + 1 the one that begins a unit in block c
    int* begun;         // [blocks,5]: a Begun of each block
};

// The unit that a block began and did not end: what the merge has to know.
struct Begun {
    int rows;        // 0: there is none
    int last_block;  // that has a piece of it
    int first_query, first_row, head;
};

// The part of the batch that one row tile of one KV head makes up.
struct Unit {
    int first_row, rows;  // of the sequence's q_len * group rows
    attention::Keys any;  // kept by one of the rows at least
    attention::Keys all;  // kept by all of them
    int tiles;            // one at least, so that rows without keys are written too
};

struct Sequence {
    int first_query, queries, keys;
    __device__ int row_tiles(int group) const { return (queries * group + 15) / 16; }
};

__device__ inline Sequence sequence_of(const attention::Paged& kv, int b) {
    const int first = __ldg(kv.q_indptr + b);
    return {first, __ldg(kv.q_indptr + b + 1) - first, __ldg(kv.kv_lens + b)};
}

// Row tile `tile` of a sequence, and the keys that any of its rows keeps.
__device__ inline Unit unit_of(const Sequence& s, int tile, int group, int keys_of_tile,
                               const attention::Options& options) {
    Unit unit;
    unit.first_row = tile * 16;
    unit.rows = min(16, s.queries * group - unit.first_row);
    const int64_t top = int64_t(s.keys) - s.queries + unit.first_row / group;  // positions
    const int64_t bottom = int64_t(s.keys) - s.queries + (unit.first_row + unit.rows - 1) / group;
    const attention::Keys first = attention::kept_keys(top, s.keys, options);
    const attention::Keys last = attention::kept_keys(bottom, s.keys, options);
    unit.any = {first.first, last.last};  // without a gap: the next row keeps the next keys
    unit.all = {last.first, first.last};
    unit.tiles = max(1, (unit.any.last - unit.any.first + keys_of_tile - 1) / keys_of_tile);
    return unit;
}

__device__ inline int64_t tiles_of(const Sequence& s, int group, int kv_heads, int keys_of_tile,
                                   const attention::Options& options) {
    int64_t tiles = 0;
#pragma unroll 1
    for (int i = 0; i < s.row_tiles(group); ++i)
        tiles += unit_of(s, i, group, keys_of_tile, options).tiles;
    return tiles * kv_heads;
}

// How the line is dealt out: the first `longer` blocks take each + 1 tiles, the others `each`.
struct Deal {
    int64_t each, longer;

    __device__ Deal(int64_t tiles, int blocks) : each(tiles / blocks), longer(tiles % blocks) {}

    __device__ int64_t start(int block) const { return block * each + min(int64_t(block), longer); }

    __device__ int owner(int64_t tile) const {
        const int64_t first = longer * (each + 1);  // tile of those that take `each`
        return static_cast<int>(tile < first ? tile / (each + 1) : longer + (tile - first) / each);
    }
};

// A place in the line of tiles. It moves from key tile to key tile, from head to head, from row tile
// to row tile, from sequence to sequence.
struct Cursor {
    int b, row_tile, head;
    int tile;  // of the unit
    Sequence sequence;
    Unit unit;

    __device__ void enter(int group, int keys_of_tile, const attention::Options& options) {
        unit = unit_of(sequence, row_tile, group, keys_of_tile, options);
    }

    // To the tile that `tiles` come before, of those of sequence `of`.
    __device__ void find(int of, int64_t tiles, const attention::Paged& kv, int group,
                         int keys_of_tile, const attention::Options& options) {
        b = of;
        sequence = sequence_of(kv, b);
#pragma unroll 1
        for (row_tile = 0;; ++row_tile) {
            enter(group, keys_of_tile, options);
            const int64_t here = int64_t(unit.tiles) * kv.kv_heads;
            if (tiles < here) break;
            tiles -= here;
        }
        head = static_cast<int>(tiles / unit.tiles);
        tile = static_cast<int>(tiles % unit.tiles);
    }

    __device__ void advance(const attention::Paged& kv, int group, int keys_of_tile,
                            const attention::Options& options) {
        if (++tile < unit.tiles) return;
        tile = 0;
        if (++head < kv.kv_heads) return;
        head = 0;
        if (++row_tile == sequence.row_tiles(group)) {
            row_tile = 0;
#pragma unroll 1
            do {  // there is a next one: a stretch ends before the line does
                if (++b == kv.sequences) return;
                sequence = sequence_of(kv, b);
            } while (sequence.queries == 0);
        }
        enter(group, keys_of_tile, options);
    }
};

// Finds the first tile of this block's stretch, and returns how the line is dealt out: every thread
// adds up the tiles of some sequences, and the one whose sequences hold the tile says in which.
template <class Tile>
__device__ Deal find_start(Cursor& cursor, int group, const attention::Paged& kv,
                           const attention::Options& options) {
    SIMT_SHARED(int64_t, warp_sum, [Tile::kWarps]);
    SIMT_SHARED(int64_t, tiles_before, );
    SIMT_SHARED(int, sequence, );
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int each = (kv.sequences + Tile::kThreads - 1) / Tile::kThreads;
    const int begin = min(kv.sequences, int(threadIdx.x) * each);
    const int end = min(kv.sequences, begin + each);
    const auto tiles_at = [&](int b) {
        return tiles_of(sequence_of(kv, b), group, kv.kv_heads, Tile::kKeys, options);
    };

    // pass 1: tiles of this thread's sequences, and of all threads before it
    int64_t own = 0;
#pragma unroll 1
    for (int b = begin; b < end; ++b) own += tiles_at(b);
    int64_t before = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const int64_t other = __shfl_up_sync(~0u, before, step);
        if (lane >= step) before += other;
    }
    if (lane == 31) warp_sum[warp] = before;
    __syncthreads();
    before -= own;
    int64_t total = 0;
#pragma unroll
    for (int w = 0; w < Tile::kWarps; ++w) {
        if (w < warp) before += warp_sum[w];
        total += warp_sum[w];
    }

    // pass 2: one thread holds the first tile
    const Deal deal(total, gridDim.x);
    int64_t rest = deal.start(blockIdx.x) - before;
    if (rest >= 0 && rest < own) {
        int b = begin;
#pragma unroll 1
        for (; b + 1 < end; ++b) {
            const int64_t tiles = tiles_at(b);
            if (rest < tiles) break;
            rest -= tiles;
        }
        sequence = b;
        tiles_before = rest;
    }
    __syncthreads();
    if (deal.start(blockIdx.x) < total)
        cursor.find(sequence, tiles_before, kv, group, Tile::kKeys, options);
    return deal;
}

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
    attention::multiply_keys<Warp>(score, q_tile, keys);
    if (options.softcap > 0.0f || options.scale <= 0.0f)
        attention::cap_scores<Warp>(score, options);
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

// What a lane has of a column of a row: some pieces merged.
struct Merged {
    float most,
        total;  // log-sum-exp of the largest piece; sum of the weights of this lane's pieces
    float sum;  // of all pieces, weighted
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
