// SPDX-License-Identifier: Apache-2.0
// error: no matching (function|constructor)
// What is read-only cannot be an output.
#include <attnmux/attnmux.h>

void run(attnmux::TensorView q, const float* read_only, float* writable) {
#ifdef ATTNMUX_RIGHT
  (void)read_only;
  const attnmux::MutableTensorView out(writable, {1, 1, 1, 1});
#else
  (void)writable;
  const attnmux::MutableTensorView out(read_only, {1, 1, 1, 1});
#endif
  attnmux::attention(q, q, q, out);
}
