// varlen_attention, step 2: tiles in shared memory and an online softmax, on CUDA cores.
//
// A block takes 32 rows (row_tile.cuh) and walks over tiles of 32 keys, which it reads once for all
// of its rows: K and V are read 32 times less often than in step 1, and in whole lines. A thread has
// two rows; eight lanes share them, each with every eighth key of a tile and every eighth column of
// the result, so that nothing but weights goes from thread to thread. All arithmetic is float32.
// What it lacks is the throughput of tensor cores: step 3, common/prefill.cuh.
#pragma once

#include <math.h>

#include "common/row_tile.cuh"

namespace yaie::varlen_attention {

// For D and Dv up to kColumns.
template <class Element, int kColumns>
struct FloatTile {
    using T = Element;
    static constexpr int kRows = 32;
    static constexpr int kKeys = 32;
    static constexpr int kLanes = 8;       // that share a row
    static constexpr int kThreadRows = 2;  // of a thread
    static constexpr int kThreadKeys = kKeys / kLanes;
    static constexpr int kThreadColumns = kColumns / kLanes;
    static constexpr int kThreads = kRows / kThreadRows * kLanes;
    static constexpr int kWeightPitch = kKeys + 1;

    // Rows of q and k are read down a column: an odd pitch puts them in different banks.
    static __host__ __device__ int pitch(int dim) { return dim | 1; }
    static size_t shared_bytes(int dim, int v_dim) {
        return sizeof(float) *
               ((kRows + kKeys) * pitch(dim) + kKeys * v_dim + kRows * kWeightPitch);
    }
};

// What a thread has of its rows.
template <class Tile>
struct ThreadRows {
    float sums[Tile::kThreadRows][Tile::kThreadColumns];  // of weight * v; column lane + 8 * c
    float most[Tile::kThreadRows], total[Tile::kThreadRows];
    attention::Keys kept[Tile::kThreadRows];
};

// Copies rows of q to shared memory as floats; what is no row is zero.
template <class Tile>
__device__ void load_queries(float* q_tile, const typename Tile::T* q, int64_t q_stride,
                             int64_t q_head_stride, const attention::RowTile& t, int group,
                             int dim) {
    for (int row = threadIdx.x / 32; row < Tile::kRows; row += Tile::kThreads / 32) {
        const attention::RowCursor at(t.first_row + row, group);
        const int64_t head = t.head * group + at.member;
        const auto* from = q + (t.first_query + at.query) * q_stride + head * q_head_stride;
        for (int d = threadIdx.x % 32; d < dim; d += 32)
            q_tile[row * Tile::pitch(dim) + d] = row < t.rows ? simt::to_float(from[d]) : 0.0f;
    }
}

// Copies `keys` rows [D] to shared memory as floats.
template <class Tile>
__device__ void load_keys(float* tile, int pitch, const typename Tile::T* from, int64_t stride,
                          int keys, int dim) {
    for (int key = threadIdx.x / 32; key < keys; key += Tile::kThreads / 32)
        for (int d = threadIdx.x % 32; d < dim; d += 32)
            tile[key * pitch + d] = simt::to_float(from[key * stride + d]);
}

// Scores of this thread's rows and keys; -inf where a row does not keep the key.
template <class Tile>
__device__ void score_keys(float (&score)[Tile::kThreadRows][Tile::kThreadKeys],
                           const ThreadRows<Tile>& rows, const float* q_row, const float* k_tile,
                           int tile_key, int keys, int dim, const attention::Options& options) {
    const int lane = threadIdx.x % Tile::kLanes, pitch = Tile::pitch(dim);
    // A row of the tile behind the last key is not read, and scored as the last key.
    const float* key[Tile::kThreadKeys];
#pragma unroll
    for (int j = 0; j < Tile::kThreadKeys; ++j)
        key[j] = k_tile + min(lane + j * Tile::kLanes, keys - 1) * pitch;
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r)
#pragma unroll
        for (int j = 0; j < Tile::kThreadKeys; ++j) score[r][j] = 0.0f;
    for (int d = 0; d < dim; ++d)
#pragma unroll
        for (int r = 0; r < Tile::kThreadRows; ++r)
#pragma unroll
            for (int j = 0; j < Tile::kThreadKeys; ++j)
                score[r][j] += q_row[r * pitch + d] * key[j][d];
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r)
#pragma unroll
        for (int j = 0; j < Tile::kThreadKeys; ++j) {
            const int at = tile_key + lane + j * Tile::kLanes;
            const bool kept = at >= rows.kept[r].first && at < rows.kept[r].last;
            score[r][j] =
                kept ? attention::capped(options.scale * score[r][j], options.softcap) : -INFINITY;
        }
}

// Scores become weights relative to the new maximum, left in shared memory for the lanes of the row;
// what was added up before follows.
template <class Tile>
__device__ void weigh_keys(ThreadRows<Tile>& rows, float* weights,
                           const float (&score)[Tile::kThreadRows][Tile::kThreadKeys]) {
    const int lane = threadIdx.x % Tile::kLanes;
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r) {
        float most = rows.most[r];
#pragma unroll
        for (int j = 0; j < Tile::kThreadKeys; ++j) most = fmaxf(most, score[r][j]);
#pragma unroll
        for (int step = Tile::kLanes / 2; step > 0; step /= 2)
            most = fmaxf(most, __shfl_xor_sync(~0u, most, step));
        const float old = rows.most[r] == -INFINITY ? 0.0f : expf(rows.most[r] - most);
        rows.most[r] = most;
        rows.total[r] *= old;
#pragma unroll
        for (int j = 0; j < Tile::kThreadKeys; ++j) {
            const float weight = most == -INFINITY ? 0.0f : expf(score[r][j] - most);
            rows.total[r] += weight;
            weights[r * Tile::kWeightPitch + lane + j * Tile::kLanes] = weight;
        }
#pragma unroll
        for (int c = 0; c < Tile::kThreadColumns; ++c) rows.sums[r][c] *= old;
    }
    __syncwarp();
}

// Adds the values of a tile; rows of the tile behind the last key are not read.
template <class Tile>
__device__ void add_values(ThreadRows<Tile>& rows, const float* weights, const float* v_tile,
                           int keys, int v_dim) {
    const int lane = threadIdx.x % Tile::kLanes;
    for (int j = 0; j < keys; ++j)
#pragma unroll
        for (int c = 0; c < Tile::kThreadColumns; ++c) {
            const int column = lane + c * Tile::kLanes;
            const float value = column < v_dim ? v_tile[j * v_dim + column] : 0.0f;
#pragma unroll
            for (int r = 0; r < Tile::kThreadRows; ++r)
                rows.sums[r][c] += weights[r * Tile::kWeightPitch + j] * value;
        }
}

template <class Tile>
__device__ void write_rows(ThreadRows<Tile>& rows, typename Tile::T* out, float* lse, int first_row,
                           const attention::RowTile& t, int heads, int group, int v_dim) {
    const int lane = threadIdx.x % Tile::kLanes;
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r) {
        float total = rows.total[r];
#pragma unroll
        for (int step = Tile::kLanes / 2; step > 0; step /= 2)
            total += __shfl_xor_sync(~0u, total, step);
        if (first_row + r >= t.rows) continue;
        const attention::RowCursor at(t.first_row + first_row + r, group);
        const int64_t result =
            int64_t(t.first_query + at.query) * heads + t.head * group + at.member;
#pragma unroll
        for (int c = 0; c < Tile::kThreadColumns; ++c) {
            const int column = lane + c * Tile::kLanes;
            if (column < v_dim)
                out[result * v_dim + column] = simt::from_float<typename Tile::T>(
                    total == 0.0f ? 0.0f : rows.sums[r][c] / total);
        }
        if (lane == 0) lse[result] = total == 0.0f ? -INFINITY : rows.most[r] + logf(total);
    }
}

template <class Tile>
__global__ void __launch_bounds__(Tile::kThreads)
    tiled(typename Tile::T* out, float* lse, const typename Tile::T* q, int64_t q_stride,
          int64_t q_head_stride, int heads, attention::Packed kv, attention::Options options) {
    using T = typename Tile::T;
    const int pitch = Tile::pitch(kv.dim), group = heads / kv.kv_heads;
    float* q_tile = simt::dynamic_shared<float>();     // [kRows,pitch]
    float* k_tile = q_tile + Tile::kRows * pitch;      // [kKeys,pitch]
    float* v_tile = k_tile + Tile::kKeys * pitch;      // [kKeys,Dv]
    float* weights = v_tile + Tile::kKeys * kv.v_dim;  // [kRows,kWeightPitch]

    const attention::RowTile t = attention::find_row_tile<Tile>(kv, group, options);
    if (t.rows == 0) return;
    const int64_t start = kv.kv_indptr[t.sequence] + int64_t(t.first_key);
    const T* k = static_cast<const T*>(kv.k) + start * kv.k_stride + t.head * kv.k_head_stride;
    const T* v = static_cast<const T*>(kv.v) + start * kv.v_stride + t.head * kv.v_head_stride;

    // pass 1: queries, and the state of this thread's rows
    load_queries<Tile>(q_tile, q, q_stride, q_head_stride, t, group, kv.dim);
    const int first_row = threadIdx.x / Tile::kLanes * Tile::kThreadRows;
    ThreadRows<Tile> rows;
#pragma unroll
    for (int r = 0; r < Tile::kThreadRows; ++r) {
        rows.kept[r] = t.kept(first_row + r, group, options);
        rows.most[r] = -INFINITY;
        rows.total[r] = 0.0f;
#pragma unroll
        for (int c = 0; c < Tile::kThreadColumns; ++c) rows.sums[r][c] = 0.0f;
    }

    // pass 2: tile by tile
    for (int tile = 0; tile < t.keys; tile += Tile::kKeys) {
        const int keys = min(Tile::kKeys, t.keys - tile);
        __syncthreads();  // the tile before is no longer read
        load_keys<Tile>(k_tile, pitch, k + tile * kv.k_stride, kv.k_stride, keys, kv.dim);
        load_keys<Tile>(v_tile, kv.v_dim, v + tile * kv.v_stride, kv.v_stride, keys, kv.v_dim);
        __syncthreads();
        float score[Tile::kThreadRows][Tile::kThreadKeys];
        score_keys<Tile>(score, rows, q_tile + first_row * pitch, k_tile, tile, keys, kv.dim,
                         options);
        weigh_keys<Tile>(rows, weights + first_row * Tile::kWeightPitch, score);
        add_values<Tile>(rows, weights + first_row * Tile::kWeightPitch, v_tile, keys, kv.v_dim);
        __syncwarp();  // before the weights of the next tile
    }
    write_rows<Tile>(rows, out, lse, first_row, t, heads, group, kv.v_dim);
}

}  // namespace yaie::varlen_attention
