// SPDX-License-Identifier: Apache-2.0
// error: no_attnmux_backend_has_this_name__see_kBackendNames
// Plugins exist only at run time, so their names do, too.
#include <attnmux/attnmux.h>

void run(attnmux::TensorView q, attnmux::MutableTensorView out) {
#ifdef ATTNMUX_RIGHT
  attnmux::attention(q, q, q, out, {.backend = attnmux::Backend::named("acme.flash")});
#else
  attnmux::attention(q, q, q, out, {.backend = "acme.flash"});
#endif
}
