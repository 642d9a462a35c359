// What the checked build has seen in one launch.
#pragma once

#include <algorithm>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "block/fault.h"
#include "check/access.h"
#include "simt/vocabulary.h"

namespace simt {
namespace detail {

// Kinds, compared by address.
inline constexpr char kRace[] = "race";
inline constexpr char kUninitialised[] = "uninitialised read";
inline constexpr char kOutOfBounds[] = "out of bounds";
inline constexpr char kReadOnly[] = "write to read-only";
inline constexpr char kInFlight[] = "copy in flight";
inline constexpr char kForeignStack[] = "stack of another thread";
inline constexpr char kMisaligned[] = "misaligned access";
inline constexpr char kNotShared[] = "not shared memory";
inline constexpr char kUndefined[] = "undefined behaviour";
inline constexpr char kDeadlock[] = "deadlock";
inline constexpr char kStale[] = "stale read";

// A side of a finding: who, what, where.
struct Side {
    uint3 block;
    uint3 thread;
    uint32_t flags;
    Where where;
};

struct Finding {
    const char* kind;  // "race", "out of bounds", ... (docs/simt.md)
    Side here;
    std::size_t bytes;
    std::string object;  // "shared array 'tile', element 3 (byte 12)"
    bool has_other = false;
    Side other{};        // the earlier access
    std::string remark;  // what to do, or what was missing
};

class Findings {
   public:
    static constexpr std::size_t kMost = 20;  // of one launch that are told

    void clear();
    bool empty() const { return all_.empty(); }
    // Whether a pair of lines is new; the other one may be 0.
    bool is_new(const char* kind, Where here, Where other) {
        if (kind == last_kind_ && here == last_here_ && other == last_other_) return false;
        last_kind_ = kind;
        last_here_ = here;
        last_other_ = other;
        return seen_.insert({kind, std::min(here, other), std::max(here, other)}).second;
    }
    void add(const Finding& finding);
    // The kind of the gravest, and one line for each pair of source lines, the gravest first: what
    // stopped a block, then races, then values. A value that was not there because of a race told of
    // is left out.
    Fault report(const std::string& kernel, const std::string& schedule) const;

   private:
    bool explained_by_race(const Finding& finding) const;
    std::vector<const Finding*> in_order() const;

    const char* last_kind_ = nullptr;
    Where last_here_ = 0, last_other_ = 0;
    std::set<std::tuple<const char*, Where, Where>> seen_;
    std::vector<Finding> all_;
    std::size_t untold_ = 0;
};

}  // namespace detail
}  // namespace simt
