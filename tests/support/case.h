// SPDX-License-Identifier: Apache-2.0
// A Spec made flesh: the tensors of one call, the options that pass them to the library, and what must come out.
#pragma once

#include "support/reference.h"
#include "support/spec.h"

namespace attnmux::test {

struct Case {
  explicit Case(const Spec& given);

  Spec spec;
  Tensor q, k, v, key_lengths, key_padding, dense, bias, cu_seqlens_q, cu_seqlens_kv, descale[3];

  /// Poisoned, between guard bands.
  Tensor make_out() const;
  Tensor make_lse() const;  // not given where the spec wants none

  /// Everything but backend and kernel. The views live as long as the case and `lse`.
  AttentionOptions options(Tensor* lse = nullptr) const;

  /// Of the values that the tensors hold now: change them first, then ask. Computed once.
  const ReferenceInput& reference_input() const;
  const ReferenceOutput& exact() const;
  const ReferenceOutput& plain() const;
  /// The textbook loop in the other direction. The tolerance takes the larger error of the two: on a problem of few
  /// rows one order alone may be right by luck.

  /// Every tensor that a call may read, for "inputs are never written to".
  std::vector<const Tensor*> inputs() const {
    return {
        &q,          &k,          &v,         &key_lengths, &key_padding, &dense, &bias, &cu_seqlens_q, &cu_seqlens_kv,
        &descale[0], &descale[1], &descale[2]};
  }

 private:
  void apply_descales(ReferenceInput& in) const;
  mutable std::optional<ReferenceInput> input_;
  mutable std::optional<ReferenceOutput> exact_, plain_;
};

}  // namespace attnmux::test
