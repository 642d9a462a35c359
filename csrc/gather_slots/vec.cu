#include "gather_slots/vec.cuh"

#include "common/kernels.h"
#include "common/spans.h"

namespace yaie {

void gather_slots_vec(View slots, View block_table, View kv_indptr, View kv_start,
                      int64_t page_size, StreamHandle stream) {
    Door door("gather_slots");
    door.admit("slots", slots, {"N"}, Kind::int32, Layout::contiguous);
    const spans::Spans batch = spans::admit(door, block_table, kv_indptr, kv_start, page_size);
    if (slots.size() == 0) return;
    constexpr int kRows = gather_slots::kThreads * gather_slots::kRows;  // of a block
    SIMT_LAUNCH((gather_slots::vec), grid_x(door, (slots.size() + kRows - 1) / kRows),
                gather_slots::kThreads, 0, static_cast<simt::Stream>(stream), slots.as<int>(),
                batch, slots.size());
}

}  // namespace yaie
