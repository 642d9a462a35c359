// The door of common_prefix_len.
#pragma once

#include "common/check.h"
#include "common/kernels.h"
#include "common_prefix_len/packed.cuh"

namespace yaie::common_prefix_len {

struct Pairs {
    Packed a, b;
};

inline Pairs admit(Door& door, const View& length, const View& a, const View& a_indptr,
                   const View& b, const View& b_indptr, int64_t page) {
    door.admit("a", a, {"Na"}, Kind::int32)
        .admit("a_indptr", a_indptr, {"B+1"}, Kind::int32)
        .admit("b", b, {"Nb"}, Kind::int32)
        .admit("b_indptr", b_indptr, {"B+1"}, Kind::int32)
        .admit("length", length, {"B"}, Kind::int32)
        .require(page >= 1, "page is " + std::to_string(page));
    return {{a.as<int>(), a_indptr.as<int>()}, {b.as<int>(), b_indptr.as<int>()}};
}

}  // namespace yaie::common_prefix_len
