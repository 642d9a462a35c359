// What stops a block. Thrown in the thread that ran into it, so that its stack unwinds.
#pragma once

#include <string>

namespace simt {
namespace detail {

struct Fault {
    std::string kind;
    std::string message;
};

}  // namespace detail
}  // namespace simt
