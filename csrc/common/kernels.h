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

struct PackedKV {
    View k, v, q_indptr, kv_indptr;
};

struct AttentionState {
    View out, lse;
};

// New tokens that are rotated and stored.
struct Appended {
    View q, k, v, positions, cos_sin, slots;
};

// The launchers of an op all have one type; csrc/bindings.cpp names them.
using AppendKv = void(View k, View v, View k_cache, View v_cache, View slots, StreamHandle stream);
using CopyBlocks = void(const std::vector<View>& caches, View pairs, StreamHandle stream);
// An empty kv_start stands for none.
using GatherKv = void(View k, View v, View k_cache, View v_cache, View block_table, View kv_indptr,
                      View kv_start, StreamHandle stream);
using GatherSlots = void(View slots, View block_table, View kv_indptr, View kv_start,
                         int64_t page_size, StreamHandle stream);
using CommonPrefixLen = void(View length, View a, View a_indptr, View b, View b_indptr,
                             int64_t page, StreamHandle stream);
using MatchTree = void(View matched, View node, View edge_tokens, View edge_indptr,
                       View child_indptr, View children, View query, View q_indptr, int64_t page,
                       StreamHandle stream);
using Rope = void(View y, View x, View positions, View cos_sin, bool interleaved,
                  StreamHandle stream);
using RopeAppendKv = void(View q_out, View k_cache, View v_cache, const Appended& in,
                          bool interleaved, StreamHandle stream);
using MergeStates = void(View out, View lse, const AttentionState& a, const AttentionState& b,
                         StreamHandle stream);
using MergeStatesN = void(View out, View lse, View states, View lses, StreamHandle stream);
using PagedAttention = void(View out, View lse, View q, const PagedKV& kv, AttentionOptions options,
                            StreamHandle stream);
// partial_out float32 [splits,T,Hq,Dv] and partial_lse float32 [splits,T,Hq] are workspaces.
using SplitPagedAttention = void(View out, View lse, View partial_out, View partial_lse, View q,
                                 const PagedKV& kv, AttentionOptions options, StreamHandle stream);
// part_out float32 [2n,16,Dv], part_lse float32 [2n,16] and begun int32 [n,5] are workspaces of n
// blocks.
using DealtPagedAttention = void(View out, View lse, View part_out, View part_lse, View begun,
                                 View q, const PagedKV& kv, AttentionOptions options,
                                 StreamHandle stream);
using VarlenAttention = void(View out, View lse, View q, const PackedKV& kv,
                             AttentionOptions options, StreamHandle stream);
using Penalize = void(View penalized, View logits, View prompt, View prompt_indptr, View output,
                      View output_indptr, View repetition, View frequency, View presence,
                      StreamHandle stream);
using FilterTokens = void(View probs, View logits, View temperature, View top_k, View top_p,
                          View min_p, StreamHandle stream);
using DrawTokens = void(View token, View probs, View seed, View position, StreamHandle stream);
using Sample = void(View token, View logits, View temperature, View top_k, View top_p, View min_p,
                    View seed, View position, StreamHandle stream);
using Greedy = void(View token, View logits, StreamHandle stream);
// work int32 [B,parts,2] is a workspace: a row is dealt to so many blocks.
using SplitDrawTokens = void(View token, View work, View probs, View seed, View position,
                             StreamHandle stream);
using SplitGreedy = void(View token, View work, View logits, StreamHandle stream);
int sampling_ints_a_part();
int sampling_ints_a_row();
// work int32 [B,parts,sampling_ints_a_part], work_a_row int32 [B,sampling_ints_a_row] and found int32
// [B,parts of read 2,2] are workspaces.
using SplitFilterTokens = void(View probs, View work, View work_a_row, View found, View logits,
                               View temperature, View top_k, View top_p, View min_p,
                               StreamHandle stream);
using SplitSample = void(View token, View work, View work_a_row, View found, View logits,
                         View temperature, View top_k, View top_p, View min_p, View seed,
                         View position, StreamHandle stream);

}  // namespace yaie
