// SPDX-License-Identifier: Apache-2.0
// Scopes on many threads: each thread sees its own, whatever the others do.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <atomic>
#include <barrier>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace attnmux {
namespace {

constexpr int kThreads = 8;

Backend resolved(const AttentionLayer* layer = nullptr) {
  const MutableTensorView t(nullptr, Dtype::kFp32, {1, 4, 1, 8});
  Plan made;
  const Status status = try_plan(made, t, t, t, t, {.layer = layer});
  EXPECT_TRUE(status.ok()) << status.message();
  return made.backend();
}

// What the library says, kept; the sink is restored at the end of the block.
class LogCapture {
 public:
  LogCapture() { set_log_sink(&LogCapture::receive, this); }
  ~LogCapture() { set_log_sink(nullptr); }
  std::vector<std::string> lines() const {
    const std::lock_guard lock(mutex_);
    return lines_;
  }

 private:
  static void receive(void* self, const char* line, size_t length) {
    auto* capture = static_cast<LogCapture*>(self);
    const std::lock_guard lock(capture->mutex_);
    capture->lines_.emplace_back(line, length);
  }
  mutable std::mutex mutex_;
  std::vector<std::string> lines_;
};

TEST(ScopesOnThreads, EachSeesItsOwn) {
  const Backend choices[] = {"flash", "_native_math", "xformers", "_native_flash"};
  std::atomic<int> wrong{0};
  std::barrier start(kThreads);
  std::vector<std::thread> threads;
  for (int id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      start.arrive_and_wait();
      for (int round = 0; round < 300; ++round) {
        const Backend mine = choices[(id + round) % 4], other = choices[(id + round + 1) % 4];
        const AttentionBackendScope outer(mine);
        wrong += resolved() != mine;
        {
          const AttentionBackendScope inner(other);
          wrong += resolved() != other;
        }
        wrong += resolved() != mine;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(resolved(), Backend("native"));
}

// A context is a value: any number of workers install the same one at once.
TEST(ScopesOnThreads, OneContextOnEveryWorker) {
  const AttentionBackendScope scope("_native_math");
  const BackendContext context = BackendContext::current();
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int id = 0; id < kThreads; ++id) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        wrong += resolved() != Backend("native");
        const BackendContext::Guard guard(context);
        wrong += resolved() != Backend("_native_math");
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(wrong.load(), 0);
}

// Destroyed on another thread: it ends on its own thread, changes nothing on the other, and is reported.
TEST(ScopesOnThreads, DestroyedOnAnotherThread) {
  const LogCapture log;
  auto scope = std::make_unique<AttentionBackendScope>(Backend("flash"));
  ASSERT_EQ(resolved(), Backend("flash"));
  std::thread([&] {
    const AttentionBackendScope own("_native_math");
    scope.reset();
    EXPECT_EQ(resolved(), Backend("_native_math")) << "changed something on the other thread";
  }).join();
  EXPECT_EQ(resolved(), Backend("native")) << "the thread kept the backend for good";
  ASSERT_EQ(log.lines().size(), 1u);
  EXPECT_NE(log.lines()[0].find("AttentionBackendScope"), std::string::npos) << log.lines()[0];
  EXPECT_NE(log.lines()[0].find("another thread"), std::string::npos) << log.lines()[0];
}

// The same in the middle of a nest: the scopes around it stay.
TEST(ScopesOnThreads, DestroyedOnAnotherThreadInsideANest) {
  const LogCapture log;
  const AttentionBackendScope outer("xformers");
  auto middle = std::make_unique<AttentionBackendScope>(Backend("flash"));
  {
    const AttentionBackendScope inner("_native_math");
    std::thread([&] { middle.reset(); }).join();
    EXPECT_EQ(resolved(), Backend("_native_math"));
  }
  EXPECT_EQ(resolved(), Backend("xformers"));
  EXPECT_EQ(log.lines().size(), 1u);
}

// The thread that made it is gone: ending the scope must not touch its memory.
TEST(ScopesOnThreads, OutlivesItsThread) {
  const LogCapture log;
  std::unique_ptr<AttentionBackendScope> scope;
  std::thread([&] { scope = std::make_unique<AttentionBackendScope>(Backend("flash")); }).join();
  EXPECT_EQ(resolved(), Backend("native"));
  scope.reset();
  EXPECT_EQ(resolved(), Backend("native"));
  EXPECT_EQ(log.lines().size(), 1u);
}

// Threads hand each other their scopes while all of them make and end others: slots are reused, generations tell.
TEST(ScopesOnThreads, HandedAround) {
  const LogCapture log;
  std::mutex mutex;
  std::vector<std::unique_ptr<AttentionBackendScope>> handed;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int id = 0; id < kThreads; ++id) {
    threads.emplace_back([&, id] {
      for (int round = 0; round < 200; ++round) {
        auto scope = std::make_unique<AttentionBackendScope>(id % 2 ? Backend("flash") : Backend("_native_math"));
        std::unique_ptr<AttentionBackendScope> of_somebody;
        {
          const std::lock_guard lock(mutex);
          if (handed.size() > 10) of_somebody = std::move(handed.back()), handed.pop_back();
          handed.push_back(std::move(scope));
        }
        of_somebody.reset();
        const AttentionBackendScope mine("xformers");
        wrong += resolved() != Backend("xformers");
      }
    });
  }
  for (std::thread& t : threads) t.join();
  handed.clear();
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(resolved(), Backend("native"));
}

}  // namespace
}  // namespace attnmux
