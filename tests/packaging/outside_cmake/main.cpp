// SPDX-License-Identifier: Apache-2.0
// Exits with 0 if attention works and its errors arrive as exceptions.
#include <attnmux/attnmux.h>

#include <cmath>
#include <iostream>
#include <string_view>
#include <vector>

int main() {
  constexpr int64_t kSeqlen = 5, kHeads = 2, kHeadDim = 8;
  const std::vector<float> q(kSeqlen * kHeads * kHeadDim, 0.25F);
  const std::vector<float> v(q.size(), 3.0F);  // all rows of v are equal, so every average of them is the same row
  std::vector<float> out(q.size());
  const attnmux::detail::Extents shape{1, kSeqlen, kHeads, kHeadDim};
  const attnmux::TensorView q_view(q.data(), shape), v_view(v.data(), shape);
  const attnmux::MutableTensorView out_view(out.data(), shape);

  attnmux::attention(q_view, q_view, v_view, out_view, {.mask = attnmux::Mask::causal(), .backend = "flash"});
  for (const float value : out) {
    if (std::abs(value - 3.0F) > 1e-5F) return 1;
  }
  try {
    attnmux::attention(q_view, q_view, v_view, out_view, {.backend = attnmux::Backend::named("flsh")});
    return 2;
  } catch (const attnmux::Error& error) {
    if (std::string_view(error.what()).find("flash") == std::string_view::npos) return 3;
  }
  std::cout << "C++, find_package: attnmux " << attnmux_version() << '\n';
  return 0;
}
