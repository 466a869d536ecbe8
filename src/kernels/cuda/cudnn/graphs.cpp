// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/graphs.h"

#include <array>
#include <mutex>
#include <utility>

#include "kernels/cuda/cudnn/handles.h"
#include "kernels/cuda/runtime/call.h"

namespace attnmux {
namespace {

constexpr size_t kWays = 4, kSets = kMaxCudnnGraphs / kWays;

// Held for as long as it takes to compare four shapes.
class SpinLock {
 public:
  explicit SpinLock(std::atomic_flag& flag) : flag_(flag) {
    while (flag_.test_and_set(std::memory_order_acquire)) {
      while (flag_.test(std::memory_order_relaxed)) {
      }
    }
  }
  ~SpinLock() { flag_.clear(std::memory_order_release); }
  SpinLock(const SpinLock&) = delete;
  SpinLock& operator=(const SpinLock&) = delete;

 private:
  std::atomic_flag& flag_;
};

struct Set {
  std::atomic_flag lock;
  std::array<CachedGraph*, kWays> ways{};
};

struct Cache {
  std::array<Set, kSets> sets{};
  std::atomic<int64_t> clock{0};
  std::atomic<bool> any_refusal{false};
  std::mutex building;
};

// Never destroyed: a static destructor of the program may still call attention(), and cuDNN may be gone by then.
Cache& cache() {
  static Cache& instance = *new Cache;
  return instance;
}

Set& set_of(const CudnnShape& shape) { return cache().sets[shape.hash() % kSets]; }

CachedGraph* hold(CachedGraph* graph) {
  graph->holders.fetch_add(1, std::memory_order_relaxed);
  graph->last_used.store(cache().clock.fetch_add(1, std::memory_order_relaxed), std::memory_order_relaxed);
  return graph;
}

// Puts it in the place of nothing, or of the one that was not used for longest, which is returned.
CachedGraph* insert(CachedGraph* fresh) {
  Set& set = set_of(fresh->shape);
  hold(fresh);
  const SpinLock lock(set.lock);
  CachedGraph** place = &set.ways[0];
  for (CachedGraph*& way : set.ways) {
    if (way == nullptr) {
      place = &way;
      break;
    }
    if (way->last_used.load(std::memory_order_relaxed) < (*place)->last_used.load(std::memory_order_relaxed))
      place = &way;
  }
  return std::exchange(*place, fresh);
}

attnmux_code build(CachedGraph& fresh, attnmux_error* error) {
  CudaDeviceScope device;
  if (const attnmux_code code = device.enter(static_cast<int32_t>(fresh.shape.device), error); code != ATTNMUX_OK)
    return code;
  CudnnHandle handle;
  if (const attnmux_code code = handle.take(fresh.shape.device, error); code != ATTNMUX_OK) return code;
  attnmux_error why{};
  const attnmux_code code = build_cudnn_graph(handle.get(), fresh.shape, fresh.graph, &why);
  if (code == ATTNMUX_OK) {
    fresh.workspace = cudnn_workspace(fresh.shape, fresh.graph->workspace_bytes());
    return ATTNMUX_OK;
  }
  if (code == ATTNMUX_UNSUPPORTED) {
    fresh.refusal = why;
    return ATTNMUX_OK;  // worth remembering
  }
  if (error != nullptr) *error = why;
  return code;
}

}  // namespace

CachedGraph* find_cached_graph(const CudnnShape& shape) {
  Set& set = set_of(shape);
  const SpinLock lock(set.lock);
  for (CachedGraph* way : set.ways) {
    if (way != nullptr && way->shape == shape) return hold(way);
  }
  return nullptr;
}

attnmux_code find_or_build_graph(const CudnnShape& shape, CachedGraph*& found, attnmux_error* error) {
  found = find_cached_graph(shape);
  if (found != nullptr) return ATTNMUX_OK;
  const std::lock_guard one_at_a_time(cache().building);
  found = find_cached_graph(shape);  // another thread may have built it meanwhile
  if (found != nullptr) return ATTNMUX_OK;
  auto fresh = std::make_unique<CachedGraph>();
  fresh->shape = shape;
  if (const attnmux_code code = build(*fresh, error); code != ATTNMUX_OK) return code;
  if (fresh->graph == nullptr) cache().any_refusal.store(true, std::memory_order_release);
  found = hold(fresh.release());
  release_cached_graph(insert(found));
  return ATTNMUX_OK;
}

void release_cached_graph(CachedGraph* graph) {
  if (graph != nullptr && graph->holders.fetch_sub(1, std::memory_order_acq_rel) == 1) delete graph;
}

void keep_for_ever(CachedGraph* graph) {
  if (!graph->captured.exchange(true, std::memory_order_relaxed)) hold(graph);
}

bool any_cudnn_refusal() { return cache().any_refusal.load(std::memory_order_acquire); }

}  // namespace attnmux
