// The door of every paged_attention launcher, and the kernel parameters made of its arguments.
#pragma once

#include <algorithm>

#include "common/attention.cuh"
#include "common/check.h"
#include "common/kernels.h"

namespace yaie::paged_attention {

inline Door check(const View& out, const View& lse, const View& q, const PagedKV& kv) {
    Door door("paged_attention");
    door.admit("q", q, {"T", "Hq", "D"}, Kind::floating)
        .admit("k_cache", kv.k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", kv.v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("block_table", kv.block_table, {"B", "W"}, Kind::int32)
        .admit("kv_lens", kv.kv_lens, {"B"}, Kind::int32)
        .admit("q_indptr", kv.q_indptr, {"B+1"}, Kind::int32)
        .admit("out", out, {"T", "Hq", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("lse", lse, {"T", "Hq"}, Kind::float32, Layout::contiguous);
    door.require(door["Hk"] > 0 && door["Hq"] % door["Hk"] == 0,
                 "q: Hq is " + std::to_string(door["Hq"]) +
                     ", no multiple of Hk = " + std::to_string(door["Hk"]));
    return door;
}

inline attention::Paged paged(const Door& door, const PagedKV& kv) {
    attention::Paged paged{};
    paged.k = kv.k_cache.data;
    paged.v = kv.v_cache.data;
    paged.block_table = kv.block_table.as<int>();
    paged.kv_lens = kv.kv_lens.as<int>();
    paged.q_indptr = kv.q_indptr.as<int>();
    paged.table_stride = kv.block_table.stride[0];
    paged.sequences = static_cast<int>(door["B"]);
    paged.page_size = static_cast<int>(door["S"]);
    paged.kv_heads = static_cast<int>(door["Hk"]);
    paged.dim = static_cast<int>(door["D"]);
    paged.v_dim = static_cast<int>(door["Dv"]);
    return paged;
}

// Threads of a block that has work for `wanted` of them: whole warps, one at least.
inline int threads_for(int64_t wanted, int most) {
    return static_cast<int>(std::clamp<int64_t>((wanted + 31) / 32 * 32, 32, most));
}

inline attention::Options options(const AttentionOptions& o) {
    return {o.scale, o.softcap, o.left, o.right};
}

}  // namespace yaie::paged_attention
