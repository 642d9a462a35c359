// The tokens of several sequences, one behind the other.
#pragma once

#include "simt/simt.h"

namespace yaie::common_prefix_len {

struct Packed {  // B sequences of tokens
    const int* tokens;
    const int* indptr;  // [B+1]
};

}  // namespace yaie::common_prefix_len
