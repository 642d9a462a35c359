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
// Copies to shared memory run kStages - 1 tiles ahead of the arithmetic and do not stop at the end
// of a unit. Each of the four warps takes 16 keys of a tile and runs a softmax of its own; they meet
// once a unit. What this won over step 2: docs/kernels.md.
#pragma once

#include <math.h>

#include "common/attention.cuh"

namespace yaie::paged_attention {

// kColumns: D, rounded up; the columns beyond D are zero.
template <class Element, int kColumns>
struct DecodeTile {
    using T = Element;
    static constexpr int kDim = kColumns;
    static constexpr int kRows = 16;  // of an mma
    static constexpr int kKeys = 64;
    static constexpr int kWarps = 4;
    static constexpr int kWarpKeys = kKeys / kWarps;
    static constexpr int kThreads = 32 * kWarps;
    static constexpr int kStages = kDim <= 128 ? 3 : 2;
    static constexpr int kChunk = 8;  // elements of 16 bytes, which one copy moves
    static constexpr int kChunks = kDim / kChunk;
    static constexpr int kKeysAtOnce = kThreads / kChunks;  // that all threads copy together
    static constexpr int kCopies = kKeys / kKeysAtOnce;     // of a thread, for K and for V each
    static constexpr int kMergeRows = 4;                    // whose warps are merged at once
    static constexpr int kTileBytes = kKeys * kDim * sizeof(T);  // of K or of V
    static constexpr int kQueryBytes = kRows * kDim * sizeof(T);
    static constexpr int kMergeBytes = kWarps * kMergeRows * kDim * sizeof(float);
    static constexpr int kSharedBytes = kStages * 2 * kTileBytes + kQueryBytes + kMergeBytes;
};

struct DecodeParams {
    const void* q;
    int64_t q_stride, q_head_stride;
    int heads, group;
    void* out;        // T [T,Hq,D]
    float* lse;       // [T,Hq]
    float* part_out;  // [2 * blocks,16,D]: slot 2c holds the piece with which block c begins,
    float* part_lse;  // [2 * blocks,16]    slot 2c + 1 the one that begins a unit in block c
    int* begun;       // [blocks,5]: a Begun of each block
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
    int first_key, end_key;
    int tiles;  // one at least, so that rows without keys are written too
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
    unit.first_key = attention::kept_keys(top, s.keys, options).first;
    unit.end_key = max(unit.first_key, attention::kept_keys(bottom, s.keys, options).last);
    unit.tiles = max(1, (unit.end_key - unit.first_key + keys_of_tile - 1) / keys_of_tile);
    return unit;
}

__device__ inline int64_t tiles_of(const Sequence& s, int group, int kv_heads, int keys_of_tile,
                                   const attention::Options& options) {
    int64_t tiles = 0;
    for (int i = 0; i < s.row_tiles(group); ++i)
        tiles += unit_of(s, i, group, keys_of_tile, options).tiles;
    return tiles * kv_heads;
}

// Where the stretch of block c begins; blocks beyond the number of tiles have none.
__device__ inline int64_t stretch(int64_t total, int64_t c, int64_t blocks) {
    return total * min(c, blocks) / blocks;
}

__device__ inline int64_t busy_blocks(int64_t total, int blocks) {
    return max(int64_t(1), min(int64_t(blocks), total));
}

// The block whose stretch tile `x` lies in.
__device__ inline int owner(int64_t x, int64_t total, int64_t blocks) {
    return static_cast<int>(((x + 1) * blocks - 1) / total);
}

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

    __device__ void advance(const attention::Paged& kv, int group, int keys_of_tile,
                            const attention::Options& options) {
        if (++tile < unit.tiles) return;
        tile = 0;
        if (++head < kv.kv_heads) return;
        head = 0;
        if (++row_tile == sequence.row_tiles(group)) {
            row_tile = 0;
            do {  // there is a next one: a stretch ends before the line does
                if (++b == kv.sequences) return;
                sequence = sequence_of(kv, b);
            } while (sequence.queries == 0);
        }
        enter(group, keys_of_tile, options);
    }
};

// Finds the first tile of this block's stretch: every thread adds up the tiles of some sequences, and
// the one whose sequences hold the tile walks through them. Returns the number of all tiles.
template <class Tile>
__device__ int64_t find_start(Cursor& cursor, int group, const attention::Paged& kv,
                              const attention::Options& options) {
    SIMT_SHARED(int64_t, warp_sum, [Tile::kWarps]);
    SIMT_SHARED(int, found, [4]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int each = (kv.sequences + Tile::kThreads - 1) / Tile::kThreads;
    const int begin = min(kv.sequences, int(threadIdx.x) * each);
    const int end = min(kv.sequences, begin + each);

    // pass 1: tiles of this thread's sequences, and of all threads before it
    int64_t own = 0;
    for (int b = begin; b < end; ++b)
        own += tiles_of(sequence_of(kv, b), group, kv.kv_heads, Tile::kKeys, options);
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

    // pass 2: the thread that holds the first tile names sequence, row tile, head and key tile
    const int64_t start = stretch(total, blockIdx.x, busy_blocks(total, gridDim.x));
    int64_t at = before;
    for (int b = begin; b < end; ++b) {
        const Sequence s = sequence_of(kv, b);
        const int64_t tiles = tiles_of(s, group, kv.kv_heads, Tile::kKeys, options);
        if (at <= start && start < at + tiles) {
            int64_t rest = start - at;
            int row_tile = 0;
            Unit unit = unit_of(s, 0, group, Tile::kKeys, options);
            while (rest >= int64_t(unit.tiles) * kv.kv_heads) {
                rest -= int64_t(unit.tiles) * kv.kv_heads;
                unit = unit_of(s, ++row_tile, group, Tile::kKeys, options);
            }
            found[0] = b;
            found[1] = row_tile;
            found[2] = static_cast<int>(rest / unit.tiles);
            found[3] = static_cast<int>(rest % unit.tiles);
        }
        at += tiles;
    }
    __syncthreads();
    if (start < total) {
        cursor.b = found[0];
        cursor.row_tile = found[1];
        cursor.head = found[2];
        cursor.tile = found[3];
        cursor.sequence = sequence_of(kv, cursor.b);
        cursor.enter(group, Tile::kKeys, options);
    }
    return total;
}

// Where 16 bytes of a row stand in a tile [keys,D] in shared memory: the chunks of eight rows in a
// row lie in different banks, so that ldmatrix reads them without conflict.
template <class Tile>
__device__ int chunk_offset(int key, int chunk) {
    return (key * Tile::kChunks + (chunk ^ (key % 8))) * Tile::kChunk;
}

// Copies the tiles of a stretch to shared memory. A thread copies every kKeysAtOnce-th row, 16 bytes
// of it, and looks up the slots of a tile while the one before is on its way, so that no copy waits
// for the block table.
template <class Tile>
struct Loader {
    using T = typename Tile::T;
    Cursor at;
    int64_t slot[Tile::kCopies];  // of the rows to copy next; -1: no row keeps this key
    int key, page, offset;        // of the row after those

    __device__ void begin(const Cursor& cursor, const attention::Paged& kv) {
        at = cursor;
        enter_unit(kv);
        look_up(kv);
    }

    __device__ void enter_unit(const attention::Paged& kv) {
        key = at.unit.first_key + at.tile * Tile::kKeys + threadIdx.x / Tile::kChunks;
        page = key / kv.page_size;
        offset = key % kv.page_size;
    }

    __device__ void look_up(const attention::Paged& kv) {
        const int* row = kv.block_table + at.b * kv.table_stride;
#pragma unroll
        for (int i = 0; i < Tile::kCopies; ++i) {
            slot[i] = -1;
            if (key < at.unit.end_key) slot[i] = int64_t(__ldg(row + page)) * kv.page_size + offset;
            key += Tile::kKeysAtOnce;
            offset += Tile::kKeysAtOnce;
            while (offset >= kv.page_size) {
                offset -= kv.page_size;
                ++page;
            }
        }
    }

    // Keys that no row of the unit keeps arrive as zeros, and so do the columns beyond D.
    __device__ void copy(T* stage, const attention::Paged& kv) const {
        const int chunk = threadIdx.x % Tile::kChunks, column = chunk * Tile::kChunk;
        const int64_t pitch = int64_t(kv.kv_heads) * kv.dim;
        const int64_t start = int64_t(at.head) * kv.dim + column;
        T* v_tile = stage + Tile::kTileBytes / sizeof(T);  // behind the one of K, [kKeys,kDim] each
#pragma unroll
        for (int i = 0; i < Tile::kCopies; ++i) {
            const bool wanted = slot[i] >= 0 && column < kv.dim;
            const int64_t from = wanted ? slot[i] * pitch + start : 0;
            const int to =
                chunk_offset<Tile>(i * Tile::kKeysAtOnce + threadIdx.x / Tile::kChunks, chunk);
            simt::cp_async<16>(stage + to, static_cast<const T*>(kv.k) + from, wanted);
            simt::cp_async<16>(v_tile + to, static_cast<const T*>(kv.v) + from, wanted);
        }
    }

    __device__ void advance(const attention::Paged& kv, int group,
                            const attention::Options& options) {
        at.advance(kv, group, Tile::kKeys, options);
        if (at.tile == 0) enter_unit(kv);
        look_up(kv);
    }
};

// Copies the rows of a unit to shared memory, as a tile [16,kDim]; what is no row or column is zero.
template <class Tile>
__device__ void load_queries(typename Tile::T* q_tile, const DecodeParams& p,
                             const attention::Paged& kv, const Cursor& c) {
    using T = typename Tile::T;
    for (int e = threadIdx.x; e < Tile::kRows * Tile::kDim; e += Tile::kThreads) {
        const int row = e / Tile::kDim, d = e % Tile::kDim;
        const int in_sequence = c.unit.first_row + row;
        const int64_t token = c.sequence.first_query + in_sequence / p.group;
        const int64_t head = c.head * p.group + in_sequence % p.group;
        T value = simt::from_float<T>(0.0f);
        if (row < c.unit.rows && d < kv.dim)
            value = static_cast<const T*>(p.q)[token * p.q_stride + head * p.q_head_stride + d];
        q_tile[chunk_offset<Tile>(row, d / Tile::kChunk) + d % Tile::kChunk] = value;
    }
}

// What a warp has of a unit. In a fragment of an mma, a lane has rows lane / 4 and lane / 4 + 8, and
// columns 2 * (lane % 4) and the next.
template <class Tile>
struct WarpState {
    float out[Tile::kDim / 8][4];  // sum of exp(s - most) v, [16,kDim]
    float most[2], total[2];       // of rows lane / 4 and lane / 4 + 8; log2 units
    int first[2], last[2];         // keys that they keep

    __device__ void begin(int group, const attention::Options& options, const Cursor& c) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = threadIdx.x % 32 / 4 + 8 * i;
            const int query = (c.unit.first_row + row) / group;
            const int64_t position = int64_t(c.sequence.keys) - c.sequence.queries + query;
            const attention::Keys keys = attention::kept_keys(position, c.sequence.keys, options);
            first[i] = keys.first;
            last[i] = row < c.unit.rows ? keys.last : keys.first;
            most[i] = -INFINITY;
            total[i] = 0.0f;
        }
#pragma unroll
        for (int n = 0; n < Tile::kDim / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) out[n][i] = 0.0f;
    }
};

// Adds the 16 keys of this warp of a tile.
template <class Tile>
__device__ void add_keys(WarpState<Tile>& s, const typename Tile::T* q_tile,
                         const typename Tile::T* stage, const Cursor& c,
                         const attention::Options& options) {
    using T = typename Tile::T;
    const int lane = threadIdx.x % 32, first_row = threadIdx.x / 32 * Tile::kWarpKeys;
    const T* k_tile = stage;                                 // [kKeys,kDim]
    const T* v_tile = stage + Tile::kTileBytes / sizeof(T);  // [kKeys,kDim]

    // pass 1: scores [16 rows, 16 keys] = q [16,kDim] · k [16 keys,kDim], as two mma of 8 keys
    float score[2][4] = {};
    const int k_row = first_row + lane / 16 * 8 + lane % 8, k_side = lane / 8 % 2;
    const int q_row = lane % 16, q_side = lane / 16;
#pragma unroll
    for (int k = 0; k < Tile::kDim / 16; ++k) {
        uint32_t a[4], b[4];
        simt::ldmatrix<4>(a, q_tile + chunk_offset<Tile>(q_row, 2 * k + q_side));
        simt::ldmatrix<4>(b, k_tile + chunk_offset<Tile>(k_row, 2 * k + k_side));
        simt::mma_m16n8k16<T>(score[0], a, {b[0], b[1]}, score[0]);
        simt::mma_m16n8k16<T>(score[1], a, {b[2], b[3]}, score[1]);
    }

    // pass 2: scale, cap, mask; scores in units of log 2
    const int first_key = c.unit.first_key + c.tile * Tile::kKeys + first_row + lane % 4 * 2;
    float new_most[2] = {s.most[0], s.most[1]};
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int key = first_key + n * 8 + i % 2, row = i / 2;
            const float x = attention::capped(options.scale * score[n][i], options.softcap);
            const bool kept = key >= s.first[row] && key < s.last[row];
            score[n][i] = kept ? x * attention::kLog2E : -INFINITY;
            new_most[row] = fmaxf(new_most[row], score[n][i]);
        }
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        new_most[row] = fmaxf(new_most[row], __shfl_xor_sync(~0u, new_most[row], 1));
        new_most[row] = fmaxf(new_most[row], __shfl_xor_sync(~0u, new_most[row], 2));
    }

    // pass 3: weights, and what was added up before in terms of the new maximum
    float old[2];
#pragma unroll
    for (int row = 0; row < 2; ++row) {
        old[row] = s.most[row] == -INFINITY ? 0.0f : exp2f(s.most[row] - new_most[row]);
        s.most[row] = new_most[row];
        s.total[row] *= old[row];
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float most = s.most[i / 2];
            score[n][i] = most == -INFINITY ? 0.0f : exp2f(score[n][i] - most);
            s.total[i / 2] += score[n][i];
        }
    if (__any_sync(~0u, old[0] != 1.0f || old[1] != 1.0f)) {
#pragma unroll
        for (int n = 0; n < Tile::kDim / 8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i) s.out[n][i] *= old[i / 2];
    }

    // pass 4: out [16,kDim] += weights [16,16 keys] · v [16 keys,kDim]
    const uint32_t weights[4] = {simt::pack_floats<T>(score[0][0], score[0][1]),
                                 simt::pack_floats<T>(score[0][2], score[0][3]),
                                 simt::pack_floats<T>(score[1][0], score[1][1]),
                                 simt::pack_floats<T>(score[1][2], score[1][3])};
    const int v_row = first_row + lane % 16, v_side = lane / 16;
#pragma unroll
    for (int d = 0; d < Tile::kDim / 16; ++d) {
        uint32_t b[4];
        simt::ldmatrix_trans<4>(b, v_tile + chunk_offset<Tile>(v_row, 2 * d + v_side));
        simt::mma_m16n8k16<T>(s.out[2 * d], weights, {b[0], b[1]}, s.out[2 * d]);
        simt::mma_m16n8k16<T>(s.out[2 * d + 1], weights, {b[2], b[3]}, s.out[2 * d + 1]);
    }
}

// The piece of a unit that a block did: all of it, or the part of it that goes to a slot.
struct Piece {
    bool whole;
    int slot;
};

// Merges the four warps and writes the rows, kMergeRows at a time.
template <class Tile>
__device__ void finish(WarpState<Tile>& s, float* merge, Piece piece, const DecodeParams& p,
                       const attention::Paged& kv, const Cursor& c) {
    using T = typename Tile::T;
    SIMT_SHARED(float, warp_most, [Tile::kWarps][Tile::kRows]);
    SIMT_SHARED(float, warp_total, [Tile::kWarps][Tile::kRows]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        s.total[i] += __shfl_xor_sync(~0u, s.total[i], 1);
        s.total[i] += __shfl_xor_sync(~0u, s.total[i], 2);
        if (lane % 4 == 0) {
            warp_most[warp][lane / 4 + 8 * i] = s.most[i];
            warp_total[warp][lane / 4 + 8 * i] = s.total[i];
        }
    }
    for (int start = 0; start < c.unit.rows; start += Tile::kMergeRows) {
        __syncthreads();  // the maxima are there; what was merged before has been read
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = lane / 4 + 8 * i - start;
            if (row < 0 || row >= Tile::kMergeRows) continue;
#pragma unroll
            for (int n = 0; n < Tile::kDim / 8; ++n)
#pragma unroll
                for (int j = 0; j < 2; ++j)
                    merge[(warp * Tile::kMergeRows + row) * Tile::kDim + n * 8 + lane % 4 * 2 + j] =
                        s.out[n][2 * i + j];
        }
        __syncthreads();
        const int rows = min(Tile::kMergeRows, c.unit.rows - start);
        for (int e = threadIdx.x; e < rows * kv.dim; e += Tile::kThreads) {
            const int row = start + e / kv.dim, d = e % kv.dim;
            float most = -INFINITY, total = 0.0f, sum = 0.0f;
#pragma unroll
            for (int w = 0; w < Tile::kWarps; ++w) most = fmaxf(most, warp_most[w][row]);
#pragma unroll
            for (int w = 0; w < Tile::kWarps; ++w) {
                if (warp_most[w][row] == -INFINITY) continue;
                const float share = exp2f(warp_most[w][row] - most);
                total += share * warp_total[w][row];
                sum += share * merge[(w * Tile::kMergeRows + row - start) * Tile::kDim + d];
            }
            const float value = total == 0.0f ? 0.0f : sum / total;
            const float lse = total == 0.0f ? -INFINITY : most * attention::kLn2 + logf(total);
            if (piece.whole) {
                const int in_sequence = c.unit.first_row + row;
                const int64_t at =
                    (c.sequence.first_query + in_sequence / p.group) * int64_t(p.heads) +
                    c.head * p.group + in_sequence % p.group;
                static_cast<T*>(p.out)[at * kv.dim + d] = simt::from_float<T>(value);
                if (d == 0) p.lse[at] = lse;
            } else {
                const int64_t at = int64_t(piece.slot) * Tile::kRows + row;
                p.part_out[at * kv.dim + d] = value;
                if (d == 0) p.part_lse[at] = lse;
            }
        }
    }
    __syncthreads();  // before the maxima of the next unit
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    mma_decode(DecodeParams p, attention::Paged kv, attention::Options options) {
    using T = typename Tile::T;
    T* stages = simt::dynamic_shared<T>();
    constexpr int kStageBytes = Tile::kStages * 2 * Tile::kTileBytes;
    T* q_tile = simt::dynamic_shared<T>(kStageBytes);
    float* merge = simt::dynamic_shared<float>(kStageBytes + Tile::kQueryBytes);
    constexpr int kStage = 2 * Tile::kTileBytes / sizeof(T);

    Cursor cursor;
    const int64_t total = find_start<Tile>(cursor, p.group, kv, options);
    const int64_t busy = busy_blocks(total, gridDim.x), start = stretch(total, blockIdx.x, busy);
    const int tiles = static_cast<int>(stretch(total, blockIdx.x + 1, busy) - start);  // of a block
    Begun begun{};

    // pass 1: fill all stages but one
    Loader<Tile> loader;
    if (tiles > 0) loader.begin(cursor, kv);
    int copied = 0;
    const auto copy_next = [&]() {
        if (copied < tiles) {
            loader.copy(stages + copied % Tile::kStages * kStage, kv);
            if (++copied < tiles) loader.advance(kv, p.group, options);
        }
        simt::cp_async_commit();  // a group for every tile, there or not: waiting counts them
    };
    for (int i = 0; i < Tile::kStages - 1; ++i) copy_next();

    // pass 2: tile by tile
    WarpState<Tile> state;
    bool began = true;  // this block began the unit
    for (int i = 0; i < tiles; ++i) {
        if (i == 0 || cursor.tile == 0) {
            load_queries<Tile>(q_tile, p, kv, cursor);
            state.begin(p.group, options, cursor);
            began = cursor.tile == 0;
        }
        simt::cp_async_wait<Tile::kStages - 2>();
        __syncthreads();  // tile i is there for all, and tile i - 1 is no longer read
        copy_next();
        add_keys<Tile>(state, q_tile, stages + i % Tile::kStages * kStage, cursor, options);
        const int rest = cursor.unit.tiles - 1 - cursor.tile;
        if (rest == 0 || i + 1 == tiles) {
            const Piece piece{began && rest == 0, 2 * int(blockIdx.x) + began};
            finish<Tile>(state, merge, piece, p, kv, cursor);
            if (began && rest > 0)
                begun = {cursor.unit.rows, owner(start + i + rest, total, busy),
                         cursor.sequence.first_query, cursor.unit.first_row, cursor.head};
        }
        if (i + 1 < tiles) cursor.advance(kv, p.group, Tile::kKeys, options);
    }
    if (threadIdx.x == 0) reinterpret_cast<Begun*>(p.begun)[blockIdx.x] = begun;
}

// Block c merges the pieces of the unit that block c of mma_decode began and did not end. A warp
// takes a row, a lane every 32nd column.
template <class T>
__global__ void merge_pieces(DecodeParams p, int dim) {
    const Begun unit = reinterpret_cast<const Begun*>(p.begun)[blockIdx.x];
    const int row = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= unit.rows) return;
    const auto slot = [&](int block) {  // of a block's piece, counted in rows
        return (2 * int64_t(block) + (block == int(blockIdx.x))) * 16 + row;
    };
    float most = -INFINITY, total = 0.0f;
    for (int block = blockIdx.x + lane; block <= unit.last_block; block += 32)
        most = fmaxf(most, p.part_lse[slot(block)]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
    const auto weight = [&](int block) {
        const float lse = p.part_lse[slot(block)];
        return lse == -INFINITY ? 0.0f : expf(lse - most);
    };
    for (int block = blockIdx.x; block <= unit.last_block; ++block) total += weight(block);

    const int in_sequence = unit.first_row + row;
    const int64_t result = (unit.first_query + in_sequence / p.group) * int64_t(p.heads) +
                           unit.head * p.group + in_sequence % p.group;
    if (lane == 0) p.lse[result] = total == 0.0f ? -INFINITY : most + logf(total);
    for (int d = lane; d < dim; d += 32) {
        float sum = 0.0f;
#pragma unroll 8
        for (int block = blockIdx.x; block <= unit.last_block; ++block)
            sum += weight(block) * p.part_out[slot(block) * dim + d];
        static_cast<T*>(p.out)[result * dim + d] =
            simt::from_float<T>(total == 0.0f ? 0.0f : sum / total);
    }
}

}  // namespace yaie::paged_attention
