// SPDX-License-Identifier: Apache-2.0
// error: could not convert|no viable conversion|cannot convert|no known conversion
// Text that the compiler cannot see goes through Backend::named or Backend::find, where it can fail.
#include <attnmux/attnmux.h>

#include <string>

void run(attnmux::TensorView q, attnmux::MutableTensorView out, const std::string& backend) {
#ifdef ATTNMUX_RIGHT
  attnmux::attention(q, q, q, out, {.backend = attnmux::Backend::named(backend)});
#else
  attnmux::attention(q, q, q, out, {.backend = backend});
#endif
}
