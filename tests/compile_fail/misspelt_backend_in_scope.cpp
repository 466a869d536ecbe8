// SPDX-License-Identifier: Apache-2.0
// error: no_attnmux_backend_has_this_name__see_kBackendNames
#include <attnmux/attnmux.h>

void run() {
#ifdef ATTNMUX_RIGHT
  const attnmux::AttentionBackendScope scope("_flash_3_hub");
#else
  const attnmux::AttentionBackendScope scope("flash_3_hub");
#endif
}
