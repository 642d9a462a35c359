// The door of the gather ops: the description of the spans, as their kernels take it.
#pragma once

#include "common/check.h"
#include "common/spans.cuh"

namespace yaie::spans {

// An empty kv_start stands for none.
inline Spans admit(Door& door, const View& block_table, const View& kv_indptr, const View& kv_start,
                   int64_t page_size) {
    door.admit("block_table", block_table, {"B", "W"}, Kind::int32)
        .admit("kv_indptr", kv_indptr, {"B+1"}, Kind::int32);
    if (kv_start.size() > 0) door.admit("kv_start", kv_start, {"B"}, Kind::int32);
    door.require(page_size >= 1, "page_size is " + std::to_string(page_size));
    return {block_table.as<int>(),
            kv_indptr.as<int>(),
            kv_start.size() > 0 ? kv_start.as<int>() : nullptr,
            block_table.stride[0],
            static_cast<int>(door["B"]),
            page_size};
}

}  // namespace yaie::spans
