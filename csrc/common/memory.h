// What a launcher's arguments are to its kernels: the checked build of the executor holds them to it
// (docs/simt.md). In other builds this is a plain call.
#pragma once

#include <initializer_list>
#include <string>
#include <vector>

#include "common/view.h"
#include "simt/memory.h"

namespace yaie {

struct Argument {
    const char* name;
    const View* views;
    int count;  // -1: a single tensor, else a list
    simt::Role role;
};

inline Argument input(const char* name, const View& view) {
    return {name, &view, -1, simt::Role::input};
}
inline Argument inout(const char* name, const View& view) {
    return {name, &view, -1, simt::Role::inout};
}
inline Argument inout(const char* name, const std::vector<View>& views) {
    return {name, views.data(), static_cast<int>(views.size()), simt::Role::inout};
}
inline Argument result(const char* name, const View& view) {
    return {name, &view, -1, simt::Role::result};
}
inline Argument workspace(const char* name, const View& view) {
    return {name, &view, -1, simt::Role::workspace};
}

#if defined(SIMT_CHECKED)

inline void add(std::vector<simt::Tensor>& tensors, const std::string& name, const View& view,
                simt::Role role) {
    tensors.push_back({name,
                       view.data,
                       static_cast<std::size_t>(view.itemsize),
                       {view.shape, view.shape + view.rank},
                       {view.stride, view.stride + view.rank},
                       role});
}

template <class Launch>
void with_memory(std::initializer_list<Argument> arguments, Launch launch) {
    std::vector<simt::Tensor> tensors;
    for (const Argument& a : arguments) {
        if (a.count < 0) add(tensors, a.name, *a.views, a.role);
        for (int i = 0; i < a.count; ++i)
            add(tensors, std::string(a.name) + "[" + std::to_string(i) + "]", a.views[i], a.role);
    }
    const simt::Registered registered(tensors);
    launch();
    registered.check_results();
}

#else

template <class Launch>
void with_memory(std::initializer_list<Argument>, Launch launch) {
    launch();
}

#endif

}  // namespace yaie
