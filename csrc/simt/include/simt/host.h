// The host face: CUDA's vocabulary for an ordinary C++ compiler, no NVIDIA header involved.
#pragma once

#define SIMT_HOST 1
#define SIMT_INLINE inline __attribute__((always_inline))

#include "simt/vocabulary.h"
//
#include "simt/atomics.h"
#include "simt/collective/barriers.h"
#include "simt/collective/warp.h"
#include "simt/half.h"
#include "simt/intrinsics.h"
#include "simt/launch.h"
#include "simt/shared.h"
