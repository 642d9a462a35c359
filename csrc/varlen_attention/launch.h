// The door of every varlen_attention launcher, and the kernel parameters made of its arguments.
#pragma once

#include "common/attention.cuh"
#include "common/check.h"
#include "common/kernels.h"

namespace yaie::varlen_attention {

inline Door check(const View& out, const View& lse, const View& q, const PackedKV& kv) {
    Door door("varlen_attention");
    door.admit("q", q, {"T", "Hq", "D"}, Kind::floating)
        .admit("k", kv.k, {"N", "Hk", "D"}, Kind::floating)
        .admit("v", kv.v, {"N", "Hk", "Dv"}, Kind::floating)
        .admit("q_indptr", kv.q_indptr, {"B+1"}, Kind::int32)
        .admit("kv_indptr", kv.kv_indptr, {"B+1"}, Kind::int32)
        .admit("out", out, {"T", "Hq", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("lse", lse, {"T", "Hq"}, Kind::float32, Layout::contiguous);
    door.require(door["Hk"] > 0 && door["Hq"] % door["Hk"] == 0,
                 "q: Hq is " + std::to_string(door["Hq"]) +
                     ", no multiple of Hk = " + std::to_string(door["Hk"]));
    return door;
}

inline attention::Packed packed(const Door& door, const PackedKV& kv) {
    attention::Packed packed{};
    packed.k = kv.k.data;
    packed.v = kv.v.data;
    packed.kv_indptr = kv.kv_indptr.as<int>();
    packed.q_indptr = kv.q_indptr.as<int>();
    packed.k_stride = kv.k.stride[0];
    packed.k_head_stride = kv.k.stride[1];
    packed.v_stride = kv.v.stride[0];
    packed.v_head_stride = kv.v.stride[1];
    packed.sequences = static_cast<int>(door["B"]);
    packed.kv_heads = static_cast<int>(door["Hk"]);
    packed.dim = static_cast<int>(door["D"]);
    packed.v_dim = static_cast<int>(door["Dv"]);
    return packed;
}

inline attention::Options options(const AttentionOptions& o) {
    return {o.scale, o.softcap, o.left, o.right};
}

}  // namespace yaie::varlen_attention
