// A paged batch of two sequences: 70 keys and 1 in pages of 8, grouped heads.
#pragma once

#include "planted.h"

#include "common/attention.cuh"

// Say Batch::kDim, not batch.kDim: nvcc 13.0 hands {a, b, batch.kDim} to the host compiler as
// {((a), (b), (batch.kDim))}, a list of one.
template <class T, int dim>
struct BatchOf {
    static constexpr int kTokens = 3, kHeads = 4, kKvHeads = 2, kDim = dim, kPage = 8, kPages = 10;
    Tensor<T> q{"q", {kTokens, kHeads, kDim}, {}, simt::Role::input};
    Tensor<T> k{"k_cache", {kPages, kPage, kKvHeads, kDim}, {}, simt::Role::input};
    Tensor<T> v{"v_cache", {kPages, kPage, kKvHeads, kDim}, {}, simt::Role::input};
    Tensor<int> table{"block_table", {2, 9}, {11, 1}, simt::Role::input};
    Tensor<int> lens{"kv_lens", {2}, {}, simt::Role::input};
    Tensor<int> indptr{"q_indptr", {3}, {}, simt::Role::input};
    Tensor<T> out{"out", {kTokens, kHeads, kDim}, {}, simt::Role::result};
    Tensor<float> lse{"lse", {kTokens, kHeads}, {}, simt::Role::result};

    BatchOf() {
        for (int i = 0; i < kTokens * kHeads * kDim; ++i)
            q.values()[i] = simt::from_float<T>(float(i % 5) - 2);
        for (int i = 0; i < kPages * kPage * kKvHeads * kDim; ++i)
            k.values()[i] = v.values()[i] = simt::from_float<T>(float(i % 7) - 3);
        for (int i = 0; i < 9; ++i) table.values()[i] = i;
        table.values()[11] = 9;
        lens.values()[0] = 70;
        lens.values()[1] = 1;
        indptr.values()[1] = 2;
        indptr.values()[2] = 3;
    }
    yaie::attention::Paged paged() {
        return {k.data(), v.data(), table.data(), lens.data(), indptr.data(), 11,
                2,        kPage,    kKvHeads,     kDim,        kDim};
    }
    yaie::attention::Options options() { return {0.25f, 0.0f, -1, 0}; }
    void check_results() {
        out.check_result();
        lse.check_result();
    }
};
using Batch = BatchOf<float, 16>;
