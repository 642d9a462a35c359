// The Python face of the kernels. The only file that knows Python; it knows no torch header either:
// a tensor is whatever has data_ptr, shape, stride, dtype and device.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "common/check.h"
#include "common/kernels.h"
#include "simt/simt.h"

namespace py = pybind11;

namespace yaie {
AppendKv append_kv_naive, append_kv_vec;
CopyBlocks copy_blocks_naive, copy_blocks_vec;
PagedAttention paged_attention_naive;
SplitPagedAttention paged_attention_split_kv;
}  // namespace yaie

namespace {

yaie::DType dtype_of(const std::string& name) {
    if (name == "torch.float32") return yaie::DType::float32;
    if (name == "torch.float16") return yaie::DType::float16;
    if (name == "torch.bfloat16") return yaie::DType::bfloat16;
    if (name == "torch.int32") return yaie::DType::int32;
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

using yaie::View;

yaie::StreamHandle stream_of(uintptr_t stream) { return reinterpret_cast<void*>(stream); }

void bind_movers(py::module_& m) {
    const auto append = [&m](const char* name, auto launch) {
        m.def(
            name,
            [launch](View k, View v, View k_cache, View v_cache, View slots, uintptr_t stream) {
                launch(k, v, k_cache, v_cache, slots, stream_of(stream));
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
                launch(caches, pairs, stream_of(stream));
            },
            py::arg("caches"), py::arg("pairs"), py::arg("stream"));
    };
    copy("copy_blocks_naive", yaie::copy_blocks_naive);
    copy("copy_blocks_vec", yaie::copy_blocks_vec);
}

void bind_attention(py::module_& m) {
    m.def(
        "paged_attention_naive",
        [](View out, View lse, View q, View k_cache, View v_cache, View block_table, View kv_lens,
           View q_indptr, float scale, float softcap, int left, int right, uintptr_t stream) {
            yaie::paged_attention_naive(out, lse, q,
                                        {k_cache, v_cache, block_table, kv_lens, q_indptr},
                                        {scale, softcap, left, right}, stream_of(stream));
        },
        py::arg("out"), py::arg("lse"), py::arg("q"), py::arg("k_cache"), py::arg("v_cache"),
        py::arg("block_table"), py::arg("kv_lens"), py::arg("q_indptr"), py::arg("scale"),
        py::arg("softcap"), py::arg("left"), py::arg("right"), py::arg("stream"));
    m.def(
        "paged_attention_split_kv",
        [](View out, View lse, View partial_out, View partial_lse, View q, View k_cache,
           View v_cache, View block_table, View kv_lens, View q_indptr, float scale, float softcap,
           int left, int right, uintptr_t stream) {
            yaie::paged_attention_split_kv(out, lse, partial_out, partial_lse, q,
                                           {k_cache, v_cache, block_table, kv_lens, q_indptr},
                                           {scale, softcap, left, right}, stream_of(stream));
        },
        py::arg("out"), py::arg("lse"), py::arg("partial_out"), py::arg("partial_lse"),
        py::arg("q"), py::arg("k_cache"), py::arg("v_cache"), py::arg("block_table"),
        py::arg("kv_lens"), py::arg("q_indptr"), py::arg("scale"), py::arg("softcap"),
        py::arg("left"), py::arg("right"), py::arg("stream"));
}

#ifndef __CUDACC__
simt::Policy policy_of(const std::string& name) {
    if (name == "round-robin") return simt::Policy::RoundRobin;
    if (name == "reverse") return simt::Policy::Reverse;
    if (name == "random") return simt::Policy::Random;
    throw std::invalid_argument("no schedule '" + name + "' (round-robin, reverse, random)");
}

void bind_executor(py::module_& m) {
    m.def(
        "set_schedule",
        [](const std::string& policy, uint64_t seed, int threads) {
            simt::set_schedule({policy_of(policy), seed, threads});
        },
        py::arg("policy"), py::arg("seed") = 0, py::arg("threads") = 0,
        "Order of threads and blocks: round-robin, reverse or random (from seed); threads = OS "
        "threads, 0 = all cores.");
}
#endif

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
    bind_movers(m);
    bind_attention(m);
#ifndef __CUDACC__
    bind_executor(m);
#endif
}
