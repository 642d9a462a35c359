// Two splits, then the merge.
#include "attention.h"
#include "paged_attention/split_kv.cuh"

static void launch() {
    using namespace yaie::paged_attention;
    Batch batch;
    const int splits = 2, results = Batch::kTokens * Batch::kHeads;
    Tensor<float> partial_out("partial_out", {splits, results, Batch::kDim}, {},
                              simt::Role::workspace);
    Tensor<float> partial_lse("partial_lse", {splits, results}, {}, simt::Role::workspace);
    SplitParams p{};
    p.q = batch.q.data();
    p.q_stride = Batch::kHeads * Batch::kDim;
    p.q_head_stride = Batch::kDim;
    p.heads = Batch::kHeads;
    p.splits = splits;
    p.out = batch.out.data();
    p.lse = batch.lse.data();
    p.partial_out = partial_out.data();
    p.partial_lse = partial_lse.data();
    p.rows = Batch::kTokens;
    p.wide_loads = true;
    SIMT_LAUNCH((split_kv<float, 8, 4>), dim3(Batch::kTokens * Batch::kKvHeads, splits), 64, 0,
                nullptr, p, batch.paged(), batch.options());
    SIMT_LAUNCH(merge_splits<float>, results, 32, 0, nullptr, batch.out.data(), batch.lse.data(),
                partial_out.data(), partial_lse.data(), results, splits, Batch::kDim);
    batch.check_results();
}

int main() { return run(launch); }
