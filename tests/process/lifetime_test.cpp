// SPDX-License-Identifier: Apache-2.0
// The life of a process: fork, exit, static destruction, dlclose, no more threads.
#include <attnmux/attnmux.h>
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "support/subprocess.h"

namespace attnmux::test {
namespace {

// A call with enough rows to need the pool; true if every output is what v is: 1.
struct Call {
  std::vector<float> q = std::vector<float>(4 * 64 * 4 * 32, 0.25f), v = std::vector<float>(q.size(), 1.f),
                     out = std::vector<float>(q.size());
  bool run() {
    std::fill(out.begin(), out.end(), NAN);
    const TensorView in(q.data(), {4, 64, 4, 32}), values(v.data(), {4, 64, 4, 32});
    if (!try_attention(in, in, values, MutableTensorView(out.data(), {4, 64, 4, 32}))) return false;
    for (const float x : out) {
      if (!(std::fabs(x - 1) < 1e-5f)) return false;
    }
    return true;
  }
};

bool run_once() { return Call().run(); }

// ---- fork -----------------------------------------------------------------------------------------------------------

// Waits for a child for at most a minute: a deadlock is a failure, not a hanging test.
int wait_for(pid_t child) {
  for (int tenths = 0; tenths < 600; ++tenths) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child)
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    usleep(100'000);
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return Finished::kTimedOut;
}

ATTNMUX_PROBE(fork_after_use) {
  set_num_threads(3);
  std::string text = run_once() ? "before " : "wrong ";
  for (int i = 0; i < 3; ++i) {
    const pid_t child = fork();
    if (child == 0) {
      // The child has none of its parent's threads: it starts its own.
      bool right = run_once();
      right = run_once() && right;
      set_num_threads(2);
      const pid_t grandchild = fork();
      if (grandchild == 0) _exit(run_once() ? 0 : 3);
      _exit(right && wait_for(grandchild) == 0 ? 0 : 4);
    }
    text += std::to_string(wait_for(child)) + " ";
  }
  return text + (run_once() ? "after" : "wrong");
}

TEST(ProcessLife, AForkedChildStartsItsOwnThreads) {
  const Finished child = run_probe("fork_after_use");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "before 0 0 0 after") << child.output;
}

ATTNMUX_PROBE(fork_while_others_call) {
  set_num_threads(3);
  std::atomic<bool> done{false}, right{true};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!done) right = right && run_once();
    });
  }
  std::string text;
  for (int i = 0; i < 10; ++i) {
    const pid_t child = fork();
    if (child == 0) _exit(run_once() ? 0 : 3);
    const int code = wait_for(child);
    if (code != 0) text += std::to_string(code) + " ";
  }
  done = true;
  for (std::thread& t : threads) t.join();
  return text + (right ? "right" : "wrong");
}

TEST(ProcessLife, ForkWhileOtherThreadsCall) {
  const Finished child = run_probe("fork_while_others_call");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "right") << child.output;
}

// ---- exit -----------------------------------------------------------------------------------------------------------

// An object of the program that outlives main and calls attention when it goes.
struct CallsAtExit {
  bool armed = false;
  ~CallsAtExit() {
    if (!armed) return;
    std::printf("destructor %s\n", run_once() ? "right" : "wrong");
    std::fflush(stdout);
  }
};
CallsAtExit calls_at_exit;

ATTNMUX_PROBE(exit_after_use) {
  calls_at_exit.armed = true;
  std::atexit([] { std::printf("atexit %s\n", run_once() ? "right" : "wrong"); });
  set_num_threads(3);
  return run_once() ? "right" : "wrong";
}

TEST(ProcessLife, ExitAndStaticDestructionWithoutDeadlock) {
  const Finished child = run_probe("exit_after_use");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "right");
  EXPECT_NE(child.output.find("atexit right"), std::string::npos) << child.output;
  EXPECT_NE(child.output.find("destructor right"), std::string::npos) << child.output;
}

// The first use of the library is in a static destructor.
ATTNMUX_PROBE(first_use_at_exit) {
  calls_at_exit.armed = true;
  return "not used yet";
}

TEST(ProcessLife, FirstUseInAStaticDestructor) {
  const Finished child = run_probe("first_use_at_exit");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_NE(child.output.find("destructor right"), std::string::npos) << child.output;
}

// exit() while other threads are in the middle of calls.
ATTNMUX_PROBE(exit_while_others_call) {
  set_num_threads(3);
  static std::atomic<int> started{0};  // the threads outlive this frame
  for (int i = 0; i < 3; ++i) {
    std::thread([] {
      Call call;
      for (;;) {
        call.run();
        ++started;
      }
    }).detach();
  }
  while (started < 6) usleep(1000);
  return "leaving";
}

TEST(ProcessLife, ExitWhileOtherThreadsCall) {
  for (int i = 0; i < 3; ++i) {
    const Finished child = run_probe("exit_while_others_call");
    EXPECT_EQ(child.exit_code, 0) << child.output;
    EXPECT_EQ(child.returned, "leaving");
  }
}

// A thread that used the library ends, and its thread-locals with it.
ATTNMUX_PROBE(threads_end) {
  for (int i = 0; i < 50; ++i) {
    std::thread([] {
      const AttentionBackendScope scope("flash");
      run_once();
    }).join();
  }
  return run_once() ? "right" : "wrong";
}

TEST(ProcessLife, ThreadsThatUsedItEnd) {
  const Finished child = run_probe("threads_end");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "right");
}

// ---- dlclose --------------------------------------------------------------------------------------------------------

// Loads libattnmux.so, uses its pool, unloads it, and again: no worker may be left in memory that is gone.
ATTNMUX_PROBE(load_and_unload) {
  for (int round = 0; round < 5; ++round) {
    void* library = dlopen(ATTNMUX_SHARED_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return dlerror();
    const auto call = reinterpret_cast<decltype(&attnmux_attention)>(dlsym(library, "attnmux_attention"));
    const auto set_threads =
        reinterpret_cast<decltype(&attnmux_set_num_threads)>(dlsym(library, "attnmux_set_num_threads"));
    if (call == nullptr || set_threads == nullptr) return "a symbol is missing";
    set_threads(3, nullptr);
    std::vector<float> in(4 * 64 * 4 * 32, 1.f), out(in.size());
    const attnmux_tensor t = TensorView(in.data(), {4, 64, 4, 32}).c(), o = TensorView(out.data(), {4, 64, 4, 32}).c();
    attnmux_error error;
    if (call(&t, &t, &t, &o, nullptr, nullptr, &error) != ATTNMUX_OK) return error.message;
    if (std::fabs(out[7] - 1) > 1e-5f) return "wrong";
    if (dlclose(library) != 0) return "dlclose failed";
    usleep(20'000);              // workers that still run would run into nothing now
    const pid_t child = fork();  // and so would a handler of fork
    if (child == 0) _exit(0);
    if (wait_for(child) != 0) return "fork after dlclose failed";
  }
  return "right";
}

TEST(ProcessLife, DlcloseAfterUse) {
  const Finished child = run_probe("load_and_unload");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "right") << child.output;
}

// ---- No thread to be had --------------------------------------------------------------------------------------------

// With so little address space no thread gets its stack: pthread_create fails, and the call runs inline.
ATTNMUX_PROBE(no_threads_to_be_had) {
  Call call;
  set_num_threads(8);
  long pages = 0;
  if (std::FILE* statm = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(statm, "%ld", &pages) != 1) pages = 0;
    std::fclose(statm);
  }
  const rlim_t used = static_cast<rlim_t>(pages) * static_cast<rlim_t>(sysconf(_SC_PAGESIZE));
  const rlimit space{used + (rlim_t{4} << 20), RLIM_INFINITY};
  const rlimit stack{rlim_t{64} << 20, RLIM_INFINITY};  // the stack of a new thread is 64 MiB
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, size_t{64} << 20);
  if (pthread_setattr_default_np(&attributes) != 0 || setrlimit(RLIMIT_STACK, &stack) != 0 ||
      setrlimit(RLIMIT_AS, &space) != 0) {
    return "cannot set limits";
  }
  std::string text;
  try {
    std::thread([] {}).join();
    text = "a thread could be made; ";
  } catch (const std::system_error&) {
    text = "no thread could be made; ";
  }
  text += call.run() ? "right" : "wrong";
  const rlimit enough{RLIM_INFINITY, RLIM_INFINITY};
  setrlimit(RLIMIT_AS, &enough);
  return text + (call.run() ? " right" : " wrong");
}

TEST(ProcessLife, RunsInlineWhereNoThreadCanBeMade) {
  if (sanitized() || emulated()) GTEST_SKIP() << "the runtime needs more address space than the test leaves";
  const Finished child = run_probe("no_threads_to_be_had");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "no thread could be made; right right") << child.output;
}

}  // namespace
}  // namespace attnmux::test
