#include "gather_slots/naive.cuh"

#include "common/kernels.h"
#include "common/spans.h"

namespace yaie {

void gather_slots_naive(View slots, View block_table, View kv_indptr, View kv_start,
                        int64_t page_size, StreamHandle stream) {
    Door door("gather_slots");
    door.admit("slots", slots, {"N"}, Kind::int32);
    const spans::Spans batch = spans::admit(door, block_table, kv_indptr, kv_start, page_size);
    if (slots.size() == 0) return;
    SIMT_LAUNCH((gather_slots::naive), grid_x(door, (slots.size() + 255) / 256), 256, 0,
                static_cast<simt::Stream>(stream), slots.as<int>(), batch, slots.size());
}

}  // namespace yaie
