#include "gather_kv/naive.cuh"

#include "common/dispatch.h"
#include "common/kernels.h"
#include "common/spans.h"

namespace yaie {
namespace {

void gather(const Door& door, const View& out, const View& cache, const spans::Spans& batch,
            StreamHandle stream) {
    const int64_t elements = out.size(), row = out.shape[1] * out.shape[2];
    if (elements == 0) return;
    YAIE_WORD_SWITCH(out.itemsize, Element,
                     SIMT_LAUNCH((gather_kv::naive<Element>), grid_x(door, (elements + 255) / 256),
                                 256, 0, static_cast<simt::Stream>(stream), out.as<Element>(),
                                 cache.as<Element>(), batch, row, elements));
}

}  // namespace

void gather_kv_naive(View k, View v, View k_cache, View v_cache, View block_table, View kv_indptr,
                     View kv_start, StreamHandle stream) {
    Door door("gather_kv");
    door.admit("k", k, {"N", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v", v, {"N", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("k_cache", k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous);
    const spans::Spans batch = spans::admit(door, block_table, kv_indptr, kv_start, door["S"]);
    gather(door, k, k_cache, batch, stream);
    gather(door, v, v_cache, batch, stream);
}

}  // namespace yaie
