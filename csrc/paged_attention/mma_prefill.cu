#include "common/prefill.h"
#include "paged_attention/launch.h"

namespace yaie {

void paged_attention_mma_prefill(View out, View lse, View q, const PagedKV& kv,
                                 AttentionOptions options, StreamHandle stream) {
    const Door door = paged_attention::check(out, lse, q, kv);
    const attention::PrefillParams p = attention::prefill_params(door, out, lse, q);
    const attention::Paged paged = paged_attention::paged(door, kv);
    door.require(AccessWidth().fold(paged.k).fold(paged.v).bytes() == 16,
                 "mma_prefill needs caches that start at multiples of 16 bytes");
    if (lse.size() == 0) return;
    attention::launch_prefill_for(q.dtype, door, p, paged, paged_attention::options(options),
                                  stream);
}

}  // namespace yaie
