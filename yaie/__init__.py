"""yaie: verification and benchmark harness for LLM-inference kernels."""

from yaie import kernels, ops
from yaie.dispatch import Unsupported, checked, use

kernels.load()

__version__ = "0.1.0"

__all__ = ["Unsupported", "__version__", "checked", "ops", "use"]
