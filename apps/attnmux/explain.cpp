// SPDX-License-Identifier: Apache-2.0
// attnmux explain: what would be chosen for a problem, and why.
#include <CLI/CLI.hpp>
#include <memory>

#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/problem_spec.h"

namespace attnmux::cli {
namespace {

struct ExplainFlags {
  ProblemFlags problem;
  ExplainOptions how;
};

int explain_problem(const ExplainFlags& flags) {
  apply_threads(flags.problem);
  const ProblemSpec spec = complete(flags.problem);
  const Call call = planned_call(spec, one_backend(flags.problem));
  Explanation answer;
  throw_if_failed(
      try_explain(answer, call.q, call.k, call.v, call.out, call.options, exec_for(spec.device), flags.how));
  if (flags.how.json) {
    print_json(Json::parse(answer.text));
  } else {
    std::fwrite(answer.text.data(), 1, answer.text.size(), stdout);
    if (!answer.text.ends_with('\n')) std::fputc('\n', stdout);
  }
  return kExitOk;
}

}  // namespace

void add_explain(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("explain", "what would be chosen for a problem, and why; runs nothing");
  const auto flags = std::make_shared<ExplainFlags>();
  add_problem_flags(*sub, flags->problem, BackendFlag::kOne);
  add_switch(*sub, "--all", flags->how.all, "every other backend with its kernels, too")->group("Output");
  add_switch(*sub, "--json", flags->how.json, "one JSON document; always holds everything")->group("Output");
  sub->footer(examples({"attnmux explain --seqlen-q 4352 --heads-q 24 --head-dim 128 --key-lengths 4100",
                        "attnmux explain --seqlen-q 1 --seqlen-kv 4096 --heads-q 32 --heads-kv 8 --causal=bottom_right",
                        "attnmux explain --backend flash --window 256,0 --softcap 30 --all",
                        "ATTNMUX_FORCE_BACKEND=_native_math attnmux explain"}));
  sub->callback([flags, &program] { program.action = [flags] { return explain_problem(*flags); }; });
}

}  // namespace attnmux::cli
