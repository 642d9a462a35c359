// What stops a block. Thrown in the thread that ran into it, so that its stack unwinds.
#pragma once

#include <string>

namespace simt {
namespace detail {

inline constexpr char kPollingAdvice[] =
    "Blocks run one after another: none may wait for one that comes later.";

struct Fault {
    std::string kind;
    std::string message;
};

}  // namespace detail
}  // namespace simt
