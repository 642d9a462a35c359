#include "penalize/naive.cuh"

#include "common/kernels.h"
#include "common/sampling.h"

namespace yaie {

void penalize_naive(View penalized, View logits, View prompt, View prompt_indptr, View output,
                    View output_indptr, View repetition, View frequency, View presence,
                    StreamHandle stream) {
    Door door("penalize");
    door.admit("logits", logits, {"B", "V"}, Kind::float32)
        .admit("prompt", prompt, {"Np"}, Kind::int32)
        .admit("prompt_indptr", prompt_indptr, {"B+1"}, Kind::int32)
        .admit("output", output, {"No"}, Kind::int32)
        .admit("output_indptr", output_indptr, {"B+1"}, Kind::int32)
        .admit("repetition", repetition, {"B"}, Kind::float32)
        .admit("frequency", frequency, {"B"}, Kind::float32)
        .admit("presence", presence, {"B"}, Kind::float32)
        .admit("penalized", penalized, {"B", "V"}, Kind::float32, Layout::contiguous);
    const sampling::Rows rows = sampling::rows(door, logits);
    if (door["B"] == 0) return;
    const penalize::Packed prompts{prompt.as<int>(), prompt_indptr.as<int>()};
    const penalize::Packed outputs{output.as<int>(), output_indptr.as<int>()};
    const penalize::Penalties penalties{repetition.as<float>(), frequency.as<float>(),
                                        presence.as<float>()};
    SIMT_LAUNCH((penalize::naive), grid_x(door, door["B"]), sampling::threads_for(door["V"]), 0,
                static_cast<simt::Stream>(stream), penalized.as<float>(), rows, prompts, outputs,
                penalties);
}

}  // namespace yaie
