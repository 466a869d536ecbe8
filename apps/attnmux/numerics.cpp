// SPDX-License-Identifier: Apache-2.0
#include "attnmux/numerics.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "attnmux/errors.h"

namespace attnmux::cli {
namespace {

// Products of INT8 or FP8 numbers cannot keep to a multiple of the textbook loop's error: they have a gate of their
// own.
constexpr double kQuantizedRelativeL2 = 0.05;
constexpr double kUnlimited = std::numeric_limits<double>::infinity();

struct Format {
  int fraction_bits, min_exponent;
};
Format format(Dtype dtype) {
  switch (dtype) {
    case Dtype::kBf16:
      return {7, -126};
    case Dtype::kFp16:
      return {10, -14};
    case Dtype::kFp64:
      return {52, -1022};
    default:
      return {23, -126};
  }
}

}  // namespace

Difference difference(std::span<const double> values, std::span<const double> reference) {
  Difference d;
  double squares = 0, reference_squares = 0;
  for (size_t i = 0; i < reference.size(); ++i) {
    const double a = values[i], r = reference[i];
    if (!std::isfinite(a) || !std::isfinite(r)) {
      const bool same = a == r || (std::isnan(a) && std::isnan(r));
      if (!same) return {std::nan(""), std::nan("")};
      continue;
    }
    d.max_abs = std::max(d.max_abs, std::abs(a - r));
    squares += (a - r) * (a - r);
    reference_squares += r * r;
  }
  d.rel_l2 = reference_squares > 0 ? std::sqrt(squares / reference_squares) : std::sqrt(squares);
  return d;
}

double ulp_at(Dtype dtype, double magnitude) {
  const Format f = format(dtype);
  const int exponent = magnitude > 0 ? std::max(std::ilogb(magnitude), f.min_exponent) : f.min_exponent;
  return std::ldexp(1.0, exponent - f.fraction_bits);
}

double unit_roundoff(Dtype dtype) { return std::ldexp(1.0, -format(dtype).fraction_bits - 1); }

double max_magnitude(std::span<const double> values) {
  double largest = 0;
  for (const double value : values) {
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  }
  return largest;
}

Oracle oracle(const Call& call, const ProblemSpec& spec, bool lse) {
  Oracle o;
  const auto rows = static_cast<size_t>(spec.batch * spec.seqlen_q * spec.heads_q);
  const auto compute = [&](int32_t kind, std::vector<double>& out, std::vector<double>& log_sums) {
    out.reserve(1);  // an empty output has an address, too
    out.resize(rows * static_cast<size_t>(spec.head_dim_v));
    if (lse) log_sums.resize(rows);
    Status status;
    const attnmux_options options = call.options.c();
    attnmux_oracle(kind, &call.q.c(), &call.k.c(), &call.v.c(), &options, out.data(), lse ? log_sums.data() : nullptr,
                   status.c_error());
    throw_if_failed(status);
  };
  compute(ATTNMUX_ORACLE_FP64, o.out, o.lse);
  compute(ATTNMUX_ORACLE_PLAIN, o.plain_out, o.plain_lse);
  return o;
}

Tolerance output_tolerance(const Oracle& o, Dtype dtype, std::string_view accuracy_class) {
  if (accuracy_class == "quantized" || accuracy_class == "approximate") return {kUnlimited, kQuantizedRelativeL2};
  const Difference plain = difference(o.plain_out, o.out);
  return {2 * plain.max_abs + 2 * ulp_at(dtype, max_magnitude(o.out)), 2 * plain.rel_l2 + unit_roundoff(dtype)};
}

double lse_tolerance(const Oracle& o, Dtype dtype) {
  // The log-sum-exp is fp32. With 16-bit inputs, kernels may take exp2 to no more digits than the output will keep.
  const double plain = difference(o.plain_lse, o.lse).max_abs;
  const double digits = std::max(1.0, max_magnitude(o.lse)) * 8 * unit_roundoff(Dtype::kFp32);
  const bool sixteen_bits = dtype == Dtype::kFp16 || dtype == Dtype::kBf16;
  return 2 * plain + digits + (sixteen_bits ? unit_roundoff(dtype) : 0);
}

}  // namespace attnmux::cli
