// SPDX-License-Identifier: Apache-2.0
// Why was that chosen? The fifth verb.
#pragma once

#include <attnmux/attention.h>

#include <ostream>
#include <string>

namespace attnmux {

/// The answer of explain: the chosen backend and kernel, who decided, each kernel with why or why not.
struct Explanation {
  std::string text;  ///< aligned lines for people
  friend std::ostream& operator<<(std::ostream& stream, const Explanation& e) { return stream << e.text; }
};

struct ExplainOptions {
  bool all = false;   ///< every other backend with its kernels, too
  bool json = false;  ///< one JSON document instead of text; always holds everything
};

inline Status try_explain(Explanation& answer, const TensorView& q, const TensorView& k, const TensorView& v,
                          const MutableTensorView& out, const AttentionOptions& options = {},
                          const ExecContext& exec = {}, ExplainOptions how = {}) {
  Status status;
  answer.text.clear();
  const ExecFrame frame(exec);
  const attnmux_options o = options.c();
  uint32_t flags = 0;
  if (how.all) flags |= ATTNMUX_EXPLAIN_ALL;
  if (how.json) flags |= ATTNMUX_EXPLAIN_JSON;
  attnmux_explain(
      &q.c(), &k.c(), &v.c(), &out.c(), &o, frame.c(), flags,
      [](void* text, const char* part, size_t n) { static_cast<std::string*>(text)->append(part, n); }, &answer.text,
      status.c_error());
  return status;
}

#if defined(__cpp_exceptions)
/// A valid problem that nothing can run is an answer; an invalid one throws Error.
inline Explanation explain(const TensorView& q, const TensorView& k, const TensorView& v, const MutableTensorView& out,
                           const AttentionOptions& options = {}, const ExecContext& exec = {},
                           ExplainOptions how = {}) {
  Explanation answer;
  detail::throw_if_failed(try_explain(answer, q, k, v, out, options, exec, how));
  return answer;
}
#endif

}  // namespace attnmux
