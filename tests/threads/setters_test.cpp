// SPDX-License-Identifier: Apache-2.0
// Everything that may be set, set while other threads run the model.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "support/pools.h"

namespace attnmux {
namespace {

struct Model : ModelMixin<Model> {
  std::vector<AttentionLayer> layers = std::vector<AttentionLayer>(6, AttentionLayer{"self"});
  void visit_attention_layers(const LayerVisitor& visit) {
    for (size_t i = 0; i < layers.size(); ++i) visit.under("blocks", i)("attn", layers[i]);
  }
};

struct Tensors {
  std::vector<float> q = std::vector<float>(2 * 9 * 2 * 16), out = std::vector<float>(q.size());
  Tensors() {
    for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(static_cast<int>(i * 37 % 101) - 50) / 50;
  }
  TensorView in() const { return TensorView(q.data(), {2, 9, 2, 16}); }
  MutableTensorView result() { return MutableTensorView(out.data(), {2, 9, 2, 16}); }
};

// Runs `work` on several threads until `change` has been called often enough.
template <typename Work, typename Change>
void while_changing(Work work, Change change, int rounds) {
  std::atomic<bool> done{false};
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; ++id) {
    threads.emplace_back([&, id] {
      do work(id);
      while (!done.load());
    });
  }
  for (int round = 0; round < rounds; ++round) change(round);
  done = true;
  for (std::thread& t : threads) t.join();
}

TEST(SettersOnThreads, OfAModelWhileItRuns) {
  Model model;
  std::atomic<int> wrong{0};
  while_changing(
      [&](int id) {
        Tensors t;
        const AttentionLayer& layer = model.layers[static_cast<size_t>(id)];
        wrong += !try_attention(t.in(), t.in(), t.in(), t.result(), {.layer = &layer}).ok();
        Plan made;
        wrong += !try_plan(made, t.in(), t.in(), t.in(), t.result(), {.layer = &layer}).ok();
        const Backend b = made.backend();
        wrong += b != Backend("flash") && b != Backend("_native_math") && b != Backend("native");
      },
      [&](int round) {
        if (round % 3 == 2) {
          model.reset_attention_backend();
        } else {
          model.set_attention_backend(round % 3 ? Backend("flash") : Backend("_native_math"));
        }
      },
      500);
  EXPECT_EQ(wrong.load(), 0);
}

TEST(SettersOnThreads, OfTheProcessDefaultWhileCallsRun) {
  std::atomic<int> wrong{0};
  while_changing(
      [&](int) {
        Tensors t;
        wrong += !try_attention(t.in(), t.in(), t.in(), t.result()).ok();
        const Backend b = default_attention_backend();
        wrong += b != Backend("flash") && b != Backend("xformers") && b != Backend("native");
      },
      [](int round) {
        set_default_attention_backend(round % 3 == 0   ? Backend("flash")
                                      : round % 3 == 1 ? Backend("xformers")
                                                       : Backend{});
      },
      500);
  set_default_attention_backend({});
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(default_attention_backend(), Backend("native"));
}

TEST(SettersOnThreads, OfThreadCountAndWorkspaceWhileCallsRun) {
  Tensors expected;
  attention(expected.in(), expected.in(), expected.in(), expected.result());
  std::atomic<int> wrong{0};
  while_changing(
      [&](int) {
        Tensors t;
        wrong += !try_attention(t.in(), t.in(), t.in(), t.result()).ok();
        wrong += t.out != expected.out;
      },
      [](int round) {
        set_num_threads(1 + round % 5);
        if (round % 7 == 0) release_workspace();
      },
      300);
  set_num_threads(0);
  EXPECT_EQ(wrong.load(), 0);
}

// A replaced allocator gets back what came from it, also when it is replaced while calls run.
struct Counter {
  std::atomic<int64_t> allocated{0}, freed{0}, bytes{0};
  static void* allocate(void* self, int32_t, size_t bytes, size_t alignment) {
    auto* counter = static_cast<Counter*>(self);
    ++counter->allocated;
    counter->bytes += static_cast<int64_t>(bytes);
    return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  }
  static void deallocate(void* self, int32_t, void* pointer, size_t bytes) {
    auto* counter = static_cast<Counter*>(self);
    ++counter->freed;
    counter->bytes -= static_cast<int64_t>(bytes);
    std::free(pointer);
  }
};

TEST(SettersOnThreads, OfTheAllocatorWhileCallsRun) {
  Counter counters[2];
  std::atomic<int> wrong{0};
  while_changing(
      [&](int) {
        Tensors t;
        wrong += !try_attention(t.in(), t.in(), t.in(), t.result(), {.backend = "_native_math"}).ok();
      },
      [&](int round) {
        ASSERT_EQ(attnmux_set_allocator(&Counter::allocate, &Counter::deallocate, &counters[round % 2], nullptr),
                  ATTNMUX_OK);
        Tensors t;
        attention(t.in(), t.in(), t.in(), t.result(), {.backend = "_native_math"});
      },
      100);
  ASSERT_EQ(attnmux_set_allocator(nullptr, nullptr, nullptr, nullptr), ATTNMUX_OK);
  release_workspace();
  EXPECT_EQ(wrong.load(), 0);
  for (const Counter& c : counters) {
    EXPECT_GT(c.allocated.load(), 0);
    EXPECT_EQ(c.allocated.load(), c.freed.load());
    EXPECT_EQ(c.bytes.load(), 0);
  }
  EXPECT_EQ(attnmux_set_allocator(&Counter::allocate, nullptr, nullptr, nullptr), ATTNMUX_INVALID_ARGUMENT);
}

TEST(SettersOnThreads, OfTheLogSinkWhileScopesAreMisused) {
  std::atomic<int> lines[2] = {0, 0};
  while_changing(
      [&](int) {
        auto scope = std::make_unique<AttentionBackendScope>(Backend("flash"));
        std::thread([&] { scope.reset(); }).join();
      },
      [&](int round) {
        set_log_sink([](void* count, const char*, size_t) { ++*static_cast<std::atomic<int>*>(count); },
                     &lines[round % 2]);
        std::this_thread::yield();
      },
      200);
  set_log_sink(nullptr);
  EXPECT_GT(lines[0] + lines[1], 0);
}

}  // namespace
}  // namespace attnmux
