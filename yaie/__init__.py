"""yaie: verification and benchmark harness for LLM-inference kernels."""

from contextlib import AbstractContextManager

from yaie import dispatch, kernels, ops
from yaie.api import attention_forward, copy_blocks, paged_attention_forward
from yaie.cache import KVCacheBlock, KVCacheManager, RadixTree, RadixTreeNode
from yaie.command.errors import end_command
from yaie.dispatch import Unsupported, checked
from yaie.kernels import torch_ops
from yaie.nn import RadixAttentionBlock, apply_rotary_pos_emb, rotate_half
from yaie.profiling import benchmark_kernel, profile_kernel
from yaie.sampling import SamplingKernel

try:
    kernels.load()
    torch_ops.register()
    dispatch.check_environment(ops.kernel_names())
except (ImportError, ValueError) as error:
    end_command(error)
    raise

__version__ = "0.1.0"


def use(*choices: str) -> AbstractContextManager[None]:
    """Choose kernels for the calls inside a ``with`` block (see yaie.dispatch.use).

    Errors: ValueError, with the nearest names, for a choice that fits no op or no kernel.
    """
    dispatch.check_choices(choices, ops.kernel_names())
    return dispatch.use(*choices)


__all__ = [
    "KVCacheBlock",
    "KVCacheManager",
    "RadixAttentionBlock",
    "RadixTree",
    "RadixTreeNode",
    "SamplingKernel",
    "Unsupported",
    "__version__",
    "apply_rotary_pos_emb",
    "attention_forward",
    "benchmark_kernel",
    "checked",
    "copy_blocks",
    "ops",
    "paged_attention_forward",
    "profile_kernel",
    "rotate_half",
    "use",
]
