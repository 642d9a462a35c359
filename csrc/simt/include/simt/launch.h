// SIMT_LAUNCH: run a kernel over a grid, now, on the calling OS thread and its helpers.
#pragma once

#include <tuple>
#include <utility>

#include "simt/error.h"
#include "simt/schedule.h"
#include "simt/vocabulary.h"

// SIMT_LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...)
#define SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                         \
    ::simt::detail::launch_kernel(#kernel, ::simt::detail::Site{__FILE__, __LINE__}, false, \
                                  kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

// The same for a kernel that takes up what the launch before it on the stream leaves. Its blocks may
// start while that one ends, so before a thread touches what the other does too, it calls
// simt::await_launch_before(). Here the launch before has ended, and the checked build holds the
// kernel to it.
#define SIMT_LAUNCH_AFTER(kernel, grid, block, shared_bytes, stream, ...)                          \
    ::simt::detail::launch_kernel(#kernel, ::simt::detail::Site{__FILE__, __LINE__}, true, kernel, \
                                  grid, block, shared_bytes, stream, ##__VA_ARGS__)

namespace simt {

inline void await_launch_before() { detail::note_wait_for_launch(); }
inline void let_launch_after_start() {}

using Stream = void*;  // ignored: a launch has finished when SIMT_LAUNCH returns

namespace detail {

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;

    // Each thread gets its own copy of the parameters, as on the device.
    static void invoke(void* call) {
        Call& self = *static_cast<Call*>(call);
        std::apply(self.kernel, self.arguments);
    }
};

template <class... Parameters, class... Arguments>
void launch_kernel(const char* name, Site site, bool early, void (*kernel)(Parameters...),
                   dim3 grid, dim3 block, std::size_t shared_bytes, Stream,
                   Arguments&&... arguments) {
    static_assert((sizeof(Parameters) + ... + 0) <= 32764, "CUDA passes at most 32764 bytes");
    Call<Parameters...> call{
        kernel,
        std::tuple<Parameters...>(static_cast<Parameters>(std::forward<Arguments>(arguments))...)};
    launch({name, site, grid, block, shared_bytes, &Call<Parameters...>::invoke, &call, sizeof call,
            early});
}

}  // namespace detail
}  // namespace simt
