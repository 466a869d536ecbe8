// SPDX-License-Identifier: Apache-2.0
// error: no_attnmux_backend_has_this_name__see_kBackendNames
// A backend's name that does not exist is found by the compiler, as a wrong format string is.
#include <attnmux/attnmux.h>

void run(attnmux::TensorView q, attnmux::MutableTensorView out) {
#ifdef ATTNMUX_RIGHT
  attnmux::attention(q, q, q, out, {.backend = "flash"});
#else
  attnmux::attention(q, q, q, out, {.backend = "flsh"});
#endif
}
