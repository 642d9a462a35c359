// Six tiles for two blocks: the first ends a unit and begins one that the second ends. Heads of 40 in
// tiles of 64 columns.
#include "attention.h"
#include "paged_attention/mma_decode.cuh"

static void launch() {
    using namespace yaie::paged_attention;
    using Tile = DecodeTile<__half, 64>;
    using HalfBatch = BatchOf<__half, 40>;
    HalfBatch batch;
    const int blocks = 2;
    Tensor<float> part_out("part_out", {2 * blocks, 16, HalfBatch::kDim}, {},
                           simt::Role::workspace);
    Tensor<float> part_lse("part_lse", {2 * blocks, 16}, {}, simt::Role::workspace);
    Tensor<int> begun("begun", {blocks, 5}, {}, simt::Role::workspace);
    const DecodeParams p{batch.q.data(),
                         HalfBatch::kHeads * HalfBatch::kDim,
                         HalfBatch::kDim,
                         HalfBatch::kHeads,
                         2,
                         false,
                         batch.out.data(),
                         batch.lse.data(),
                         part_out.data(),
                         part_lse.data(),
                         begun.data()};
    SIMT_LAUNCH(mma_decode<Tile>, blocks, Tile::kThreads, Tile::kSharedBytes, nullptr, p,
                batch.paged(), batch.options());
    SIMT_LAUNCH(merge_pieces<__half>, dim3(blocks, 2), 32 * kMergeWarps, 0, nullptr, p,
                HalfBatch::kDim);
    batch.check_results();
}

int main() { return run(launch); }
