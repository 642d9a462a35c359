// Comparing and printing source lines.
#pragma once

#include <cstring>
#include <string>

#include "simt/schedule.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

// Literals: equal ones usually share an address, but each object file may have its own copy.
inline bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

inline bool same_site(Site a, Site b) { return a.line == b.line && same_text(a.file, b.file); }

// "reduce.cuh:41": the folder says more about the building machine than about the kernel.
// "a/csrc/rope/naive.cuh" becomes "rope/naive.cuh": every op has a naive.cuh.
inline std::string last_two_parts(const std::string& path) {
    const std::size_t last = path.rfind('/');
    if (last == std::string::npos || last == 0) return path;
    const std::size_t before = path.rfind('/', last - 1);
    return before == std::string::npos ? path : path.substr(before + 1);
}

inline std::string to_string(Site site) {
    return last_two_parts(site.file) + ":" + std::to_string(site.line);
}

inline std::string to_string(uint3 v) {
    return "(" + std::to_string(v.x) + "," + std::to_string(v.y) + "," + std::to_string(v.z) + ")";
}

// "random, seed 5, preemption 1 %": what brings a run back.
std::string to_string(const Schedule& schedule);

}  // namespace detail
}  // namespace simt
