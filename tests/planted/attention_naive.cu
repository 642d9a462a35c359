#include "attention.h"
#include "paged_attention/naive.cuh"

static void launch() {
    Batch batch;
    SIMT_LAUNCH(yaie::paged_attention::naive<float>, batch.kTokens * batch.kHeads, 64,
                2 * batch.kDim * sizeof(float), nullptr, batch.out.data(), batch.lse.data(),
                batch.q.data(), batch.kHeads * batch.kDim, batch.kDim, batch.kHeads, batch.paged(),
                batch.options());
    batch.check_results();
}

int main() { return run(launch); }
