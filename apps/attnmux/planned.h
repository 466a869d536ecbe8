// SPDX-License-Identifier: Apache-2.0
// A backend made ready: its plan and a workspace of its own.
#pragma once

#include <attnmux/attnmux.h>

#include "attnmux/tensors.h"

namespace attnmux::cli {

class Planned {
 public:
  /// Chooses a kernel for the views; fails with the library's own status.
  static Status make(Planned& planned, const TensorView& q, const TensorView& k, const TensorView& v,
                     const MutableTensorView& out, const AttentionOptions& options, const ExecContext& exec = {});

  /// Throws Error.
  void run(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
           const AttentionOptions& options, ExecContext exec = {});

  std::string kernel() const { return std::string(plan_.kernel()); }
  Backend backend() const { return plan_.backend(); }
  size_t workspace_bytes() const { return plan_.workspace_bytes(); }

 private:
  Plan plan_;
  HostTensor workspace_;  // made by the first run: a plan may be asked without being run
};

}  // namespace attnmux::cli
