#include "greedy/split.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void greedy_split(View token, View work, View logits, StreamHandle stream) {
    Door door("greedy");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("token", token, {"B"}, Kind::int32)
        .admit("work", work, {"B", "parts", "2"}, Kind::int32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, logits);
    if (door["B"] == 0) return;
    const sampling::Shares shares = sampling::shares(door);
    auto* best_of_part = work.as<sampling::Candidate>();
    SIMT_LAUNCH((greedy::split), shares.blocks, shares.threads, 0,
                static_cast<simt::Stream>(stream), token.as<int>(), best_of_part, rows,
                shares.parts, shares.chunks);
    if (shares.parts == 1) return;
    SIMT_LAUNCH_AFTER((sampling::fold_parts<32>), grid_x(door, door["B"]), 32, 0,
                      static_cast<simt::Stream>(stream), token.as<int>(), best_of_part,
                      shares.parts);
}

}  // namespace yaie
