// SPDX-License-Identifier: Apache-2.0
// Compiled with -fno-exceptions and -fno-rtti. Exits with 0 if attention works and errors arrive as a Status.
#include <attnmux/attnmux.h>

#include <cstdio>

int main() {
  float q[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  float out[8] = {};
  const attnmux::TensorView view(q, {1, 1, 1, 8});  // one key: attention is the identity
  const attnmux::Status done = attnmux::try_attention(view, view, view, attnmux::MutableTensorView(out, {1, 1, 1, 8}));
  if (!done) {
    std::puts(done.c_str());
    return 1;
  }
  for (int i = 0; i < 8; ++i) {
    if (out[i] != q[i]) return 2;
  }
  const attnmux::Status refused =
      attnmux::try_attention(view, view, view, attnmux::MutableTensorView(out, {1, 1, 1, 4}));
  if (refused.ok()) return 3;
  std::printf("C++ without exceptions, pkg-config: attnmux %s\n", attnmux_version());
  return 0;
}
