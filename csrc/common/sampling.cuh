// What the sampling kernels share: rows of logits, reductions over a block, the noise of a draw, and
// the threshold that top_k, top_p and min_p amount to. A block works on one row (or a part of it,
// sampling_parts.cuh).
#pragma once

#include <math.h>

#include "simt/simt.h"

namespace yaie::sampling {

constexpr int kThreads = 256;  // most threads of a block that works on a whole row

struct Rows {  // float32 [B,V]; rows may lie apart
    const float* data;
    int64_t stride;
    int vocabulary;

    __device__ const float* row(int64_t b) const { return data + b * stride; }
};

// ---- Reductions over a block ------------------------------------------------------------------

struct Candidate {
    float score;
    int token;  // of equals the lowest wins
};

constexpr Candidate kNobody = {-INFINITY, 0x7fffffff};

struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct Sum {
    template <class T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};
struct Better {
    __device__ Candidate operator()(Candidate a, Candidate b) const {
        return b.score > a.score || (b.score == a.score && b.token < a.token) ? b : a;
    }
};

template <class T>
__device__ T from_lane(T x, int mask) {
    return __shfl_xor_sync(0xffffffffu, x, mask);
}
__device__ inline Candidate from_lane(Candidate x, int mask) {
    return {__shfl_xor_sync(0xffffffffu, x.score, mask),
            __shfl_xor_sync(0xffffffffu, x.token, mask)};
}

// One value a thread to one value, the same in every thread: within each warp, then the first warp
// over all of them. The order of a sum is that of lanes and warps, so the same row gives the same bits
// whatever lies beside it.
template <class T, class Combine>
__device__ T reduce_block(T x, Combine combine) {
    SIMT_SHARED(T, of_warp, [32]);
    SIMT_SHARED(T, of_block, );
    const int warps = blockDim.x / 32, lane = threadIdx.x % 32;
    for (int step = 16; step > 0; step /= 2) x = combine(x, from_lane(x, step));
    if (lane == 0) of_warp[threadIdx.x / 32] = x;
    __syncthreads();  // of_warp is there, and of_block may be written again
    if (threadIdx.x < 32) {
        x = of_warp[min(lane, warps - 1)];
        for (int step = 16; step > 0; step /= 2) {
            const T other = from_lane(x, step);
            if ((lane ^ step) < warps) x = combine(x, other);  // so lane 0 meets each warp once
        }
        if (lane == 0) of_block = x;
    }
    __syncthreads();  // of_block is there, and of_warp may be written again
    return of_block;
}

// ---- A row ------------------------------------------------------------------------------------

// Largest logit; infinite where the row is invalid (a NaN or +inf in it, or nothing above -inf).
__device__ inline float largest(const float* logits, int vocabulary) {
    float most = -INFINITY;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x)
        most = fmaxf(most, logits[v] != logits[v] ? INFINITY : logits[v]);  // fmaxf drops NaN
    return reduce_block(most, Max());
}

// The first token of the largest logit.
__device__ inline int first_largest(const float* logits, int vocabulary) {
    Candidate best = kNobody;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x)
        best = Better()(best, {logits[v], v});
    return reduce_block(best, Better()).token;
}

// Orders floats as their keys: the sign bit decides which way the others count. Adding 0 makes one
// zero of both.
__device__ inline unsigned order_key(float x) {
    const unsigned bits = __float_as_uint(x + 0.0f);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}
__device__ inline float of_order_key(unsigned key) {
    return __uint_as_float(key >> 31 ? key & 0x7fffffffu : ~key);
}

// ---- The filter -------------------------------------------------------------------------------

struct Filter {
    float temperature;
    int top_k;
    float top_p, min_p;
};

struct FilterRows {  // the parameters of all rows, [B] each
    const float* temperature;
    const int* top_k;
    const float *top_p, *min_p;

    __device__ Filter row(int64_t b) const {
        return {temperature[b], top_k[b], top_p[b], min_p[b]};
    }
};

// (l - most) / T, at most 0: the logarithm of a token's weight. The difference comes first: l / T
// alone would lose what tells neighbours apart. A division, because 1 / T overflows for the smallest
// temperatures. Where T is above 1, all three are halved: logits of both signs may differ by more
// than the largest float, and a T as large still tells them apart.
struct LogWeight {
    float scale, most, temperature;

    __device__ LogWeight(float most, float temperature)
        : scale(temperature > 1.0f ? 0.5f : 1.0f),
          most(most * scale),
          temperature(temperature * scale) {}
    __device__ float operator()(float logit) const { return (logit * scale - most) / temperature; }
};

// The key of the k-th largest logit, bit by bit from above: a bit stays if k keys reach that far.
__device__ inline unsigned top_k_threshold(const float* logits, int vocabulary, int k) {
    if (k >= vocabulary) return 0;
    unsigned threshold = 0;
    for (unsigned bit = 1u << 31; bit != 0; bit >>= 1) {
        int reached = 0;
        for (int v = threadIdx.x; v < vocabulary; v += blockDim.x)
            reached += order_key(logits[v]) >= (threshold | bit);
        if (reduce_block(reached, Sum()) >= k) threshold |= bit;
    }
    return threshold;
}

// Weights are summed as integers, so that a sum is the same in any order: however many threads
// there are, they decide alike. Fewer than 2^24 weights of 1 fit.
constexpr double kWeightUnit = 0x1p40;

__device__ inline unsigned long long in_weight_units(float weight) {
    return static_cast<unsigned long long>(double(weight) * kWeightUnit);
}

// Weight of the tokens from `least` on whose keys are above `key`.
__device__ inline double weight_above(const float* logits, int vocabulary, LogWeight log_weight,
                                      unsigned least, unsigned key) {
    unsigned long long sum = 0;
    for (int v = threadIdx.x; v < vocabulary; v += blockDim.x) {
        const unsigned own = order_key(logits[v]);
        if (own >= least && own > key) sum += in_weight_units(expf(log_weight(logits[v])));
    }
    return double(reduce_block(sum, Sum())) / kWeightUnit;
}

// The lowest key that is kept. Of the keys that have at least top_p of the weight above them the
// largest is dropped and all beyond it stay, so equals stand or fall together; found bit by bit as
// above. The argmax has nothing above it: it always stays.
__device__ inline unsigned top_p_threshold(const float* logits, int vocabulary,
                                           LogWeight log_weight, float top_p, unsigned least) {
    if (top_p >= 1.0f) return least;
    const double enough = top_p * weight_above(logits, vocabulary, log_weight, least, 0);
    unsigned dropped = 0;
    for (unsigned bit = 1u << 31; bit != 0; bit >>= 1)
        if (weight_above(logits, vocabulary, log_weight, least, dropped | bit) >= enough)
            dropped |= bit;
    return max(least, dropped + 1);
}

// What a filter keeps of a valid row at a temperature above 0.
struct Kept {
    const float* logits;
    LogWeight log_weight;
    float min_p;
    unsigned least;

    __device__ Kept(const float* logits, int vocabulary, float most, Filter filter)
        : logits(logits), log_weight(most, filter.temperature), min_p(filter.min_p) {
        const unsigned from = top_k_threshold(logits, vocabulary, filter.top_k);
        least = top_p_threshold(logits, vocabulary, log_weight, filter.top_p, from);
    }

    // The weight of a token, 0 if it is dropped.
    __device__ float weight(int v) const {
        if (order_key(logits[v]) < least) return 0.0f;
        const float own = expf(log_weight(logits[v]));
        return own >= min_p ? own : 0.0f;
    }
};

// ---- The noise --------------------------------------------------------------------------------

// Philox4x32-10 (Salmon et al., SC 2011) at counter (block, position, 0, 0) and key (seed).
__device__ inline uint4 philox(unsigned block, unsigned position, uint64_t seed) {
    uint4 c = make_uint4(block, position, 0, 0);
    unsigned low = static_cast<unsigned>(seed), high = static_cast<unsigned>(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        const unsigned a = 0xD2511F53u * c.x, b = 0xCD9E8D57u * c.z;
        c = make_uint4(__umulhi(0xCD9E8D57u, c.z) ^ c.y ^ low, b,
                       __umulhi(0xD2511F53u, c.x) ^ c.w ^ high, a);
        low += 0x9E3779B9u;
        high += 0xBB67AE85u;
    }
    return c;
}

// log E of an Exp(1) variate from 32 random bits. On either side the small number is the exact one:
// near 0 it is the argument of log1pf, far out that of logf, so E is never 0 and never infinite.
// __logf is no good here: it is off by 2^-21 near 1, where log1pf(-u) is 2^-33.
__device__ inline float log_exponential(unsigned x) {
    const float low = (float(x) + 0.5f) * 0x1p-32f;
    const float high = (float(~x) + 0.5f) * 0x1p-32f;
    return logf(x < 0x80000000u ? -log1pf(-low) : -logf(high));
}

// The best score of a race: `log_p(v)` is -INFINITY for who does not take part. A thread takes four
// tokens at a time, which share one Philox block.
template <class LogP>
__device__ Candidate race(int vocabulary, uint64_t seed, unsigned position, LogP log_p) {
    Candidate best = kNobody;
    const int blocks = vocabulary / 4 + (vocabulary % 4 != 0);
    for (int block = threadIdx.x; block < blocks; block += blockDim.x) {
        const uint4 bits = philox(block, position, seed);
        const unsigned of_token[4] = {bits.x, bits.y, bits.z, bits.w};
        for (int i = 0; i < 4 && block * 4 + i < vocabulary; ++i) {
            const float log_weight = log_p(block * 4 + i);
            if (log_weight > -INFINITY)
                best = Better()(best, {log_weight - log_exponential(of_token[i]), block * 4 + i});
        }
    }
    return reduce_block(best, Better());
}

// The token that is drawn of what a filter keeps of a valid row. The race takes logarithms of
// weights, which need no sum: all scores of a row would move by the same amount.
__device__ inline int draw_kept(const float* logits, int vocabulary, float most, Filter filter,
                                uint64_t seed, unsigned position) {
    const Kept kept(logits, vocabulary, most, filter);
    const auto log_p = [&](int v) {
        const bool takes_part = kept.weight(v) > 0.0f;
        return takes_part ? kept.log_weight(logits[v]) : -INFINITY;
    };
    return race(vocabulary, seed, position, log_p).token;  // the argmax takes part: there is one
}

// ---- Launching --------------------------------------------------------------------------------

// Threads for a row: whole warps, and none without a token.
inline int threads_for(int64_t vocabulary) {
    return vocabulary >= kThreads ? kThreads : static_cast<int>((vocabulary + 31) / 32 * 32);
}

}  // namespace yaie::sampling
