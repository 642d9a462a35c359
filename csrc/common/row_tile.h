// What a launcher asks for kernels whose rows are (query, head of the group).
#pragma once

#include "common/check.h"

namespace yaie::attention {

// The kernels count the rows of a batch in an int.
inline void require_rows(const Door& door) {
    door.require(door["T"] * (door["Hq"] / door["Hk"]) <= std::numeric_limits<int32_t>::max(),
                 "q: T * Hq / Hk is beyond 2^31 - 1");
}

}  // namespace yaie::attention
