// penalize, step 1: one block a row. It copies the row, then changes the logits of the tokens that
// stand in the request.
//
// A token may stand there often, but its logit must change once: by the thread that has the first of
// its occurrences. That thread looks for an earlier one, and counts the later ones. N^2 / 2 reads of
// tokens for N of them, no counters in memory, no atomics.
#pragma once

#include "common/sampling.cuh"

namespace yaie::penalize {

struct Packed {  // int32 tokens of all rows
    const int *tokens, *indptr;
};

struct Request {  // the tokens of one row: the prompt's, then the output's
    const int *prompt, *output;
    int prompt_tokens, all_tokens;

    __device__ Request(Packed prompts, Packed outputs, int64_t b)
        : prompt(prompts.tokens + prompts.indptr[b]),
          output(outputs.tokens + outputs.indptr[b]),
          prompt_tokens(prompts.indptr[b + 1] - prompts.indptr[b]),
          all_tokens(prompt_tokens + outputs.indptr[b + 1] - outputs.indptr[b]) {}

    __device__ int operator[](int i) const {
        return i < prompt_tokens ? prompt[i] : output[i - prompt_tokens];
    }
    __device__ bool occurs_before(int i) const {
        for (int j = 0; j < i; ++j)
            if ((*this)[j] == (*this)[i]) return true;
        return false;
    }
    __device__ int count_in_output(int token) const {
        int count = 0;
        for (int i = prompt_tokens; i < all_tokens; ++i) count += (*this)[i] == token;
        return count;
    }
};

struct Penalties {
    const float *repetition, *frequency, *presence;
};

__global__ void __launch_bounds__(sampling::kThreads)
    naive(float* penalized, sampling::Rows logits, Packed prompts, Packed outputs,
          Penalties penalties) {
    const int64_t b = blockIdx.x;
    const float* row = logits.row(b);
    float* result = penalized + b * logits.vocabulary;
    for (int v = threadIdx.x; v < logits.vocabulary; v += blockDim.x) result[v] = row[v];

    const float repetition = penalties.repetition[b];
    const float frequency = penalties.frequency[b], presence = penalties.presence[b];
    // Arithmetic would not keep the payload of a NaN.
    if (repetition == 1.0f && frequency == 0.0f && presence == 0.0f) return;
    __syncthreads();  // the copy stands before it is changed

    const Request request(prompts, outputs, b);
    for (int i = threadIdx.x; i < request.all_tokens; i += blockDim.x) {
        if (request.occurs_before(i)) continue;
        const int token = request[i], count = request.count_in_output(token);
        float logit = row[token];
        logit = logit > 0.0f ? logit / repetition : logit * repetition;
        logit -= frequency * float(count);
        if (count > 0) logit -= presence;
        result[token] = logit;
    }
}

}  // namespace yaie::penalize
