#include "rope/naive.cuh"

#include "common/dispatch.h"
#include "common/kernels.h"
#include "common/rope.h"

namespace yaie {

void rope_naive(View y, View x, View positions, View cos_sin, bool interleaved,
                StreamHandle stream) {
    Door door("rope");
    door.admit("x", x, {"T", "H", "D"}, Kind::floating)
        .admit("y", y, {"T", "H", "D"}, Kind::floating, Layout::contiguous);
    const rotary::Table table = rotary::admit(door, positions, cos_sin, interleaved);
    if (y.size() == 0) return;
    YAIE_FLOAT_SWITCH(
        x.dtype, T,
        SIMT_LAUNCH((rope::naive<T>), grid_x(door, (y.size() + 255) / 256), 256, 0,
                    static_cast<simt::Stream>(stream), heads(x), y.as<T>(), table, y.size()));
}

}  // namespace yaie
