// The program or shared object that this executor is linked into: its symbols and source lines.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "check/access.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

// A variable of the module: a plain __shared__ one (thread-local here), or a global.
struct Variable {
    std::string name;
    uintptr_t offset;  // in the thread-local block, or in the module
    std::size_t bytes;
};

class Module {
   public:
    static Module& self();

    // The instruction before a return address: the call.
    static Where where_of(const void* return_address);
    Where where(Site site);

    // Source lines by the debug information, which addr2line reads: the innermost line that is not
    // the executor's own. Known ones cost nothing; all new ones are asked for at once.
    void resolve(const std::vector<Where>& wanted);
    std::string line(Where where) const;

    bool holds(uintptr_t address) const { return address - low_ < high_ - low_; }
    // The variable at an address of the module, and at an offset in its thread-local block.
    const Variable* global_at(uintptr_t address);
    const Variable* thread_local_at(uintptr_t address);
    uintptr_t address_of(const Variable& global) const { return base_ - vaddr_ + global.offset; }
    // This OS thread's thread-local block.
    uintptr_t thread_local_low() const { return tls_; }
    std::size_t thread_local_bytes() const { return tls_bytes_; }
    void find_thread_local_block();

   private:
    Module();
    void read_symbols();
    static const Variable* find(const std::vector<Variable>& variables, uintptr_t offset);

    uintptr_t base_ = 0;   // what offsets count from
    uintptr_t vaddr_ = 0;  // of the first byte, in the file's numbering
    uintptr_t low_ = 0, high_ = 0;
    uintptr_t tls_ = 0;
    std::size_t tls_bytes_ = 0;
    std::string path_;
    bool read_ = false;
    std::vector<Variable> globals_, thread_locals_;
    Where find_site(Site site);

    std::vector<Site> sites_;
    // A few of them by address, since every atomic and every copy asks.
    static constexpr unsigned kKnownSites = 64;
    struct KnownSite {
        Site site;
        Where where;
    };
    KnownSite known_sites_[kKnownSites] = {};
    std::map<Where, std::string> lines_;
};

}  // namespace detail
}  // namespace simt

// The start of this module in memory; the linker makes it.
extern const char __ehdr_start[] __attribute__((visibility("hidden")));

inline simt::detail::Where simt::detail::Module::where_of(const void* return_address) {
    return Where(static_cast<const char*>(return_address) - __ehdr_start - 1);
}
