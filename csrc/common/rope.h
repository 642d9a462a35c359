// The door of the ops that rotate: the table, and what it asks of a head.
#pragma once

#include "common/check.h"
#include "common/heads.h"
#include "common/rope.cuh"

namespace yaie::rotary {

inline Table admit(Door& door, const View& positions, const View& cos_sin, bool interleaved) {
    door.admit("positions", positions, {"T"}, Kind::int32)
        .admit("cos_sin", cos_sin, {"M", "R"}, Kind::float32);
    const int64_t R = door["R"];
    door.require(R % 2 == 0 && 2 <= R && R <= door["D"],
                 "cos_sin: R is " + std::to_string(R) + ", must be even and in 2..D");
    AccessWidth width;
    fold(width, cos_sin).fold(R / 2 * cos_sin.itemsize);
    return {positions.as<int>(),     cos_sin.as<float>(), cos_sin.stride[0],
            static_cast<int>(R / 2), interleaved,         width.bytes() == 16};
}

// The widest word in which all pairs and all heads of the tensors come out whole, in bytes.
inline int word_bytes(const Table& table, std::initializer_list<const View*> tensors) {
    AccessWidth width;
    for (const View* view : tensors) fold(width, *view).fold(int64_t(table.half) * view->itemsize);
    return width.bytes();
}

}  // namespace yaie::rotary
