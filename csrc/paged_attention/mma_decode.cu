#include "paged_attention/mma_decode.cuh"

#include "common/row_tile.h"
#include "paged_attention/launch.h"

namespace yaie {
namespace {

using paged_attention::DecodeParams;
using paged_attention::DecodeTile;

template <class Tile>
void launch(const DecodeParams& p, const attention::Paged& kv, const attention::Options& options,
            int blocks, StreamHandle stream) {
    SIMT_LAUNCH((paged_attention::mma_decode<Tile>), blocks, Tile::kThreads, Tile::kSharedBytes,
                static_cast<simt::Stream>(stream), p, kv, options);
    const int columns = paged_attention::kMergeColumns;
    const dim3 merges(blocks, (kv.dim + columns - 1) / columns);
    SIMT_LAUNCH_AFTER((paged_attention::merge_pieces<typename Tile::T>), merges,
                      32 * paged_attention::kMergeWarps, 0, static_cast<simt::Stream>(stream), p,
                      kv.dim);
}

template <class T>
void launch_for_dim(const DecodeParams& p, const attention::Paged& kv,
                    const attention::Options& options, int blocks, StreamHandle stream) {
    if (kv.dim <= 64)
        launch<DecodeTile<T, 64>>(p, kv, options, blocks, stream);
    else if (kv.dim <= 128)
        launch<DecodeTile<T, 128>>(p, kv, options, blocks, stream);
    else
        launch<DecodeTile<T, 256>>(p, kv, options, blocks, stream);
}

void check_parts(Door& door, const View& part_out, const View& part_lse, const View& begun,
                 const attention::Paged& paged, DType dtype) {
    door.admit("part_out", part_out, {"slots", "16", "Dv"}, Kind::float32, Layout::contiguous)
        .admit("part_lse", part_lse, {"slots", "16"}, Kind::float32, Layout::contiguous)
        .admit("begun", begun, {"blocks", "5"}, Kind::int32, Layout::contiguous);
    door.require(door["blocks"] >= 1 && door["slots"] == 2 * door["blocks"],
                 "needs two slots a block");
    door.require(dtype != DType::float32, "mma_decode serves float16 and bfloat16");
    door.require(door["D"] == door["Dv"] && door["D"] % 8 == 0 && door["D"] <= 256,
                 "mma_decode serves D = Dv, a multiple of 8 up to 256");
    door.require(AccessWidth().fold(paged.k).fold(paged.v).bytes() == 16,
                 "mma_decode needs caches that start at multiples of 16 bytes");
    attention::require_rows(door);
}

DecodeParams params(const Door& door, const View& out, const View& lse, const View& part_out,
                    const View& part_lse, const View& begun, const View& q) {
    DecodeParams p{};
    p.q = q.data;
    p.q_stride = q.stride[0];
    p.q_head_stride = q.stride[1];
    p.heads = static_cast<int>(door["Hq"]);
    p.group = static_cast<int>(door["Hq"] / door["Hk"]);
    p.wide_queries =
        AccessWidth().fold(q.data).fold(q.stride[0] * 2).fold(q.stride[1] * 2).bytes() == 16;
    p.out = out.data;
    p.lse = lse.as<float>();
    p.part_out = part_out.as<float>();
    p.part_lse = part_lse.as<float>();
    p.begun = begun.as<int>();
    return p;
}

}  // namespace

void paged_attention_mma_decode(View out, View lse, View part_out, View part_lse, View begun,
                                View q, const PagedKV& kv, AttentionOptions options,
                                StreamHandle stream) {
    Door door = paged_attention::check(out, lse, q, kv);
    const attention::Paged paged = paged_attention::paged(door, kv);
    check_parts(door, part_out, part_lse, begun, paged, q.dtype);
    if (lse.size() == 0) return;
    const DecodeParams p = params(door, out, lse, part_out, part_lse, begun, q);
    const attention::Options o = paged_attention::options(options);
    const int blocks = static_cast<int>(door["blocks"]);
    if (q.dtype == DType::float16)
        launch_for_dim<__half>(p, paged, o, blocks, stream);
    else
        launch_for_dim<__nv_bfloat16>(p, paged, o, blocks, stream);
}

}  // namespace yaie
