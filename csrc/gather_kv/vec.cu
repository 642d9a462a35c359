#include "gather_kv/vec.cuh"

#include <algorithm>

#include "common/dispatch.h"
#include "common/kernels.h"
#include "common/spans.h"

namespace yaie {
namespace {

int64_t row_bytes(const View& out) { return out.shape[1] * out.shape[2] * out.itemsize; }

gather_kv::Side side(const View& out, const View& cache, int width) {
    return {out.data, cache.data, static_cast<int>(row_bytes(out) / width)};
}

}  // namespace

void gather_kv_vec(View k, View v, View k_cache, View v_cache, View block_table, View kv_indptr,
                   View kv_start, StreamHandle stream) {
    Door door("gather_kv");
    door.admit("k", k, {"N", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v", v, {"N", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("k_cache", k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous);
    const spans::Spans batch = spans::admit(door, block_table, kv_indptr, kv_start, door["S"]);
    if (k.size() + v.size() == 0) return;
    AccessWidth access;
    access.fold(k.data).fold(v.data).fold(k_cache.data).fold(v_cache.data);
    const int width = access.fold(row_bytes(k)).fold(row_bytes(v)).bytes();
    const gather_kv::Side keys = side(k, k_cache, width), values = side(v, v_cache, width);
    const int rows = gather_kv::rows_of_block(std::max(keys.words, values.words));
    const dim3 grid(grid_x(door, (door["N"] + rows - 1) / rows), 2);
    YAIE_WORD_SWITCH(
        width, Word,
        SIMT_LAUNCH((gather_kv::vec<Word>), grid, gather_kv::kThreads, 0,
                    static_cast<simt::Stream>(stream), keys, values, batch, door["N"], rows));
}

}  // namespace yaie
