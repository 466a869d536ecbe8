// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/math/math.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "kernels/cpu/element.h"

namespace attnmux {
namespace {

constexpr int64_t kRows = 64;  // queries whose scores are held at a time
constexpr int64_t kKeys = 16;  // keys or values that are converted at a time: one cache line of scores per query

// Scratch of one task, in elements of Real: scores (kRows, Skv), outputs (kRows, Dv), queries (kRows, D), and kKeys
// rows of keys or values.
int64_t scratch_elements(const Problem& p) {
  return kRows * (p.seqlen_kv + p.head_dim_v + p.head_dim) + kKeys * max_of(p.head_dim, p.head_dim_v);
}

template <typename Real>
Real dot(const Real* a, const Real* b, int64_t n) {
  // Eight independent sums: the compiler may not reorder one.
  Real sum[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int j = 0; j < 8; ++j) sum[j] += a[i + j] * b[i + j];
  }
  for (; i < n; ++i) sum[i & 7] += a[i] * b[i];
  return ((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]));
}

template <typename Real>
class Block {
 public:
  Block(const Problem& p, Real* scratch)
      : p_(p),
        scores_(scratch),
        outputs_(scores_ + kRows * p.seqlen_kv),
        queries_(outputs_ + kRows * p.head_dim_v),
        rows_(queries_ + kRows * p.head_dim) {}

  void run(int64_t b, int64_t head, int64_t first_query) {
    sequence_ = sequence(p_, b);
    if (first_query >= sequence_.seqlen_q) return;
    b_ = b;
    head_ = head;
    first_ = first_query;
    count_ = min_of(kRows, sequence_.seqlen_q - first_query);
    // A block's queries may keep different keys; loops go over the union, whole rows over their own range.
    keys_ = {sequence_.key_length, 0};
    for (int64_t i = 0; i < count_; ++i) {
      const KeyRange range = key_range(p_, sequence_, first_ + i);
      if (range.first >= range.last) continue;
      keys_.first = min_of(keys_.first, range.first);
      keys_.last = max_of(keys_.last, range.last);
    }
    compute_scores();
    for (int64_t i = 0; i < count_; ++i) softmax(i);
    multiply_values();
    for (int64_t i = 0; i < count_; ++i) {
      store_row(p_.out, sequence_.out_offset + (first_ + i) * p_.out.strides[1] + head_ * p_.out.strides[2],
                p_.head_dim_v, outputs_ + i * p_.head_dim_v);
    }
  }

 private:
  static constexpr Real kMinusInfinity = -std::numeric_limits<Real>::infinity();
  Real* scores(int64_t i) const { return scores_ + i * p_.seqlen_kv; }
  int64_t kv_head() const { return head_ / (p_.num_heads_q / p_.num_heads_kv); }

  void compute_scores() {
    for (int64_t i = 0; i < count_; ++i) {
      load_row(p_.q, sequence_.q_offset + (first_ + i) * p_.q.strides[1] + head_ * p_.q.strides[2], p_.head_dim,
               queries_ + i * p_.head_dim);
    }
    const int64_t head_offset = sequence_.k_offset + kv_head() * p_.k.strides[2];
    for (int64_t first = keys_.first; first < keys_.last; first += kKeys) {
      const int64_t keys = min_of(kKeys, keys_.last - first);
      for (int64_t j = 0; j < keys; ++j)
        load_row(p_.k, head_offset + (first + j) * p_.k.strides[1], p_.head_dim, rows_ + j * p_.head_dim);
      for (int64_t i = 0; i < count_; ++i) {
        for (int64_t j = 0; j < keys; ++j)
          scores(i)[first + j] = dot(queries_ + i * p_.head_dim, rows_ + j * p_.head_dim, p_.head_dim);
      }
    }
  }

  bool masked(int64_t query, int64_t key) const {
    if (given(p_.key_padding) &&
        !attends(p_.key_padding, b_ * p_.key_padding.strides[0] + key * p_.key_padding.strides[1]))
      return true;
    const Tensor& m = p_.dense_mask;
    return given(m) &&
           !attends(m, b_ * m.strides[0] + head_ * m.strides[1] + query * m.strides[2] + key * m.strides[3]);
  }

  // Turns the products of query i into probabilities, and writes its log-sum-exp.
  void softmax(int64_t i) {
    const int64_t query = first_ + i;
    Real* s = scores(i);
    const KeyRange range = key_range(p_, sequence_, query);
    const Real descale = static_cast<Real>(descale_of(p_.q_descale, b_, kv_head())) *
                         static_cast<Real>(descale_of(p_.k_descale, b_, kv_head()));
    const Real scale = static_cast<Real>(p_.scale) * descale, softcap = static_cast<Real>(p_.softcap);
    Real maximum = kMinusInfinity;
    bool nan = false;
    for (int64_t j = keys_.first; j < keys_.last; ++j) {
      if (j < range.first || j >= range.last || masked(query, j)) {
        s[j] = kMinusInfinity;
        continue;
      }
      Real x = s[j] * scale;
      if (softcap > 0) x = softcap * std::tanh(x / softcap);
      if (given(p_.bias)) {
        const Tensor& t = p_.bias;
        const Real bias =
            load_element<Real>(t, b_ * t.strides[0] + head_ * t.strides[1] + query * t.strides[2] + j * t.strides[3]);
        // An additive -inf masks, whatever the key holds; finite values stay finite.
        const Real shifted = x + bias, largest = std::numeric_limits<Real>::max();
        const bool finite = std::isfinite(x) && std::isfinite(bias);
        x = bias == kMinusInfinity ? kMinusInfinity : finite ? std::clamp(shifted, -largest, largest) : shifted;
      }
      s[j] = x;
      nan = nan || std::isnan(x);
      maximum = x > maximum ? x : maximum;
    }
    if (nan) maximum = std::numeric_limits<Real>::quiet_NaN();
    Real sum = 0;
    for (int64_t j = keys_.first; j < keys_.last; ++j) {
      s[j] = s[j] == kMinusInfinity ? 0 : std::exp(s[j] - maximum);
      sum += s[j];
    }
    const bool empty = sum == 0;
    const Real inverse = empty ? 0 : 1 / sum;
    for (int64_t j = keys_.first; j < keys_.last; ++j) s[j] *= inverse;
    if (given(p_.lse)) {
      *element<float>(p_.lse, sequence_.lse_offset + head_ * p_.lse.strides[1] + query * p_.lse.strides[2]) =
          static_cast<float>(empty ? kMinusInfinity : maximum + std::log(sum));
    }
    if (p_.dropout_p > 0) drop(query, s);
  }

  void drop(int64_t query, Real* s) {
    const auto kept = static_cast<Real>(1 / (1 - p_.dropout_p));
    for (int64_t j = keys_.first; j < keys_.last; ++j) s[j] = dropout_keeps(p_, b_, head_, query, j) ? s[j] * kept : 0;
  }

  void multiply_values() {
    for (int64_t i = 0; i < count_ * p_.head_dim_v; ++i) outputs_[i] = 0;
    const int64_t head_offset = sequence_.v_offset + kv_head() * p_.v.strides[2];
    const int64_t width = p_.head_dim_v;
    const auto descale = static_cast<Real>(descale_of(p_.v_descale, b_, kv_head()));
    for (int64_t first = keys_.first; first < keys_.last; first += kKeys) {
      const int64_t keys = min_of(kKeys, keys_.last - first);
      for (int64_t j = 0; j < keys; ++j) {
        if (attended(first + j)) {
          load_row(p_.v, head_offset + (first + j) * p_.v.strides[1], width, rows_ + j * width);
        } else {
          for (int64_t d = 0; d < width; ++d) rows_[j * width + d] = 0;  // what nobody attends may be NaN
        }
      }
      for (int64_t i = 0; i < count_; ++i) {
        const Real* weights = scores(i) + first;
        Real* out = outputs_ + i * width;
        for (int64_t j = 0; j < keys; ++j) {
          const Real weight = weights[j] * descale;
          const Real* value = rows_ + j * width;
          for (int64_t d = 0; d < width; ++d) out[d] += weight * value[d];
        }
      }
    }
  }

  // Does a query of this block give the key a weight (NaN counts)?
  bool attended(int64_t key) const {
    for (int64_t i = 0; i < count_; ++i) {
      if (!(scores(i)[key] == 0)) return true;
    }
    return false;
  }

  const Problem& p_;
  Real *scores_, *outputs_, *queries_, *rows_;
  Sequence sequence_{};
  KeyRange keys_{};
  int64_t b_ = 0, head_ = 0, first_ = 0, count_ = 0;
};

struct Work {
  const Problem& p;
  const RunContext& context;
  int64_t blocks_per_head, items;
  std::atomic<int64_t> next{0};
};

template <typename Real>
void run_task(void* arg, int64_t task) {
  auto& work = *static_cast<Work*>(arg);
  const int64_t stride = round_up(scratch_elements(work.p) * static_cast<int64_t>(sizeof(Real)), 64);
  Block<Real> block(work.p, reinterpret_cast<Real*>(static_cast<char*>(work.context.workspace) + task * stride));
  for (int64_t item; (item = work.next.fetch_add(1, std::memory_order_relaxed)) < work.items;) {
    const int64_t sequence_head = item / work.blocks_per_head;
    block.run(sequence_head / work.p.num_heads_q, sequence_head % work.p.num_heads_q,
              item % work.blocks_per_head * kRows);
  }
}

size_t workspace_bytes(const Problem* p, int32_t num_threads) {
  const int64_t real = p->dtype == ATTNMUX_FP64 ? sizeof(double) : sizeof(float);
  size_t bytes = 0;
  const auto scratch = static_cast<size_t>(round_up(scratch_elements(*p) * real, 64));
  // More than there is stays more than there is: the allocation says so.
  return __builtin_mul_overflow(scratch, static_cast<size_t>(num_threads), &bytes) || bytes > SIZE_MAX / 2
             ? SIZE_MAX / 2
             : bytes;
}

attnmux_code run(const Problem* p, const RunContext* context, attnmux_error* /*error*/) {
  const int64_t blocks = ceil_div(p->seqlen_q, kRows);
  Work work{*p, *context, max_of(blocks, 1), p->batch * p->num_heads_q * blocks};
  const int64_t tasks = min_of(context->num_threads, work.items);
  const auto task = p->dtype == ATTNMUX_FP64 ? run_task<double> : run_task<float>;
  if (context->parallel_for(context->pool, tasks, task, &work) == 0) return ATTNMUX_OK;
  return ATTNMUX_EXECUTOR_FAILED;
}

}  // namespace

const Kernel kCpuMath = {
    .struct_size = sizeof(Kernel),
    .device_type = ATTNMUX_CPU,
    .name = "cpu_math",
    .features = (uint64_t{1} << ATTNMUX_FEATURE_COUNT) - 1,
    .dtypes = 1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16 | 1u << ATTNMUX_FP64 | 1u << ATTNMUX_E4M3,
    .accuracy = {0, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, ATTNMUX_EXACT, 0, 0, 0, ATTNMUX_EXACT},
    .available = nullptr,
    .check = nullptr,
    .workspace_bytes = workspace_bytes,
    .run = run,
};

}  // namespace attnmux
