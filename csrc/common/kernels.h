// Every launcher, as the bindings and other C++ code see it. Arguments and errors are those of the
// op's page; `stream` is a CUDA stream handle (ignored by the SIMT executor).
#pragma once

#include <vector>

#include "common/view.h"

namespace yaie {

using StreamHandle = void*;

struct AttentionOptions {
    float scale = 1.0f;
    float softcap = 0.0f;  // 0: off
    int left = -1;         // keys to the left that a query sees, -1: no limit
    int right = -1;        // likewise to the right; causal is right = 0
};

struct PagedKV {
    View k_cache, v_cache, block_table, kv_lens, q_indptr;
};

void append_kv_naive(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream);
void append_kv_vec(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream);

void copy_blocks_naive(const std::vector<View>& caches, View pairs, StreamHandle stream);
void copy_blocks_vec(const std::vector<View>& caches, View pairs, StreamHandle stream);

void paged_attention_naive(View out, View lse, View q, const PagedKV& kv, AttentionOptions options,
                           StreamHandle stream);
// partial_out float32 [splits,T,Hq,Dv] and partial_lse float32 [splits,T,Hq] are workspaces.
void paged_attention_split_kv(View out, View lse, View partial_out, View partial_lse, View q,
                              const PagedKV& kv, AttentionOptions options, StreamHandle stream);

}  // namespace yaie
