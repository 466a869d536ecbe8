// SPDX-License-Identifier: Apache-2.0
// One attention graph of cuDNN: built for a shape, run with any pointers. graph.cpp alone includes cudnn_frontend.
#pragma once

#include <memory>

#include "kernels/cuda/cudnn/shape.h"

struct cudnnContext;

namespace attnmux {

class CudnnGraph {
 public:
  struct Pointers {
    void *q, *k, *v, *out, *lse, *lengths_q, *lengths_kv, *padding;
    float scale;
  };

  virtual ~CudnnGraph() = default;
  virtual size_t workspace_bytes() const = 0;
  /// Queues it on the stream of the handle; any number of threads may run one graph, each with its own handle.
  virtual attnmux_code run(cudnnContext* handle, const Pointers& pointers, void* workspace,
                           attnmux_error* error) const = 0;
};

/// Asks cuDNN's heuristics and compiles: tens of milliseconds. A problem that cuDNN does not take is
/// ATTNMUX_UNSUPPORTED, in its words.
attnmux_code build_cudnn_graph(cudnnContext* handle, const CudnnShape& shape, std::unique_ptr<CudnnGraph>& graph,
                               attnmux_error* error);

}  // namespace attnmux
