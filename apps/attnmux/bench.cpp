// SPDX-License-Identifier: Apache-2.0
// attnmux bench: how fast the backends are on one problem, measured in turn on the same inputs.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "attnmux/backend_table.h"
#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/inputs.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/planned.h"
#include "attnmux/progress.h"
#include "attnmux/table.h"
#include "attnmux/timing.h"

namespace attnmux::cli {
namespace {

struct BenchFlags {
  ProblemFlags problem;
  double seconds = 1;
  bool json = false;
};

struct Candidate {
  const BackendInfo* backend = nullptr;
  Planned planned;
  std::string refusal;  // empty: measured
  Timing timing;
};

// Plans every backend that was asked for, which must run, or every one that this machine has, which may refuse.
std::vector<Candidate> plan_candidates(const ProblemFlags& flags, const ProblemSpec& spec,
                                       const std::vector<BackendInfo>& table) {
  const std::vector<Backend> named = named_backends(flags);
  std::vector<Candidate> candidates;
  for (const BackendInfo& b : table) {
    const bool asked = std::find(named.begin(), named.end(), b.backend) != named.end();
    if (named.empty() ? !b.available : !asked) continue;
    Candidate candidate;
    candidate.backend = &b;
    const Call call = planned_call(spec, b.backend);
    const Status status =
        Planned::make(candidate.planned, call.q, call.k, call.v, call.out, call.options, exec_for(spec.device));
    if (!status) {
      if (!named.empty() || exit_code(status.code()) != kExitCannotRun) throw Error(status);
      candidate.refusal = refusal_text(status.message());
    }
    candidates.push_back(std::move(candidate));
  }
  return candidates;
}

void measure_all(std::vector<Candidate>& candidates, const ProblemSpec& spec, double seconds_each) {
  const bool any =
      std::any_of(candidates.begin(), candidates.end(), [](const Candidate& c) { return c.refusal.empty(); });
  if (!any) return;
  require_host(spec, candidates.front().backend->backend);
  double bytes = bytes_needed(spec, 1);
  for (const Candidate& c : candidates) {
    if (c.refusal.empty()) bytes += static_cast<double>(c.planned.workspace_bytes());
  }
  require_memory(bytes);
  const RandomInputs random(spec);
  const Inputs in = random.views();
  Outputs outputs(spec);
  std::vector<Alternative> alternatives;
  for (Candidate& c : candidates) {
    if (!c.refusal.empty()) continue;
    alternatives.push_back({c.backend->name, [&, o = in.options(spec, c.backend->backend, outputs.lse_view())] {
                              c.planned.run(in.q, in.k, in.v, outputs.out.view(), o);
                            }});
  }
  Progress progress("bench");
  const auto timings =
      measure(alternatives, seconds_each, [&](double done, const std::string& what) { progress.show(done, what); });
  auto timing = timings.begin();
  for (Candidate& c : candidates) {
    if (c.refusal.empty()) c.timing = *timing++;
  }
}

// What the others are compared with: plain attention where it was measured, else the first.
const Candidate* baseline_of(const std::vector<Candidate>& candidates) {
  const Candidate* first = nullptr;
  for (const Candidate& c : candidates) {
    if (!c.refusal.empty()) continue;
    if (c.backend->name == "_native_math") return &c;
    if (first == nullptr) first = &c;
  }
  return first;
}

void print_table(const std::vector<Candidate>& candidates, const ProblemSpec& spec) {
  const Candidate* baseline = baseline_of(candidates);
  const std::string versus = "vs " + (baseline == nullptr ? std::string("–") : baseline->backend->name);
  const double work = flops(spec), bytes = bytes_moved(spec);
  std::fputs((text(spec) + ", " + machine_text() + "\n").c_str(), stdout);
  Table table({"backend", "kernel", "class", ">median", ">min", ">GFLOP/s", ">bytes/s", ">" + versus});
  for (const Candidate& c : candidates) {
    if (!c.refusal.empty()) {
      table.row({c.backend->name, {"–", Style::kDim}, {"–", Style::kDim}, {c.refusal, Style::kDim}});
      continue;
    }
    const std::string kernel = c.planned.kernel();
    table.row({{c.backend->name, Style::kBold},
               kernel,
               class_of(*c.backend, kernel, dtype_name(spec.dtype)),
               time_text(c.timing.median_s),
               time_text(c.timing.min_s),
               fixed(work / c.timing.median_s / 1e9, 1),
               bytes_text(bytes / c.timing.median_s) + "/s",
               ratio_text(baseline->timing.median_s / c.timing.median_s)});
  }
  table.print();
}

Json results_json(const std::vector<Candidate>& candidates, const ProblemSpec& spec) {
  const Candidate* baseline = baseline_of(candidates);
  const Json problem = to_json(spec);
  const std::string isa = isa_name();
  Json results = Json::array();
  for (const Candidate& c : candidates) {
    if (!c.refusal.empty()) {
      print_note(c.backend->name + " not measured: " + c.refusal);
      continue;
    }
    const std::string kernel = c.planned.kernel();
    results.push_back({{"backend", c.backend->name},
                       {"kernel", kernel},
                       {"class", class_of(*c.backend, kernel, dtype_name(spec.dtype))},
                       {"problem", problem},
                       {"median_s", c.timing.median_s},
                       {"min_s", c.timing.min_s},
                       {"runs", c.timing.runs},
                       {"gflops", flops(spec) / c.timing.median_s / 1e9},
                       {"bytes_per_s", bytes_moved(spec) / c.timing.median_s},
                       {"baseline", baseline->backend->name},
                       {"speedup", baseline->timing.median_s / c.timing.median_s},
                       {"workspace_bytes", c.planned.workspace_bytes()},
                       {"device", device_name(spec.device)},
                       {"threads", num_threads()},
                       {"isa", isa}});
  }
  return results;
}

int bench(const BenchFlags& flags) {
  apply_threads(flags.problem);
  const ProblemSpec spec = complete(flags.problem);
  const auto table = backend_table();
  std::vector<Candidate> candidates = plan_candidates(flags.problem, spec, table);
  measure_all(candidates, spec, flags.seconds);
  note_forced_backend();
  flags.json ? print_json(results_json(candidates, spec)) : print_table(candidates, spec);
  return baseline_of(candidates) == nullptr ? kExitCannotRun : kExitOk;
}

}  // namespace

void add_bench(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("bench", "how fast the backends are on a problem");
  const auto flags = std::make_shared<BenchFlags>();
  add_problem_flags(*sub, flags->problem, BackendFlag::kMany);
  add_text_option(*sub, "--seconds", "X", "time for each backend (default 1)", [flags](const std::string& t) {
    flags->seconds = parse_seconds("--seconds", t);
  })->group("Output");
  add_switch(*sub, "--json", flags->json, "one JSON array, one object per backend")->group("Output");
  sub->footer(
      examples({"attnmux bench", "attnmux bench --seqlen-q 4096 --heads-q 10 --head-dim 64 --causal --dtype fp32",
                "attnmux bench --backend flash --backend _native_math --threads 1 --json",
                "attnmux bench --backend flash --kernel cpu_flash_avx2"}) +
      "\n\nGFLOP/s count 2·(D+Dv) per attended (query, key) pair.");
  sub->callback([flags, &program] { program.action = [flags] { return bench(*flags); }; });
}

}  // namespace attnmux::cli
