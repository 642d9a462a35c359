"""Kernels that are not ours, behind the same interface: judged, then timed beside ours.

Importing this package registers them (`python -m benchmarks` names it in YAIE_PLUGINS). torch.eager
is a peer too, and lives in yaie: for the movers it is index_copy_ and index_select.
"""

from benchmarks.peers import torch_flex, torch_sampling, torch_sdpa

for _peer in (torch_sdpa, torch_flex, torch_sampling):
    _peer.register()
