"""A small, real inference engine: continuous batching, chunked prefill, a radix prefix cache over
paged keys and values, preemption, seeded sampling. All maths with a page goes through dispatch, so
each kernel can be chosen, and no choice changes what a model says.

request    what is asked and what comes out
config     what a decoder looks like, from a Hugging Face folder; rope, weights, model: the decoder
scheduler  which tokens the next step computes, and where their keys and values lie
batch      one step's work as tensors; sampler: the next tokens; graphs: decode as CUDA graphs
engine     the loop around them

docs/engine.md goes from prompt to token.
"""

from yaie.engine.config import ModelConfig, read_config
from yaie.engine.engine import Engine
from yaie.engine.model import Decoder
from yaie.engine.request import Completion, Output, Request, SamplingParams

__all__ = [
    "Completion",
    "Decoder",
    "Engine",
    "ModelConfig",
    "Output",
    "Request",
    "SamplingParams",
    "read_config",
]
