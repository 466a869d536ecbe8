// SPDX-License-Identifier: Apache-2.0
// error: could not convert|no viable conversion|cannot convert|no known conversion
// A mask views the caller's lengths: a container that is gone before the call does not compile.
#include <attnmux/attnmux.h>

#include <cstdint>
#include <vector>

void run(attnmux::TensorView q, attnmux::MutableTensorView out) {
#ifdef ATTNMUX_RIGHT
  const std::vector<int32_t> lengths{1, 2};
  attnmux::attention(q, q, q, out, {.mask = attnmux::Mask::key_lengths(lengths)});
#else
  attnmux::attention(q, q, q, out, {.mask = attnmux::Mask::key_lengths(std::vector<int32_t>{1, 2})});
#endif
}
