// SPDX-License-Identifier: Apache-2.0
#include "attnmux/run_report.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "attnmux/backend_table.h"
#include "attnmux/errors.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/numerics.h"
#include "attnmux/planned.h"
#include "attnmux/progress.h"
#include "attnmux/table.h"
#include "attnmux/timing.h"

namespace attnmux::cli {
namespace {

// One row of the report.
struct Row {
  std::string name;
  Backend backend;      // what was asked for; empty: precedence decides
  std::string refusal;  // empty: it ran
  std::string kernel, accuracy_class;
  Planned planned;
  std::unique_ptr<Outputs> outputs;
  Difference error;
  Tolerance tolerance;
  double lse_error = 0, lse_allowed = 0;
  Timing timing;

  bool ran() const { return refusal.empty(); }
  bool passed() const { return tolerance.admits(error) && lse_error <= lse_allowed; }
};

// Everything that the rows share.
struct Run {
  const RunFiles& files;
  const ProblemSpec& spec;
  const Inputs& in;
  std::vector<BackendInfo> table;
  double expected_off = 0;  // how far what the user expects is from the oracle

  AttentionOptions options(const Row& row) const { return in.options(spec, row.backend, row.outputs->lse_view()); }
  Status plan(Row& row) const {
    row.outputs = std::make_unique<Outputs>(spec);
    Status status = Planned::make(row.planned, in.q, in.k, in.v, row.outputs->out.view(), options(row));
    if (!status) return status;
    const BackendInfo& backend = info(table, row.planned.backend());
    if (row.name.empty()) row.name = backend.name;
    row.kernel = row.planned.kernel();
    row.accuracy_class = class_of(backend, row.kernel, dtype_name(spec.dtype));
    return status;
  }
  // The call itself, with nothing around it that a clock would see.
  std::function<void()> call(Row& row) const {
    return [this, &row, o = options(row)] { row.planned.run(in.q, in.k, in.v, row.outputs->out.view(), o); };
  }
};

std::vector<Row> plan_one(const Run& run, Backend backend) {
  std::vector<Row> rows(1);
  rows[0].backend = backend;
  rows[0].name = backend.name();
  throw_if_failed(run.plan(rows[0]));
  return rows;
}

std::vector<Row> plan_all(const Run& run) {
  std::vector<Row> rows;
  for (const BackendInfo& b : run.table) {
    Row row;
    row.name = b.name;
    row.backend = b.backend;
    if (const Status status = run.plan(row); !status) {
      if (exit_code(status.code()) != kExitCannotRun) throw Error(status);
      row.outputs.reset();
      row.refusal = b.available ? refusal_text(status.message()) : b.reason;
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

// Plain attention, which the times are compared with: a row of the report, or one behind it.
Row* baseline(const Run& run, std::vector<Row>& rows, Row& hidden) {
  const auto is_math = [](const Row& row) { return row.ran() && row.planned.backend() == Backend("_native_math"); };
  for (Row& row : rows) {
    if (is_math(row)) return &row;
  }
  hidden.backend = "_native_math";
  const bool planned = run.plan(hidden).ok() && is_math(hidden);
  const bool fits = planned && static_cast<double>(hidden.planned.workspace_bytes()) < memory().available_bytes / 2;
  if (rows.size() == 1 && fits) return &hidden;
  return nullptr;
}

// The reference is what the user expects where that is given. It is then held to the fp64 oracle's tolerance, plus what
// the expectation itself is off by, up to the same amount: a wrong expectation does not widen its own tolerance.
void compare(Run& run, std::vector<Row>& rows, const Oracle& truth, const std::vector<double>& expected) {
  const bool expects = run.files.has_expect();
  const Difference off = expects ? difference(expected, truth.out) : Difference();
  run.expected_off = off.max_abs;
  for (Row& row : rows) {
    if (!row.ran()) continue;
    row.error = difference(row.outputs->out.to_doubles(), expects ? expected : truth.out);
    row.tolerance = output_tolerance(truth, run.spec.dtype, row.accuracy_class);
    if (expects && std::isfinite(off.max_abs)) {
      row.tolerance.max_abs += std::min(row.tolerance.max_abs, off.max_abs);
      row.tolerance.rel_l2 += std::min(row.tolerance.rel_l2, off.rel_l2);
    }
    if (!run.spec.lse) continue;
    row.lse_error = difference(row.outputs->lse.to_doubles(), truth.lse).max_abs;
    row.lse_allowed = lse_tolerance(truth, run.spec.dtype);
  }
}

void time_rows(const Run& run, std::vector<Row>& rows, Row* baseline_row, double seconds, Progress& progress) {
  std::vector<Alternative> alternatives;
  std::vector<Row*> timed;
  const auto add = [&](Row& row) {
    timed.push_back(&row);
    alternatives.push_back({row.name, run.call(row)});
  };
  for (Row& row : rows) {
    if (row.ran()) add(row);
  }
  if (baseline_row != nullptr && std::find(timed.begin(), timed.end(), baseline_row) == timed.end()) add(*baseline_row);
  const auto timings =
      measure(alternatives, seconds, [&](double done, const std::string& what) { progress.show(done, what); });
  for (size_t i = 0; i < timed.size(); ++i) timed[i]->timing = timings[i];
}

std::string ratio(const Row& row, const Row* baseline_row) {
  return baseline_row == nullptr ? "–" : ratio_text(baseline_row->timing.median_s / row.timing.median_s);
}

std::string headline(const Run& run, const RunFlags& flags) {
  std::string line;
  if (!flags.title.empty()) {
    const std::string& title = run.files.title();
    const size_t file = title.find(": ");
    line = flags.title + ": " + (file == std::string::npos ? title : title.substr(file + 2));
  } else {
    line = run.files.title();
  }
  line += ", " + text(run.spec);
  if (!flags.names.key_padding.empty()) line += ", key padding";
  if (!flags.names.mask.empty()) line += ", dense mask";
  if (!flags.names.bias.empty()) line += ", bias";
  return line + ", " + machine_text();
}

void print_report(const Run& run, const RunFlags& flags, const std::vector<Row>& rows, const Row* baseline_row) {
  const bool expects = run.files.has_expect();
  std::fputs((styled(headline(run, flags), Style::kBold) + "\n").c_str(), stdout);
  std::vector<std::string> titles = {
      "backend", "kernel", "class", expects ? "error vs expected" : "error vs fp64", "time", "vs _native_math"};
  if (run.spec.lse) titles.insert(titles.begin() + 4, "lse error");
  Table table(titles);
  for (const Row& row : rows) {
    if (!row.ran()) {
      table.row({row.name, {"–", Style::kDim}, {"–", Style::kDim}, {row.refusal, Style::kDim}});
      continue;
    }
    std::vector<Cell> cells = {
        {row.name, Style::kBold},
        row.kernel,
        row.accuracy_class,
        {scientific(row.error.max_abs), row.tolerance.admits(row.error) ? Style::kGood : Style::kBad}};
    if (run.spec.lse)
      cells.emplace_back(scientific(row.lse_error), row.lse_error <= row.lse_allowed ? Style::kGood : Style::kBad);
    cells.emplace_back(time_text(row.timing.median_s));
    cells.emplace_back(ratio(row, baseline_row));
    table.row(std::move(cells));
  }
  table.print();
}

// Which errors were too large, and how large they may be.
void print_verdict(const Run& run, const std::vector<Row>& rows) {
  bool all_passed = true;
  double allowed = 0;
  for (const Row& row : rows) {
    if (!row.ran()) continue;
    if (std::isfinite(row.tolerance.max_abs)) allowed = row.tolerance.max_abs;
    if (row.passed()) continue;
    all_passed = false;
    const bool lse_only = row.tolerance.admits(row.error);
    print_error(lse_only ? row.name + ": the log-sum-exp is off by " + scientific(row.lse_error) + ", allowed are " +
                               scientific(row.lse_allowed)
                         : row.name + ": the output is off by " + scientific(row.error.max_abs) + " (relative L2 " +
                               scientific(row.error.rel_l2) + "), allowed are " + scientific(row.tolerance.max_abs) +
                               " (" + scientific(row.tolerance.rel_l2) + ")");
  }
  if (!all_passed && run.files.has_expect()) {
    print_note("the expected tensor itself is " + scientific(run.expected_off) + " away from the oracle in fp64");
  }
  if (all_passed && allowed > 0) {
    print_note("every error is within " + scientific(allowed) + ": twice that of the textbook loop in " +
               std::string(dtype_word(run.spec.dtype)) + ", plus 2 ulp");
  }
}

Json report_json(const Run& run, const RunFlags& flags, const std::vector<Row>& rows, const Row* baseline_row) {
  Json results = Json::array();
  for (const Row& row : rows) {
    Json r = {{"backend", row.name}, {"ran", row.ran()}, {"reason", row.refusal}};
    if (row.ran()) {
      r["kernel"] = row.kernel;
      r["class"] = row.accuracy_class;
      r["max_error"] = row.error.max_abs;
      r["rel_l2"] = row.error.rel_l2;
      r["max_error_allowed"] = row.tolerance.max_abs;
      r["rel_l2_allowed"] = row.tolerance.rel_l2;
      r["lse_error"] = run.spec.lse ? Json(row.lse_error) : Json(nullptr);
      r["passed"] = row.passed();
      r["median_s"] = row.timing.median_s;
      r["min_s"] = row.timing.min_s;
      r["runs"] = row.timing.runs;
      r["speedup_vs_native_math"] =
          baseline_row == nullptr ? Json(nullptr) : Json(baseline_row->timing.median_s / row.timing.median_s);
    }
    results.push_back(std::move(r));
  }
  return {{"title", headline(run, flags)},
          {"compared_with", run.files.has_expect() ? "expect" : "fp64"},
          {"problem", to_json(run.spec)},
          {"threads", num_threads()},
          {"isa", isa_name()},
          {"results", std::move(results)}};
}

void write_outputs(const std::string& path, const std::vector<Row>& rows, bool all) {
  std::vector<io::NamedTensor> tensors;
  for (const Row& row : rows) {
    if (!row.ran()) continue;
    const std::string suffix = all ? "." + row.name : "";
    const auto add = [&](const std::string& name, const HostTensor& tensor) {
      if (tensor.dtype() == Dtype::kNone) return;
      tensors.push_back(
          io::borrow_tensor(name + suffix, static_cast<int32_t>(tensor.dtype()), tensor.shape(), tensor.data()));
    };
    add("out", row.outputs->out);
    add("lse", row.outputs->lse);
  }
  io::save_tensor_file(path, tensors);
}

}  // namespace

int run_files(const RunFlags& flags) {
  const Backend backend = one_backend(flags.problem);
  if (flags.all && backend) throw UsageError("--backend and --all exclude each other; --all runs every backend");
  if (!flags.out.empty()) {
    check_output_path(flags.out, flags.names.file, (flags.all ? 2U : 1U) + (flags.problem.lse ? 1U : 0U));
  }
  apply_threads(flags.problem);
  const RunFiles files(flags.names, flags.problem);
  require_host(files.spec(), backend);
  Run run{files, files.spec(), files.inputs(), backend_table()};

  std::vector<Row> rows = flags.all ? plan_all(run) : plan_one(run, backend);
  for (Row& row : rows) {
    if (row.ran()) run.call(row)();
  }
  Progress progress("run");
  progress.show(0, "computing the oracle in fp64");
  const Oracle truth =
      oracle({files.inputs().q, files.inputs().k, files.inputs().v, {}, files.inputs().options(run.spec, {}, {})},
             run.spec, run.spec.lse);
  compare(run, rows, truth, files.has_expect() ? files.expected() : std::vector<double>());
  Row hidden;
  Row* baseline_row = baseline(run, rows, hidden);
  time_rows(run, rows, baseline_row, flags.seconds, progress);
  progress.clear();
  if (!flags.out.empty()) write_outputs(flags.out, rows, flags.all);

  note_forced_backend();
  flags.json ? print_json(report_json(run, flags, rows, baseline_row)) : print_report(run, flags, rows, baseline_row);
  std::fflush(stdout);
  print_verdict(run, rows);
  if (std::none_of(rows.begin(), rows.end(), [](const Row& row) { return row.ran(); })) return kExitCannotRun;
  const bool passed = std::all_of(rows.begin(), rows.end(), [](const Row& row) { return !row.ran() || row.passed(); });
  return passed ? kExitOk : kExitCheckFailed;
}

}  // namespace attnmux::cli
