// The door of rope_append_kv.
#pragma once

#include "common/check.h"
#include "common/kernels.h"
#include "common/rope.h"

namespace yaie::rope_append_kv {

inline rotary::Table check(Door& door, const View& q_out, const Appended& in, const View& k_cache,
                           const View& v_cache, bool interleaved) {
    door.admit("q", in.q, {"T", "Hq", "D"}, Kind::floating)
        .admit("k", in.k, {"T", "Hk", "D"}, Kind::floating)
        .admit("v", in.v, {"T", "Hk", "Dv"}, Kind::floating)
        .admit("q_out", q_out, {"T", "Hq", "D"}, Kind::floating, Layout::contiguous)
        .admit("k_cache", k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("slots", in.slots, {"T"}, Kind::int32);
    return rotary::admit(door, in.positions, in.cos_sin, interleaved);
}

}  // namespace yaie::rope_append_kv
