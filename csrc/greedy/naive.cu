#include "greedy/naive.cuh"

#include "common/check.h"
#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void greedy_naive(View token, View logits, StreamHandle stream) {
    Door door("greedy");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("token", token, {"B"}, Kind::int32);
    const sampling::Rows rows = sampling::rows(door, logits);
    if (door["B"] == 0) return;
    SIMT_LAUNCH((greedy::naive), grid_x(door, door["B"]), sampling::threads_for(door["V"]), 0,
                static_cast<simt::Stream>(stream), token.as<int>(), rows);
}

}  // namespace yaie
