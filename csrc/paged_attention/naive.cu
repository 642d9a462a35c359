#include "paged_attention/naive.cuh"

#include "common/dispatch.h"
#include "paged_attention/launch.h"

namespace yaie {

void paged_attention_naive(View out, View lse, View q, const PagedKV& kv, AttentionOptions options,
                           StreamHandle stream) {
    const Door door = paged_attention::check(out, lse, q, kv);
    if (lse.size() == 0) return;
    const int threads = paged_attention::threads_for(door["W"] * door["S"], paged_attention::kTile);
    const size_t shared = (door["D"] + door["Dv"]) * sizeof(float);
    YAIE_FLOAT_SWITCH(
        q.dtype, T,
        SIMT_LAUNCH((paged_attention::naive<T>), grid_x(door, lse.size()), threads, shared,
                    static_cast<simt::Stream>(stream), out.as<T>(), lse.as<float>(), q.as<T>(),
                    q.stride[0], q.stride[1], static_cast<int>(door["Hq"]),
                    paged_attention::paged(door, kv), paged_attention::options(options)));
}

}  // namespace yaie
