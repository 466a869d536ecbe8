// SPDX-License-Identifier: Apache-2.0
// Why was that chosen? The answer as data, then as text or JSON.
#pragma once

#include <string>
#include <vector>

#include "dispatch/select.h"

namespace attnmux {

struct ExplainedKernel {
  std::string name;
  bool runs = false;
  std::string reason;  // why, or why not
  size_t workspace_bytes = 0;
  std::string accuracy;  // "" where it does not run
};

struct ExplainedBackend {
  uint16_t id = 0;
  std::string missing;  // why it has no kernels
  std::vector<ExplainedKernel> kernels;
};

struct Explained {
  std::string problem;  // "1×512×12×32 bf16 …"
  std::string device;
  Precedence precedence;
  Selection selection;
  size_t workspace_bytes = 0;
  std::string accuracy;
  ExplainedBackend chosen;
  std::vector<ExplainedBackend> others;
};

attnmux_code explain_choice(const Problem& problem, const attnmux_options& options, int32_t num_threads,
                            Explained& explained, attnmux_error* error);
std::string explain_text(const Explained& explained, bool all);
std::string explain_json(const Explained& explained);

}  // namespace attnmux
