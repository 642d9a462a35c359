// penalize.tiled on two rows whose tokens are few, so that threads meet at their counters.
#include "planted.h"

#include "penalize/tiled.cuh"

static void launch() {
    using namespace yaie;
    const int rows = 2, vocabulary = 40, tokens = 60, most = 9;  // tokens of each row
    Tensor<float> logits("logits", {rows, vocabulary}, {}, simt::Role::input);
    Tensor<int> prompt("prompt", {rows * tokens}, {}, simt::Role::input);
    Tensor<int> output("output", {rows * tokens}, {}, simt::Role::input);
    Tensor<int> indptr("indptr", {rows + 1}, {}, simt::Role::input);
    Tensor<float> repetition("repetition", {rows}, {}, simt::Role::input);
    Tensor<float> frequency("frequency", {rows}, {}, simt::Role::input);
    Tensor<float> presence("presence", {rows}, {}, simt::Role::input);
    Tensor<float> penalized("penalized", {rows, vocabulary}, {}, simt::Role::result);
    for (int i = 0; i < rows * tokens; ++i) prompt.values()[i] = output.values()[i] = i % most;
    for (int b = 0; b <= rows; ++b) indptr.values()[b] = b * tokens;
    for (int b = 0; b < rows; ++b) repetition.values()[b] = 1.2f;
    SIMT_LAUNCH((penalize::tiled), rows, 64, 0, nullptr, penalized.data(),
                sampling::Rows{logits.data(), vocabulary, vocabulary}, prompt.data(), indptr.data(),
                output.data(), indptr.data(), repetition.data(), frequency.data(), presence.data(),
                1);
    penalized.check_result();
}

int main() { return run(launch); }
