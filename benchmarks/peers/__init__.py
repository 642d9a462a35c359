"""Kernels that are not ours, behind the same interface: judged, then timed beside ours.

Importing this package registers them (`python -m benchmarks` names it in YAIE_PLUGINS), those of
other packages where these are installed. torch.eager is a peer too, and lives in yaie: for the
movers it is index_copy_ and index_select.
"""

import importlib.util

from benchmarks.peers import flash_infer, torch_compiled, torch_flex, torch_sampling, torch_sdpa

for _peer in (torch_sdpa, torch_flex, torch_compiled, torch_sampling, flash_infer):
    _peer.register()

if importlib.util.find_spec("triton") is not None:
    from benchmarks.peers import triton_attention

    triton_attention.register()
