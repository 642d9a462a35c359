#include "copy_blocks/vec.cuh"

#include <algorithm>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/kernels.h"

namespace yaie {
namespace {

int64_t page_bytes(const View& cache) { return cache.size() / cache.shape[0] * cache.itemsize; }

// Copies the layers [first, first + count), at most kLayers of them.
void copy(const Door& door, const View* first, int count, const View& pairs, StreamHandle stream) {
    AccessWidth access;
    for (int i = 0; i < count; ++i) access.fold(first[i].data).fold(page_bytes(first[i]));
    const int width = access.bytes();
    copy_blocks::Layers layers{};
    int64_t most = 0;
    for (int i = 0; i < count; ++i) {
        layers.cache[i] = first[i].data;
        layers.page_words[i] = page_bytes(first[i]) / width;
        most = std::max(most, layers.page_words[i]);
    }
    constexpr int kChunk = copy_blocks::kThreads * copy_blocks::kUnroll;
    const int chunks = static_cast<int>((most + kChunk - 1) / kChunk);
    const dim3 grid(grid_x(door, door["M"] * chunks), count);
    YAIE_WORD_SWITCH(
        width, Word,
        SIMT_LAUNCH((copy_blocks::vec<Word>), grid, copy_blocks::kThreads, 0,
                    static_cast<simt::Stream>(stream), layers, pairs.as<int>(), chunks));
}

}  // namespace

void copy_blocks_vec(const std::vector<View>& caches, View pairs, StreamHandle stream) {
    Door door("copy_blocks");
    std::vector<View> layers;
    for (const View& cache : caches) {
        door.admit("caches", cache, {"P", "..."}, Kind::any, Layout::contiguous);
        if (cache.size() > 0) layers.push_back(cache);
    }
    door.admit("pairs", pairs, {"M", "2"}, Kind::int32, Layout::contiguous);
    if (door["M"] == 0) return;
    for (size_t i = 0; i < layers.size(); i += copy_blocks::kLayers) {
        const size_t count = std::min<size_t>(copy_blocks::kLayers, layers.size() - i);
        copy(door, &layers[i], static_cast<int>(count), pairs, stream);
    }
}

}  // namespace yaie
