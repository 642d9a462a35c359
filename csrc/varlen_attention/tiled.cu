#include "varlen_attention/tiled.cuh"

#include "common/dispatch.h"
#include "common/row_tile.h"
#include "varlen_attention/launch.h"

namespace yaie {
namespace {

template <class Tile>
void launch(const Door& door, const View& out, const View& lse, const View& q,
            const attention::Packed& kv, const attention::Options& options, StreamHandle stream) {
    using T = typename Tile::T;
    const int heads = static_cast<int>(door["Hq"]), group = heads / kv.kv_heads;
    const int64_t slots = attention::first_slot<Tile>(door["T"], kv.sequences, group);
    SIMT_LAUNCH((varlen_attention::tiled<Tile>), grid_x(door, slots * kv.kv_heads), Tile::kThreads,
                Tile::shared_bytes(kv.dim, kv.v_dim), static_cast<simt::Stream>(stream),
                out.as<T>(), lse.as<float>(), q.as<T>(), q.stride[0], q.stride[1], heads, kv,
                options);
}

}  // namespace

void varlen_attention_tiled(View out, View lse, View q, const PackedKV& kv,
                            AttentionOptions options, StreamHandle stream) {
    const Door door = varlen_attention::check(out, lse, q, kv);
    door.require(door["D"] <= 256 && door["Dv"] <= 256, "tiled serves D and Dv up to 256");
    attention::require_rows(door);
    if (lse.size() == 0) return;
    const attention::Packed packed = varlen_attention::packed(door, kv);
    const attention::Options o = varlen_attention::options(options);
    YAIE_FLOAT_SWITCH(q.dtype, T, {
        if (packed.v_dim <= 64)
            launch<varlen_attention::FloatTile<T, 64>>(door, out, lse, q, packed, o, stream);
        else if (packed.v_dim <= 128)
            launch<varlen_attention::FloatTile<T, 128>>(door, out, lse, q, packed, o, stream);
        else
            launch<varlen_attention::FloatTile<T, 256>>(door, out, lse, q, packed, o, stream);
    });
}

}  // namespace yaie
