// SPDX-License-Identifier: Apache-2.0
#include "stream.h"

#include <attnmux/attnmux_c.h>
#include <dlfcn.h>

#include "handle.h"

namespace attnmux::torch_op {
namespace {

using GetStream = AOTITorchError (*)(int32_t device, void** stream);

// The function lives in libtorch_cuda.so, which a CPU build of PyTorch does not have, so this library does not link to
// it. A CUDA tensor exists only where it is loaded.
GetStream find_get_stream() {
  void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
  if (library == nullptr) return nullptr;
  return reinterpret_cast<GetStream>(dlsym(library, "aoti_torch_get_current_cuda_stream"));
}

}  // namespace

void* current_stream(int32_t device) {
  static const GetStream kGetStream = find_get_stream();
  if (kGetStream == nullptr) {
    throw_error(ATTNMUX_UNAVAILABLE,
                "the tensors are on cuda, but the loaded PyTorch does not tell its current stream "
                "(aoti_torch_get_current_cuda_stream in libtorch_cuda.so); PyTorch 2.9 or newer with CUDA is needed");
  }
  void* stream = nullptr;
  check_torch(kGetStream(device, &stream), "tell its current stream");
  return stream == nullptr ? ATTNMUX_STREAM_LEGACY : stream;
}

}  // namespace attnmux::torch_op
