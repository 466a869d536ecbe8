// SPDX-License-Identifier: Apache-2.0
// error: nodiscard.+ attribute|attribute .+nodiscard
// A Status that nobody looks at is a warning, and an error where warnings are.
#include <attnmux/attnmux.h>

#pragma GCC diagnostic error "-Wunused-result"

void run(attnmux::TensorView q, attnmux::MutableTensorView out) {
#ifdef ATTNMUX_RIGHT
  if (!attnmux::try_attention(q, q, q, out)) out = {};
#else
  attnmux::try_attention(q, q, q, out);
#endif
}
