// The door of merge_states_n.
#pragma once

#include "common/check.h"
#include "common/heads.h"
#include "common/kernels.h"
#include "merge_states_n/states.cuh"

namespace yaie::merge_states_n {

inline States admit(Door& door, const View& out, const View& lse, const View& states,
                    const View& lses) {
    door.admit("states", states, {"K", "T", "H", "D"}, Kind::floating)
        .admit("lses", lses, {"K", "T", "H"}, Kind::float32)
        .admit("out", out, {"T", "H", "D"}, Kind::floating, Layout::contiguous)
        .admit("lse", lse, {"T", "H"}, Kind::float32, Layout::contiguous);
    const Heads first{states.data, states.stride[1], states.stride[2], static_cast<int>(door["H"]),
                      static_cast<int>(door["D"])};
    return {{first, lses.as<float>(), lses.stride[1]},
            states.stride[0],
            lses.stride[0],
            static_cast<int>(door["K"])};
}

}  // namespace yaie::merge_states_n
