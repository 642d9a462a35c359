// Comparing and printing source lines.
#pragma once

#include <cstring>
#include <string>

#include "simt/vocabulary.h"

namespace simt {
namespace detail {

// Literals: equal ones usually share an address, but each object file may have its own copy.
inline bool same_text(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }

inline bool same_site(Site a, Site b) { return a.line == b.line && same_text(a.file, b.file); }

// "reduce.cuh:41": the folder says more about the building machine than about the kernel.
inline std::string to_string(Site site) {
    const char* slash = std::strrchr(site.file, '/');
    return std::string(slash ? slash + 1 : site.file) + ":" + std::to_string(site.line);
}

}  // namespace detail
}  // namespace simt
