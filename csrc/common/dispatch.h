// From run-time values to template parameters, in one place.
#pragma once

#include <type_traits>

#include "common/view.h"
#include "simt/simt.h"

// Runs the code with the type name `T` bound to the dtype of a float tensor.
#define YAIE_FLOAT_SWITCH(dtype, T, ...)    \
    do {                                    \
        switch (dtype) {                    \
            case ::yaie::DType::float16: {  \
                using T = __half;           \
                __VA_ARGS__;                \
                break;                      \
            }                               \
            case ::yaie::DType::bfloat16: { \
                using T = __nv_bfloat16;    \
                __VA_ARGS__;                \
                break;                      \
            }                               \
            default: {                      \
                using T = float;            \
                __VA_ARGS__;                \
            }                               \
        }                                   \
    } while (false)

// Runs the code with the type name `Word` bound to an unsigned type of `bytes` bytes.
#define YAIE_WORD_SWITCH(bytes, Word, ...) \
    do {                                   \
        switch (bytes) {                   \
            case 16: {                     \
                using Word = uint4;        \
                __VA_ARGS__;               \
                break;                     \
            }                              \
            case 8: {                      \
                using Word = uint2;        \
                __VA_ARGS__;               \
                break;                     \
            }                              \
            case 4: {                      \
                using Word = uint32_t;     \
                __VA_ARGS__;               \
                break;                     \
            }                              \
            case 2: {                      \
                using Word = uint16_t;     \
                __VA_ARGS__;               \
                break;                     \
            }                              \
            default: {                     \
                using Word = uint8_t;      \
                __VA_ARGS__;               \
            }                              \
        }                                  \
    } while (false)

// Runs the code with the type name `Word` bound to a word of 16 or 8 bytes where `bytes` allows it,
// else to one of the size of T, which is 2 or 4 bytes. Kernels that compute with T need no more.
#define YAIE_FLOAT_WORD_SWITCH(bytes, T, Word, ...)                              \
    do {                                                                         \
        if (bytes >= 16) {                                                       \
            using Word = uint4;                                                  \
            __VA_ARGS__;                                                         \
        } else if (bytes >= 8) {                                                 \
            using Word = uint2;                                                  \
            __VA_ARGS__;                                                         \
        } else {                                                                 \
            using Word = std::conditional_t<sizeof(T) == 2, uint16_t, uint32_t>; \
            __VA_ARGS__;                                                         \
        }                                                                        \
    } while (false)
