// What the launchers of the sampling kernels share.
#pragma once

#include "common/check.h"
#include "common/sampling.cuh"

namespace yaie::sampling {

// A [B,V] tensor as rows. Tokens are int32 numbers.
inline Rows rows(const Door& door, const View& view) {
    door.require(door["V"] > 0, "V is 0, must be at least 1");
    door.require(door["V"] <= std::numeric_limits<int32_t>::max(), "V is above 2^31 - 1");
    return {view.as<float>(), view.stride[0], static_cast<int>(door["V"])};
}

struct FilterViews {
    View temperature, top_k, top_p, min_p;
};

inline FilterRows filter_rows(Door& door, const FilterViews& filter) {
    door.admit("temperature", filter.temperature, {"B"}, Kind::float32)
        .admit("top_k", filter.top_k, {"B"}, Kind::int32)
        .admit("top_p", filter.top_p, {"B"}, Kind::float32)
        .admit("min_p", filter.min_p, {"B"}, Kind::float32);
    return {filter.temperature.as<float>(), filter.top_k.as<int>(), filter.top_p.as<float>(),
            filter.min_p.as<float>()};
}

}  // namespace yaie::sampling
