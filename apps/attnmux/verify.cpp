// SPDX-License-Identifier: Apache-2.0
// attnmux verify: does every backend keep its promise on this machine?
#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>

#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/progress.h"
#include "attnmux/table.h"
#include "attnmux/verify_checks.h"

namespace attnmux::cli {
namespace {

constexpr size_t kFailuresShown = 10, kRefusalsShown = 10;

struct VerifyFlags {
  ProblemFlags problem;
  bool json = false;
};

std::vector<VerifyCase> cases_of(const ProblemFlags& flags) {
  VerifyCase one;
  one.spec = complete(flags);
  require_host(one.spec, {});
  if (!flags.describe_a_problem()) {
    std::vector<VerifyCase> cases = built_in_cases();
    for (VerifyCase& c : cases) {
      c.spec.seed += one.spec.seed * 1000;
      c.spec.allow_lossy = one.spec.allow_lossy;
    }
    return cases;
  }
  // Is the problem valid at all? Refusals of single kernels are part of the report.
  Plan unused;
  const Call call = planned_call(one.spec, {});
  if (const Status status = try_plan(unused, call.q, call.k, call.v, call.out, call.options); !status) {
    if (exit_code(status.code()) != kExitCannotRun) throw Error(status);
  }
  const double elements = bytes_needed(one.spec, 1) / static_cast<double>(element_size(one.spec.dtype));
  require_memory(bytes_needed(one.spec, 4) + 16 * elements);  // inputs, outputs, two oracles in fp64
  return {one};
}

// Nothing to verify: --kernel names one that there is not, that does not run here, or of another backend.
[[noreturn]] void refuse_kernel(const std::string& name, const std::vector<BackendInfo>& table) {
  for (const BackendInfo& b : table) {
    const KernelInfo* kernel = b.kernel(name);
    if (kernel == nullptr) continue;
    if (!kernel->available) throw CannotRunError("kernel \"" + name + "\" cannot run here: " + kernel->reason);
    throw UsageError("--kernel: \"" + name + "\" is not of the backends given; \"" + b.name + "\" has it");
  }
  throw UsageError("--kernel: \"" + name + "\" does not exist; attnmux list shows the kernels of every backend");
}

// A report for each available kernel of each backend that is asked for, or of all.
std::vector<KernelReport> reports_of(const ProblemFlags& flags, const std::vector<BackendInfo>& table) {
  const std::vector<Backend> named = named_backends(flags);
  std::vector<KernelReport> reports;
  for (const BackendInfo& b : table) {
    const bool asked = std::find(named.begin(), named.end(), b.backend) != named.end();
    if (asked) throw_if_failed(b.backend.available());
    if (!b.available || (!named.empty() && !asked)) continue;
    for (const KernelInfo& k : b.kernels) {
      if (!k.available || (!flags.kernel.empty() && flags.kernel != k.name)) continue;
      KernelReport report;
      report.backend = &b;
      report.kernel = &k;
      reports.push_back(std::move(report));
    }
  }
  if (reports.empty()) refuse_kernel(flags.kernel, table);
  return reports;
}

Json to_json(const Worst& w) {
  return {{"checked", w.checked},
          {"refused", w.refused},
          {"max_error", w.max_error},
          {"rel_l2", w.rel_l2},
          {"max_error_vs_plain", w.plain_error},
          {"rel_l2_vs_plain", w.plain_rel_l2},
          {"lse_error", w.lse_error},
          {"share_of_tolerance", w.share},
          {"deterministic", w.deterministic}};
}

Json to_json(const KernelReport& r) {
  Json j = {{"backend", r.backend->name}, {"kernel", r.kernel->name}, {"passed", r.passed()}};
  j.update(to_json(r.total()));
  j["by_dtype"] = Json::object();
  for (const auto& [dtype, worst] : r.by_dtype) {
    j["by_dtype"][dtype] = to_json(worst);
    j["by_dtype"][dtype]["class"] = r.kernel->accuracy.value(dtype, "–");
  }
  j["refusals"] = Json::array();
  for (const auto& [reason, count] : r.refusals) j["refusals"].push_back({{"reason", reason}, {"count", count}});
  j["failures"] = r.failures;
  return j;
}

void print_table(const std::vector<KernelReport>& reports) {
  Table table({"backend, kernel", ">checked", ">refused", ">error", ">L2", ">vs plain", ">L2", ">lse", ">of limit",
               "bits", "promise"});
  const BackendInfo* previous = nullptr;
  for (const KernelReport& r : reports) {
    if (r.backend != previous) table.row({{r.backend->name, Style::kBold}});
    previous = r.backend;
    const Worst w = r.total();
    table.row({"  " + r.kernel->name,
               std::to_string(w.checked),
               std::to_string(w.refused),
               scientific(w.max_error),
               scientific(w.rel_l2),
               scientific(w.plain_error),
               scientific(w.plain_rel_l2),
               scientific(w.lse_error),
               {fixed(100 * w.share, 0) + " %", w.share <= 1 ? Style::kPlain : Style::kBad},
               w.deterministic ? Cell("same") : Cell("vary", Style::kBad),
               r.passed() ? Cell("kept", Style::kGood) : Cell("broken", Style::kBad)});
  }
  table.print();
}

void print_refusals(const std::vector<KernelReport>& reports) {
  std::map<std::string, int> reasons;
  for (const KernelReport& r : reports) {
    for (const auto& [reason, count] : r.refusals) {
      // Kernels refuse in the same words but for their names.
      const bool names_itself = reason.starts_with(r.kernel->name + " ");
      reasons[names_itself ? reason.substr(r.kernel->name.size() + 1) : reason] += count;
    }
  }
  if (reasons.empty()) return;
  std::fputs("\n", stdout);
  Table table({">refused", "reason"});
  size_t shown = 0;
  for (const auto& [reason, count] : reasons) {
    if (shown++ == kRefusalsShown) break;
    table.row({std::to_string(count), reason});
  }
  table.print();
  if (reasons.size() > kRefusalsShown) {
    std::fputs(("  and " + std::to_string(reasons.size() - kRefusalsShown) + " other reasons; see --json\n").c_str(),
               stdout);
  }
}

void print_failures(const std::vector<KernelReport>& reports) {
  size_t shown = 0, total = 0;
  for (const KernelReport& r : reports) {
    for (const std::string& failure : r.failures) {
      if (++total > kFailuresShown) continue;
      ++shown;
      print_error(r.backend->name + ", " + r.kernel->name + ": " + failure);
    }
  }
  if (total > shown) print_error("and " + std::to_string(total - shown) + " more; see --json");
}

int verify(const VerifyFlags& flags) {
  apply_threads(flags.problem);
  const auto table = backend_table();
  std::vector<KernelReport> reports = reports_of(flags.problem, table);
  const std::vector<VerifyCase> cases = cases_of(flags.problem);
  note_forced_backend();
  {
    Progress progress("verify");
    for (size_t i = 0; i < cases.size(); ++i) {
      progress.show(static_cast<double>(i) / static_cast<double>(cases.size()), text(cases[i]));
      const PreparedCase prepared(cases[i]);
      for (KernelReport& report : reports) check(report, prepared);
    }
  }
  const bool passed = std::all_of(reports.begin(), reports.end(), [](const KernelReport& r) { return r.passed(); });
  if (flags.json) {
    Json document = {{"passed", passed},
                     {"problems", cases.size()},
                     {"threads", num_threads()},
                     {"isa", isa_name()},
                     {"results", Json::array()}};
    for (const KernelReport& r : reports) document["results"].push_back(to_json(r));
    document["unavailable"] = Json::array();
    for (const BackendInfo& b : table) {
      if (!b.available) document["unavailable"].push_back({{"backend", b.name}, {"reason", b.reason}});
    }
    print_json(document);
  } else {
    std::fputs((counted(static_cast<int64_t>(cases.size()), "problem") +
                " against the oracle in fp64 and the textbook loop (plain), " + machine_text() + "\n")
                   .c_str(),
               stdout);
    print_table(reports);
    print_refusals(reports);
    std::fflush(stdout);
    print_failures(reports);
  }
  return passed ? kExitOk : kExitCheckFailed;
}

}  // namespace

void add_verify(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("verify", "the numerics of every backend and kernel on this machine");
  const auto flags = std::make_shared<VerifyFlags>();
  add_problem_flags(*sub, flags->problem, BackendFlag::kMany);
  add_switch(*sub, "--json", flags->json, "one JSON document, errors by dtype, every refusal and failure")
      ->group("Output");
  sub->footer(examples({"attnmux verify", "attnmux verify --backend flash --json",
                        "attnmux verify --plugin ./libacme_attention.so --backend acme.flash",
                        "attnmux verify --seqlen-q 300 --heads-q 4 --head-dim 96 --causal --dtype fp16"}) +
              "\n\nWithout a problem, a built-in set runs: every dtype, mask, option and edge. A promise is kept if "
              "every error is\n"
              "within twice that of the textbook loop plus 2 ulp, and the bits are the same on every run, planned or "
              "not, at any\n"
              "number of threads. Exits with 1 if one is broken.");
  sub->callback([flags, &program] { program.action = [flags] { return verify(*flags); }; });
}

}  // namespace attnmux::cli
