// Shared memory: arrays in an arena with NaN poison and redzones.
#pragma once

#include <type_traits>

#include "simt/vocabulary.h"

// SIMT_SHARED(float, tile, [32][33]);  A scalar is SIMT_SHARED(int, last, );
// The storage is found once per thread and block, so declare it at the top of the kernel.
#define SIMT_SHARED(T, name, dims)                                          \
    typedef T name##_simt_type dims;                                        \
    static const ::simt::detail::SharedArray name##_simt_array = {          \
        #name,                                                              \
        sizeof(name##_simt_type),                                           \
        sizeof(typename ::std::remove_all_extents<name##_simt_type>::type), \
        alignof(name##_simt_type),                                          \
        {__FILE__, __LINE__}};                                              \
    name##_simt_type& name =                                                \
        *static_cast<name##_simt_type*>(::simt::detail::shared_array(name##_simt_array))

namespace simt {

// The launch's dynamic shared memory from `byte_offset` on; the base is 128-byte aligned.
template <class T>
T* dynamic_shared(std::size_t byte_offset = 0, SIMT_CALL_SITE) {
    return static_cast<T*>(detail::dynamic_shared_bytes(byte_offset, alignof(T), site));
}

}  // namespace simt
