// SPDX-License-Identifier: Apache-2.0
// What each kind of trouble with a GPU is called, and what to do about it. No GPU is needed: CUDA names its errors
// anywhere.
#ifdef ATTNMUX_HAS_CUDA
#include <gtest/gtest.h>
#include <kernels/cuda/runtime/cuda_error.h>

#include <string>

namespace attnmux {
namespace {

struct Expected {
  cudaError_t error;
  attnmux_code code;
  const char *what, *remedy;
};

class CudaErrors : public ::testing::TestWithParam<Expected> {};

TEST_P(CudaErrors, SayWhatHappenedAndWhatToDo) {
  const Expected& expected = GetParam();
  attnmux_error error{};
  EXPECT_EQ(cuda_failed(&error, expected.error, "launching a kernel"), expected.code);
  EXPECT_EQ(error.code, expected.code);
  const std::string text = error.message;
  EXPECT_TRUE(text.starts_with("[attention] ")) << text;
  for (const char* part : {expected.what, expected.remedy, "launching a kernel", cudaGetErrorName(expected.error)})
    EXPECT_NE(text.find(part), std::string::npos) << "\"" << part << "\" is not in: " << text;
  EXPECT_LT(text.size(), sizeof(error.message) - 1) << "cut short";
}

INSTANTIATE_TEST_SUITE_P(
    Kinds, CudaErrors,
    ::testing::Values(
        Expected{cudaErrorMemoryAllocation, ATTNMUX_OUT_OF_MEMORY, "out of memory", "exec.workspace"},
        Expected{cudaErrorNoKernelImageForDevice, ATTNMUX_UNAVAILABLE, "no code for this GPU",
                 "ATTNMUX_CUDA_ARCHITECTURES"},
        Expected{cudaErrorInvalidDeviceFunction, ATTNMUX_UNAVAILABLE, "no code for this GPU", "update the driver"},
        Expected{cudaErrorUnsupportedPtxVersion, ATTNMUX_UNAVAILABLE, "too old", "update the driver"},
        Expected{cudaErrorIllegalAddress, ATTNMUX_DEVICE_ERROR, "a fault", "compute-sanitizer"},
        Expected{cudaErrorLaunchFailure, ATTNMUX_DEVICE_ERROR, "cannot be used any more", "compute-sanitizer"},
        Expected{cudaErrorLaunchTimeout, ATTNMUX_DEVICE_ERROR, "cannot be used any more", "compute-sanitizer"},
        Expected{cudaErrorECCUncorrectable, ATTNMUX_DEVICE_ERROR, "the GPU is lost", "start anew"},
        Expected{cudaErrorNvlinkUncorrectable, ATTNMUX_DEVICE_ERROR, "the GPU is lost", "Xid"},
        Expected{cudaErrorDevicesUnavailable, ATTNMUX_UNAVAILABLE, "cannot be used now", "nvidia-smi"},
        Expected{cudaErrorInvalidResourceHandle, ATTNMUX_DEVICE_ERROR, "exec.stream", "live stream"},
        Expected{cudaErrorContextIsDestroyed, ATTNMUX_DEVICE_ERROR, "exec.stream", "context"},
        Expected{cudaErrorInvalidValue, ATTNMUX_DEVICE_ERROR, "failed", "invalid argument"}),
    [](const auto& row) { return std::string(cudaGetErrorName(row.param.error)); });

}  // namespace
}  // namespace attnmux
#endif
