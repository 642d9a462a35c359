// draw_tokens, step 2: 16 bytes a load, several blocks a row where there are few rows, and the two
// logarithms of a score only for tokens that may win. What it won over step 1: docs/sampler.md.
//
// E is at least its random number u = (x + 1/2) / 2^32 on either side (-log1p(-u) >= u), so a score
// is at most log(p / u): a token whose p / u is below exp(the best score so far) has lost.
#pragma once

#include "common/sampling_parts.cuh"

namespace yaie::draw_tokens {

struct Race {
    sampling::Candidate best = sampling::kNobody;
    float reach = 0.0f;  // exp(the best score of the warp), a little less

    __device__ void enter(float p, int token, unsigned bits) {
        const float u = (float(bits) + 0.5f) * 0x1p-32f;
        if (!(p > reach * u)) return;  // nor does p = 0 take part
        const float score = logf(p) - sampling::log_exponential(bits);
        best = sampling::Better()(best, {score, token});
    }
    __device__ void share() {
        const float own = fminf(expf(best.score) * 0.9999f, 3e38f);
        const float known = own < 1e-25f ? 0.0f : own;  // where it would be subnormal: all may win
        const unsigned most = __reduce_max_sync(0xffffffffu, __float_as_uint(known));
        reach = __uint_as_float(most);  // floats from 0 on are ordered as their bits
    }
};

__global__ void __launch_bounds__(sampling::kPartThreads, 2)
    split(int* token, sampling::Candidate* best_of_part, sampling::Rows probs, const int64_t* seed,
          const int* position, int parts, int chunks_a_part) {
    simt::let_launch_after_start();
    const int64_t b = blockIdx.x / parts;
    const sampling::Chunks row(probs, b);
    const sampling::Part part(parts, chunks_a_part, row.count());
    Race race;
    sampling::for_chunks<sampling::kFewAhead>(row, part, 0.0f, [&](int chunk, float4 p) {
        if (fmaxf(fmaxf(p.x, p.y), fmaxf(p.z, p.w)) > 0.0f) {
            const int v = row.first_token(chunk);
            const uint4 bits = sampling::bits_of_four(v, static_cast<unsigned>(position[b]),
                                                      static_cast<uint64_t>(seed[b]));
            race.enter(p.x, v, bits.x);
            race.enter(p.y, v + 1, bits.y);
            race.enter(p.z, v + 2, bits.z);
            race.enter(p.w, v + 3, bits.w);
        }
        race.share();
    });
    const sampling::Candidate best = sampling::reduce_block(race.best, sampling::Better());
    sampling::settle_part(token, best_of_part, parts, best);
}

}  // namespace yaie::draw_tokens
