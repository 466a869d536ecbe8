// SPDX-License-Identifier: Apache-2.0
// One row per feature bit: its name in tables and JSON, and its wording in a refusal.
#pragma once

#include <attnmux/c/types.h>

#include <string_view>

namespace attnmux {

struct FeatureRow {
  uint64_t bit;
  std::string_view name;
  std::string_view wording;  // "does not support …"
};

/// In the order of the bits; row i describes bit i.
extern const FeatureRow kFeatures[ATTNMUX_FEATURE_COUNT];
inline constexpr uint64_t kAllFeatures = (uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1;
/// Seen from the shapes, so a caller does not set them.
inline constexpr uint64_t kDerivedFeatures = ATTNMUX_GQA | ATTNMUX_HEAD_DIM_V;
/// What a caller may set in attnmux_options.set.
inline constexpr uint64_t kSettable = (kAllFeatures & ~kDerivedFeatures) | ATTNMUX_ALLOW_LOSSY;

}  // namespace attnmux
