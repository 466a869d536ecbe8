// SPDX-License-Identifier: Apache-2.0
// error: could not convert|no viable conversion|cannot convert|no known conversion
// Lengths are int32: a vector of something that is no element type does not compile.
#include <attnmux/attnmux.h>

#include <cstdint>
#include <vector>

attnmux::Mask make(const std::vector<int32_t>& good, const std::vector<int64_t>& wrong) {
#ifdef ATTNMUX_RIGHT
  (void)wrong;
  return attnmux::Mask::key_lengths(good);
#else
  (void)good;
  return attnmux::Mask::key_lengths(wrong);
#endif
}
