// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/kernel.h"

namespace attnmux {

/// An error of CUDA as one of ours: what happened while `doing` what, and what to do. Also takes it from the thread's
/// "last error", where a later call would find it.
attnmux_code cuda_failed(attnmux_error* error, cudaError_t code, const char* doing);

#define ATTNMUX_CUDA_TRY(call, doing)                                                                    \
  do {                                                                                                   \
    if (const cudaError_t code_ = (call); code_ != cudaSuccess) return cuda_failed(error, code_, doing); \
  } while (false)

}  // namespace attnmux
