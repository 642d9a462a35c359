"""Host structures of the KV cache: which pages hold which prefix, and who uses each page.

They decide on the CPU what the kernels read on the GPU: a radix tree finds the cached prefix of a
prompt, a block pool counts the users of each page, and the manager keeps the tensors and the block
tables. Nothing here knows an op or a kernel. docs/cache.md has a drawing and the figures.
"""

from yaie.cache.block_pool import BlockPool
from yaie.cache.kv_cache import KVCacheBlock, KVCacheManager
from yaie.cache.radix_node import RadixTreeNode
from yaie.cache.radix_tree import RadixTree

__all__ = ["BlockPool", "KVCacheBlock", "KVCacheManager", "RadixTree", "RadixTreeNode"]
