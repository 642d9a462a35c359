// Launching attention::prefill, for the launchers of both ops that it serves.
#pragma once

#include <algorithm>

#include "common/check.h"
#include "common/kernels.h"
#include "common/prefill.cuh"
#include "common/row_tile.h"

namespace yaie::attention {

// What the kernel asks of the call beyond the op's own door, and its parameters.
inline PrefillParams prefill_params(const Door& door, const View& out, const View& lse,
                                    const View& q) {
    door.require(q.dtype != DType::float32, "serves float16 and bfloat16");
    door.require(door["D"] == door["Dv"] && door["D"] % 8 == 0 && door["D"] <= 256,
                 "serves D = Dv, a multiple of 8 up to 256");
    door.require(AccessWidth().fold(out.data).bytes() == 16, "out: must start at 16 bytes");
    door.require(door["B"] > 0 || door["T"] == 0, "q: has rows, but there is no sequence");
    require_rows(door);
    const auto wide = AccessWidth().fold(q.data).fold(q.stride[0] * 2).fold(q.stride[1] * 2);
    return {q.data,
            q.stride[0],
            q.stride[1],
            static_cast<int>(door["Hq"]),
            static_cast<int>(door["Hq"] / door["Hk"]),
            wide.bytes() == 16,
            out.data,
            lse.as<float>()};
}

template <class Tile, class KV>
void launch_prefill(const Door& door, const PrefillParams& p, const KV& kv, const Options& options,
                    StreamHandle stream) {
    const int64_t slots = first_slot<Tile>(door["T"], kv.sequences, p.group);
    SIMT_LAUNCH((prefill<Tile, KV>), grid_x(door, slots * kv.kv_heads), Tile::kThreads,
                Tile::kSharedBytes, static_cast<simt::Stream>(stream), p, kv, options);
}

// Keys of a sequence as far as the host knows: their mean, or the most that its pages hold.
inline int64_t keys_of_a_sequence(const Door& door, const Packed&) {
    return door["N"] / std::max<int64_t>(door["B"], 1);
}
inline int64_t keys_of_a_sequence(const Door& door, const Paged& kv) {
    return door["W"] * kv.page_size;
}

constexpr int64_t kFewKeys = 1024;

// Under a causal mask, a good part of what large tiles of short sequences compute is masked: 48 keys,
// and then an SM has room for three blocks.
template <class T, class KV>
void launch_prefill_for_dim(const Door& door, const PrefillParams& p, const KV& kv,
                            const Options& options, StreamHandle stream) {
    const bool is_short = options.right == 0 && keys_of_a_sequence(door, kv) <= kFewKeys;
    if (kv.dim <= 64 && is_short)
        launch_prefill<PrefillTile<T, 64, 4, 2, 48, 3, false>>(door, p, kv, options, stream);
    else if (kv.dim <= 64)
        launch_prefill<PrefillTile<T, 64, 4, 2, 128, 2, false>>(door, p, kv, options, stream);
    else if (kv.dim <= 128)
        launch_prefill<PrefillTile<T, 128, 4, 2, 64, 2, false>>(door, p, kv, options, stream);
    else
        launch_prefill<PrefillTile<T, 256, 8, 1, 48, 1, true>>(door, p, kv, options, stream);
}

template <class KV>
void launch_prefill_for(DType dtype, const Door& door, const PrefillParams& p, const KV& kv,
                        const Options& options, StreamHandle stream) {
    if (dtype == DType::float16)
        launch_prefill_for_dim<__half>(door, p, kv, options, stream);
    else
        launch_prefill_for_dim<__nv_bfloat16>(door, p, kv, options, stream);
}

}  // namespace yaie::attention
