// SPDX-License-Identifier: Apache-2.0
// The tensors that go into a call: from files (run) or random (bench, verify).
#pragma once

#include "attnmux/problem_spec.h"
#include "attnmux/tensors.h"

namespace attnmux::cli {

/// Views in host memory; masks and bias are empty where there is none.
struct Inputs {
  TensorView q, k, v, key_padding, dense_mask, bias;

  /// The spec's options and these tensors. The spec must outlive them.
  AttentionOptions options(const ProblemSpec& spec, Backend backend, const MutableTensorView& lse) const;
};

/// What a problem may also have, for random inputs.
struct RandomExtras {
  bool key_padding = false, dense_mask = false, bias = false;
  double magnitude = 1;  // of q: large ones make logits of a hundred and more
};

/// Random tensors of a problem; the same ones for the same seed.
class RandomInputs {
 public:
  explicit RandomInputs(const ProblemSpec& spec, const RandomExtras& extras = {});
  Inputs views() const;

 private:
  HostTensor q_, k_, v_, key_padding_, dense_mask_, bias_;
};

/// Output tensors of a problem, poisoned; lse only where the spec asks for it.
struct Outputs {
  explicit Outputs(const ProblemSpec& spec);
  HostTensor out, lse;
  MutableTensorView lse_view() const { return lse.dtype() == Dtype::kNone ? MutableTensorView() : lse.view(); }
};

/// Bytes that the inputs and `outputs` sets of results take.
double bytes_needed(const ProblemSpec& spec, size_t outputs);

/// The tool keeps its tensors in host memory. Where a problem is said to be elsewhere, this throws what the library
/// says about it, or that it takes the CPU.
void require_host(const ProblemSpec& spec, Backend backend);

}  // namespace attnmux::cli
