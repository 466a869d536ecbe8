// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cuda_runtime_api.h>

namespace attnmux {

/// A function of the driver, in the form that it had in `version` (12000 is CUDA 12.0), or null. Asked of the runtime,
/// which has loaded the driver: so no program needs libcuda.so to start.
template <typename Function>
Function driver_function(const char* name, unsigned version) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t code = cudaGetDriverEntryPointByVersion(name, &function, version, cudaEnableDefault, &found);
  if (code != cudaSuccess) cudaGetLastError();
  const bool usable = code == cudaSuccess && found == cudaDriverEntryPointSuccess;
  return reinterpret_cast<Function>(usable ? function : nullptr);
}

}  // namespace attnmux
