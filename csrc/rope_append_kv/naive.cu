#include "rope_append_kv/naive.cuh"

#include "common/dispatch.h"
#include "rope_append_kv/launch.h"

namespace yaie {

void rope_append_kv_naive(View q_out, View k_cache, View v_cache, const Appended& in,
                          bool interleaved, StreamHandle stream) {
    Door door("rope_append_kv");
    const rotary::Table table =
        rope_append_kv::check(door, q_out, in, k_cache, v_cache, interleaved);
    const int64_t elements = in.q.size() + in.k.size() + in.v.size();
    if (elements == 0) return;
    YAIE_FLOAT_SWITCH(in.q.dtype, T,
                      SIMT_LAUNCH((rope_append_kv::naive<T>), grid_x(door, (elements + 255) / 256),
                                  256, 0, static_cast<simt::Stream>(stream), heads(in.q),
                                  heads(in.k), heads(in.v), q_out.as<T>(), k_cache.as<T>(),
                                  v_cache.as<T>(), in.slots.as<int>(), table, elements));
}

}  // namespace yaie
