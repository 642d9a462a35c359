// The Python face of the kernels. The only file that knows Python; it knows no torch header either:
// a tensor is whatever has data_ptr, shape, stride, dtype and device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/check.h"
#include "common/kernels.h"
#include "common/memory.h"
#include "simt/simt.h"

namespace py = pybind11;

namespace yaie {
AppendKv append_kv_naive, append_kv_vec;
CopyBlocks copy_blocks_naive, copy_blocks_vec;
GatherKv gather_kv_naive, gather_kv_vec;
GatherSlots gather_slots_naive, gather_slots_vec;
CommonPrefixLen common_prefix_len_naive, common_prefix_len_block;
MatchTree match_tree_naive, match_tree_warp;
Rope rope_naive, rope_vec;
RopeAppendKv rope_append_kv_naive, rope_append_kv_vec;
MergeStates merge_states_naive, merge_states_vec;
MergeStatesN merge_states_n_naive, merge_states_n_vec;
PagedAttention paged_attention_naive, paged_attention_mma_prefill;
SplitPagedAttention paged_attention_split_kv;
DealtPagedAttention paged_attention_mma_decode;
VarlenAttention varlen_attention_naive, varlen_attention_tiled, varlen_attention_mma;
Penalize penalize_naive, penalize_tiled;
FilterTokens filter_tokens_naive;
SplitFilterTokens filter_tokens_split;
DrawTokens draw_tokens_naive;
SplitDrawTokens draw_tokens_split;
Sample sample_naive;
SplitSample sample_split;
Greedy greedy_naive;
SplitGreedy greedy_split;
}  // namespace yaie

namespace {

yaie::DType dtype_of(const std::string& name) {
    if (name == "torch.float32") return yaie::DType::float32;
    if (name == "torch.float16") return yaie::DType::float16;
    if (name == "torch.bfloat16") return yaie::DType::bfloat16;
    if (name == "torch.int32") return yaie::DType::int32;
    if (name == "torch.int64") return yaie::DType::int64;
    return yaie::DType::other;
}

yaie::View view_of(py::handle tensor) {
    yaie::View view;
    view.data = reinterpret_cast<void*>(tensor.attr("data_ptr")().cast<uintptr_t>());
    view.dtype = dtype_of(py::str(tensor.attr("dtype")));
    view.itemsize = tensor.attr("element_size")().cast<int>();
    const py::tuple shape = tensor.attr("shape"), stride = tensor.attr("stride")();
    view.rank = static_cast<int>(shape.size());
    if (view.rank > yaie::kMaxRank)
        throw std::invalid_argument("a tensor of rank " + std::to_string(view.rank) +
                                    ", the kernels take up to " + std::to_string(yaie::kMaxRank));
    for (int i = 0; i < view.rank; ++i) {
        view.shape[i] = shape[i].cast<int64_t>();
        view.stride[i] = stride[i].cast<int64_t>();
    }
    const py::object device = tensor.attr("device");
    if (device.attr("type").cast<std::string>() == "cuda")
        view.device = device.attr("index").cast<int>();
    return view;
}

}  // namespace

namespace pybind11::detail {
template <>
struct type_caster<yaie::View> {
    PYBIND11_TYPE_CASTER(yaie::View, const_name("Tensor"));
    bool load(handle source, bool) {
        if (!hasattr(source, "data_ptr")) return false;
        value = view_of(source);
        return true;
    }
};
}  // namespace pybind11::detail

namespace {

using yaie::inout;
using yaie::input;
using yaie::result;
using yaie::View;
using yaie::workspace;

yaie::StreamHandle stream_of(uintptr_t stream) { return reinterpret_cast<void*>(stream); }

void bind_movers(py::module_& m) {
    const auto append = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View k, View v, View k_cache, View v_cache, View slots, uintptr_t stream) {
                yaie::with_memory(
                    {input("k", k), input("v", v), inout("k_cache", k_cache),
                     inout("v_cache", v_cache), input("slots", slots)},
                    [&] { launch(k, v, k_cache, v_cache, slots, stream_of(stream)); });
            },
            py::arg("k"), py::arg("v"), py::arg("k_cache"), py::arg("v_cache"), py::arg("slots"),
            py::arg("stream"));
    };
    append("append_kv_naive", yaie::append_kv_naive);
    append("append_kv_vec", yaie::append_kv_vec);

    const auto copy = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](const std::vector<View>& caches, View pairs, uintptr_t stream) {
                yaie::with_memory({inout("caches", caches), input("pairs", pairs)},
                                  [&] { launch(caches, pairs, stream_of(stream)); });
            },
            py::arg("caches"), py::arg("pairs"), py::arg("stream"));
    };
    copy("copy_blocks_naive", yaie::copy_blocks_naive);
    copy("copy_blocks_vec", yaie::copy_blocks_vec);

    const auto gather = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View k, View v, View k_cache, View v_cache, View block_table, View kv_indptr,
                     View kv_start, uintptr_t stream) {
                yaie::with_memory({result("k", k), result("v", v), input("k_cache", k_cache),
                                   input("v_cache", v_cache), input("block_table", block_table),
                                   input("kv_indptr", kv_indptr), input("kv_start", kv_start)},
                                  [&] {
                                      launch(k, v, k_cache, v_cache, block_table, kv_indptr,
                                             kv_start, stream_of(stream));
                                  });
            },
            py::arg("k"), py::arg("v"), py::arg("k_cache"), py::arg("v_cache"),
            py::arg("block_table"), py::arg("kv_indptr"), py::arg("kv_start"), py::arg("stream"));
    };
    gather("gather_kv_naive", yaie::gather_kv_naive);
    gather("gather_kv_vec", yaie::gather_kv_vec);

    const auto slots = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View slots, View block_table, View kv_indptr, View kv_start, int64_t page_size,
                     uintptr_t stream) {
                yaie::with_memory({result("slots", slots), input("block_table", block_table),
                                   input("kv_indptr", kv_indptr), input("kv_start", kv_start)},
                                  [&] {
                                      launch(slots, block_table, kv_indptr, kv_start, page_size,
                                             stream_of(stream));
                                  });
            },
            py::arg("slots"), py::arg("block_table"), py::arg("kv_indptr"), py::arg("kv_start"),
            py::arg("page_size"), py::arg("stream"));
    };
    slots("gather_slots_naive", yaie::gather_slots_naive);
    slots("gather_slots_vec", yaie::gather_slots_vec);
}

void bind_rope(py::module_& m) {
    const auto rope = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View y, View x, View positions, View cos_sin, bool interleaved,
                     uintptr_t stream) {
                yaie::with_memory(
                    {result("y", y), input("x", x), input("positions", positions),
                     input("cos_sin", cos_sin)},
                    [&] { launch(y, x, positions, cos_sin, interleaved, stream_of(stream)); });
            },
            py::arg("y"), py::arg("x"), py::arg("positions"), py::arg("cos_sin"),
            py::arg("interleaved"), py::arg("stream"));
    };
    rope("rope_naive", yaie::rope_naive);
    rope("rope_vec", yaie::rope_vec);

    const auto append = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View q_out, View k_cache, View v_cache, View q, View k, View v, View positions,
                     View cos_sin, View slots, bool interleaved, uintptr_t stream) {
                yaie::with_memory(
                    {result("q_out", q_out), inout("k_cache", k_cache), inout("v_cache", v_cache),
                     input("q", q), input("k", k), input("v", v), input("positions", positions),
                     input("cos_sin", cos_sin), input("slots", slots)},
                    [&] {
                        launch(q_out, k_cache, v_cache, {q, k, v, positions, cos_sin, slots},
                               interleaved, stream_of(stream));
                    });
            },
            py::arg("q_out"), py::arg("k_cache"), py::arg("v_cache"), py::arg("q"), py::arg("k"),
            py::arg("v"), py::arg("positions"), py::arg("cos_sin"), py::arg("slots"),
            py::arg("interleaved"), py::arg("stream"));
    };
    append("rope_append_kv_naive", yaie::rope_append_kv_naive);
    append("rope_append_kv_vec", yaie::rope_append_kv_vec);
}

void bind_merge(py::module_& m) {
    const auto merge = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View out, View lse, View a, View lse_a, View b, View lse_b, uintptr_t stream) {
                yaie::with_memory(
                    {result("out", out), result("lse", lse), input("a", a), input("lse_a", lse_a),
                     input("b", b), input("lse_b", lse_b)},
                    [&] { launch(out, lse, {a, lse_a}, {b, lse_b}, stream_of(stream)); });
            },
            py::arg("out"), py::arg("lse"), py::arg("a"), py::arg("lse_a"), py::arg("b"),
            py::arg("lse_b"), py::arg("stream"));
    };
    merge("merge_states_naive", yaie::merge_states_naive);
    merge("merge_states_vec", yaie::merge_states_vec);

    const auto merge_n = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View out, View lse, View states, View lses, uintptr_t stream) {
                yaie::with_memory({result("out", out), result("lse", lse), input("states", states),
                                   input("lses", lses)},
                                  [&] { launch(out, lse, states, lses, stream_of(stream)); });
            },
            py::arg("out"), py::arg("lse"), py::arg("states"), py::arg("lses"), py::arg("stream"));
    };
    merge_n("merge_states_n_naive", yaie::merge_states_n_naive);
    merge_n("merge_states_n_vec", yaie::merge_states_n_vec);
}

void bind_prefix(py::module_& m) {
    const auto common = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View length, View a, View a_indptr, View b, View b_indptr, int64_t page,
                     uintptr_t stream) {
                yaie::with_memory(
                    {result("length", length), input("a", a), input("a_indptr", a_indptr),
                     input("b", b), input("b_indptr", b_indptr)},
                    [&] { launch(length, a, a_indptr, b, b_indptr, page, stream_of(stream)); });
            },
            py::arg("length"), py::arg("a"), py::arg("a_indptr"), py::arg("b"), py::arg("b_indptr"),
            py::arg("page"), py::arg("stream"));
    };
    common("common_prefix_len_naive", yaie::common_prefix_len_naive);
    common("common_prefix_len_block", yaie::common_prefix_len_block);

    const auto match = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View matched, View node, View edge_tokens, View edge_indptr, View child_indptr,
                     View children, View query, View q_indptr, int64_t page, uintptr_t stream) {
                yaie::with_memory(
                    {result("matched", matched), result("node", node),
                     input("edge_tokens", edge_tokens), input("edge_indptr", edge_indptr),
                     input("child_indptr", child_indptr), input("children", children),
                     input("query", query), input("q_indptr", q_indptr)},
                    [&] {
                        launch(matched, node, edge_tokens, edge_indptr, child_indptr, children,
                               query, q_indptr, page, stream_of(stream));
                    });
            },
            py::arg("matched"), py::arg("node"), py::arg("edge_tokens"), py::arg("edge_indptr"),
            py::arg("child_indptr"), py::arg("children"), py::arg("query"), py::arg("q_indptr"),
            py::arg("page"), py::arg("stream"));
    };
    match("match_tree_naive", yaie::match_tree_naive);
    match("match_tree_warp", yaie::match_tree_warp);
}

void bind_attention(py::module_& m) {
    const auto paged = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View out, View lse, View q, View k_cache, View v_cache, View block_table,
                     View kv_lens, View q_indptr, float scale, float softcap, int left, int right,
                     uintptr_t stream) {
                yaie::with_memory({result("out", out), result("lse", lse), input("q", q),
                                   input("k_cache", k_cache), input("v_cache", v_cache),
                                   input("block_table", block_table), input("kv_lens", kv_lens),
                                   input("q_indptr", q_indptr)},
                                  [&] {
                                      launch(out, lse, q,
                                             {k_cache, v_cache, block_table, kv_lens, q_indptr},
                                             {scale, softcap, left, right}, stream_of(stream));
                                  });
            },
            py::arg("out"), py::arg("lse"), py::arg("q"), py::arg("k_cache"), py::arg("v_cache"),
            py::arg("block_table"), py::arg("kv_lens"), py::arg("q_indptr"), py::arg("scale"),
            py::arg("softcap"), py::arg("left"), py::arg("right"), py::arg("stream"));
    };
    paged("paged_attention_naive", yaie::paged_attention_naive);
    paged("paged_attention_mma_prefill", yaie::paged_attention_mma_prefill);

    const auto varlen = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View out, View lse, View q, View k, View v, View q_indptr, View kv_indptr,
                     float scale, float softcap, int left, int right, uintptr_t stream) {
                yaie::with_memory(
                    {result("out", out), result("lse", lse), input("q", q), input("k", k),
                     input("v", v), input("q_indptr", q_indptr), input("kv_indptr", kv_indptr)},
                    [&] {
                        launch(out, lse, q, {k, v, q_indptr, kv_indptr},
                               {scale, softcap, left, right}, stream_of(stream));
                    });
            },
            py::arg("out"), py::arg("lse"), py::arg("q"), py::arg("k"), py::arg("v"),
            py::arg("q_indptr"), py::arg("kv_indptr"), py::arg("scale"), py::arg("softcap"),
            py::arg("left"), py::arg("right"), py::arg("stream"));
    };
    varlen("varlen_attention_naive", yaie::varlen_attention_naive);
    varlen("varlen_attention_tiled", yaie::varlen_attention_tiled);
    varlen("varlen_attention_mma", yaie::varlen_attention_mma);

    m.def(
        "paged_attention_split_kv",
        [](View out, View lse, View partial_out, View partial_lse, View q, View k_cache,
           View v_cache, View block_table, View kv_lens, View q_indptr, float scale, float softcap,
           int left, int right, uintptr_t stream) {
            yaie::with_memory(
                {result("out", out), result("lse", lse), workspace("partial_out", partial_out),
                 workspace("partial_lse", partial_lse), input("q", q), input("k_cache", k_cache),
                 input("v_cache", v_cache), input("block_table", block_table),
                 input("kv_lens", kv_lens), input("q_indptr", q_indptr)},
                [&] {
                    yaie::paged_attention_split_kv(
                        out, lse, partial_out, partial_lse, q,
                        {k_cache, v_cache, block_table, kv_lens, q_indptr},
                        {scale, softcap, left, right}, stream_of(stream));
                });
        },
        py::arg("out"), py::arg("lse"), py::arg("partial_out"), py::arg("partial_lse"),
        py::arg("q"), py::arg("k_cache"), py::arg("v_cache"), py::arg("block_table"),
        py::arg("kv_lens"), py::arg("q_indptr"), py::arg("scale"), py::arg("softcap"),
        py::arg("left"), py::arg("right"), py::arg("stream"));
    m.def(
        "paged_attention_mma_decode",
        [](View out, View lse, View part_out, View part_lse, View begun, View q, View k_cache,
           View v_cache, View block_table, View kv_lens, View q_indptr, float scale, float softcap,
           int left, int right, uintptr_t stream) {
            yaie::with_memory({result("out", out), result("lse", lse),
                               workspace("part_out", part_out), workspace("part_lse", part_lse),
                               workspace("begun", begun), input("q", q), input("k_cache", k_cache),
                               input("v_cache", v_cache), input("block_table", block_table),
                               input("kv_lens", kv_lens), input("q_indptr", q_indptr)},
                              [&] {
                                  yaie::paged_attention_mma_decode(
                                      out, lse, part_out, part_lse, begun, q,
                                      {k_cache, v_cache, block_table, kv_lens, q_indptr},
                                      {scale, softcap, left, right}, stream_of(stream));
                              });
        },
        py::arg("out"), py::arg("lse"), py::arg("part_out"), py::arg("part_lse"), py::arg("begun"),
        py::arg("q"), py::arg("k_cache"), py::arg("v_cache"), py::arg("block_table"),
        py::arg("kv_lens"), py::arg("q_indptr"), py::arg("scale"), py::arg("softcap"),
        py::arg("left"), py::arg("right"), py::arg("stream"));
}

void bind_penalize(py::module_& m, const char* name, yaie::Penalize* launch) {
    m.def(
        name,
        [launch](View penalized, View logits, View prompt, View prompt_indptr, View output,
                 View output_indptr, View repetition, View frequency, View presence,
                 uintptr_t stream) {
            yaie::with_memory(
                {result("penalized", penalized), input("logits", logits), input("prompt", prompt),
                 input("prompt_indptr", prompt_indptr), input("output", output),
                 input("output_indptr", output_indptr), input("repetition", repetition),
                 input("frequency", frequency), input("presence", presence)},
                [&] {
                    launch(penalized, logits, prompt, prompt_indptr, output, output_indptr,
                           repetition, frequency, presence, stream_of(stream));
                });
        },
        py::arg("penalized"), py::arg("logits"), py::arg("prompt"), py::arg("prompt_indptr"),
        py::arg("output"), py::arg("output_indptr"), py::arg("repetition"), py::arg("frequency"),
        py::arg("presence"), py::arg("stream"));
}

void bind_filter_tokens(py::module_& m) {
    m.def(
        "filter_tokens_naive",
        [](View probs, View logits, View temperature, View top_k, View top_p, View min_p,
           uintptr_t stream) {
            yaie::with_memory(
                {result("probs", probs), input("logits", logits), input("temperature", temperature),
                 input("top_k", top_k), input("top_p", top_p), input("min_p", min_p)},
                [&] {
                    yaie::filter_tokens_naive(probs, logits, temperature, top_k, top_p, min_p,
                                              stream_of(stream));
                });
        },
        py::arg("probs"), py::arg("logits"), py::arg("temperature"), py::arg("top_k"),
        py::arg("top_p"), py::arg("min_p"), py::arg("stream"));
    m.def(
        "filter_tokens_split",
        [](View probs, View work, View work_a_row, View found, View logits, View temperature,
           View top_k, View top_p, View min_p, uintptr_t stream) {
            yaie::with_memory({result("probs", probs), workspace("work", work),
                               workspace("work_a_row", work_a_row), workspace("found", found),
                               input("logits", logits), input("temperature", temperature),
                               input("top_k", top_k), input("top_p", top_p), input("min_p", min_p)},
                              [&] {
                                  yaie::filter_tokens_split(probs, work, work_a_row, found, logits,
                                                            temperature, top_k, top_p, min_p,
                                                            stream_of(stream));
                              });
        },
        py::arg("probs"), py::arg("work"), py::arg("work_a_row"), py::arg("found"),
        py::arg("logits"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"),
        py::arg("min_p"), py::arg("stream"));
}

void bind_draw_tokens(py::module_& m) {
    m.def(
        "draw_tokens_naive",
        [](View token, View probs, View seed, View position, uintptr_t stream) {
            yaie::with_memory(
                {result("token", token), input("probs", probs), input("seed", seed),
                 input("position", position)},
                [&] { yaie::draw_tokens_naive(token, probs, seed, position, stream_of(stream)); });
        },
        py::arg("token"), py::arg("probs"), py::arg("seed"), py::arg("position"),
        py::arg("stream"));
    m.def(
        "draw_tokens_split",
        [](View token, View work, View probs, View seed, View position, uintptr_t stream) {
            yaie::with_memory(
                {result("token", token), workspace("work", work), input("probs", probs),
                 input("seed", seed), input("position", position)},
                [&] {
                    yaie::draw_tokens_split(token, work, probs, seed, position, stream_of(stream));
                });
        },
        py::arg("token"), py::arg("work"), py::arg("probs"), py::arg("seed"), py::arg("position"),
        py::arg("stream"));
}

void bind_sample(py::module_& m) {
    m.def(
        "sample_naive",
        [](View token, View logits, View temperature, View top_k, View top_p, View min_p, View seed,
           View position, uintptr_t stream) {
            yaie::with_memory(
                {result("token", token), input("logits", logits), input("temperature", temperature),
                 input("top_k", top_k), input("top_p", top_p), input("min_p", min_p),
                 input("seed", seed), input("position", position)},
                [&] {
                    yaie::sample_naive(token, logits, temperature, top_k, top_p, min_p, seed,
                                       position, stream_of(stream));
                });
        },
        py::arg("token"), py::arg("logits"), py::arg("temperature"), py::arg("top_k"),
        py::arg("top_p"), py::arg("min_p"), py::arg("seed"), py::arg("position"),
        py::arg("stream"));
    m.def(
        "sample_split",
        [](View token, View work, View work_a_row, View found, View logits, View temperature,
           View top_k, View top_p, View min_p, View seed, View position, uintptr_t stream) {
            yaie::with_memory({result("token", token), workspace("work", work),
                               workspace("work_a_row", work_a_row), workspace("found", found),
                               input("logits", logits), input("temperature", temperature),
                               input("top_k", top_k), input("top_p", top_p), input("min_p", min_p),
                               input("seed", seed), input("position", position)},
                              [&] {
                                  yaie::sample_split(token, work, work_a_row, found, logits,
                                                     temperature, top_k, top_p, min_p, seed,
                                                     position, stream_of(stream));
                              });
        },
        py::arg("token"), py::arg("work"), py::arg("work_a_row"), py::arg("found"),
        py::arg("logits"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"),
        py::arg("min_p"), py::arg("seed"), py::arg("position"), py::arg("stream"));
}

void bind_greedy(py::module_& m) {
    m.def(
        "greedy_naive",
        [](View token, View logits, uintptr_t stream) {
            yaie::with_memory({result("token", token), input("logits", logits)},
                              [&] { yaie::greedy_naive(token, logits, stream_of(stream)); });
        },
        py::arg("token"), py::arg("logits"), py::arg("stream"));
    m.def(
        "greedy_split",
        [](View token, View work, View logits, uintptr_t stream) {
            yaie::with_memory(
                {result("token", token), workspace("work", work), input("logits", logits)},
                [&] { yaie::greedy_split(token, work, logits, stream_of(stream)); });
        },
        py::arg("token"), py::arg("work"), py::arg("logits"), py::arg("stream"));
}

void bind_sampling(py::module_& m) {
    bind_penalize(m, "penalize_naive", yaie::penalize_naive);
    bind_penalize(m, "penalize_tiled", yaie::penalize_tiled);
    bind_filter_tokens(m);
    bind_draw_tokens(m);
    bind_sample(m);
    bind_greedy(m);
    m.attr("sampling_ints_a_part") = yaie::sampling_ints_a_part();
    m.attr("sampling_ints_a_row") = yaie::sampling_ints_a_row();
}

#ifndef __CUDACC__
simt::Policy policy_of(const std::string& name) {
    if (name == "round-robin") return simt::Policy::RoundRobin;
    if (name == "reverse") return simt::Policy::Reverse;
    if (name == "random") return simt::Policy::Random;
    if (name == "priority") return simt::Policy::Priority;
    throw std::invalid_argument("no schedule '" + name +
                                "' (round-robin, reverse, random, priority)");
}

void bind_executor(py::module_& m) {
    m.def(
        "set_schedule",
        [](const std::string& policy, uint64_t seed, int threads, int depth, double preemption) {
            simt::set_schedule({policy_of(policy), seed, threads, depth, preemption});
        },
        py::arg("policy"), py::arg("seed") = 0, py::arg("threads") = 0, py::arg("depth") = 3,
        py::arg("preemption") = 0.0,
        "Order of threads and blocks: round-robin, reverse, random or priority (from seed); "
        "threads "
        "= OS threads, 0 = all cores. The checked build also switches threads at this share of "
        "memory accesses.");
    m.attr("checked") = simt::is_checked();
    m.def(
        "work",
        [] {
            const simt::Stats stats = simt::stats();
            py::dict work;
            work["launches"] = stats.launches;
            work["blocks"] = stats.blocks;
            work["threads"] = stats.threads;
            work["collectives"] = stats.collectives;
            work["barriers"] = stats.barriers;
            if (simt::is_checked()) work["accesses"] = stats.accesses;
            return work;
        },
        "What kernels did since the process started; memory accesses where the build checks them. "
        "Reproducible for one schedule.");
}
#endif

// LaunchError, a RuntimeError whose `kind` is the short stable name of what went wrong.
void bind_launch_error(py::module_& m) {
    static py::object* const type =
        new py::object(py::exception<simt::LaunchError>(m, "LaunchError", PyExc_RuntimeError));
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const simt::LaunchError& e) {
            py::object error = (*type)(e.what());
            error.attr("kind") = e.kind();
            PyErr_SetObject(type->ptr(), error.ptr());
        }
    });
}

}  // namespace

PYBIND11_MODULE(YAIE_MODULE, m) {
    m.doc() = "Kernels of yaie; arguments as on the op's page, stream is a CUDA stream handle.";
    m.attr("build_id") = YAIE_BUILD_ID;
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) std::rethrow_exception(p);
        } catch (const yaie::WrongType& e) {
            py::set_error(PyExc_TypeError, e.what());
        }
    });
    bind_launch_error(m);
    bind_movers(m);
    bind_prefix(m);
    bind_rope(m);
    bind_merge(m);
    bind_attention(m);
    bind_sampling(m);
#ifndef __CUDACC__
    bind_executor(m);
#endif
}
