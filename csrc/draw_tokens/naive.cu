#include "draw_tokens/naive.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void draw_tokens_naive(View token, View probs, View seed, View position, StreamHandle stream) {
    Door door("draw_tokens");
    door.admit("probs", probs, {"B", "V"}, Kind::float32)
        .admit("seed", seed, {"B"}, Kind::int64)
        .admit("position", position, {"B"}, Kind::int32)
        .admit("token", token, {"B"}, Kind::int32);
    const sampling::Rows rows = sampling::rows(door, probs);
    if (door["B"] == 0) return;
    SIMT_LAUNCH((draw_tokens::naive), grid_x(door, door["B"]), sampling::threads_for(door["V"]), 0,
                static_cast<simt::Stream>(stream), token.as<int>(), rows, seed.as<int64_t>(),
                position.as<int>());
}

}  // namespace yaie
