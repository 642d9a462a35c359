#include "append_kv/vec.cuh"

#include <algorithm>

#include "common/check.h"
#include "common/dispatch.h"
#include "common/kernels.h"

namespace yaie {
namespace {

// Heads that lie side by side are one long head.
View join_heads(View x) {
    if (x.stride[1] == x.shape[2] || x.shape[1] == 1) {
        x.shape[2] *= x.shape[1];
        x.shape[1] = 1;
        x.stride[1] = 0;
    }
    return x;
}

AccessWidth& fold(AccessWidth& width, const View& x, const View& cache) {
    return width.fold(x.data)
        .fold(cache.data)
        .fold(x.stride[0] * x.itemsize)
        .fold(x.stride[1] * x.itemsize)
        .fold(x.shape[2] * x.itemsize);
}

append_kv::Words in_words(const View& x, int width) {
    const int per_word = width / x.itemsize;
    return {x.data, x.stride[0] / per_word, x.stride[1] / per_word, static_cast<int>(x.shape[1]),
            static_cast<int>(x.shape[2]) / per_word};
}

}  // namespace

void append_kv_vec(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream) {
    Door door("append_kv");
    door.admit("k", k, {"T", "Hk", "D"}, Kind::floating)
        .admit("v", v, {"T", "Hk", "Dv"}, Kind::floating)
        .admit("k_cache", k_cache, {"P", "S", "Hk", "D"}, Kind::floating, Layout::contiguous)
        .admit("v_cache", v_cache, {"P", "S", "Hk", "Dv"}, Kind::floating, Layout::contiguous)
        .admit("slots", slots, {"T"}, Kind::int32);
    if (k.size() + v.size() == 0) return;
    k = join_heads(k);
    v = join_heads(v);
    AccessWidth access;
    const int width = fold(fold(access, k, k_cache), v, v_cache).bytes();
    const append_kv::Words k_words = in_words(k, width), v_words = in_words(v, width);
    const int most = std::max(k_words.heads * k_words.words, v_words.heads * v_words.words);
    const dim3 threads(std::min(256, (most + 31) / 32 * 32), 2);
    YAIE_WORD_SWITCH(width, Word,
                     SIMT_LAUNCH((append_kv::vec<Word>), grid_x(door, door["T"]), threads, 0,
                                 static_cast<simt::Stream>(stream), k_words, v_words,
                                 k_cache.as<Word>(), v_cache.as<Word>(), slots.as<int>()));
}

}  // namespace yaie
