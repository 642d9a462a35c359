// sample, step 2: two reads of the logits by several blocks a row; the window of
// common/sampling_window.cuh decides the filter, and noise is made for kept tokens alone. What it
// won over step 1: docs/sampler.md.
#pragma once

#include "common/sampling_window.cuh"

namespace yaie::sample {

using sampling::Candidate;
using sampling::Fate;
using sampling::Filter;
using sampling::Plan;

constexpr int kQueue = 32 + 4 * 32;  // what is left of a warp's queue, and a chunk of each lane

struct Draws {  // [B]
    const int64_t* seed;
    const int* position;

    __device__ uint64_t key(int64_t b) const { return static_cast<uint64_t>(seed[b]); }
    __device__ unsigned at(int64_t b) const { return static_cast<unsigned>(position[b]); }
};

// One thread's part of a race, with what its warp knows of the best score. E is at least its random
// number u on either side, so a score is at most z - log u: only tokens with u <= exp(z - best) may
// win, and need logarithms.
struct Race {
    float most;
    Filter filter;
    uint64_t seed;
    unsigned position;
    Candidate best = sampling::kNobody;
    float reach = -INFINITY;

    __device__ Race(float most, Filter filter, uint64_t seed, unsigned position)
        : most(most), filter(filter), seed(seed), position(position) {}

    __device__ bool may_take_part(float logit) const {
        const float z = sampling::log_weight(logit, most, filter.temperature);
        return z > sampling::kCannotWin && expf(z) >= filter.min_p;
    }
    __device__ void enter(float logit, int token, unsigned bits) {
        const float z = sampling::log_weight(logit, most, filter.temperature);
        const float u = (float(bits) + 0.5f) * 0x1p-32f;
        if (u > expf(z - reach) * 1.0001f) return;
        best = sampling::Better()(best, {z - sampling::log_exponential(bits), token});
    }
    __device__ void enter(float logit, int token) {
        const uint4 bits = sampling::philox(unsigned(token) / 4, position, seed);
        const unsigned low = token & 1 ? bits.y : bits.x, high = token & 1 ? bits.w : bits.z;
        enter(logit, token, token & 2 ? high : low);
    }
    __device__ void share() {  // by all lanes of the warp
        const unsigned key = sampling::order_key(best.score);
        reach = sampling::of_order_key(__reduce_max_sync(0xffffffffu, key));
    }
};

// Kept tokens are few and far between in a warp: they queue up until every lane has one, because
// their weight and their noise cost the warp the same for one lane as for 32.
struct Queue {
    sampling::Listed* places;  // [kQueue] of this warp
    int length = 0;            // the same in all lanes

    __device__ void push(bool wants, float logit, int token) {
        const unsigned who = __ballot_sync(0xffffffffu, wants);
        const unsigned before = who & ((1u << threadIdx.x % 32) - 1);
        if (wants) places[length + __popc(before)] = {logit, token};
        length += __popc(who);
    }
    __device__ void run(Race& race, int at_least) {
        __syncwarp();  // what was pushed is there
        while (length >= at_least) {
            const int from = max(0, length - 32), at = from + int(threadIdx.x % 32);
            if (at < length && race.may_take_part(places[at].logit))
                race.enter(places[at].logit, places[at].token);
            length = from;
            race.share();
        }
        __syncwarp();  // before places are taken again
    }
};

__device__ inline void race_all(const sampling::Chunks& row, const sampling::Part& part,
                                Race& race) {
    sampling::for_chunks<sampling::kFewAhead>(row, part, -INFINITY, [&](int chunk, float4 x) {
        const int v = row.first_token(chunk);
        const uint4 bits = sampling::bits_of_four(v, race.position, race.seed);
        if (race.may_take_part(x.x)) race.enter(x.x, v, bits.x);
        if (race.may_take_part(x.y)) race.enter(x.y, v + 1, bits.y);
        if (race.may_take_part(x.z)) race.enter(x.z, v + 2, bits.z);
        if (race.may_take_part(x.w)) race.enter(x.w, v + 3, bits.w);
        race.share();
    });
}

__device__ inline void race_kept(const sampling::Chunks& row, const sampling::Part& part,
                                 sampling::RowState& state, Race& race) {
    SIMT_SHARED(sampling::Listed, places, [sampling::kPartThreads / 32][kQueue]);
    Queue queue{places[threadIdx.x / 32]};
    const sampling::Sieve sieve(state, race.filter);
    const sampling::Doubtful doubtful = sampling::gather_doubtful();
    const auto see = [&](float logit, int token) {
        const Fate fate = sieve.fate(logit);
        if (fate == Fate::in_doubt) doubtful.add(state, logit, token);
        queue.push(fate == Fate::kept, logit, token);
    };
    sampling::for_chunks<sampling::kFewAhead>(row, part, -INFINITY, [&](int chunk, float4 x) {
        const int v = row.first_token(chunk);
        see(x.x, v);
        see(x.y, v + 1);
        see(x.z, v + 2);
        see(x.w, v + 3);
        queue.run(race, 32);
    });
    queue.run(race, 1);
    doubtful.list_all(state);
}

// What choose_row asks for where the window does not serve: step 1.
struct Step1 {
    sampling::Rows logits;
    Filter filter;
    Draws draws;
    int64_t b;

    __device__ int token(float most) const {
        return sampling::draw_kept(logits.row(b), logits.vocabulary, most, filter, draws.key(b),
                                   draws.at(b));
    }
    __device__ void operator()(sampling::RowState& state, float most) const {
        sampling::settle_row(state, token(most));
    }
};

__global__ void __launch_bounds__(sampling::kBins, 1)
    choose(sampling::Rows logits, sampling::FilterRows filters, Draws draws, sampling::Work work) {
    const int64_t b = blockIdx.x;
    const Filter filter = filters.row(b);
    sampling::choose_row(logits, filter, work, /*exact_tail=*/false,
                         Step1{logits, filter, draws, b});
}

// The winner of the row: of its parts' races, and of the tokens in doubt that are kept.
__device__ inline int winner(const sampling::Work& work, sampling::RowState& state, Race& race,
                             int64_t b, bool counts) {
    race.best = sampling::kNobody;
    race.reach = -INFINITY;
    if (state.listed > 0)
        sampling::decide(state, race.filter, counts, [&](const sampling::Listed& token) {
            if (race.may_take_part(token.logit)) race.enter(token.logit, token.token);
        });
    for (int p = threadIdx.x; p < work.parts; p += blockDim.x)
        race.best = sampling::Better()(race.best, work.of_part[b * work.parts + p].best);
    return sampling::reduce_block(race.best, sampling::Better()).token;
}

__global__ void __launch_bounds__(sampling::kPartThreads, 2)
    collect(int* token, sampling::Rows logits, sampling::FilterRows filters, Draws draws,
            sampling::Work work) {
    const sampling::Chunks row(logits, blockIdx.x / work.parts);
    const sampling::Part part(work.parts, work.chunks_a_part, row.count());
    const int64_t b = part.row;
    sampling::RowState& state = work.of_row[b];
    if (state.plan == Plan::settled) {
        if (threadIdx.x == 0 && part.part == 0) token[b] = state.token;
        return;
    }
    const Filter filter = filters.row(b);
    Race race(state.most, filter, draws.key(b), draws.at(b));
    if (state.first == sampling::kAllBins)
        race_all(row, part, race);
    else
        race_kept(row, part, state, race);
    const Candidate best = sampling::reduce_block(race.best, sampling::Better());
    if (threadIdx.x == 0) work.of_part[blockIdx.x].best = best;

    if (!sampling::last_of_row(state, work.parts)) return;
    const bool counts = sampling::limits_count(filter, logits.vocabulary);
    const int drawn = state.listed > sampling::kMaxListed
                          ? Step1{logits, filter, draws, b}.token(state.most)
                          : winner(work, state, race, b, counts);
    if (threadIdx.x == 0) token[b] = drawn;
}

}  // namespace yaie::sample
