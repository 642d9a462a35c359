// The exception of both faces.
#pragma once

#include <stdexcept>
#include <string>

namespace simt {

// A launch that was refused, or that stopped because the kernel did something CUDA leaves undefined.
class LaunchError : public std::runtime_error {
   public:
    LaunchError(std::string kind, const std::string& message)
        : std::runtime_error(message), kind_(std::move(kind)) {}

    // A short stable name: "invalid configuration", "divergent barrier", "deadlock", ... (docs/simt.md)
    const std::string& kind() const { return kind_; }

   private:
    std::string kind_;
};

}  // namespace simt
