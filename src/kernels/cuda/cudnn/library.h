// SPDX-License-Identifier: Apache-2.0
// Finds cuDNN where the program runs, and says why it cannot be used.
#pragma once

#include "kernels/kernel.h"

namespace attnmux {

struct CudnnLibrary {
  int64_t version;   // 91901 is 9.19.1; 0: none was loaded
  char path[512];    // of the file
  char reason[256];  // why it cannot be used, and what to do; "" where it can
};

/// Looked for once, by the first question: ATTNMUX_CUDNN_PATH (a file or a folder; then nothing else), what the process
/// has loaded already (then nothing else), the first usable one of the loader's path and of the Python environment's
/// nvidia/cudnn/lib.
const CudnnLibrary& cudnn_library();

/// Is this version known to give wrong results, or too old for what we ask of it?
int32_t cudnn_version_is_usable(int64_t version, Reason* reason);

/// For tests of what needs no GPU: cudnn_library() answers this; null ends that.
void mock_cudnn_library(const CudnnLibrary* library);

}  // namespace attnmux
