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

// The same for a kernel that takes up what the launch before it on the stream leaves. Its blocks may
// start while that one ends, so before a thread touches what the other does too, it calls
// simt::await_launch_before().
#define SIMT_LAUNCH_AFTER(kernel, grid, block, shared_bytes, stream, ...) \
    ::simt::detail::launch_after(#kernel, kernel, grid, block, shared_bytes, stream, ##__VA_ARGS__)

namespace simt {

using Stream = cudaStream_t;

// Until all blocks of the launch before have ended, and what they wrote is there. Before sm_90 a
// launch starts no sooner.
__device__ __forceinline__ void await_launch_before() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Blocks of the launch that comes after may take free places, once all blocks of this one were here or
// ended. It says nothing of what this one has written.
__device__ __forceinline__ void let_launch_after_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;");
#endif
}

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
    cudaGetLastError();  // told here, so not to the next who asks
    throw LaunchError(cudaGetErrorName(status),
                      "kernel " + std::string(kernel) + ": " + describe(status));
}

// Above 48 KiB in all a kernel must consent; what it declares statically counts too.
inline void allow_shared(const char* name, const void* kernel, std::size_t bytes) {
    if (bytes == 0) return;
    throw_if_failed(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(bytes)),
        name);
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
            std::size_t shared_bytes, Stream stream, Arguments&&... arguments) {
    allow_shared(name, reinterpret_cast<const void*>(kernel), shared_bytes);
    kernel<<<grid, block, shared_bytes, stream>>>(
        static_cast<Parameters>(std::forward<Arguments>(arguments))...);
    throw_if_failed(cudaGetLastError(), name);
}

// Whether the code that runs on this device has the instruction that waits.
inline bool can_await(const char* name, const void* kernel) {
    cudaFuncAttributes of_kernel;
    throw_if_failed(cudaFuncGetAttributes(&of_kernel, kernel), name);
    return of_kernel.ptxVersion >= 90;
}

template <class... Parameters, class... Arguments>
void launch_after(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block,
                  std::size_t shared_bytes, Stream stream, Arguments&&... arguments) {
    const auto* address = reinterpret_cast<const void*>(kernel);
    allow_shared(name, address, shared_bytes);
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = can_await(name, address) ? 1 : 0;
    throw_if_failed(
        cudaLaunchKernelEx(&config, kernel,
                           static_cast<Parameters>(std::forward<Arguments>(arguments))...),
        name);
}

}  // namespace detail
}  // namespace simt
