#include "varlen_attention/naive.cuh"

#include "common/dispatch.h"
#include "varlen_attention/launch.h"

namespace yaie {

void varlen_attention_naive(View out, View lse, View q, const PackedKV& kv,
                            AttentionOptions options, StreamHandle stream) {
    const Door door = varlen_attention::check(out, lse, q, kv);
    door.require(door["Dv"] <= 8192, "naive keeps at most 8192 columns in shared memory");
    if (lse.size() == 0) return;
    YAIE_FLOAT_SWITCH(q.dtype, T,
                      SIMT_LAUNCH((varlen_attention::naive<T>), grid_x(door, lse.size()), 32,
                                  door["Dv"] * sizeof(float), static_cast<simt::Stream>(stream),
                                  out.as<T>(), lse.as<float>(), q.as<T>(), q.stride[0], q.stride[1],
                                  static_cast<int>(door["Hq"]), varlen_attention::packed(door, kv),
                                  varlen_attention::options(options)));
}

}  // namespace yaie
