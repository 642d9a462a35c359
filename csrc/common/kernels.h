// The types of the launchers. Arguments and errors are those of the op's page; `stream` is a CUDA
// stream handle (ignored by the SIMT executor).
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

// The launchers of an op all have one type; csrc/bindings.cpp names them.
using AppendKv = void(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream);
using CopyBlocks = void(const std::vector<View>& caches, View pairs, StreamHandle stream);
using PagedAttention = void(View out, View lse, View q, const PagedKV& kv, AttentionOptions options,
                            StreamHandle stream);
// partial_out float32 [splits,T,Hq,Dv] and partial_lse float32 [splits,T,Hq] are workspaces.
using SplitPagedAttention = void(View out, View lse, View partial_out, View partial_lse, View q,
                                 const PagedKV& kv, AttentionOptions options, StreamHandle stream);

}  // namespace yaie
