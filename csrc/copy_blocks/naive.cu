#include "copy_blocks/naive.cuh"

#include "common/check.h"
#include "common/dispatch.h"
#include "common/kernels.h"

namespace yaie {

void copy_blocks_naive(const std::vector<View>& caches, View pairs, StreamHandle stream) {
    Door door("copy_blocks");
    for (const View& cache : caches)
        door.admit("caches", cache, {"P", "..."}, Kind::any, Layout::contiguous);
    door.admit("pairs", pairs, {"M", "2"}, Kind::int32, Layout::contiguous);
    for (const View& cache : caches) {
        if (door["M"] == 0 || cache.size() == 0) continue;
        const int64_t page = cache.size() / cache.shape[0];
        YAIE_WORD_SWITCH(cache.itemsize, Element,
                         SIMT_LAUNCH((copy_blocks::naive<Element>), grid_x(door, door["M"]), 256, 0,
                                     static_cast<simt::Stream>(stream), cache.as<Element>(),
                                     pairs.as<int>(), page));
    }
}

}  // namespace yaie
