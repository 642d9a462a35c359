#include "common_prefix_len/naive.cuh"

#include "common/check.h"
#include "common/kernels.h"

namespace yaie {

void common_prefix_len_naive(View length, View a, View a_indptr, View b, View b_indptr,
                             int64_t page, StreamHandle stream) {
    Door door("common_prefix_len");
    door.admit("a", a, {"Na"}, Kind::int32)
        .admit("a_indptr", a_indptr, {"B+1"}, Kind::int32)
        .admit("b", b, {"Nb"}, Kind::int32)
        .admit("b_indptr", b_indptr, {"B+1"}, Kind::int32)
        .admit("length", length, {"B"}, Kind::int32)
        .require(page >= 1, "page is " + std::to_string(page));
    if (length.size() == 0) return;
    const common_prefix_len::Packed left{a.as<int>(), a_indptr.as<int>()};
    const common_prefix_len::Packed right{b.as<int>(), b_indptr.as<int>()};
    SIMT_LAUNCH((common_prefix_len::naive), grid_x(door, (length.size() + 127) / 128), 128, 0,
                static_cast<simt::Stream>(stream), length.as<int>(), left, right, page,
                length.size());
}

}  // namespace yaie
