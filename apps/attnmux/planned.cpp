// SPDX-License-Identifier: Apache-2.0
#include "attnmux/planned.h"

namespace attnmux::cli {

Status Planned::make(Planned& planned, const TensorView& q, const TensorView& k, const TensorView& v,
                     const MutableTensorView& out, const AttentionOptions& options, const ExecContext& exec) {
  Planned fresh;
  Status status = try_plan(fresh.plan_, q, k, v, out, options, exec);
  if (status) planned = std::move(fresh);
  return status;
}

void Planned::run(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                  const AttentionOptions& options, ExecContext exec) {
  const size_t bytes = workspace_bytes();
  if (workspace_.bytes() < bytes) workspace_ = HostTensor(Dtype::kUint8, {static_cast<int64_t>(bytes)});
  exec.workspace = std::span<std::byte>(workspace_.data(), bytes);
  plan_.run(q, k, v, out, options, exec);
}

}  // namespace attnmux::cli
