// SPDX-License-Identifier: Apache-2.0
// Choosing does not allocate, and neither does a run that is given its workspace: counted in operator new, which is all
// that the library allocates with.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <new>
#include <vector>

#include "support/catalog.h"
#include "support/pools.h"
#include "support/subprocess.h"

namespace {
std::atomic<int64_t> allocations{0};

void* counted(size_t bytes, size_t alignment) {
  ++allocations;
  void* p = alignment <= sizeof(void*) * 2
                ? std::malloc(bytes == 0 ? 1 : bytes)
                : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}
}  // namespace

void* operator new(size_t bytes) { return counted(bytes, 1); }
void* operator new[](size_t bytes) { return counted(bytes, 1); }
void* operator new(size_t bytes, std::align_val_t alignment) { return counted(bytes, static_cast<size_t>(alignment)); }
void* operator new[](size_t bytes, std::align_val_t alignment) {
  return counted(bytes, static_cast<size_t>(alignment));
}
void* operator new(size_t bytes, const std::nothrow_t&) noexcept {
  return ++allocations, std::malloc(bytes == 0 ? 1 : bytes);
}
void* operator new(size_t bytes, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  const size_t a = static_cast<size_t>(alignment);
  return ++allocations, std::aligned_alloc(a, (bytes + a - 1) / a * a);
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, size_t, std::align_val_t) noexcept { std::free(p); }

namespace attnmux::test {
namespace {

// What `work` allocates, after it ran once.
template <typename Work>
int64_t allocated_by(Work work) {
  work();
  const int64_t before = allocations.load();
  work();
  return allocations.load() - before;
}

struct Tensors {
  std::vector<float> q = std::vector<float>(2 * 30 * 4 * 32, 0.5f), out = std::vector<float>(q.size());
  std::vector<int32_t> lengths = {30, 12};
  TensorView in{q.data(), {2, 30, 4, 32}};
  MutableTensorView result{out.data(), {2, 30, 4, 32}};
};

// Choosing is all that a call does whose heads are none: no row, no kernel.
TEST(Allocations, NoneWhileChoosing) {
  const MutableTensorView nothing(nullptr, Dtype::kBf16, {2, 100, 0, 64});
  const std::vector<int32_t> lengths = {100, 7};
  const AttentionLayer layer{"self"};
  const AttentionBackendScope scope("flash", {.role = "cross"});
  for (const Target& t : targets()) {
    const AttentionOptions options{.mask = Mask::causal(Align::kBottomRight) & Mask::key_lengths(lengths),
                                   .softcap = 3,
                                   .backend = t.backend,
                                   .layer = &layer};
    EXPECT_EQ(allocated_by([&] { (void)try_attention(nothing, nothing, nothing, nothing, options); }), 0) << t.text();
  }
  EXPECT_EQ(allocated_by([&] { (void)try_attention(nothing, nothing, nothing, nothing, {.layer = &layer}); }), 0);
  // A refusal is built without the heap, too.
  EXPECT_EQ(allocated_by([&] { (void)try_attention(nothing, nothing, nothing, nothing, {.softcap = -1}); }), 0);
  EXPECT_EQ(allocated_by([&] { (void)try_attention(nothing, nothing, nothing, nothing, {.backend = "_flash_3"}); }), 0);
}

TEST(Allocations, NoneInARunWithItsWorkspace) {
  Tensors t;
  SerialPool pool;
  for (const Target& target : targets()) {
    if (!target.takes(Dtype::kFp32)) continue;
    const AttentionOptions options{
        .mask = Mask::key_lengths(t.lengths), .backend = target.backend, .kernel = target.kernel};
    for (const ExecContext& threads :
         {ExecContext{.num_threads = 1}, ExecContext{.executor = Executor::from(pool, 3)}, ExecContext{}}) {
      const Plan made = plan(t.in, t.in, t.in, t.result, options, threads);
      std::vector<std::byte> workspace(made.workspace_bytes());
      ExecContext exec = threads;
      exec.workspace = std::span(workspace);
      EXPECT_EQ(allocated_by([&] { made.run(t.in, t.in, t.in, t.result, options, exec); }), 0) << target.text();
    }
  }
}

// Without a workspace the cached arena serves from the second call on.
TEST(Allocations, NoneInCallsAfterTheFirst) {
  Tensors t;
  for (const Target& target : targets()) {
    if (!target.takes(Dtype::kFp32)) continue;
    const AttentionOptions options{.backend = target.backend, .kernel = target.kernel};
    EXPECT_EQ(allocated_by([&] { attention(t.in, t.in, t.in, t.result, options, {.num_threads = 1}); }), 0)
        << target.text();
  }
}

TEST(Allocations, AreCounted) {
  EXPECT_EQ(allocated_by([] { delete new int(3); }), 1);
}

// Reported, not asserted: a busy machine would make it fail.
TEST(Allocations, TimeToChoose) {
  const MutableTensorView nothing(nullptr, Dtype::kBf16, {2, 100, 0, 64});
  const AttentionLayer layer{"self"};
  const int rounds = scaled(1000, 200'000, 200'000);
  double best = 1e9;
  for (int repeat = 0; repeat < 5; ++repeat) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < rounds; ++i)
      ASSERT_TRUE(try_attention(nothing, nothing, nothing, nothing, {.layer = &layer}).ok());
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    best = std::min(best, taken.count() / rounds);
  }
  RecordProperty("nanoseconds", std::to_string(best));
  std::printf("validating and choosing takes %.0f ns (aim: 200 ns)\n", best);
}

}  // namespace
}  // namespace attnmux::test
