#include "common/prefill.h"
#include "varlen_attention/launch.h"

namespace yaie {
namespace {

bool starts_at_16_bytes(const View& rows) {
    return AccessWidth()
               .fold(rows.data)
               .fold(rows.stride[0] * rows.itemsize)
               .fold(rows.stride[1] * rows.itemsize)
               .bytes() == 16;
}

}  // namespace

void varlen_attention_mma(View out, View lse, View q, const PackedKV& kv, AttentionOptions options,
                          StreamHandle stream) {
    const Door door = varlen_attention::check(out, lse, q, kv);
    const attention::PrefillParams p = attention::prefill_params(door, out, lse, q);
    door.require(starts_at_16_bytes(kv.k) && starts_at_16_bytes(kv.v),
                 "mma needs rows of k and v that start at multiples of 16 bytes");
    if (lse.size() == 0) return;
    attention::launch_prefill_for(q.dtype, door, p, varlen_attention::packed(door, kv),
                                  varlen_attention::options(options), stream);
}

}  // namespace yaie
