// SPDX-License-Identifier: Apache-2.0
// Which shape cuda_flash_sm80 takes above head_dim 256: a rule of the host, which needs no GPU.
#include <gtest/gtest.h>

#ifdef ATTNMUX_HAS_CUDA
#include <kernels/cuda/flash/sm80_wide.h>

namespace attnmux {
namespace {

// What a block can have, in KiB: 227 on Hopper, 163 on Ampere's data centre GPUs, 99 on the smaller ones; less 1 KiB.
constexpr int64_t limit(int64_t kib) { return (kib - 1) << 10; }

TEST(CudaWide, TheShapeFollowsSharedMemory) {
  for (const int64_t dim : {384, 512}) {
    EXPECT_EQ(wide_shape(dim, limit(227)), 0) << dim;
    EXPECT_EQ(wide_shape(dim, limit(163)), 1) << dim;
    EXPECT_EQ(wide_shape(dim, limit(99)), 2) << dim;
  }
}

TEST(CudaWide, TheLastShapeFitsEveryGpu) {
  for (const int64_t dim : {384, 512}) EXPECT_LE(wide_shared_bytes(dim, kWideShapes[2]), limit(99)) << dim;
}

TEST(CudaWide, BytesAreThoseOfTheParts) {
  // 64 queries of 512, P of 64 by 128, four maxima per row, four chunks of 128 keys by 128 columns.
  EXPECT_EQ(wide_shared_bytes(512, {2, 4}), 64 * 512 * 2 + 64 * 128 * 2 + 64 * 4 * 4 + 4 * 128 * 128 * 2);
}

}  // namespace
}  // namespace attnmux
#endif
