#include "append_kv/naive.cuh"

#include "common/check.h"
#include "common/dispatch.h"
#include "common/kernels.h"

namespace yaie {
namespace {

void store(const Door& door, const View& source, const View& cache, const View& slots,
           StreamHandle stream) {
    const append_kv::Rows rows{source.data, source.stride[0], source.stride[1],
                               static_cast<int>(source.shape[1]),
                               static_cast<int>(source.shape[2])};
    const int64_t elements = source.size();
    if (elements == 0) return;
    YAIE_WORD_SWITCH(source.itemsize, Element,
                     SIMT_LAUNCH((append_kv::naive<Element>), grid_x(door, (elements + 255) / 256),
                                 256, 0, static_cast<simt::Stream>(stream), rows,
                                 cache.as<Element>(), slots.as<int>(), elements));
}

}  // namespace

void append_kv_naive(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream) {
    Door door("append_kv");
    door.admit("k", k, {"T", "Hk", "D"}, Kind::floating)
        .admit("v", v, {"T", "Hk", "Dv"}, Kind::floating)
        .admit("k_cache", k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("slots", slots, {"T"}, Kind::int32);
    store(door, k, k_cache, slots, stream);
    store(door, v, v_cache, slots, stream);
}

}  // namespace yaie
