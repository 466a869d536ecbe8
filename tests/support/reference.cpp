// SPDX-License-Identifier: Apache-2.0
#include "support/reference.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attnmux::test {
namespace {

// Key length of a sequence: what key_lengths gives, else every key.
int64_t key_length(const ReferenceInput& in, int64_t b) {
  return in.key_lengths.empty() ? in.sequences[static_cast<size_t>(b)].kv_length
                                : in.key_lengths[static_cast<size_t>(b)];
}

// One row of probabilities and its log-sum-exp, in the arithmetic of T. Keys without weight have probability 0. The
// largest times `narrow` lies in (2^7, 2^8], and exponentials of the scores times a power of two are the same.
template <typename T>
T softmax_row(const std::vector<T>& score, const std::vector<bool>& keep, std::vector<T>& probability, T& narrow) {
  constexpr T kInf = std::numeric_limits<T>::infinity();
  const size_t n = score.size();
  T largest = -kInf;
  bool nan = false;
  for (size_t j = 0; j < n; ++j) {
    if (!keep[j]) continue;
    nan = nan || std::isnan(score[j]);
    if (score[j] > largest) largest = score[j];
  }
  probability.assign(n, T{0});
  if (!nan && largest == -kInf) return -kInf;
  T sum = 0;
  for (size_t j = 0; j < n; ++j) {
    if (keep[j] && score[j] != -kInf) probability[j] = std::exp(score[j] - largest);
    if (nan) probability[j] = std::numeric_limits<T>::quiet_NaN();
    sum += probability[j];
  }
  for (size_t j = 0; j < n; ++j) probability[j] /= sum;
  const T log2_largest = largest * static_cast<T>(1.44269504088896340735992468100189214L);
  const T above = std::isfinite(log2_largest) ? std::ceil(log2_largest) - log2_largest : T{0};
  narrow = std::exp2(8 - above) * sum;
  return nan ? std::numeric_limits<T>::quiet_NaN() : largest + std::log(sum);
}

// T: the arithmetic. Probabilities are rounded to `rounded_to`, unless that is kNone, and so is the output.
template <typename T>
ReferenceOutput attend(const ReferenceInput& in, Dtype rounded_to) {
  const size_t d = static_cast<size_t>(in.head_dim), dv = static_cast<size_t>(in.head_dim_v);
  const auto round = [&](T x) {
    return rounded_to == Dtype::kNone ? x : static_cast<T>(round_to(rounded_to, static_cast<double>(x)));
  };
  const std::vector<T> q(in.q.begin(), in.q.end()), k(in.k.begin(), in.k.end()), v(in.v.begin(), in.v.end());
  ReferenceOutput result;
  result.out.assign(static_cast<size_t>(in.tokens_q * in.heads_q) * dv, 0);
  result.lse.assign(static_cast<size_t>(in.tokens_q * in.heads_q), -std::numeric_limits<double>::infinity());
  const auto note_score = [&result](T value) {
    const double size = std::fabs(static_cast<double>(value));
    if (std::isfinite(size)) result.largest_score = std::max(result.largest_score, size);
  };
  std::vector<T> score, probability, sum(dv);
  std::vector<bool> keep;
  for (int64_t b = 0; b < static_cast<int64_t>(in.sequences.size()); ++b) {
    const auto& s = in.sequences[static_cast<size_t>(b)];
    for (int64_t h = 0; h < in.heads_q; ++h) {
      const int64_t kv_head = h / (in.heads_q / in.heads_kv);
      for (int64_t i = 0; i < s.q_length; ++i) {
        const size_t row = static_cast<size_t>((s.q_begin + i) * in.heads_q + h);
        score.assign(static_cast<size_t>(s.kv_length), T{0});
        keep.assign(static_cast<size_t>(s.kv_length), false);
        for (int64_t j = 0; j < s.kv_length; ++j) {
          const size_t at = static_cast<size_t>(j);
          keep[at] = positions_attend(in, b, i, j) && (!in.dense || in.dense(b, h, i, j));
          if (!keep[at]) continue;
          const T* key = k.data() + static_cast<size_t>((s.kv_begin + j) * in.heads_kv + kv_head) * d;
          T dot = 0;
          for (size_t x = 0; x < d; ++x) dot += q[row * d + x] * key[x];
          T value = static_cast<T>(in.scale) * dot;
          if (in.softcap > 0) value = static_cast<T>(in.softcap) * std::tanh(value / static_cast<T>(in.softcap));
          note_score(value);
          if (in.bias) {
            const T bias = static_cast<T>(in.bias(b, h, i, j));
            // An additive minus infinity masks the key, whatever the score is.
            if (bias == -std::numeric_limits<T>::infinity()) keep[at] = false;
            value += bias;
            if (keep[at]) note_score(value);
          }
          score[at] = value;
        }
        T narrow = 1;
        result.lse[row] = static_cast<double>(softmax_row(score, keep, probability, narrow));
        sum.assign(dv, T{0});
        for (int64_t j = 0; j < s.kv_length; ++j) {
          T p = probability[static_cast<size_t>(j)];
          if (p == 0) continue;
          if (rounded_to == Dtype::kE4m3) p = round(p * narrow) / narrow;
          if (in.dropout) {
            const bool kept = dropout_keeps(*in.dropout, in.dropout_seed, in.dropout_offset, b * in.heads_q + h, i, j);
            p = kept ? p / static_cast<T>(1 - *in.dropout) : T{0};
          }
          if (rounded_to != Dtype::kE4m3) p = round(p);
          if (p == 0) continue;
          const T* value = v.data() + static_cast<size_t>((s.kv_begin + j) * in.heads_kv + kv_head) * dv;
          for (size_t x = 0; x < dv; ++x) sum[x] += p * value[x];
        }
        for (size_t x = 0; x < dv; ++x)
          result.out[row * dv + x] = rounded_to == Dtype::kNone
                                         ? static_cast<double>(sum[x])
                                         : round_to(output_dtype(rounded_to), static_cast<double>(sum[x]));
      }
    }
  }
  return result;
}

}  // namespace

bool positions_attend(const ReferenceInput& in, int64_t b, int64_t i, int64_t j) {
  const int64_t length = key_length(in, b);
  if (j >= length) return false;
  const int64_t diagonal = i + (in.bottom_right ? length - in.sequences[static_cast<size_t>(b)].q_length : 0);
  if (in.causal && j > diagonal) return false;
  if (in.window) {
    if (in.window_left >= 0 && diagonal - j > in.window_left) return false;
    if (in.window_right >= 0 && j - diagonal > in.window_right) return false;
  }
  return !in.padding || in.padding(b, j);
}

ReferenceOutput exact_reference(const ReferenceInput& in) {
  return in.dtype == Dtype::kFp64 ? attend<long double>(in, Dtype::kNone) : attend<double>(in, Dtype::kNone);
}

ReferenceOutput plain_reference(const ReferenceInput& in) {
  return in.dtype == Dtype::kFp64 ? attend<double>(in, Dtype::kNone) : attend<float>(in, in.dtype);
}

PhiloxBlock philox4x32_10(PhiloxBlock c, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t left = uint64_t{0xD2511F53} * c.word[0], right = uint64_t{0xCD9E8D57} * c.word[2];
    c = {{static_cast<uint32_t>(right >> 32) ^ c.word[1] ^ key0, static_cast<uint32_t>(right),
          static_cast<uint32_t>(left >> 32) ^ c.word[3] ^ key1, static_cast<uint32_t>(left)}};
    key0 += 0x9E3779B9;  // the golden ratio
    key1 += 0xBB67AE85;  // sqrt(3) - 1
  }
  return c;
}

bool dropout_keeps(double p, uint64_t seed, uint64_t offset, int64_t batch_and_head, int64_t query, int64_t key) {
  const PhiloxBlock counter{{static_cast<uint32_t>(key / 4), static_cast<uint32_t>(query),
                             static_cast<uint32_t>(batch_and_head), static_cast<uint32_t>(offset)}};
  const PhiloxBlock random = philox4x32_10(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const double u = std::ldexp(static_cast<double>(random.word[key % 4] >> 8), -24);
  return u >= p;
}

}  // namespace attnmux::test
