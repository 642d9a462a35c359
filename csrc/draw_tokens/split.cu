#include "draw_tokens/split.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void draw_tokens_split(View token, View work, View probs, View seed, View position,
                       StreamHandle stream) {
    Door door("draw_tokens");
    door.admit("probs", probs, {"B", "V"}, Kind::float32)
        .admit("seed", seed, {"B"}, Kind::int64)
        .admit("position", position, {"B"}, Kind::int32)
        .admit("token", token, {"B"}, Kind::int32)
        .admit("work", work, {"B", "parts", "2"}, Kind::int32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, probs);
    if (door["B"] == 0) return;
    const sampling::Shares shares = sampling::shares(door);
    auto* best_of_part = work.as<sampling::Candidate>();
    SIMT_LAUNCH((draw_tokens::split), shares.blocks, shares.threads, 0,
                static_cast<simt::Stream>(stream), token.as<int>(), best_of_part, rows,
                seed.as<int64_t>(), position.as<int>(), shares.parts, shares.chunks);
    if (shares.parts == 1) return;
    SIMT_LAUNCH_AFTER((sampling::fold_parts<32>), grid_x(door, door["B"]), 32, 0,
                      static_cast<simt::Stream>(stream), token.as<int>(), best_of_part,
                      shares.parts);
}

}  // namespace yaie
