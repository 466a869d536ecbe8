// SPDX-License-Identifier: Apache-2.0
// Masks are values: made on the stack, combined by &, one of each kind.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace attnmux {
namespace {

attnmux_options filled(const Mask& mask) {
  attnmux_options o{};
  mask.fill(o);
  return o;
}

// What the call says to a mask, for 4 queries and 4 keys.
Status called_with(const Mask& mask) {
  std::vector<float> q(2 * 4 * 8), out(2 * 4 * 8);
  const TensorView view(q.data(), {2, 4, 1, 8});
  return try_attention(view, view, view, MutableTensorView(out.data(), {2, 4, 1, 8}), {.mask = mask});
}

TEST(MaskValue, OfNothing) {
  EXPECT_EQ(filled(Mask{}).set, 0u);
  EXPECT_TRUE(called_with({}).ok());
}

TEST(MaskValue, IsConstexpr) {
  constexpr Mask mask = Mask::causal(Align::kBottomRight) & Mask::window(7, -1);
  const attnmux_options o = filled(mask);
  EXPECT_EQ(o.set, ATTNMUX_MASK_CAUSAL | ATTNMUX_MASK_WINDOW);
  EXPECT_EQ(o.conflicts, 0u);
  EXPECT_EQ(o.causal_align, ATTNMUX_ALIGN_BOTTOM_RIGHT);
  EXPECT_EQ(o.window_align, ATTNMUX_ALIGN_NONE);
  EXPECT_EQ(o.window_left, 7);
  EXPECT_EQ(o.window_right, -1);
}

TEST(MaskValue, TakesContainersThatOutliveTheCall) {
  const std::vector<int32_t> lengths = {4, 2};
  std::array<uint8_t, 8> padding{1, 1, 1, 1, 1, 0, 0, 0};
  const attnmux_options o = filled(Mask::key_lengths(lengths) & Mask::key_padding(TensorView(padding.data(), {2, 4})));
  EXPECT_EQ(o.set, ATTNMUX_MASK_KEY_LENGTHS | ATTNMUX_MASK_KEY_PADDING);
  EXPECT_EQ(o.key_lengths.data, lengths.data());
  EXPECT_EQ(o.key_lengths.ndim, 1);
  EXPECT_EQ(o.key_lengths.shape[0], 2);
  EXPECT_EQ(o.key_padding.data, padding.data());
  EXPECT_EQ(o.key_padding.dtype, ATTNMUX_UINT8);
}

TEST(MaskValue, OrderDoesNotMatter) {
  const std::vector<int32_t> lengths = {4, 2};
  const Mask a = Mask::causal(Align::kTopLeft), b = Mask::window(3, 1), c = Mask::key_lengths(lengths);
  const attnmux_options one = filled(a & b & c), other = filled(c & (b & a));
  EXPECT_EQ(one.set, other.set);
  EXPECT_EQ(one.causal_align, other.causal_align);
  EXPECT_EQ(one.window_left, other.window_left);
  EXPECT_EQ(one.window_right, other.window_right);
  EXPECT_EQ(one.key_lengths.data, other.key_lengths.data);
}

TEST(MaskValue, CombinesWithNothing) {
  const attnmux_options o = filled(Mask{} & Mask::window(3, 1, Align::kTopLeft) & Mask{});
  EXPECT_EQ(o.set, ATTNMUX_MASK_WINDOW);
  EXPECT_EQ(o.window_left, 3);
  EXPECT_EQ(o.conflicts, 0u);
}

TEST(MaskValue, TwoOfAKindIsAnErrorOfTheCall) {
  const std::vector<int32_t> lengths = {4, 2};
  const std::vector<uint8_t> bytes(8, 1);
  const TensorView padding(bytes.data(), {2, 4}), keep(bytes.data(), {4});
  const std::pair<const char*, Mask> twice[] = {
      {"causal", Mask::causal() & Mask::causal()},
      {"window", Mask::window(1, 1) & Mask::causal() & Mask::window(1, 1)},
      {"key_lengths", Mask::key_lengths(lengths) & Mask::key_lengths(lengths)},
      {"key_padding", Mask::key_padding(padding) & Mask::key_padding(padding)},
      {"dense", Mask::dense(keep) & (Mask::causal() & Mask::dense(keep))}};
  for (const auto& [kind, mask] : twice) {
    const Status status = called_with(mask);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << kind;
    EXPECT_EQ(status.message(), "[attention] the mask has two masks of the kind \"" + std::string(kind) +
                                    "\"; one of each kind is accepted");
    EXPECT_FALSE(called_with(mask & Mask{}).ok()) << "a contradiction is carried along";
  }
}

TEST(MaskValue, TwoAlignmentsIsAnErrorThatNamesBoth) {
  for (const Mask& mask : {Mask::causal(Align::kTopLeft) & Mask::window(1, 1, Align::kBottomRight),
                           Mask::window(1, 1, Align::kTopLeft) & Mask::causal(Align::kBottomRight)}) {
    const Status status = called_with(mask);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_NE(status.message().find("top_left"), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find("bottom_right"), std::string_view::npos) << status.message();
  }
  EXPECT_TRUE(called_with(Mask::causal(Align::kTopLeft) & Mask::window(1, 1, Align::kTopLeft)).ok());
  EXPECT_TRUE(called_with(Mask::causal(Align::kTopLeft) & Mask::window(1, 1)).ok());
}

// An unlimited window masks nothing, so no corner is needed.
TEST(MaskValue, UnlimitedWindowNeedsNoAlignment) {
  std::vector<float> q(4 * 8), k(7 * 8), out(4 * 8);
  const TensorView tq(q.data(), {1, 4, 1, 8}), tk(k.data(), {1, 7, 1, 8});
  const MutableTensorView tout(out.data(), {1, 4, 1, 8});
  EXPECT_TRUE(try_attention(tq, tk, tk, tout, {.mask = Mask::window(-1, -1)}).ok());
  EXPECT_FALSE(try_attention(tq, tk, tk, tout, {.mask = Mask::window(-1, 0)}).ok());
}

}  // namespace
}  // namespace attnmux
