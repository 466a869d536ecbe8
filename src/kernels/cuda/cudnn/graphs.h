// SPDX-License-Identifier: Apache-2.0
// The graphs that were built, and the refusals: at most kMaxCudnnGraphs, the least recently used of a set goes first.
#pragma once

#include <atomic>
#include <memory>

#include "kernels/cuda/cudnn/graph.h"

namespace attnmux {

inline constexpr size_t kMaxCudnnGraphs = 1024;

/// A graph or, where cuDNN refused, its words. Counted: the cache holds it once, and so does every plan and running
/// call.
struct CachedGraph {
  CudnnShape shape;
  std::unique_ptr<CudnnGraph> graph;  // null: refused
  CudnnWorkspace workspace{};
  attnmux_error refusal{};
  std::atomic<int64_t> last_used{0};
  std::atomic<uint32_t> holders{0};
  std::atomic<bool> captured{false};
};

/// The graph of the shape, held for the caller, or null; never builds one.
CachedGraph* find_cached_graph(const CudnnShape& shape);
/// The same, and builds it where it is not there. Threads that build take turns.
attnmux_code find_or_build_graph(const CudnnShape& shape, CachedGraph*& found, attnmux_error* error);
void release_cached_graph(CachedGraph* graph);
/// Keeps the graph for the rest of the process: a captured CUDA graph may launch its code at any time.
void keep_for_ever(CachedGraph* graph);

/// Has any shape been refused so far?
bool any_cudnn_refusal();

}  // namespace attnmux
