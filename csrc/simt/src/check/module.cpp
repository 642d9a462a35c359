#include "check/module.h"

#include <cxxabi.h>
#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "block/site.h"

extern char** environ;

namespace simt {
namespace detail {
namespace {

constexpr Where kSite = 0x80000000u;  // a Where that counts sites instead of bytes

std::string demangled(const char* symbol) {
    int status = 0;
    char* text = abi::__cxa_demangle(symbol, nullptr, nullptr, &status);
    std::string name = status == 0 && text ? text : symbol;
    std::free(text);
    // "kernel(float*)::tile" is `tile` of that kernel.
    const std::size_t scope = name.rfind("::");
    return scope == std::string::npos ? name : name.substr(scope + 2);
}

// What a program writes to its standard output; empty if it cannot run.
std::string output_of(const std::vector<std::string>& command) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0) return "";
    std::vector<char*> words;
    for (const std::string& word : command) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    pid_t child = 0;
    const int failed = posix_spawnp(&child, words[0], &actions, nullptr, words.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    std::string text;
    char buffer[4096];
    for (ssize_t n; !failed && (n = read(ends[0], buffer, sizeof buffer)) > 0;)
        text.append(buffer, std::size_t(n));
    close(ends[0]);
    if (!failed) waitpid(child, nullptr, 0);
    return text;
}

// "csrc/op/kernel.cuh:12 (discriminator 3)" becomes "op/kernel.cuh:12".
std::string short_line(const std::string& line) {
    return last_two_parts(line.substr(0, line.find(" (")));
}

bool is_ours(const std::string& line) { return line.find("include/simt/") != line.npos; }

int find_tls(dl_phdr_info* info, std::size_t size, void* result) {
    auto& found = *static_cast<std::pair<uintptr_t, std::size_t>*>(result);
    const uintptr_t self = reinterpret_cast<uintptr_t>(__ehdr_start);
    bool ours = false;
    std::size_t bytes = 0;
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const ElfW(Phdr) & segment = info->dlpi_phdr[i];
        const uintptr_t low = info->dlpi_addr + segment.p_vaddr;
        if (segment.p_type == PT_LOAD) ours |= self - low < segment.p_memsz;
        if (segment.p_type == PT_TLS) bytes = segment.p_memsz;
    }
    if (!ours) return 0;
    if (size >= offsetof(dl_phdr_info, dlpi_tls_data) + sizeof(void*) && info->dlpi_tls_data)
        found = {reinterpret_cast<uintptr_t>(info->dlpi_tls_data), bytes};
    return 1;
}

}  // namespace

Module& Module::self() {
    static Module module;
    return module;
}

Module::Module() {
    base_ = reinterpret_cast<uintptr_t>(__ehdr_start);
    const auto& header = *reinterpret_cast<const ElfW(Ehdr)*>(base_);
    const auto* segments = reinterpret_cast<const ElfW(Phdr)*>(base_ + header.e_phoff);
    bool first = true;
    for (int i = 0; i < header.e_phnum; ++i) {
        if (segments[i].p_type != PT_LOAD) continue;
        if (first) vaddr_ = segments[i].p_vaddr - segments[i].p_offset;
        first = false;
        high_ = std::max(high_, base_ + segments[i].p_vaddr - vaddr_ + segments[i].p_memsz);
    }
    low_ = base_;
    Dl_info info;
    path_ = "/proc/self/exe";
    if (dladdr(__ehdr_start, &info) && info.dli_fname && access(info.dli_fname, R_OK) == 0)
        path_ = info.dli_fname;
}

Where Module::where(Site site) {
    KnownSite& known =
        known_sites_[(reinterpret_cast<uintptr_t>(site.file) + unsigned(site.line)) % kKnownSites];
    if (known.site.file != site.file || known.site.line != site.line)
        known = {site, find_site(site)};
    return known.where;
}

Where Module::find_site(Site site) {
    for (std::size_t i = 0; i < sites_.size(); ++i)
        if (same_site(sites_[i], site)) return kSite | Where(i);
    sites_.push_back(site);
    return kSite | Where(sites_.size() - 1);
}

void Module::resolve(const std::vector<Where>& wanted) {
    std::vector<Where> unknown;
    std::vector<std::string> command = {"addr2line", "-a", "-i", "-e", path_};
    for (const Where where : wanted) {
        if (where & kSite || lines_.count(where)) continue;
        char text[32];
        std::snprintf(text, sizeof text, "0x%zx", std::size_t(where) + std::size_t(vaddr_));
        lines_[where] = std::string("instruction ") + text;
        unknown.push_back(where);
        command.push_back(text);
    }
    if (unknown.empty()) return;
    const std::string output = output_of(command);
    std::size_t next = 0;
    bool found = false;
    for (std::size_t at = 0; at < output.size();) {
        const std::size_t end = std::min(output.find('\n', at), output.size());
        const std::string line = output.substr(at, end - at);
        at = end + 1;
        if (line.compare(0, 2, "0x") == 0) {  // -a: the address, before its lines
            ++next;
            found = false;
        } else if (!found && next >= 1 && next <= unknown.size() && line[0] != '?') {
            lines_[unknown[next - 1]] = short_line(line);
            found = !is_ours(line);
        }
    }
}

std::string Module::line(Where where) const {
    if (where & kSite) return to_string(sites_[where & ~kSite]);
    const auto found = lines_.find(where);
    return found == lines_.end() ? "?" : found->second;
}

// ---- Variables ----------------------------------------------------------------------------------

void Module::find_thread_local_block() {
    std::pair<uintptr_t, std::size_t> found{0, 0};
    dl_iterate_phdr(find_tls, &found);
    tls_ = found.first;
    tls_bytes_ = found.second;
}

void Module::read_symbols() {
    read_ = true;
    const int file = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) return;
    const std::size_t size = std::size_t(status.st_size);
    void* memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    close(file);
    if (memory == MAP_FAILED) return;
    const char* bytes = static_cast<const char*>(memory);
    const auto* header = reinterpret_cast<const ElfW(Ehdr)*>(bytes);
    const auto* sections = reinterpret_cast<const ElfW(Shdr)*>(bytes + header->e_shoff);
    for (int i = 0; i < header->e_shnum; ++i) {
        if (sections[i].sh_type != SHT_SYMTAB) continue;
        const auto* symbols = reinterpret_cast<const ElfW(Sym)*>(bytes + sections[i].sh_offset);
        const char* names = bytes + sections[sections[i].sh_link].sh_offset;
        for (std::size_t s = 0; s < sections[i].sh_size / sizeof(ElfW(Sym)); ++s) {
            const int type = symbols[s].st_info & 0xf;
            if (symbols[s].st_size == 0 || symbols[s].st_shndx == SHN_UNDEF) continue;
            const Variable variable{names + symbols[s].st_name, symbols[s].st_value,
                                    symbols[s].st_size};
            if (type == STT_TLS) thread_locals_.push_back(variable);
            if (type == STT_OBJECT) globals_.push_back(variable);
        }
    }
    munmap(memory, size);
    for (auto* variables : {&globals_, &thread_locals_})
        std::sort(variables->begin(), variables->end(),
                  [](const Variable& a, const Variable& b) { return a.offset < b.offset; });
    for (Variable& variable : thread_locals_) variable.name = demangled(variable.name.c_str());
}

const Variable* Module::find(const std::vector<Variable>& variables, uintptr_t offset) {
    const auto after = std::upper_bound(
        variables.begin(), variables.end(), offset,
        [](uintptr_t value, const Variable& variable) { return value < variable.offset; });
    if (after == variables.begin()) return nullptr;
    const Variable& before = *(after - 1);
    return offset - before.offset < before.bytes ? &before : nullptr;
}

const Variable* Module::global_at(uintptr_t address) {
    if (!read_) read_symbols();
    return find(globals_, address - base_ + vaddr_);
}

const Variable* Module::thread_local_at(uintptr_t address) {
    if (!read_) read_symbols();
    return find(thread_locals_, address - tls_);
}

}  // namespace detail
}  // namespace simt
