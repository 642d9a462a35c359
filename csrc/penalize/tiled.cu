#include "penalize/tiled.cuh"

#include <algorithm>

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void penalize_tiled(View penalized, View logits, View prompt, View prompt_indptr, View output,
                    View output_indptr, View repetition, View frequency, View presence,
                    StreamHandle stream) {
    Door door("penalize");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("prompt", prompt, {"Np"}, Kind::int32)
        .admit("prompt_indptr", prompt_indptr, {"B+1"}, Kind::int32)
        .admit("output", output, {"No"}, Kind::int32)
        .admit("output_indptr", output_indptr, {"B+1"}, Kind::int32)
        .admit("repetition", repetition, {"B"}, Kind::float32)
        .admit("frequency", frequency, {"B"}, Kind::float32)
        .admit("presence", presence, {"B"}, Kind::float32)
        .admit("penalized", penalized, {"B", "V"}, Kind::float32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, logits);
    if (door["B"] == 0) return;
    const int64_t tiles = (door["V"] + penalize::kTile - 1) / penalize::kTile;
    const int64_t most = std::min<int64_t>(door["V"], penalize::kTiledThreads);
    SIMT_LAUNCH((penalize::tiled), grid_x(door, door["B"] * tiles), int((most + 31) / 32 * 32), 0,
                static_cast<simt::Stream>(stream), penalized.as<float>(), rows, prompt.as<int>(),
                prompt_indptr.as<int>(), output.as<int>(), output_indptr.as<int>(),
                repetition.as<float>(), frequency.as<float>(), presence.as<float>(),
                static_cast<int>(tiles));
}

}  // namespace yaie
