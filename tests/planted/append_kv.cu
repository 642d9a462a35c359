// Both append_kv kernels on a small case with a stride gap, a skipped token and every page in use.
#include "planted.h"

#include "append_kv/naive.cuh"
#include "append_kv/vec.cuh"

static void launch() {
    using namespace yaie::append_kv;
    const int tokens = 6, heads = 2, dim = 20, row = heads * dim, padded = row + 8;
    Tensor<float> k("k", {tokens, heads, dim}, {padded, dim, 1}, simt::Role::input);
    Tensor<float> v("v", {tokens, heads, dim}, {padded, dim, 1}, simt::Role::input);
    Tensor<float> k_cache("k_cache", {2, 4, heads, dim}), v_cache("v_cache", {2, 4, heads, dim});
    Tensor<int> slots("slots", {tokens}, {1}, simt::Role::input);
    const int chosen[] = {3, 0, -1, 7, 4, 5};
    for (int i = 0; i < tokens; ++i) slots.values()[i] = chosen[i];
    const int64_t elements = tokens * row;
    SIMT_LAUNCH(naive<float>, (elements + 63) / 64, 64, 0, nullptr,
                Rows{k.data(), padded, dim, heads, dim}, k_cache.data(), slots.data(), elements);
    const Words k_words{k.data(), padded / 4, dim / 4, heads, dim / 4},
        v_words{v.data(), padded / 4, dim / 4, heads, dim / 4};
    SIMT_LAUNCH(vec<uint4>, tokens, dim3(32, 2), 0, nullptr, k_words, v_words,
                reinterpret_cast<uint4*>(k_cache.data()), reinterpret_cast<uint4*>(v_cache.data()),
                slots.data());
}

int main() { return run(launch); }
