#include "common_prefix_len/block.cuh"

#include "common_prefix_len/launch.h"

namespace yaie {

void common_prefix_len_block(View length, View a, View a_indptr, View b, View b_indptr,
                             int64_t page, StreamHandle stream) {
    Door door("common_prefix_len");
    const auto pairs = common_prefix_len::admit(door, length, a, a_indptr, b, b_indptr, page);
    if (length.size() == 0) return;
    SIMT_LAUNCH((common_prefix_len::block), grid_x(door, length.size()),
                common_prefix_len::kThreads, 0, static_cast<simt::Stream>(stream), length.as<int>(),
                pairs.a, pairs.b, page);
}

}  // namespace yaie
