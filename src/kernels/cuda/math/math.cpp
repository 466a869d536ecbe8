// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/math/math.h"

#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

constexpr int32_t kCapability = 80;

int32_t available(Reason* reason) { return cuda_available(kCapability, reason); }
int32_t check(const Problem* p, Reason* reason) { return cuda_device_is(*p, kCapability, reason); }

}  // namespace

const Kernel kCudaMath = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CUDA,
    .name = "cuda_math",
    .features = ((uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1) & ~ATTNMUX_DESCALE,
    .dtypes = 1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16 | 1u << ATTNMUX_FP64,
    .accuracy = {0, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, 0, 0, 0, 0},
    .available = available,
    .check = check,
    .workspace_bytes = nullptr,
    .run = run_cuda_math,
};

}  // namespace attnmux
