// SPDX-License-Identifier: Apache-2.0
#include "kernels/reference/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/element.h"
#include "kernels/cpu/runtime/thread_pool.h"

namespace attnmux {
namespace {

// The nearest value of E4M3 below infinity: four significant bits, but no bit below 2^-9, and 448 at most.
double round_to_e4m3(double x) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int lowest_bit = std::max(std::ilogb(x), -6) - 3;
  const double rounded = std::ldexp(std::nearbyint(std::ldexp(x, -lowest_bit)), lowest_bit);
  return std::copysign(std::min(std::fabs(rounded), 448.0), x);
}

// Rounds to the values that `dtype` can hold.
double round_to(int32_t dtype, double x) {
  switch (dtype) {
    case ATTNMUX_FP16:
      return fp16_to_fp32(fp32_to_fp16(static_cast<float>(x)));
    case ATTNMUX_BF16:
      return bf16_to_fp32(fp32_to_bf16(static_cast<float>(x)));
    case ATTNMUX_FP32:
      return static_cast<float>(x);
    default:
      return x;
  }
}

template <typename Real>
class Reference {
 public:
  // `plain` rounds P and the output: to the input dtype; of e4m3 the output to bf16.
  Reference(const Problem& p, bool plain, double* out, double* lse) : p_(p), plain_(plain), out_(out), lse_(lse) {}

  void run() {
    const int64_t rows = p_.batch * p_.num_heads_q * p_.seqlen_q;
    // One task per row; rows are independent.
    pool_parallel_for(
        nullptr, rows, [](void* self, int64_t row) { static_cast<Reference*>(self)->run_row(row); }, this);
  }

 private:
  static constexpr Real kInfinity = std::numeric_limits<Real>::infinity();
  static constexpr Real kLog2E = static_cast<Real>(1.44269504088896340735992468100189214L);

  void run_row(int64_t row) {
    const int64_t query = row % p_.seqlen_q, head = row / p_.seqlen_q % p_.num_heads_q,
                  b = row / p_.seqlen_q / p_.num_heads_q;
    const Sequence s = sequence(p_, b);
    if (query >= s.seqlen_q) return;
    const int64_t kv_head = head / (p_.num_heads_q / p_.num_heads_kv);
    const KeyRange keys = key_range(p_, s, query);

    std::vector<int64_t> attended;
    std::vector<Real> score;
    for (int64_t key = keys.first; key < keys.last; ++key) {
      Real x = 0;
      if (!score_of(s, b, head, kv_head, query, key, x)) continue;
      attended.push_back(key);
      score.push_back(x);
    }

    Real maximum = -kInfinity;
    for (const Real x : score) maximum = std::isnan(x) || x > maximum ? x : maximum;
    Real sum = 0;
    for (Real& x : score) sum += x = x == -kInfinity ? 0 : std::exp(x - maximum);
    const bool empty = sum == 0;
    // A narrow format has no room for small probabilities: its P lies just below 2^8. A power of two, so that what is
    // rounded does not depend on the maximum at the time.
    const Real log2_maximum = maximum * kLog2E;
    const Real above = std::isfinite(log2_maximum) ? std::ceil(log2_maximum) - log2_maximum : 0;
    const Real narrow = std::exp2(8 - above) * sum;

    const auto v_descale = static_cast<Real>(descale_of(p_.v_descale, b, kv_head));
    std::vector<Real> accumulated(static_cast<size_t>(p_.head_dim_v));
    for (size_t i = 0; i < attended.size() && !empty; ++i) {
      Real probability = score[i] / sum;
      if (plain_ && p_.dtype == ATTNMUX_E4M3)
        probability = static_cast<Real>(round_to_e4m3(static_cast<double>(probability * narrow))) / narrow;
      if (p_.dropout_p > 0) {
        probability =
            dropout_keeps(p_, b, head, query, attended[i]) ? probability / static_cast<Real>(1 - p_.dropout_p) : 0;
      }
      if (plain_ && p_.dtype != ATTNMUX_E4M3)
        probability = static_cast<Real>(round_to(p_.dtype, static_cast<double>(probability)));
      if (score[i] == 0) continue;
      for (int64_t d = 0; d < p_.head_dim_v; ++d) {
        accumulated[static_cast<size_t>(d)] +=
            probability * v_descale *
            load_element<Real>(p_.v, s.v_offset + attended[i] * p_.v.strides[1] + kv_head * p_.v.strides[2] + d);
      }
    }

    const int32_t out_dtype = p_.dtype == ATTNMUX_E4M3 ? ATTNMUX_BF16 : p_.dtype;
    // Packed outputs are (T, Hq, Dv) and (Hq, T): the same formula with one batch of T rows.
    const bool packed = given(p_.cu_seqlens_q);
    const int64_t rows = p_.q.shape[1];
    const int64_t out_row = packed ? clamped_entry(p_.cu_seqlens_q, b, rows) + query : b * rows + query;
    for (int64_t d = 0; d < p_.head_dim_v; ++d) {
      const auto value = static_cast<double>(accumulated[static_cast<size_t>(d)]);
      out_[(out_row * p_.num_heads_q + head) * p_.head_dim_v + d] = plain_ ? round_to(out_dtype, value) : value;
    }
    if (lse_ != nullptr) {
      const int64_t at = packed ? head * rows + out_row : (b * p_.num_heads_q + head) * rows + query;
      lse_[at] = static_cast<double>(empty ? -kInfinity : maximum + std::log(sum));
    }
  }

  // False if the key is masked: then what it holds does not matter.
  bool score_of(const Sequence& s, int64_t b, int64_t head, int64_t kv_head, int64_t query, int64_t key,
                Real& x) const {
    const Tensor &padding = p_.key_padding, &dense = p_.dense_mask, &bias = p_.bias;
    if (given(padding) && !attends(padding, b * padding.strides[0] + key * padding.strides[1])) return false;
    if (given(dense) && !attends(dense, b * dense.strides[0] + head * dense.strides[1] + query * dense.strides[2] +
                                            key * dense.strides[3]))
      return false;
    Real added = 0;
    if (given(bias)) {
      added = load_element<Real>(
          bias, b * bias.strides[0] + head * bias.strides[1] + query * bias.strides[2] + key * bias.strides[3]);
      if (added == -kInfinity) return false;
    }
    Real product = 0;
    for (int64_t d = 0; d < p_.head_dim; ++d) {
      product += load_element<Real>(p_.q, s.q_offset + query * p_.q.strides[1] + head * p_.q.strides[2] + d) *
                 load_element<Real>(p_.k, s.k_offset + key * p_.k.strides[1] + kv_head * p_.k.strides[2] + d);
    }
    const auto scale = static_cast<Real>(p_.scale), softcap = static_cast<Real>(p_.softcap);
    x = scale * product * static_cast<Real>(descale_of(p_.q_descale, b, kv_head)) *
        static_cast<Real>(descale_of(p_.k_descale, b, kv_head));
    if (softcap > 0) x = softcap * std::tanh(x / softcap);
    if (given(bias)) x += added;
    return true;
  }

  const Problem& p_;
  bool plain_;
  double *out_, *lse_;
};

}  // namespace

void reference_attention(const Problem& p, double* out, double* lse) {
  if (p.dtype == ATTNMUX_FP64) {
    Reference<long double>(p, false, out, lse).run();
  } else {
    Reference<double>(p, false, out, lse).run();
  }
}

void plain_attention(const Problem& p, double* out, double* lse) {
  if (p.dtype == ATTNMUX_FP64) {
    Reference<double>(p, true, out, lse).run();
  } else {
    Reference<float>(p, true, out, lse).run();
  }
}

}  // namespace attnmux
