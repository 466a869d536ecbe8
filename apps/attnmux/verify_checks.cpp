// SPDX-License-Identifier: Apache-2.0
#include "attnmux/verify_checks.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attnmux/errors.h"
#include "attnmux/numbers.h"
#include "attnmux/planned.h"

namespace attnmux::cli {
namespace {

// Announces threads that it does not have: a correct pool, and one whose number of threads is ours to choose.
struct SerialPool {
  template <typename Body>
  void parallel_for(int64_t n, Body body) {
    for (int64_t i = 0; i < n; ++i) body(i);
  }
};

// NaN where there is one: a comparison must not lose it.
double larger(double a, double b) { return std::isnan(a) || std::isnan(b) ? std::nan("") : std::max(a, b); }

bool same_bits(const HostTensor& a, const HostTensor& b) {
  return a.bytes() == b.bytes() && (a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0);
}

double share_of(double error, double allowed) {
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  if (std::isinf(allowed) || error == 0) return 0;
  return error / allowed;
}

class Check {
 public:
  Check(KernelReport& report, const PreparedCase& prepared)
      : report_(report), prepared_(prepared), spec_(prepared.source.spec) {
    spec_.kernel = report.kernel->name;
  }

  void run() {
    Worst& worst = report_.by_dtype[std::string(dtype_name(spec_.dtype))];
    Outputs outputs(spec_);
    Planned planned;
    const Inputs& in = prepared_.in;
    const Status status = Planned::make(planned, in.q, in.k, in.v, outputs.out.view(), options(outputs));
    if (!status) {
      if (exit_code(status.code()) != kExitCannotRun)
        return fail("a valid problem was refused: " + refusal_text(status.message()));
      ++worst.refused;
      ++report_.refusals[refusal_text(status.message())];
      return;
    }
    planned.run(in.q, in.k, in.v, outputs.out.view(), options(outputs));
    Worst seen;
    seen.checked = 1;
    compare(outputs, seen);
    seen.deterministic = repeats(planned, outputs);
    worst.add(seen);
  }

 private:
  AttentionOptions options(const Outputs& outputs) const {
    return prepared_.in.options(spec_, report_.backend->backend, outputs.lse_view());
  }
  void fail(const std::string& what) { report_.failures.push_back(prepared_.name + ": " + what); }

  void compare(const Outputs& outputs, Worst& seen) {
    const Oracle& truth = prepared_.truth;
    const std::vector<double> out = outputs.out.to_doubles();
    const Difference error = difference(out, truth.out), from_plain = difference(out, truth.plain_out);
    const std::string accuracy = report_.kernel->accuracy.value(std::string(dtype_name(spec_.dtype)), "–");
    const Tolerance allowed = output_tolerance(truth, spec_.dtype, accuracy);
    seen.max_error = error.max_abs;
    seen.rel_l2 = error.rel_l2;
    seen.plain_error = from_plain.max_abs;
    seen.plain_rel_l2 = from_plain.rel_l2;
    seen.share = larger(share_of(error.max_abs, allowed.max_abs), share_of(error.rel_l2, allowed.rel_l2));
    if (!allowed.admits(error)) {
      fail("off by " + scientific(error.max_abs) + " (relative L2 " + scientific(error.rel_l2) + "), allowed are " +
           scientific(allowed.max_abs) + " (" + scientific(allowed.rel_l2) + ")");
    }
    if (!spec_.lse) return;
    seen.lse_error = difference(outputs.lse.to_doubles(), truth.lse).max_abs;
    const double lse_allowed = lse_tolerance(truth, spec_.dtype);
    seen.share = larger(seen.share, share_of(seen.lse_error, lse_allowed));
    if (!(seen.lse_error <= lse_allowed)) {
      fail("the log-sum-exp is off by " + scientific(seen.lse_error) + ", allowed are " + scientific(lse_allowed));
    }
  }

  bool repeats(Planned& planned, const Outputs& first) {
    const Inputs& in = prepared_.in;
    bool same = true;
    const auto expect_same = [&](const Outputs& again, const std::string& how) {
      if (same_bits(first.out, again.out) && same_bits(first.lse, again.lse)) return;
      same = false;
      fail("other bits " + how);
    };
    Outputs again(spec_);
    planned.run(in.q, in.k, in.v, again.out.view(), options(again));
    expect_same(again, "on a second run");
    SerialPool pool;
    for (const int threads : {1, 3, 8}) {
      const ExecContext exec{.executor = Executor::from(pool, threads)};
      Outputs other(spec_);
      attention(in.q, in.k, in.v, other.out.view(), options(other), exec);
      expect_same(other, "with " + counted(threads, "thread"));
    }
    return same;
  }

  KernelReport& report_;
  const PreparedCase& prepared_;
  ProblemSpec spec_;
};

}  // namespace

void Worst::add(const Worst& other) {
  max_error = larger(max_error, other.max_error);
  rel_l2 = larger(rel_l2, other.rel_l2);
  plain_error = larger(plain_error, other.plain_error);
  plain_rel_l2 = larger(plain_rel_l2, other.plain_rel_l2);
  lse_error = larger(lse_error, other.lse_error);
  share = larger(share, other.share);
  checked += other.checked;
  refused += other.refused;
  deterministic = deterministic && other.deterministic;
}

Worst KernelReport::total() const {
  Worst sum;
  for (const auto& item : by_dtype) sum.add(item.second);
  return sum;
}

PreparedCase::PreparedCase(const VerifyCase& c)
    : source(c), name(text(c)), random(c.spec, c.extras), in(random.views()) {
  // The oracle takes the same options; where the log-sum-exp goes does not matter to it.
  truth = oracle({in.q, in.k, in.v, {}, in.options(source.spec, {}, {})}, source.spec, source.spec.lse);
}

void check(KernelReport& report, const PreparedCase& prepared) {
  try {
    Check(report, prepared).run();
  } catch (const Error& error) {
    report.failures.push_back(prepared.name + ": " + refusal_text(error.what()));
  }
}

}  // namespace attnmux::cli
