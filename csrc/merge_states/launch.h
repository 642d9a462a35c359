// The door of merge_states.
#pragma once

#include "common/check.h"
#include "common/heads.h"
#include "common/kernels.h"
#include "common/merge.cuh"

namespace yaie::merge_states {

inline void check(Door& door, const View& out, const View& lse, const AttentionState& a,
                  const AttentionState& b) {
    door.admit("a", a.out, {"T", "H", "D"}, Kind::floating)
        .admit("lse_a", a.lse, {"T", "H"}, Kind::float32)
        .admit("b", b.out, {"T", "H", "D"}, Kind::floating)
        .admit("lse_b", b.lse, {"T", "H"}, Kind::float32)
        .admit("out", out, {"T", "H", "D"}, Kind::floating, Layout::contiguous)
        .admit("lse", lse, {"T", "H"}, Kind::float32, Layout::contiguous);
}

inline merging::State state(const AttentionState& x) {
    return {heads(x.out), x.lse.as<float>(), x.lse.stride[0]};
}

}  // namespace yaie::merge_states
