// filter_tokens, step 2: three reads of the logits by several blocks a row, two for the threshold
// and the sum (common/sampling_window.cuh), one for the shares. What it won over step 1:
// docs/sampler.md.
#pragma once

#include "common/sampling_window.cuh"

namespace yaie::filter_tokens {

using sampling::Fate;
using sampling::Filter;
using sampling::Plan;
using sampling::RowState;

using Sum64 = unsigned long long;

__device__ inline float weight_of(const RowState& state, const Filter& filter, float logit) {
    const float own = expf(sampling::LogWeight(state.most, filter.temperature)(logit));
    return own >= filter.min_p ? own : 0.0f;
}

__device__ inline float in_float(Sum64 sum) {
    return static_cast<float>(double(sum) / sampling::kWeightUnit);
}

// What choose_row asks for where the window does not serve: step 1.
struct Step1 {
    sampling::Rows logits;
    Filter filter;
    int64_t b;

    __device__ void operator()(RowState& state, float most) const {
        const int V = logits.vocabulary;
        const sampling::Kept kept(logits.row(b), V, most, filter);
        Sum64 sum = 0;
        for (int v = threadIdx.x; v < V; v += blockDim.x)
            sum += sampling::in_weight_units(kept.weight(v));
        sum = sampling::reduce_block(sum, sampling::Sum());
        if (threadIdx.x != 0) return;
        state.plan = Plan::by_key;
        state.least = kept.least;
        state.sum = in_float(sum);
    }
};

__global__ void __launch_bounds__(sampling::kBins, 1)
    choose(sampling::Rows logits, sampling::FilterRows filters, sampling::Work work) {
    simt::await_launch_before();
    simt::let_launch_after_start();
    const Filter filter = filters.row(blockIdx.x);
    sampling::choose_row(logits, filter, work, /*exact_tail=*/true,
                         Step1{logits, filter, int64_t(blockIdx.x)});
}

// The weight of what is kept for sure; tokens in doubt are listed.
__device__ inline Sum64 weigh_part(const sampling::Chunks& row, const sampling::Part& part,
                                   RowState& state, const Filter& filter) {
    Sum64 kept = 0;
    const sampling::Sieve sieve(state, filter);
    const sampling::Doubtful doubtful = sampling::gather_doubtful();
    const auto see = [&](float logit, int token) {
        const Fate fate = sieve.fate(logit);
        if (fate == Fate::in_doubt) doubtful.add(state, logit, token);
        if (fate == Fate::kept) kept += sampling::in_weight_units(weight_of(state, filter, logit));
    };
    sampling::for_chunks<sampling::kAhead>(row, part, -INFINITY, [&](int chunk, float4 x) {
        const int v = row.first_token(chunk);
        see(x.x, v);
        see(x.y, v + 1);
        see(x.z, v + 2);
        see(x.w, v + 3);
    });
    doubtful.list_all(state);
    return sampling::reduce_block(kept, sampling::Sum());
}

// The row's threshold among the tokens in doubt, and the weight of all that is kept.
__device__ inline void weigh_row(const sampling::Found<Sum64>& found, int64_t b, RowState& state,
                                 const Filter& filter, bool counts) {
    Sum64 kept = 0;
    unsigned least = 0xffffffffu;
    if (state.listed > 0)
        sampling::decide(state, filter, counts, [&](const sampling::Listed& token) {
            kept += sampling::in_weight_units(weight_of(state, filter, token.logit));
            least = min(least, sampling::order_key(token.logit));
        });
    kept = found.of_row(b, kept, sampling::Sum());
    least = sampling::reduce_block(least, sampling::Lowest());
    if (threadIdx.x != 0) return;
    state.least = least;
    state.sum = in_float(kept);
}

__global__ void __launch_bounds__(sampling::kPartThreads, 2)
    collect(sampling::Rows logits, sampling::FilterRows filters, RowState* of_row,
            sampling::Found<Sum64> found) {
    simt::await_launch_before();
    simt::let_launch_after_start();
    const sampling::Chunks row(logits, blockIdx.x / found.parts);
    const sampling::Part part(found.parts, found.chunks_a_part, row.count());
    RowState& state = of_row[part.row];
    if (state.plan != Plan::window) return;
    const Filter filter = filters.row(part.row);
    const Sum64 kept = weigh_part(row, part, state, filter);
    if (threadIdx.x == 0) found.of_part[blockIdx.x] = kept;

    if (!sampling::last_of_row(state, found.parts)) return;
    if (state.listed > sampling::kMaxListed)
        Step1{logits, filter, part.row}(state, state.most);
    else
        weigh_row(found, part.row, state, filter,
                  sampling::limits_count(filter, logits.vocabulary));
}

// The share of a token in its row.
struct Shares {
    const RowState& state;
    Filter filter;
    sampling::Sieve sieve;

    __device__ bool keeps(float logit) const {
        const bool from_least = sampling::order_key(logit) >= state.least;
        if (state.plan == Plan::by_key) return from_least;
        const Fate fate = sieve.fate(logit);
        return fate == Fate::kept || (fate == Fate::in_doubt && from_least);
    }
    __device__ float of(float logit, int token) const {
        if (state.plan == Plan::settled) return token == state.token ? 1.0f : 0.0f;
        return keeps(logit) ? weight_of(state, filter, logit) / state.sum : 0.0f;
    }
};

__global__ void __launch_bounds__(sampling::kPartThreads, 2)
    store_shares(float* probs, sampling::Rows logits, sampling::FilterRows filters,
                 sampling::Work work) {
    simt::await_launch_before();
    const sampling::Chunks row(logits, blockIdx.x / work.parts);
    const sampling::Part part(work.parts, work.chunks_a_part, row.count());
    const RowState& state = work.of_row[part.row];
    const Filter filter = filters.row(part.row);
    const Shares shares{state, filter, sampling::Sieve(state, filter)};
    float* result = probs + part.row * row.vocabulary;
    sampling::for_chunks<sampling::kAhead / 2>(row, part, -INFINITY, [&](int chunk, float4 x) {
        if (chunk >= part.last) return;
        const int v = row.first_token(chunk);
        const float4 share = make_float4(shares.of(x.x, v), shares.of(x.y, v + 1),
                                         shares.of(x.z, v + 2), shares.of(x.w, v + 3));
        if (row.whole(chunk) && reinterpret_cast<uintptr_t>(result + v) % 16 == 0) {
            *reinterpret_cast<float4*>(result + v) = share;
            return;
        }
        if (row.has(v)) result[v] = share.x;
        if (row.has(v + 1)) result[v + 1] = share.y;
        if (row.has(v + 2)) result[v + 2] = share.z;
        if (row.has(v + 3)) result[v + 3] = share.w;
    });
}

}  // namespace yaie::filter_tokens
