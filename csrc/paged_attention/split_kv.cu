#include "paged_attention/split_kv.cuh"

#include "common/dispatch.h"
#include "paged_attention/launch.h"

namespace yaie {
namespace {

using paged_attention::SplitParams;

template <class T, int kLanes, int kHeads>
void launch(const Door& door, const SplitParams& p, const attention::Paged& kv,
            const attention::Options& options, StreamHandle stream) {
    const int64_t chunks = (door["Hq"] / door["Hk"] + kHeads - 1) / kHeads;
    const dim3 grid(grid_x(door, door["T"] * door["Hk"] * chunks), p.splits);
    const int64_t keys = (door["W"] * door["S"] + p.splits - 1) / p.splits;  // of a block, at most
    const int threads = paged_attention::threads_for(keys * kLanes, paged_attention::kThreads);
    SIMT_LAUNCH((paged_attention::split_kv<T, kLanes, kHeads>), grid, threads, 0,
                static_cast<simt::Stream>(stream), p, kv, options);
}

// Lanes for a row of K: 8 for D <= 64, 16 for D <= 128, 32 for D <= 256.
template <class T, int kHeads>
void launch_for_dim(const Door& door, const SplitParams& p, const attention::Paged& kv,
                    const attention::Options& options, StreamHandle stream) {
    if (kv.dim <= 64)
        launch<T, 8, kHeads>(door, p, kv, options, stream);
    else if (kv.dim <= 128)
        launch<T, 16, kHeads>(door, p, kv, options, stream);
    else
        launch<T, 32, kHeads>(door, p, kv, options, stream);
}

void check_splits(Door& door, const View& partial_out, const View& partial_lse) {
    door.admit("partial_out", partial_out, {"splits", "T", "Hq", "Dv"}, Kind::float32,
               Layout::contiguous);
    door.admit("partial_lse", partial_lse, {"splits", "T", "Hq"}, Kind::float32,
               Layout::contiguous);
    door.require(door["D"] == door["Dv"] && door["D"] % 8 == 0 && door["D"] <= 256,
                 "split_kv serves D = Dv, a multiple of 8 up to 256");
    door.require(door["splits"] >= 1 && door["splits"] <= 65535, "splits must be 1 to 65535");
}

SplitParams params(const Door& door, const View& out, const View& lse, const View& partial_out,
                   const View& partial_lse, const View& q, const attention::Paged& paged) {
    SplitParams p{};
    p.q = q.data;
    p.q_stride = q.stride[0];
    p.q_head_stride = q.stride[1];
    p.heads = static_cast<int>(door["Hq"]);
    p.splits = static_cast<int>(door["splits"]);
    p.out = out.data;
    p.lse = lse.as<float>();
    p.partial_out = partial_out.as<float>();
    p.partial_lse = partial_lse.as<float>();
    p.rows = door["T"];
    p.wide_loads = AccessWidth().fold(paged.k).fold(paged.v).bytes() == 16;
    return p;
}

}  // namespace

void paged_attention_split_kv(View out, View lse, View partial_out, View partial_lse, View q,
                              const PagedKV& kv, AttentionOptions options, StreamHandle stream) {
    Door door = paged_attention::check(out, lse, q, kv);
    check_splits(door, partial_out, partial_lse);
    if (lse.size() == 0) return;
    const attention::Paged paged = paged_attention::paged(door, kv);
    const SplitParams p = params(door, out, lse, partial_out, partial_lse, q, paged);
    const bool grouped = door["Hq"] > door["Hk"];
    YAIE_FLOAT_SWITCH(q.dtype, T, {
        if (grouped)
            launch_for_dim<T, 4>(door, p, paged, paged_attention::options(options), stream);
        else
            launch_for_dim<T, 1>(door, p, paged, paged_attention::options(options), stream);
        if (p.splits > 1)
            SIMT_LAUNCH_AFTER((paged_attention::merge_splits<T>), grid_x(door, lse.size()),
                              paged_attention::threads_for(paged.dim, 128), 0,
                              static_cast<simt::Stream>(stream), out.as<T>(), p.lse, p.partial_out,
                              p.partial_lse, lse.size(), p.splits, paged.dim);
    });
}

}  // namespace yaie
