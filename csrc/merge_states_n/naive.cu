#include "merge_states_n/naive.cuh"

#include "common/dispatch.h"
#include "merge_states_n/launch.h"

namespace yaie {

void merge_states_n_naive(View out, View lse, View states, View lses, StreamHandle stream) {
    Door door("merge_states_n");
    const merge_states_n::States all = merge_states_n::admit(door, out, lse, states, lses);
    if (out.size() == 0) return;
    YAIE_FLOAT_SWITCH(
        out.dtype, T,
        SIMT_LAUNCH((merge_states_n::naive<T>), grid_x(door, (out.size() + 255) / 256), 256, 0,
                    static_cast<simt::Stream>(stream), all, out.as<T>(), lse.as<float>(),
                    out.size()));
}

}  // namespace yaie
