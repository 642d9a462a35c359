#include "sample/naive.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void sample_naive(View token, View logits, View temperature, View top_k, View top_p, View min_p,
                  View seed, View position, StreamHandle stream) {
    Door door("sample");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("seed", seed, {"B"}, Kind::int64)
        .admit("position", position, {"B"}, Kind::int32)
        .admit("token", token, {"B"}, Kind::int32);
    const sampling::Rows rows = sampling::rows(door, logits);
    const auto filters = sampling::filter_rows(door, {temperature, top_k, top_p, min_p});
    if (door["B"] == 0) return;
    SIMT_LAUNCH((sample::naive), grid_x(door, door["B"]), sampling::threads_for(door["V"]), 0,
                static_cast<simt::Stream>(stream), token.as<int>(), rows, filters,
                seed.as<int64_t>(), position.as<int>());
}

}  // namespace yaie
