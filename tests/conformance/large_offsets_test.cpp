// SPDX-License-Identifier: Apache-2.0
// Tensors whose elements lie further apart than 32 bits can count. Only the pages that are touched take memory.
#include <sys/mman.h>

#include <cstring>

#include "support/by_dtype.h"
#include "support/numbers.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

constexpr int64_t kFar = (int64_t{1} << 32) + 16;  // elements between batch entries, and between heads of out

// Address space without memory behind it, until it is written to.
class Sparse {
 public:
  explicit Sparse(size_t bytes)
      : bytes_(bytes),
        data_(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {}
  ~Sparse() {
    if (given()) munmap(data_, bytes_);
  }
  Sparse(const Sparse&) = delete;
  Sparse& operator=(const Sparse&) = delete;
  bool given() const { return data_ != MAP_FAILED; }
  char* data() const { return static_cast<char*>(data_); }

 private:
  size_t bytes_;
  void* data_;
};

class LargeOffsets : public ByDtype {};
ATTNMUX_TEST_SUITE_BY_DTYPE(LargeOffsets);

TEST_P(LargeOffsets, GiveTheSameAsNearOnes) {
  if (emulated()) GTEST_SKIP() << "an emulator may not give so much address space";
  for (const int64_t seqlen_q : {2, 70}) {
    Spec s = spec();
    s.batch = 2;
    s.seqlen_q = seqlen_q;
    s.lse = false;
    const Case c(s);
    const size_t size = c.q.element_bytes().size() / static_cast<size_t>(c.q.count());
    const Dtype out_dtype = output_dtype(GetParam());
    const size_t out_size = size_of(out_dtype), row = static_cast<size_t>(s.head_dim) * out_size;
    const auto bytes = static_cast<size_t>(2 * kFar) * size;
    const Sparse q(bytes), k(bytes), v(bytes), out(static_cast<size_t>(2 * kFar) * out_size);
    if (!q.given() || !k.given() || !v.given() || !out.given()) GTEST_SKIP() << "no address space of " << bytes;
    // Rows lie next to each other as (B, S, H, D), batch entries far apart; in out, batch entries and heads change
    // places.
    const auto spread = [&](const Sparse& to, const Tensor& from, int64_t rows) {
      const std::vector<std::byte> elements = from.element_bytes();
      const size_t entry = elements.size() / 2;
      for (size_t b = 0; b < 2; ++b)
        std::memcpy(to.data() + b * static_cast<size_t>(kFar) * size, elements.data() + b * entry, entry);
      const int64_t d = s.head_dim, h = s.heads_q;
      return TensorView(to.data(), GetParam(), {2, rows, h, d}, {kFar, h * d, d, 1});
    };
    const TensorView far_q = spread(q, c.q, s.seqlen_q), far_k = spread(k, c.k, s.seqlen_kv),
                     far_v = spread(v, c.v, s.seqlen_kv);
    const int64_t d = s.head_dim;
    const MutableTensorView far_out(out.data(), out_dtype, {2, s.seqlen_q, 2, d}, {s.seqlen_q * d, d, kFar, 1});
    for (const Target& target : kernels()) {
      if (target.on_cuda || !target.takes(GetParam())) continue;
      const Result near = run(c, target);
      ASSERT_TRUE(near.status.ok()) << near.status.message();
      const Status status =
          try_attention(far_q, far_k, far_v, far_out, {.backend = target.backend, .kernel = target.kernel});
      ASSERT_TRUE(status.ok()) << target.text() << ": " << status.message();
      const std::vector<std::byte> expected = near.out.element_bytes();
      for (int64_t i = 0; i < 2 * s.seqlen_q * 2; ++i) {
        const int64_t b = i / (2 * s.seqlen_q), query = i / 2 % s.seqlen_q, head = i % 2;
        const int64_t at = b * s.seqlen_q * d + query * d + head * kFar;
        ASSERT_EQ(
            std::memcmp(out.data() + static_cast<size_t>(at) * out_size, &expected[static_cast<size_t>(i) * row], row),
            0)
            << target.text() << ", entry " << b << ", query " << query << ", head " << head;
      }
    }
  }
}

}  // namespace
}  // namespace attnmux::test
