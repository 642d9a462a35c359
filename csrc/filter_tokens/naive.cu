#include "filter_tokens/naive.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void filter_tokens_naive(View probs, View logits, View temperature, View top_k, View top_p,
                         View min_p, StreamHandle stream) {
    Door door("filter_tokens");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("probs", probs, {"B", "V"}, Kind::float32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, logits);
    const auto filters = sampling::filter_rows(door, {temperature, top_k, top_p, min_p});
    if (door["B"] == 0) return;
    SIMT_LAUNCH((filter_tokens::naive), grid_x(door, door["B"]), sampling::threads_for(door["V"]),
                0, static_cast<simt::Stream>(stream), probs.as<float>(), rows, filters);
}

}  // namespace yaie
