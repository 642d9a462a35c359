#include "paged_attention/mma_decode.cuh"

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
    SIMT_LAUNCH((paged_attention::merge_pieces<typename Tile::T>), blocks, 32 * Tile::kRows, 0,
                static_cast<simt::Stream>(stream), p, kv.dim);
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

}  // namespace

void paged_attention_mma_decode(View out, View lse, View part_out, View part_lse, View begun,
                                View q, const PagedKV& kv, AttentionOptions options,
                                StreamHandle stream) {
    Door door = paged_attention::check(out, lse, q, kv);
    door.admit("part_out", part_out, {"slots", "16", "Dv"}, Kind::float32, Layout::contiguous)
        .admit("part_lse", part_lse, {"slots", "16"}, Kind::float32, Layout::contiguous)
        .admit("begun", begun, {"blocks", "5"}, Kind::int32, Layout::contiguous);
    const attention::Paged paged = paged_attention::paged(door, kv);
    door.require(q.dtype != DType::float32, "mma_decode serves float16 and bfloat16");
    door.require(door["D"] == door["Dv"] && door["D"] % 8 == 0 && door["D"] <= 256,
                 "mma_decode serves D = Dv, a multiple of 8 up to 256");
    door.require(AccessWidth().fold(paged.k).fold(paged.v).bytes() == 16,
                 "mma_decode needs caches that start at multiples of 16 bytes");
    if (lse.size() == 0) return;
    const int group = static_cast<int>(door["Hq"] / door["Hk"]);
    const DecodeParams p{q.data,
                         q.stride[0],
                         q.stride[1],
                         static_cast<int>(door["Hq"]),
                         group,
                         out.data,
                         lse.as<float>(),
                         part_out.as<float>(),
                         part_lse.as<float>(),
                         begun.as<int>()};
    const int blocks = static_cast<int>(door["blocks"]);
    door.require(blocks >= 1 && door["slots"] == 2 * blocks, "needs two slots a block");
    const attention::Options o = paged_attention::options(options);
    if (q.dtype == DType::float16)
        launch_for_dim<__half>(p, paged, o, blocks, stream);
    else
        launch_for_dim<__nv_bfloat16>(p, paged, o, blocks, stream);
}

}  // namespace yaie
