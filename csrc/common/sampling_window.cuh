// A filter's threshold in two reads of the logits, whatever the filter, each by several blocks a
// row. docs/sampler.md draws it.
//
// The window of a row are the tokens within 32 of the maximum, in units of the temperature: below,
// all of a vocabulary together weighs less than 1e-8, and no token can win the race. It is cut into
// kBins bins of a sixteenth each, on a grid that all parts of the row share.
//
//   survey   (read 1)   each part: its maximum, and the mass and the count of every bin
//   choose              each row: bins that are kept for sure, and those that hold the threshold
//   collect  (read 2)   each part: works on what is kept for sure, lists the tokens in doubt; parts
//                       need not fit into registers, so there are no more than occupy the GPU
//   decide              the row's last block: which of the listed tokens are kept
//
// Masses are integers (of the weight relative to the middle of the bin), so that sums are the same
// in any order, and a row is decided alike whatever the number of its parts. What the window
// cannot serve (temperatures so small that the grid is too coarse a float, more tokens in doubt
// than the list holds) goes the way of step 1, one block for the row.
#pragma once

#include "common/sampling_parts.cuh"

namespace yaie::sampling {

constexpr int kBins = kPartThreads;       // one a thread where a block works on all of them
constexpr float kBinsPerUnit = 16.0f;     // of log weight
constexpr float kGridLimit = 0x1p22f;     // beyond it places are no whole numbers
constexpr float kGridOrigin = 0x1.8p23f;  // place of bin 0: floats around it are whole numbers
constexpr int kNoBins = -(1 << 30);       // a part far below all windows
constexpr int kMaxListed = 2048;          // tokens in doubt
constexpr int kFewListed = 256;           // likewise, of a part
constexpr int kAllBins = kBins + 1;       // and what lies below them
constexpr int kMostChunks = kAhead * kPartThreads;  // of a part, which stays in registers
constexpr float kMassUnit = 0x1p17f;                // the tokens of a part fit into 32 bits
constexpr float kCannotWin = -26.1f;                // log weight: log E lies within -22.9 and 3.14

struct PartState {
    float most;
    int first;  // token of the maximum, at temperature 0
    int top;    // bin of the maximum
    int unused;
    unsigned mass[kBins];  // from `top` downwards, in units of the bin's middle
    int count[kBins];
};

struct Listed {
    float logit;
    int token;
};

enum class Plan { settled, window, by_key };

struct RowState {
    Plan plan;
    int token;  // settled: the only one kept, -1 for none
    float most;
    int top;                     // bin of the maximum
    int first, last;             // bins in doubt, counted from the top; those before are kept
    int base_count;              // tokens before them
    float base_mass, rest_mass;  // before them, and after as far as top_k keeps; in units of the
                                 // middle of bin `first`
    unsigned least;     // the lowest key that is kept of the tokens in doubt (by_key: of all)
    float sum;          // weight of all that is kept
    int listed;         // more than kMaxListed: the list has not all of them
    unsigned finished;  // parts
    Listed list[kMaxListed];
    unsigned long long above[kMaxListed];  // weight of the listed tokens that are likelier
};

struct Work {  // the workspaces, but for what read 2 finds
    PartState* of_part;
    RowState* of_row;
    int parts, chunks_a_part;
};

// What read 2 finds: of each of its parts, which may be fewer than those of read 1.
template <class T>
struct Found {
    T* of_part;  // [B,parts]
    int parts, chunks_a_part;

    // All of row b and what each thread of the block brings, combined.
    template <class Combine>
    __device__ T of_row(int64_t b, T own, Combine combine) const {
        for (int p = threadIdx.x; p < parts; p += blockDim.x)
            own = combine(own, of_part[b * parts + p]);
        return reduce_block(own, combine);
    }
};

// The grid of bins of one temperature: bin n holds the logits that scale takes nearest to n. Whatever
// a float must be rounded for is left to one addition: its sum is so large that it has no fractions,
// and the whole number stands in its last bits.
struct Grid {
    float scale;

    __device__ explicit Grid(float temperature) : scale(kBinsPerUnit / temperature) {}

    __device__ bool resolves(float logit, float limit = kGridLimit) const {
        return fabsf(logit * scale) < limit;
    }
    // Where the bin of a logit lies; monotone, and below the origin by 2^22 and more an order alone.
    __device__ float place(float logit) const { return fmaf(logit, scale, kGridOrigin); }
    __device__ float bin(float logit) const { return place(logit) - kGridOrigin; }
    // How far a logit is from the middle of a bin, in bins. The product is exact (fused), so a large
    // logit loses nothing.
    __device__ float beyond(float logit, float bin) const { return fmaf(logit, scale, -bin); }

    // exp(x / 16) for x in a bin, -1/2 to 1/2, in units of mass: a Taylor series to 4e-8.
    __device__ static unsigned mass(float x) {
        constexpr float a = kMassUnit / kBinsPerUnit, b = a / kBinsPerUnit / 2,
                        c = b / kBinsPerUnit / 3, kWhole = 0x1p23f;
        const float sum = fmaf(x, fmaf(x, fmaf(x, c, b), a), kMassUnit + kWhole);
        return __float_as_uint(sum) - __float_as_uint(kWhole);
    }
};

__device__ inline bool limits_count(const Filter& filter, int vocabulary) {
    return filter.top_k < vocabulary;
}
__device__ inline bool needs_bins(const Filter& filter, int vocabulary) {
    return filter.temperature > 0.0f && (limits_count(filter, vocabulary) || filter.top_p < 1.0f);
}

// ---- survey -----------------------------------------------------------------------------------

using Tile = Batch<kAhead>;  // a part

// The maximum of a part, infinite where the row is invalid; as largest().
__device__ inline float largest_of_part(const Tile& batch) {
    float most = -INFINITY;
    bool valid = true;
    batch.each([&](int, float4 x) {
        valid = valid && x.x < INFINITY && x.y < INFINITY && x.z < INFINITY && x.w < INFINITY;
        most = fmaxf(most, fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w)));
    });
    return reduce_block(valid ? most : INFINITY, Max());
}

struct Lowest {
    template <class T>
    __device__ T operator()(T a, T b) const {
        return b < a ? b : a;
    }
};

// The first token of a part whose logit is `most`.
__device__ inline int first_of_part(const Chunks& row, const Tile& batch, float most) {
    int first = kNobody.token;
    batch.each([&](int chunk, float4 x) {
        const int v = row.first_token(chunk);
        if (x.w == most) first = min(first, v + 3);
        if (x.z == most) first = min(first, v + 2);
        if (x.y == most) first = min(first, v + 1);
        if (x.x == most) first = min(first, v);
    });
    return reduce_block(first, Lowest());
}

// `top` is the place of the part's maximum, as bits: what lies below the window, or below zero, is so
// far from it as an unsigned number.
__device__ inline void add_to_bins(unsigned* mass, int* count, const Grid& grid, unsigned top,
                                   float logit) {
    const float place = grid.place(logit);
    const unsigned at = top - __float_as_uint(place);
    if (at >= unsigned(kBins)) return;
    atomicAdd(mass + at, Grid::mass(grid.beyond(logit, place - kGridOrigin)));
    if (count) atomicAdd(count + at, 1);
}

template <int kThreadsOfBlock>
__global__ void __launch_bounds__(kThreadsOfBlock)
    survey(Rows logits, FilterRows filters, Work work) {
    simt::let_launch_after_start();
    SIMT_SHARED(unsigned, mass, [kBins]);
    SIMT_SHARED(int, count, [kBins]);
    const Chunks row(logits, blockIdx.x / work.parts);
    const Part part(work.parts, work.chunks_a_part, row.count());
    const Filter filter = filters.row(part.row);
    PartState& state = work.of_part[blockIdx.x];

    const Tile batch(row, part, part.first, -INFINITY);
    const float most = largest_of_part(batch);
    if (threadIdx.x == 0) state.most = most;
    if (filter.temperature == 0.0f && !isinf(most)) {
        const int first = first_of_part(row, batch, most);
        if (threadIdx.x == 0) state.first = first;
    }
    if (!needs_bins(filter, logits.vocabulary)) return;  // all threads of the block do

    const Grid grid(filter.temperature);
    const bool here = grid.resolves(most);
    if (threadIdx.x == 0) state.top = here ? static_cast<int>(grid.bin(most)) : kNoBins;
    if (!here) return;
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) mass[i] = count[i] = 0;
    __syncthreads();  // before they add
    const bool counts = limits_count(filter, logits.vocabulary);
    const unsigned top = __float_as_uint(grid.place(most));
    batch.each([&](int, float4 x) {
        add_to_bins(mass, counts ? count : nullptr, grid, top, x.x);
        add_to_bins(mass, counts ? count : nullptr, grid, top, x.y);
        add_to_bins(mass, counts ? count : nullptr, grid, top, x.z);
        add_to_bins(mass, counts ? count : nullptr, grid, top, x.w);
    });
    __syncthreads();  // all are added
    for (int i = threadIdx.x; i < kBins; i += blockDim.x) {
        state.mass[i] = mass[i];
        if (counts) state.count[i] = count[i];
    }
}

// ---- choose -----------------------------------------------------------------------------------

// Sums up to and with each thread, in the order of threads. The block is kBins threads.
template <class T>
__device__ T sum_so_far(T x) {
    SIMT_SHARED(T, of_warp, [32]);
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    for (int step = 1; step < 32; step *= 2) {
        const T before = __shfl_up_sync(0xffffffffu, x, step);
        if (lane >= step) x += before;
    }
    if (lane == 31) of_warp[warp] = x;
    __syncthreads();  // of_warp is there
#pragma unroll
    for (int i = 0; i < kBins / 32 - 1; ++i)  // all are read at once
        if (i < warp) x += of_warp[i];
    __syncthreads();  // of_warp may be written again
    return x;
}

struct Bins {  // a block's view of the window: sums from the top down to each bin
    float* mass;
    int* count;

    // The first bin up to which there is that much, kBins if there is none; the same in all threads.
    template <class T>
    __device__ static int first_with(const T* so_far, T wanted) {
        const bool here = so_far[threadIdx.x] >= wanted;
        return reduce_block(here ? int(threadIdx.x) : kBins, Lowest());
    }
    __device__ float mass_above(int bin) const { return bin > 0 ? mass[bin - 1] : 0.0f; }
    __device__ int count_above(int bin) const { return bin > 0 ? count[bin - 1] : 0; }
};

// One bin a thread: what all parts found in it. The grid is common, the tops are not. Parts are
// read several at a time, so nothing depends on a branch.
__device__ inline void fold_bins(const PartState* of_part, int parts, int top, bool counts,
                                 Bins bins) {
    SIMT_SHARED(int, top_of, [kBins]);
    unsigned long long mass = 0;
    int count = 0;
    for (int from = 0; from < parts; from += kBins) {
        const int some = min(kBins, parts - from);
        __syncthreads();  // top_of may be written again
        if (int(threadIdx.x) < some) top_of[threadIdx.x] = of_part[from + threadIdx.x].top;
        __syncthreads();  // top_of is there
#pragma unroll 8
        for (int p = 0; p < some; ++p) {
            const int at = int(threadIdx.x) - (top - top_of[p]);
            const bool there = top_of[p] != kNoBins && at >= 0;
            mass += there ? of_part[from + p].mass[at] : 0;
            count += there && counts ? of_part[from + p].count[at] : 0;
        }
    }
    const float middle = expf(-float(threadIdx.x) / kBinsPerUnit);
    bins.mass[threadIdx.x] = sum_so_far(float(mass) / kMassUnit * middle);
    if (counts) bins.count[threadIdx.x] = sum_so_far(count);
    __syncthreads();  // the sums are there
}

// Which bins are kept, which are in doubt. top_k is decided by counts, exactly; where its last bin
// is kept in part, the mass that top_p has a share of is known within bounds only.
__device__ inline void choose_bins(RowState& state, const Bins& bins, Filter filter, bool counts) {
    const int k_bin = counts ? Bins::first_with(bins.count, filter.top_k) : kBins;
    const int end = min(k_bin, kBins - 1);
    const bool in_part = k_bin < kBins && bins.count[end] > filter.top_k;
    int first = in_part ? k_bin : end + 1, last = end;
    if (filter.top_p < 1.0f) {
        const float least = in_part ? bins.mass_above(end) : bins.mass[end];
        first = min(first, Bins::first_with(bins.mass, filter.top_p * least));
        last = min(end, Bins::first_with(bins.mass, filter.top_p * bins.mass[end]));
        if (in_part) last = k_bin;
    }
    if (threadIdx.x != 0) return;
    state.first = first;
    state.last = last;
    state.base_count = counts ? bins.count_above(first) : 0;
    const float unit = expf(-float(first) / kBinsPerUnit);
    state.base_mass = bins.mass_above(first) / unit;
    state.rest_mass = (bins.mass[end] - bins.mass[min(last, end)]) / unit;
}

__device__ inline void settle_row(RowState& state, int token) {
    if (threadIdx.x != 0) return;
    state.plan = Plan::settled;
    state.token = token;
}

// A row of which all is kept, until more is known.
__device__ inline void begin_row(RowState& state, float most) {
    if (threadIdx.x != 0) return;
    state.plan = Plan::window;
    state.most = most;
    state.top = 0;
    state.first = kAllBins;
    state.last = kBins;
    state.listed = 0;
    state.finished = 0;
}

// Whether the k-th largest lies below the window, where no bin counts.
__device__ inline bool counts_run_out(const Bins& bins, Filter filter, bool counts) {
    return counts && bins.count[kBins - 1] < filter.top_k;
}

// What the row's parts amount to. `step_1(row, most)` decides a row that the window cannot serve,
// and `exact_tail` asks for it where tokens below the window matter: with top_k alone.
template <class Step1>
__device__ void choose_row(Rows logits, Filter filter, Work work, bool exact_tail, Step1 step_1) {
    SIMT_SHARED(float, mass, [kBins]);
    SIMT_SHARED(int, count, [kBins]);
    const int64_t b = blockIdx.x;
    const PartState* of_part = work.of_part + b * work.parts;
    RowState& state = work.of_row[b];

    float most = -INFINITY;
    for (int p = threadIdx.x; p < work.parts; p += blockDim.x) most = fmaxf(most, of_part[p].most);
    most = reduce_block(most, Max());
    begin_row(state, most);
    if (isinf(most)) return settle_row(state, -1);
    if (filter.temperature == 0.0f) {
        int first = kNobody.token;
        for (int p = threadIdx.x; p < work.parts; p += blockDim.x)
            if (of_part[p].most == most) first = min(first, of_part[p].first);
        return settle_row(state, reduce_block(first, Lowest()));
    }
    const Grid grid(filter.temperature);
    if (!needs_bins(filter, logits.vocabulary)) return;
    if (!grid.resolves(most, kGridLimit - 2 * kBins)) return step_1(state, most);

    const bool counts = limits_count(filter, logits.vocabulary);
    const Bins bins{mass, count};
    const int top = static_cast<int>(grid.bin(most));
    if (threadIdx.x == 0) state.top = top;
    fold_bins(of_part, work.parts, top, counts, bins);
    if (counts_run_out(bins, filter, counts)) {
        if (filter.top_p < 1.0f) return choose_bins(state, bins, filter, false);
        if (exact_tail) step_1(state, most);
        return;
    }
    choose_bins(state, bins, filter, counts);
}

// ---- collect ----------------------------------------------------------------------------------

enum class Fate { dropped, kept, in_doubt };

// Which tokens of a row are kept, as far as bins tell.
struct Sieve {
    Grid grid;
    float top;
    int first, last;

    __device__ Sieve(const RowState& state, const Filter& filter)
        : grid(filter.temperature), top(float(state.top)), first(state.first), last(state.last) {}

    __device__ Fate fate(float logit) const {
        if (first == kAllBins) return Fate::kept;
        const float bin = top - grid.bin(logit);  // from the top down; infinite for -inf
        if (bin < float(first)) return Fate::kept;
        return bin <= float(last) ? Fate::in_doubt : Fate::dropped;
    }
};

__device__ inline void list_token(RowState& state, float logit, int token) {
    const int at = atomicAdd(&state.listed, 1);
    if (at < kMaxListed) state.list[at] = {logit, token};
}

// Tokens in doubt are few in a part. They are gathered in the block, since a warp would wait for the
// row's counter at each of them.
struct Doubtful {
    Listed* places;  // [kFewListed]
    int* length;     // more than that: the rest is in the row's list already

    __device__ void add(RowState& state, float logit, int token) const {
        const int at = atomicAdd(length, 1);
        if (at < kFewListed)
            places[at] = {logit, token};
        else
            list_token(state, logit, token);
    }
    __device__ void list_all(RowState& state) const {  // by all threads of the block
        SIMT_SHARED(int, first, );
        __syncthreads();  // all are added
        const int n = min(*length, kFewListed);
        if (threadIdx.x == 0 && n > 0) first = atomicAdd(&state.listed, n);
        __syncthreads();  // first is there
        for (int i = threadIdx.x; i < n; i += blockDim.x)
            if (first + i < kMaxListed) state.list[first + i] = places[i];
    }
};

__device__ inline Doubtful gather_doubtful() {
    SIMT_SHARED(Listed, places, [kFewListed]);
    SIMT_SHARED(int, length, );
    if (threadIdx.x == 0) length = 0;
    __syncthreads();  // before they add
    return {places, &length};
}

// ---- decide -----------------------------------------------------------------------------------

// Whether this block is the last of its row to come here. What the others wrote is then visible.
__device__ inline bool last_of_row(RowState& state, int parts) {
    SIMT_SHARED(bool, is_last, );
    __threadfence();
    __syncthreads();  // all threads of the block have written
    if (threadIdx.x == 0) is_last = atomicAdd(&state.finished, 1u) == unsigned(parts) - 1;
    __syncthreads();  // before is_last is read
    if (is_last) __threadfence();
    return is_last;
}

// Calls keep(listed token) for the tokens in doubt that are kept: what is above a token is found by
// comparing it with all others. They are few, a bin's or two.
template <class Keep>
__device__ void decide(RowState& state, const Filter& filter, bool counts, Keep keep) {
    SIMT_SHARED(unsigned, keys, [kMaxListed]);
    SIMT_SHARED(unsigned long long, weights, [kMaxListed]);
    const Grid grid(filter.temperature);
    const int n = state.listed;
    const float middle = float(state.top - state.first);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        const float logit = state.list[i].logit;
        keys[i] = order_key(logit);
        weights[i] = in_weight_units(expf(grid.beyond(logit, middle) / kBinsPerUnit));
    }
    __syncthreads();  // the list is in shared memory

    const int rest = counts ? filter.top_k - state.base_count : n;  // that top_k leaves
    unsigned long long left = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        unsigned long long above = 0;
        int larger = 0;
        for (int j = 0; j < n; ++j) {
            const bool is_larger = keys[j] > keys[i];
            above += is_larger ? weights[j] : 0;
            larger += is_larger;
        }
        if (larger < rest) left += weights[i];
        state.above[i] = larger < rest ? above : ~0ull;
    }
    left = reduce_block(left, Sum());

    const double base = state.base_mass;
    const double enough = filter.top_p * (base + double(left) / kWeightUnit + state.rest_mass);
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        if (state.above[i] == ~0ull) continue;
        if (filter.top_p < 1.0f && base + double(state.above[i]) / kWeightUnit >= enough) continue;
        keep(state.list[i]);
    }
}

}  // namespace yaie::sampling
