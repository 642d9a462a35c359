// A test program in one header: TEST(name) { ... }, CHECK, CHECK_EQUAL, buffers that both faces can
// reach, and RUN, which launches and waits.
#pragma once

#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "simt/memory.h"
#include "simt/simt.h"

namespace check {

struct Test {
    const char* name;
    void (*function)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

inline int& failures() {
    static int count = 0;
    return count;
}

inline std::string& context() {
    static std::string text;
    return text;
}

struct Registration {
    Registration(const char* name, void (*function)()) { tests().push_back({name, function}); }
};

inline void report(const char* file, int line, const std::string& text) {
    if (++failures() > 20) return;
    std::printf("%s:%d: %s%s\n", file, line, text.c_str(), context().c_str());
}

template <class Expected, class Actual>
void equal(const Expected& expected, const Actual& actual, const char* expression, const char* file,
           int line) {
    if (expected == actual) return;
    std::ostringstream text;
    text << expression << ": expected " << expected << ", got " << actual;
    report(file, line, text.str());
}

inline void contains(const std::string& part, const std::string& whole, const char* file,
                     int line) {
    if (whole.find(part) == std::string::npos)
        report(file, line, "expected '" + part + "' in: " + whole);
}

// Memory that host and kernel can reach.
template <class T>
class Buffer {
   public:
    explicit Buffer(std::size_t size, T value = T()) : size_(size) {
#if defined(SIMT_DEVICE)
        simt::detail::throw_if_failed(cudaMallocManaged(&data_, size * sizeof(T)), "Buffer");
#else
        data_ = new T[size];
#endif
#if defined(SIMT_CHECKED) && !defined(CHECK_REGISTERS_ITSELF)
        registered_ = std::make_unique<simt::Registered>(std::vector<simt::Tensor>{
            {"buffer", data_, sizeof(T), {int64_t(size)}, {1}, simt::Role::inout}});
#endif
        for (std::size_t i = 0; i < size; ++i) data_[i] = value;
    }
    ~Buffer() {
#if defined(SIMT_DEVICE)
        cudaFree(data_);
#else
        delete[] data_;
#endif
    }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    T* data() { return data_; }
    std::size_t size() const { return size_; }
    T& operator[](std::size_t i) { return data_[i]; }
    std::vector<T> copy() const { return std::vector<T>(data_, data_ + size_); }

   private:
    std::size_t size_;
    T* data_ = nullptr;
#if defined(SIMT_CHECKED) && !defined(CHECK_REGISTERS_ITSELF)
    std::unique_ptr<simt::Registered> registered_;
#endif
};

inline void wait(const char* kernel) {
#if defined(SIMT_DEVICE)
    simt::detail::throw_if_failed(cudaDeviceSynchronize(), kernel);
#else
    static_cast<void>(kernel);
#endif
}

// On the host: in every order of threads and blocks, on one OS thread and on two.
inline void under_all_schedules(const std::function<void()>& test) {
#if defined(SIMT_DEVICE)
    test();
#else
    const simt::Policy policies[] = {simt::Policy::RoundRobin, simt::Policy::Reverse,
                                     simt::Policy::Random, simt::Policy::Priority};
    const char* names[] = {"round-robin", "reverse", "random", "priority"};
    for (int p = 0; p < 4; ++p) {
        for (int threads : {1, 2}) {
            for (unsigned seed : {1u, 2u, 3u}) {
                if (p < 2 && seed != 1) continue;
                context() = std::string(" [") + names[p] + ", seed " + std::to_string(seed) + ", " +
                            std::to_string(threads) + " OS threads]";
                const double preemption = simt::is_checked() && seed == 2 ? 0.05 : 0;
                simt::set_schedule({policies[p], seed, threads, 3, preemption});
                test();
            }
        }
    }
    simt::set_schedule({});
    context().clear();
#endif
}

inline int run_all() {
    for (const Test& test : tests()) {
        const int before = failures();
        try {
            test.function();
        } catch (const std::exception& exception) {
            report(test.name, 0, exception.what());
        }
        std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
    }
    std::printf("%zu tests, %d failed checks\n", tests().size(), failures());
    return failures() == 0 ? 0 : 1;
}

}  // namespace check

#define TEST(name)                                                   \
    static void name();                                              \
    static const check::Registration name##_registered(#name, name); \
    static void name()

#define CHECK(condition) \
    ((condition) ? void() : check::report(__FILE__, __LINE__, "not true: " #condition))
#define CHECK_EQUAL(expected, actual) check::equal(expected, actual, #actual, __FILE__, __LINE__)
#define CHECK_CONTAINS(part, whole) check::contains(part, whole, __FILE__, __LINE__)

#define RUN(kernel, grid, block, shared_bytes, ...)                             \
    do {                                                                        \
        SIMT_LAUNCH(kernel, grid, block, shared_bytes, nullptr, ##__VA_ARGS__); \
        check::wait(#kernel);                                                   \
    } while (false)

int main() { return check::run_all(); }
