// Both copy_blocks kernels: pages of an odd size, two layers, the last page among the copied.
#include "planted.h"

#include "copy_blocks/naive.cuh"
#include "copy_blocks/vec.cuh"

static void launch() {
    using namespace yaie::copy_blocks;
    const int pages = 6, words = 300;
    Tensor<unsigned> first("caches[0]", {pages, words}), second("caches[1]", {pages, words});
    Tensor<int> pairs("pairs", {3, 2}, {2, 1}, simt::Role::input);
    const int chosen[] = {0, 3, 1, 1, 2, 5};
    for (int i = 0; i < 6; ++i) pairs.values()[i] = chosen[i];
    SIMT_LAUNCH(naive<unsigned>, 3, 64, 0, nullptr, first.data(), pairs.data(), words);
    Layers layers{};
    layers.cache[0] = first.data();
    layers.cache[1] = second.data();
    layers.page_words[0] = layers.page_words[1] = words;
    SIMT_LAUNCH(vec<unsigned>, dim3(3, 2), kThreads, 0, nullptr, layers, pairs.data(), 1);
}

int main() { return run(launch); }
