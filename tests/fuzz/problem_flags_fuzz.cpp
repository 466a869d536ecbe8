// SPDX-License-Identifier: Apache-2.0
// The flags of a problem: each line of the input is one argument of the command line. Whatever it is, it is either
// refused with a message or becomes a problem that the library can be asked about.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "attnmux/errors.h"
#include "attnmux/problem_flags.h"
#include "attnmux/problem_spec.h"

namespace {

using namespace attnmux;
using namespace attnmux::cli;

constexpr int64_t kMostRows = 10'000;

void require(bool condition) {
  if (!condition) std::abort();
}

void ask_about(const ProblemFlags& flags) {
  const ProblemSpec spec = complete(flags);
  require(spec.batch >= 0 && spec.seqlen_q >= 0 && spec.seqlen_kv >= 0 && spec.head_dim >= 0);
  require(!spec.key_lengths || static_cast<int64_t>(spec.key_lengths->size()) == spec.batch);
  require(!text(spec).empty() && !to_json(spec).dump(-1, ' ', false, Json::error_handler_t::replace).empty());
  if (spec.batch <= kMostRows && spec.seqlen_q <= kMostRows && spec.batch * spec.seqlen_q <= kMostRows) {
    require(attended_pairs(spec) >= 0);
  }
  const Call call = planned_call(spec, one_backend(flags));
  Explanation answer;
  const Status status = try_explain(answer, call.q, call.k, call.v, call.out, call.options, exec_for(spec.device));
  require(status.ok() ? !answer.text.empty() : !status.message().empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::vector<std::string> arguments(1);
  for (size_t i = 0; i < size; ++i) {
    const char c = static_cast<char>(data[i]);
    if (c == '\n') {
      arguments.emplace_back();
    } else {
      arguments.back() += c;
    }
  }
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them

  ProblemFlags flags;
  CLI::App app;
  add_problem_flags(app, flags, BackendFlag::kOne);
  try {
    app.parse(arguments);
    ask_about(flags);
  } catch (const CLI::ParseError& error) {
    require(error.what() != nullptr);
  } catch (const UsageError& error) {
    require(error.what()[0] != 0);
  } catch (const Error& error) {
    require(error.what()[0] != 0);
  }
  return 0;
}
