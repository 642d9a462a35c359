// The nvcc face: the language is native, only the names the two faces share are defined here.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "simt/error.h"

#define SIMT_DEVICE 1
#define SIMT_INLINE __host__ __device__ __forceinline__

// A function that keeps its registers apart from its caller's.
#define SIMT_NOINLINE __noinline__

// SIMT_SHARED(float, tile, [32][33]);
#define SIMT_SHARED(T, name, dims) __shared__ T name dims

// SIMT_LAUNCH((kernel<T, 4>), grid, block, shared_bytes, stream, arguments...)
#define SIMT_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    ::simt::detail::launch(#kernel, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

namespace simt {

using Stream = cudaStream_t;

// The launch's dynamic shared memory from `byte_offset` on; the base is 128-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared(std::size_t byte_offset = 0) {
    extern __shared__ __align__(128) unsigned char simt_dynamic_shared_bytes[];
    return reinterpret_cast<T*>(simt_dynamic_shared_bytes + byte_offset);
}

namespace detail {

// What a user can act on. Without a driver CUDA speaks of its version, which helps nobody.
inline std::string describe(cudaError_t status) {
    const std::string name = std::string(" (") + cudaGetErrorName(status) + ")";
    if (status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice)
        return "no CUDA device, or no driver for it" + name;
    return cudaGetErrorString(status) + name;
}

inline void throw_if_failed(cudaError_t status, const char* kernel) {
    if (status == cudaSuccess) return;
    throw LaunchError(cudaGetErrorName(status),
                      "kernel " + std::string(kernel) + ": " + describe(status));
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, Stream stream, Arguments&&... arguments) {
    // Above 48 KiB in all a kernel must consent; what it declares statically counts too.
    if (shared_bytes > 0) {
        throw_if_failed(
            cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                 cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes)),
            name);
    }
    kernel<<<grid, block, shared_bytes, stream>>>(
        static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    throw_if_failed(cudaGetLastError(), name);
}

}  // namespace detail
}  // namespace simt
