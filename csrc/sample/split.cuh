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

constexpr int kQueue = 31 + sampling::kFewAhead * 32;  // what is left of a warp's, and a batch

struct Draws {  // [B]
    const int64_t* seed;
    const int* position;

    __device__ uint64_t key(int64_t b) const { return static_cast<uint64_t>(seed[b]); }
    __device__ unsigned at(int64_t b) const { return static_cast<unsigned>(position[b]); }
};

// One thread's part of a race. A score is log(w / E), of a weight w and of noise E that lies between
// u and u / (1 - u), for its random number u: so w (1 - u) / u of one token says which others may win
// at all, and only these need logarithms. kSlack covers how both are rounded; near u = 1, where 1 - u
// keeps few bits, the upper bound is far off anyway.
struct Race {
    static constexpr float kSlack = 1.0001f;
    Filter filter;
    sampling::LogWeight log_weight;
    uint64_t seed;
    unsigned position;
    Candidate best = sampling::kNobody;
    float reach = 0.0f;  // w / E of the winner is at least that, as far as the warp knows

    __device__ Race(float most, Filter filter, uint64_t seed, unsigned position)
        : filter(filter), log_weight(most, filter.temperature), seed(seed), position(position) {}

    __device__ static float number(unsigned bits) { return (float(bits) + 0.5f) * 0x1p-32f; }

    // 0: the token does not take part.
    __device__ float weight(float logit) const {
        const float z = log_weight(logit), w = expf(z);
        return z > sampling::kCannotWin && w >= filter.min_p ? w : 0.0f;
    }
    __device__ static float surely_reaches(float weight, unsigned bits) {
        const float u = number(bits);
        return weight * (1.0f - u) / (u * kSlack);
    }
    __device__ bool may_win(float weight, unsigned bits) const {
        return weight > 0.0f && weight * kSlack >= reach * number(bits);
    }
    __device__ void enter(float logit, int token, unsigned bits) {
        const float score = log_weight(logit) - sampling::log_exponential(bits);
        best = sampling::Better()(best, {score, token});
    }
    // By all lanes of the warp.
    __device__ void raise(float to) {
        const unsigned all = __reduce_max_sync(0xffffffffu, __float_as_uint(fmaxf(reach, to)));
        reach = __uint_as_float(all);  // floats from 0 on are ordered as their bits
    }
};

__device__ inline float element(float4 x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}
__device__ inline unsigned element(uint4 x, int i) {
    return i == 0 ? x.x : i == 1 ? x.y : i == 2 ? x.z : x.w;
}

// A lower bound of the logits that matter to a row, a little too low: those that may be drawn, or are
// in doubt. The latter also where min_p drops them, since top_p counts them before. It may be -inf.
__device__ inline float lowest_of(const sampling::RowState& state, const Filter& filter) {
    const float T = filter.temperature;
    if (state.first != sampling::kAllBins)
        return float(state.top - state.last - 2) * (T / sampling::kBinsPerUnit);
    const float reach = T * fmaxf(sampling::kCannotWin, logf(filter.min_p));
    return state.most + reach - 0x1p-20f * (fabsf(state.most) + T - reach);
}

// Chunks with a token that may be drawn are few and far between in a warp: they queue up until every
// lane has one, because noise and weights cost the warp the same for one lane as for 32.
struct Queue {
    int* chunks;     // [kQueue] of this warp
    int length = 0;  // the same in all lanes

    __device__ void push(bool wants, int chunk) {
        const unsigned who = __ballot_sync(0xffffffffu, wants);
        if (wants) chunks[length + __popc(who & ((1u << threadIdx.x % 32) - 1))] = chunk;
        length += __popc(who);
    }
    // The last ones, one a lane; `none` where there are less.
    __device__ int pop(int none) {
        __syncwarp();  // what was pushed is there
        const int from = max(0, length - 32), at = from + int(threadIdx.x % 32);
        const int chunk = at < length ? chunks[at] : none;
        length = from;
        __syncwarp();  // before places are taken again
        return chunk;
    }
};

// What a part's warps do with the chunks that they queued. The instructions stand here once, and those
// that few tokens need once for all four: a copy each would be more than a multiprocessor keeps.
struct Runner {
    sampling::Chunks row;
    sampling::RowState& state;
    sampling::Sieve sieve;
    sampling::Doubtful doubtful;

    __device__ void run(Race& race, int chunk, bool is_there) const {
        const float4 x = is_there ? row.load(chunk, -INFINITY) : sampling::four(-INFINITY);
        const int v = row.first_token(chunk);
        const uint4 bits = sampling::bits_of_four(v, race.position, race.seed);
        float weight[4], reach = 0.0f;
        unsigned in_doubt = 0, may_win = 0;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Fate fate = sieve.fate(element(x, i));
            in_doubt |= unsigned(fate == Fate::in_doubt) << i;
            weight[i] = fate == Fate::kept ? race.weight(element(x, i)) : 0.0f;
            reach = fmaxf(reach, race.surely_reaches(weight[i], element(bits, i)));
        }
        race.raise(reach);
#pragma unroll
        for (int i = 0; i < 4; ++i)
            may_win |= unsigned(race.may_win(weight[i], element(bits, i))) << i;
#pragma unroll 1
        for (; may_win; may_win &= may_win - 1) {
            const int i = __ffs(may_win) - 1;
            race.enter(element(x, i), v + i, element(bits, i));
        }
#pragma unroll 1
        for (; in_doubt; in_doubt &= in_doubt - 1) {
            const int i = __ffs(in_doubt) - 1;
            doubtful.add(state, element(x, i), v + i);
        }
        __syncwarp();  // else lanes that differed here go on one after the other
    }
};

__device__ inline void race_part(const sampling::Chunks& row, const sampling::Part& part,
                                 sampling::RowState& state, Race& race) {
    SIMT_SHARED(int, chunks, [sampling::kPartThreads / 32][kQueue]);
    Queue queue{chunks[threadIdx.x / 32]};
    const float lowest = lowest_of(state, race.filter);
    const Runner runner{row, state, sampling::Sieve(state, race.filter),
                        sampling::gather_doubtful()};
    const int step = sampling::kFewAhead * blockDim.x;
    for (int from = part.first; from < part.last; from += step) {
        const sampling::Batch<sampling::kFewAhead> batch(row, part, from, -INFINITY);
        // The last chunk first: what is pushed last is then there in short rows, too, so that each
        // test of one shows whether pop waits for it.
#pragma unroll
        for (int i = sampling::kFewAhead - 1; i >= 0; --i) {
            const float4 x = batch.ahead[i];
            const float most = fmaxf(fmaxf(x.x, x.y), fmaxf(x.z, x.w));
            queue.push(batch.chunk(i) < part.last && most >= lowest, batch.chunk(i));
        }
        const int enough = from + step < part.last ? 32 : 1;
        while (queue.length >= enough) {
            const int chunk = queue.pop(-1);
            runner.run(race, chunk, chunk >= 0);
        }
    }
    runner.doubtful.list_all(state);
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
    simt::await_launch_before();
    simt::let_launch_after_start();
    const int64_t b = blockIdx.x;
    const Filter filter = filters.row(b);
    sampling::choose_row(logits, filter, work, /*exact_tail=*/false,
                         Step1{logits, filter, draws, b});
}

// The winner of the row: of its parts' races, and of the tokens in doubt that are kept. Which are is
// only worth finding out if one of them may win.
__device__ inline int winner(Candidate best, sampling::RowState& state, Race& race, bool counts) {
    race.best = best;
    race.reach = expf(best.score) / Race::kSlack;
    const auto enter = [&](const sampling::Listed& one) {
        const uint4 four = sampling::philox(unsigned(one.token) / 4, race.position, race.seed);
        const unsigned bits = element(four, one.token % 4);
        if (race.may_win(race.weight(one.logit), bits)) race.enter(one.logit, one.token, bits);
    };
    for (int i = threadIdx.x; i < state.listed; i += blockDim.x) enter(state.list[i]);
    if (!__syncthreads_or(race.best.token != best.token)) return best.token;
    race.best = best;
    sampling::decide(state, race.filter, counts, enter);
    return sampling::reduce_block(race.best, sampling::Better()).token;
}

__global__ void __launch_bounds__(sampling::kPartThreads, 2)
    collect(int* token, sampling::Rows logits, sampling::FilterRows filters, Draws draws,
            sampling::RowState* of_row, sampling::Found<Candidate> found) {
    simt::await_launch_before();
    const sampling::Chunks row(logits, blockIdx.x / found.parts);
    const sampling::Part part(found.parts, found.chunks_a_part, row.count());
    const int64_t b = part.row;
    sampling::RowState& state = of_row[b];
    if (state.plan == Plan::settled) {
        if (threadIdx.x == 0 && part.part == 0) token[b] = state.token;
        return;
    }
    const Filter filter = filters.row(b);
    Race race(state.most, filter, draws.key(b), draws.at(b));
    race_part(row, part, state, race);
    const Candidate best = sampling::reduce_block(race.best, sampling::Better());
    if (threadIdx.x == 0) found.of_part[blockIdx.x] = best;

    if (!sampling::last_of_row(state, found.parts)) return;
    const bool counts = sampling::limits_count(filter, logits.vocabulary);
    const int drawn =
        state.listed > sampling::kMaxListed
            ? Step1{logits, filter, draws, b}.token(state.most)
            : winner(found.of_row(b, sampling::kNobody, sampling::Better()), state, race, counts);
    if (threadIdx.x == 0) token[b] = drawn;
}

}  // namespace yaie::sample
