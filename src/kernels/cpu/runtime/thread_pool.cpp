// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/runtime/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>

#include "dispatch/environment.h"

namespace attnmux {
namespace {

// How long a worker spins for the next job before it sleeps: waking a sleeper costs 20–50 µs, a spinning one 0.2 µs.
constexpr auto kSpin = std::chrono::microseconds(50);

// A call of parallel_for; lives on the caller's stack until `running` is zero and it is off the list.
struct Job {
  int64_t num_tasks;
  void (*body)(void*, int64_t);
  void* arg;
  std::atomic<int64_t> next{0};
  int32_t helpers = 0;  // workers inside; guarded by the pool's mutex
  std::exception_ptr failure;
  std::mutex failing;
  Job* following = nullptr;  // the pool's list

  void work() {
    for (int64_t task; (task = next.fetch_add(1, std::memory_order_relaxed)) < num_tasks;) {
      try {
        body(arg, task);
      } catch (...) {
        const std::lock_guard lock(failing);
        if (failure == nullptr) failure = std::current_exception();
      }
    }
  }
  bool exhausted() const { return next.load(std::memory_order_relaxed) >= num_tasks; }
};

class Pool {
 public:
  void run(Job& job, int32_t threads) {
    {
      std::unique_lock lock(mutex_);
      ensure_workers(threads - 1);
      job.following = jobs_;
      jobs_ = &job;
      pending_.fetch_add(1, std::memory_order_release);
    }
    if (job.num_tasks == 2) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
    job.work();
    std::unique_lock lock(mutex_);
    unlink(job);
    done_.wait(lock, [&] { return job.helpers == 0; });
  }

 private:
  void ensure_workers(int32_t wanted) {
    while (num_workers_ < wanted) {
      try {
        std::thread([this] { serve(); }).detach();
      } catch (const std::system_error&) {
        return;  // the caller and the workers there are do the work
      }
      ++num_workers_;
    }
  }

  void unlink(Job& job) {
    for (Job** at = &jobs_; *at != nullptr; at = &(*at)->following) {
      if (*at != &job) continue;
      *at = job.following;
      pending_.fetch_sub(1, std::memory_order_release);
      return;
    }
  }

  Job* find_job() {
    for (Job* job = jobs_; job != nullptr; job = job->following) {
      if (!job->exhausted()) return job;
    }
    return nullptr;
  }

  void serve() {
    std::unique_lock lock(mutex_);
    for (;;) {
      Job* job = find_job();
      if (job == nullptr) {
        lock.unlock();
        const auto until = std::chrono::steady_clock::now() + kSpin;
        while (pending_.load(std::memory_order_acquire) == 0 && std::chrono::steady_clock::now() < until) {
        }
        lock.lock();
        job = find_job();
        if (job == nullptr) {
          wake_.wait(lock);
          continue;
        }
      }
      ++job->helpers;
      lock.unlock();
      job->work();
      lock.lock();
      if (--job->helpers == 0) done_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::atomic<int32_t> pending_{0};
  Job* jobs_ = nullptr;
  int32_t num_workers_ = 0;
};

std::atomic<Pool*> pool{nullptr};
std::atomic<int32_t> chosen_threads{0};

// The pool is never destroyed, so exit and static destructors need not wait for workers. A forked child has none of its
// parent's threads and may have inherited a locked mutex: it forgets the pool and starts its own.
Pool& the_pool() {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { pool.store(nullptr); });
  (void)registered;
  Pool* current = pool.load(std::memory_order_acquire);
  if (current != nullptr) return *current;
  auto* fresh = new Pool;
  if (pool.compare_exchange_strong(current, fresh, std::memory_order_acq_rel)) return *fresh;
  delete fresh;
  return *current;
}

}  // namespace

int32_t num_cores() {
  static const int32_t count = [] {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0)
      return static_cast<int32_t>(CPU_COUNT(&set));
    const auto n = static_cast<int32_t>(std::thread::hardware_concurrency());
    return n > 0 ? n : 1;
  }();
  return count;
}

int32_t num_pool_threads() {
  const int32_t chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0) return chosen;
  return environment().num_threads > 0 ? environment().num_threads : num_cores();
}

void set_num_pool_threads(int32_t num_threads) { chosen_threads.store(num_threads, std::memory_order_relaxed); }

int32_t pool_parallel_for(void* /*pool*/, int64_t num_tasks, void (*body)(void*, int64_t), void* arg) {
  const int32_t threads = num_pool_threads();
  if (num_tasks <= 1 || threads <= 1) {
    for (int64_t task = 0; task < num_tasks; ++task) body(arg, task);
    return 0;
  }
  Job job;
  job.num_tasks = num_tasks;
  job.body = body;
  job.arg = arg;
  the_pool().run(job, threads < num_tasks ? threads : static_cast<int32_t>(num_tasks));
  if (job.failure != nullptr) std::rethrow_exception(job.failure);
  return 0;
}

}  // namespace attnmux
