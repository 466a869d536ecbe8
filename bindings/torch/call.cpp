// SPDX-License-Identifier: Apache-2.0
#include "call.h"

#include <attnmux/backend.h>

#include <string>

#include "handle.h"
#include "stream.h"

// Exists from PyTorch 2.10 on; weak, so that 2.9 loads this library too.
extern "C" __attribute__((weak)) AOTITorchError torch_get_num_threads(uint32_t* num_threads);

namespace attnmux::torch_op {
namespace {

// torch.set_num_threads() holds for this library as well.
int32_t num_threads() {
  uint32_t threads = 0;
  if (torch_get_num_threads == nullptr || torch_get_num_threads(&threads) != 0) return 0;
  return static_cast<int32_t>(threads);
}

}  // namespace

attnmux_options options_for(int64_t backend) {
  if (backend < 0 || backend > UINT16_MAX) {
    throw_error(ATTNMUX_UNKNOWN_BACKEND,
                "backend is id " + std::to_string(backend) + "; ids are what attnmux gives for a name");
  }
  attnmux_options o{};
  o.struct_size = sizeof(o);
  o.backend = backend == 0 ? detail::built_in_id("native") : static_cast<uint16_t>(backend);
  return o;
}

void run(const attnmux_tensor& q, const attnmux_tensor& k, const attnmux_tensor& v, const attnmux_tensor& out,
         const attnmux_options& options) {
  attnmux_exec exec{};
  exec.struct_size = sizeof(exec);
  if (q.device_type == ATTNMUX_CUDA) {
    exec.stream = current_stream(q.device_id);
  } else {
    exec.num_threads = num_threads();
  }
  attnmux_error error{};
  const attnmux_code code = attnmux_attention(&q, &k, &v, &out, &options, &exec, &error);
  if (code == ATTNMUX_OK) return;
  throw std::runtime_error("attnmux:" + std::to_string(code) + ":" + error.message);
}

}  // namespace attnmux::torch_op
