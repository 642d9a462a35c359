// The one header a kernel file includes. Under nvcc it is CUDA itself plus a few names; under a
// host compiler it brings CUDA's vocabulary as well, and kernels run on the executor in csrc/simt.
// What may be written, what is refused and how to read a fault: docs/simt.md.
#pragma once

#if defined(__CUDACC__)
#include "simt/device.h"
#else
#include "simt/host.h"
#endif
#include "simt/collective/async_copy.h"
#include "simt/collective/matrix.h"
#include "simt/collective/named_barriers.h"
#include "simt/convert.h"
