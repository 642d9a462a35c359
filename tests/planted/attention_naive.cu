#include "attention.h"
#include "paged_attention/naive.cuh"

static void launch() {
    Batch batch;
    SIMT_LAUNCH(yaie::paged_attention::naive<float>, Batch::kTokens * Batch::kHeads, 64,
                2 * Batch::kDim * sizeof(float), nullptr, batch.out.data(), batch.lse.data(),
                batch.q.data(), Batch::kHeads * Batch::kDim, Batch::kDim, Batch::kHeads,
                batch.paged(), batch.options());
    batch.check_results();
}

int main() { return run(launch); }
