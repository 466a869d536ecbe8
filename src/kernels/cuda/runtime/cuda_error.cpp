// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

// What kind of trouble an error of CUDA is. One that is not here is passed on in CUDA's own words.
enum class Trouble {
  kOther,
  kMemory,       // nothing is broken: the next call may succeed
  kNoImage,      // nothing is broken: this GPU runs no kernel of this build
  kStream,       // the caller's stream or context is gone
  kFault,        // a kernel did something illegal; every later call in the context reports it again
  kDeviceLost,   // the GPU itself stopped or left; the process cannot use it any more
  kUnavailable,  // the GPU is held by others, or not ready yet
};

Trouble trouble_of(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation:
      return Trouble::kMemory;
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
    case cudaErrorInvalidKernelImage:
    case cudaErrorUnsupportedPtxVersion:
    case cudaErrorJitCompilerNotFound:
      return Trouble::kNoImage;
    case cudaErrorInvalidResourceHandle:
    case cudaErrorContextIsDestroyed:
    case cudaErrorDeviceUninitialized:
      return Trouble::kStream;
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorMisalignedAddress:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorLaunchTimeout:
      return Trouble::kFault;
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorExternalDevice:
    case cudaErrorContained:
      return Trouble::kDeviceLost;
    case cudaErrorDevicesUnavailable:
    case cudaErrorSystemNotReady:
    case cudaErrorMpsConnectionFailed:
      return Trouble::kUnavailable;
    default:
      return Trouble::kOther;
  }
}

}  // namespace

attnmux_code cuda_failed(attnmux_error* error, cudaError_t code, const char* doing) {
  cudaGetLastError();
  const char *name = cudaGetErrorName(code), *text = cudaGetErrorString(code);
  switch (trouble_of(code)) {
    case Trouble::kMemory:
      return fail_with(error, ATTNMUX_OUT_OF_MEMORY,
                       "the GPU is out of memory while %s (%s); free some, or pass exec.workspace", doing, name);
    case Trouble::kNoImage:
      return fail_with(
          error, ATTNMUX_UNAVAILABLE,
          "this build has no code for this GPU, or its driver is too old for it, while %s: %s (%s); update "
          "the driver, or build with its architecture in ATTNMUX_CUDA_ARCHITECTURES",
          doing, text, name);
    case Trouble::kStream:
      return fail_with(error, ATTNMUX_DEVICE_ERROR,
                       "%s failed: %s (%s); exec.stream must be a live stream of the tensors' device and context",
                       doing, text, name);
    case Trouble::kFault:
      return fail_with(error, ATTNMUX_DEVICE_ERROR,
                       "the GPU met a fault before or while %s: %s (%s); it may come from work queued earlier, and its "
                       "context cannot be used any more (compute-sanitizer finds the place)",
                       doing, text, name);
    case Trouble::kDeviceLost:
      return fail_with(error, ATTNMUX_DEVICE_ERROR,
                       "the GPU is lost while %s: %s (%s); this process cannot use it any more: start anew, and look "
                       "at nvidia-smi and the system's log for Xid messages",
                       doing, text, name);
    case Trouble::kUnavailable:
      return fail_with(error, ATTNMUX_UNAVAILABLE,
                       "the GPU cannot be used now, while %s: %s (%s); see nvidia-smi for who holds it", doing, text,
                       name);
    case Trouble::kOther:
      break;
  }
  return fail_with(error, ATTNMUX_DEVICE_ERROR, "%s failed: %s (%s)", doing, text, name);
}

}  // namespace attnmux
