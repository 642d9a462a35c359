#include "check/findings.h"

#include "block/site.h"
#include "check/module.h"

namespace simt {
namespace detail {
namespace {

const char* verb(uint32_t flags, bool past) {
    if (flags & kPending) return past ? "began to copy" : "copies";
    if ((flags & kAtomic) && !(flags & kVolatile))
        return past ? "updated (atomically)" : "updates (atomically)";
    if (flags & kWrites) return past ? "wrote" : "writes";
    return past ? "read" : "reads";
}

bool same(uint3 a, uint3 b) { return a.x == b.x && a.y == b.y && a.z == b.z; }

std::string describe(const Finding& f, const std::string& kernel, const std::string& schedule) {
    const Module& module = Module::self();
    std::string text = "kernel " + kernel + ": " + f.kind + " in block " + to_string(f.here.block) +
                       ", thread " + to_string(f.here.thread) + ", at " +
                       module.line(f.here.where) + ": ";
    if (f.bytes)
        text += std::string(verb(f.here.flags, false)) + " " + std::to_string(f.bytes) +
                (f.bytes == 1 ? " byte of " : " bytes of ");
    text += f.object;
    if (f.has_other) {
        text += "; thread " + to_string(f.other.thread);
        if (!same(f.other.block, f.here.block)) text += " of block " + to_string(f.other.block);
        text += std::string(" ") + verb(f.other.flags, true) + " there at " +
                module.line(f.other.where);
    }
    return text + ". " + f.remark + " Schedule: " + schedule + ".";
}

}  // namespace

void Findings::clear() {
    last_kind_ = nullptr;
    seen_.clear();
    all_.clear();
    untold_ = 0;
}

void Findings::add(const Finding& finding) {
    if (all_.size() < kMost)
        all_.push_back(finding);
    else
        ++untold_;
}

bool Findings::explained_by_race(const Finding& finding) const {
    const Module& module = Module::self();
    const std::string line = module.line(finding.here.where);
    return std::any_of(all_.begin(), all_.end(), [&](const Finding& race) {
        return race.has_other &&
               (module.line(race.here.where) == line || module.line(race.other.where) == line);
    });
}

std::vector<const Finding*> Findings::in_order() const {
    std::vector<const Finding*> ordered;
    for (const Finding& finding : all_) {
        const bool value = finding.kind == kUninitialised;
        if (!value || !explained_by_race(finding)) ordered.push_back(&finding);
    }
    const auto rank = [](const Finding* finding) {
        return finding->kind == kOutOfBounds ? 0 : finding->kind == kUninitialised ? 2 : 1;
    };
    std::stable_sort(ordered.begin(), ordered.end(),
                     [&](const Finding* a, const Finding* b) { return rank(a) < rank(b); });
    return ordered;
}

Fault Findings::report(const std::string& kernel, const std::string& schedule) const {
    Module& module = Module::self();
    std::vector<Where> wanted;
    for (const Finding& finding : all_) {
        wanted.push_back(finding.here.where);
        if (finding.has_other) wanted.push_back(finding.other.where);
    }
    module.resolve(wanted);
    const std::vector<const Finding*> ordered = in_order();
    std::string text;
    std::set<std::set<std::string>> told;  // several instructions may be of one line
    for (const Finding* finding : ordered) {
        std::set<std::string> key{finding->kind, module.line(finding->here.where)};
        if (finding->has_other) key.insert(module.line(finding->other.where));
        if (!told.insert(key).second) continue;
        text += (text.empty() ? "" : "\n") + describe(*finding, kernel, schedule);
    }
    if (untold_) text += "\nand " + std::to_string(untold_) + " more pairs of lines";
    return {ordered.front()->kind, text};
}

}  // namespace detail
}  // namespace simt
