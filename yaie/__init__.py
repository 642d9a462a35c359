"""yaie: verification and benchmark harness for LLM-inference kernels."""

from contextlib import AbstractContextManager

from yaie import dispatch, kernels, ops
from yaie.dispatch import Unsupported, checked

kernels.load()
dispatch.check_choices(dispatch.environment(), ops.kernel_names())

__version__ = "0.1.0"


def use(*choices: str) -> AbstractContextManager[None]:
    """Choose kernels for the calls inside a ``with`` block (see yaie.dispatch.use).

    Errors: ValueError, with the nearest names, for a choice that fits no op or no kernel.
    """
    dispatch.check_choices(choices, ops.kernel_names())
    return dispatch.use(*choices)


__all__ = ["Unsupported", "__version__", "checked", "ops", "use"]
