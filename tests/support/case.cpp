// SPDX-License-Identifier: Apache-2.0
#include "support/case.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

namespace attnmux::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

int64_t total(const std::vector<int64_t>& lengths) {
  return std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
}
int64_t largest(const std::vector<int64_t>& lengths) { return *std::max_element(lengths.begin(), lengths.end()); }

// q, k and v have shape (B, S, H, D), packed (T, H, D); the broadcast bits of a spec count from the batch.
Tensor activation(const Spec& s, const std::vector<int64_t>& lengths, int64_t seqlen, int64_t heads, int64_t dim,
                  Layout layout, uint32_t broadcast) {
  if (s.packed()) return Tensor(s.dtype, {total(lengths), heads, dim}, layout, broadcast);
  return Tensor(s.dtype, {s.batch, seqlen, heads, dim}, layout, broadcast);
}

void fill_values(Tensor& t, const Spec& s, Random& random, Values values) {
  t.fill([&](int64_t) {
    switch (values) {
      case Values::kIntegers:
        return static_cast<double>(random.between(-2, 2));
      case Values::kHuge:
        return 64.0 * static_cast<double>(random.between(-1, 1));
      case Values::kZeroQ:
        return 0.0;
      default:
        return s.value_scale * random.normal();
    }
  });
}

// A tensor that is broadcast to (B, Hq, Sq, Skv), with the real dimensions that `dims` names.
Tensor score_shaped(Dtype dtype, const Spec& s, uint32_t dims, Broadcast how) {
  const std::array<int64_t, 4> full = s.score_shape();
  std::vector<int64_t> shape;
  uint32_t stride_zero = 0;
  for (uint32_t i = 0; i < 4; ++i) {
    const bool real = dims >> i & 1;
    if (!real && how == Broadcast::kLowerRank && shape.empty()) continue;
    if (!real && how == Broadcast::kStrideZero) stride_zero |= uint32_t{1} << i;
    shape.push_back(real || how == Broadcast::kStrideZero ? full[i] : 1);
  }
  return Tensor(dtype, shape, Layout::kContiguous, stride_zero);
}

// Reads a score-shaped tensor at (b, h, i, j), whatever dimensions it has.
auto reader(const Tensor& t) {
  return [values = t.values(), shape = t.shape()](int64_t b, int64_t h, int64_t i, int64_t j) {
    const int64_t at[4] = {b, h, i, j};
    int64_t index = 0;
    const size_t missing = 4 - shape.size();
    for (size_t dim = 0; dim < shape.size(); ++dim) {
      index = index * shape[dim] + (shape[dim] == 1 ? 0 : at[dim + missing]);
    }
    return values[static_cast<size_t>(index)];
  };
}

bool padding_attends(Padding kind, int64_t b, int64_t key, int64_t keys, Random& random) {
  switch (kind) {
    case Padding::kPrefix:
      return key < keys - (b + 1) * keys / 4;
    case Padding::kHoles:
      return random.chance(0.6);
    case Padding::kEmptyRow:
      return b != 0 && random.chance(0.8);
    default:
      return true;
  }
}

void fill_bias(Tensor& t, const Spec& s, Random& random) {
  const double lowest = s.bias_dtype == Dtype::kFp16   ? -65504.0
                        : s.bias_dtype == Dtype::kBf16 ? -std::ldexp(255.0, 120)
                                                       : -static_cast<double>(std::numeric_limits<float>::max());
  const int64_t row_length = t.shape().empty() ? 1 : std::max<int64_t>(t.shape().back(), 1);
  bool special = false;
  t.fill([&](int64_t index) {
    if (index % row_length == 0) special = random.chance(0.4);
    const double normal = random.normal();
    if (s.bias == BiasKind::kSomeMinusInf) return random.chance(0.3) ? -kInf : normal;
    if (s.bias == BiasKind::kRowsMinusInf && special) return -kInf;
    if (s.bias == BiasKind::kRowsLowest && special) return lowest;
    return normal;
  });
}

Tensor cumulative(const std::vector<int64_t>& lengths) {
  Tensor t(Dtype::kInt32, {static_cast<int64_t>(lengths.size()) + 1});
  int64_t sum = 0;
  for (size_t b = 0; b < lengths.size(); ++b)
    t.set(static_cast<int64_t>(b) + 1, static_cast<double>(sum += lengths[b]));
  t.set(0, 0);
  return t;
}

}  // namespace

std::array<int64_t, 4> Spec::score_shape() const {
  if (!packed()) return {batch, heads_q, seqlen_q, seqlen_kv};
  const auto extent = [&](const std::vector<int64_t>& lengths) {
    const int64_t longest = largest(lengths);
    return tight_max_seqlen && longest > 0 ? longest : total(lengths);
  };
  return {static_cast<int64_t>(lengths_q.size()), heads_q, extent(lengths_q), extent(lengths_kv)};
}

Case::Case(const Spec& given) : spec(given) {
  const Spec& s = spec;
  Random random(s.seed);
  q = activation(s, s.lengths_q, s.seqlen_q, s.heads_q, s.head_dim, s.layout_q, 0);
  k = activation(s, s.lengths_kv, s.seqlen_kv, s.heads_kv, s.head_dim, s.layout_k, s.broadcast_kv);
  v = activation(s, s.lengths_kv, s.seqlen_kv, s.heads_kv, s.dim_v(), s.layout_v, s.broadcast_kv);
  fill_values(q, s, random, s.values);
  fill_values(k, s, random, s.values == Values::kZeroQ ? Values::kNormal : s.values);
  fill_values(v, s, random, Values::kNormal);
  if (!s.key_lengths.empty()) {
    key_lengths = Tensor(Dtype::kInt32, {static_cast<int64_t>(s.key_lengths.size())});
    key_lengths.fill([&](int64_t b) { return s.key_lengths[static_cast<size_t>(b)]; });
  }
  if (s.padding != Padding::kNone) {
    const int64_t sequences = s.score_shape()[0], keys = s.score_shape()[3];
    key_padding = Tensor(s.padding_dtype, {sequences, keys});
    key_padding.fill([&](int64_t index) {
      const int64_t b = index / keys, key = index % keys;
      if (!padding_attends(s.padding, b, key, keys, random)) return int64_t{0};
      return s.padding_dtype == Dtype::kBool ? 1 : 1 + key % 255;  // any byte but zero is true
    });
  }
  if (s.dense) {
    dense = score_shaped(s.dense_dtype, s, s.dense_dims, s.dense_broadcast);
    dense.fill([&](int64_t) { return random.chance(s.dense_density) ? 1 : 0; });
  }
  if (s.bias != BiasKind::kNone) {
    bias = score_shaped(s.bias_dtype, s, s.bias_dims, s.bias_broadcast);
    fill_bias(bias, s, random);
  }
  if (s.packed()) {
    cu_seqlens_q = cumulative(s.lengths_q);
    if (!s.shared_cu_seqlens) cu_seqlens_kv = cumulative(s.lengths_kv);
  }
  for (uint32_t i = 0; i < 3; ++i) {
    if ((s.descales >> i & 1) == 0) continue;
    descale[i] = Tensor(Dtype::kFp32, {s.score_shape()[0], s.heads_kv});
    descale[i].fill([&](int64_t) { return std::exp2(2 * random.uniform() - 1); });
  }
}

Tensor Case::make_out() const {
  const Spec& s = spec;
  const Dtype dtype = output_dtype(s.dtype);
  Tensor out = s.packed() ? Tensor::output(dtype, {total(s.lengths_q), s.heads_q, s.dim_v()}, s.layout_out)
                          : Tensor::output(dtype, {s.batch, s.seqlen_q, s.heads_q, s.dim_v()}, s.layout_out);
  out.poison();
  return out;
}

Tensor Case::make_lse() const {
  const Spec& s = spec;
  if (!s.lse) return {};
  Tensor lse = s.packed() ? Tensor::output(Dtype::kFp32, {s.heads_q, total(s.lengths_q)}, s.layout_lse)
                          : Tensor::output(Dtype::kFp32, {s.batch, s.heads_q, s.seqlen_q}, s.layout_lse);
  lse.poison();
  return lse;
}

AttentionOptions Case::options(Tensor* lse) const {
  const Spec& s = spec;
  AttentionOptions o;
  if (s.causal) o.mask = o.mask & Mask::causal(s.causal_align);
  if (s.window) o.mask = o.mask & Mask::window(s.window_left, s.window_right, s.window_align);
  if (key_lengths.given()) o.mask = o.mask & Mask::key_lengths(key_lengths.view());
  if (key_padding.given()) o.mask = o.mask & Mask::key_padding(key_padding.view());
  if (dense.given()) o.mask = o.mask & Mask::dense(dense.view());
  if (bias.given()) o.bias = bias.view();
  o.scale = s.scale;
  o.softcap = s.softcap;
  if (lse != nullptr && lse->given()) o.lse = lse->mutable_view();
  if (s.dropout) o.dropout = {.p = *s.dropout, .seed = s.dropout_seed, .offset = s.dropout_offset};
  if (descale[0].given()) o.descale.q = descale[0].view();
  if (descale[1].given()) o.descale.k = descale[1].view();
  if (descale[2].given()) o.descale.v = descale[2].view();
  if (s.packed()) {
    o.varlen.cu_seqlens_q = cu_seqlens_q.view();
    o.varlen.cu_seqlens_kv = s.shared_cu_seqlens ? cu_seqlens_q.view() : cu_seqlens_kv.view();
    if (s.tight_max_seqlen) {
      o.varlen.max_seqlen_q = largest(s.lengths_q);
      o.varlen.max_seqlen_kv = largest(s.lengths_kv);
    }
  }
  return o;
}

// The reference gets what the elements stand for.
void Case::apply_descales(ReferenceInput& in) const {
  const auto apply = [&](const Tensor& factor, std::vector<double>& values, bool of_q, int64_t dim) {
    if (!factor.given()) return;
    const int64_t heads = of_q ? in.heads_q : in.heads_kv, group = of_q ? in.heads_q / in.heads_kv : 1;
    for (size_t b = 0; b < in.sequences.size(); ++b) {
      const auto& s = in.sequences[b];
      const int64_t first = of_q ? s.q_begin : s.kv_begin, rows = of_q ? s.q_length : s.kv_length;
      for (int64_t i = first * heads * dim; i < (first + rows) * heads * dim; ++i) {
        const int64_t kv_head = i / dim % heads / group;
        values[static_cast<size_t>(i)] *= factor.get(static_cast<int64_t>(b) * in.heads_kv + kv_head);
      }
    }
  };
  apply(descale[0], in.q, true, in.head_dim);
  apply(descale[1], in.k, false, in.head_dim);
  apply(descale[2], in.v, false, in.head_dim_v);
}

const ReferenceInput& Case::reference_input() const {
  if (input_) return *input_;
  const Spec& s = spec;
  ReferenceInput in;
  if (s.packed()) {
    int64_t q_begin = 0, kv_begin = 0;
    for (size_t b = 0; b < s.lengths_q.size(); ++b) {
      in.sequences.push_back({q_begin, s.lengths_q[b], kv_begin, s.lengths_kv[b]});
      q_begin += s.lengths_q[b];
      kv_begin += s.lengths_kv[b];
    }
    in.tokens_q = q_begin;
    in.tokens_kv = kv_begin;
  } else {
    for (int64_t b = 0; b < s.batch; ++b)
      in.sequences.push_back({b * s.seqlen_q, s.seqlen_q, b * s.seqlen_kv, s.seqlen_kv});
    in.tokens_q = s.batch * s.seqlen_q;
    in.tokens_kv = s.batch * s.seqlen_kv;
  }
  in.heads_q = s.heads_q;
  in.heads_kv = s.heads_kv;
  in.head_dim = s.head_dim;
  in.head_dim_v = s.dim_v();
  in.q = q.values();
  in.k = k.values();
  in.v = v.values();
  apply_descales(in);
  in.dtype = s.dtype;
  in.scale = s.scale ? *s.scale : 1 / std::sqrt(static_cast<double>(s.head_dim));
  in.softcap = s.softcap;
  in.causal = s.causal;
  in.window = s.window;
  in.bottom_right =
      (s.causal && s.causal_align == Align::kBottomRight) || (s.window && s.window_align == Align::kBottomRight);
  in.window_left = s.window_left;
  in.window_right = s.window_right;
  in.key_lengths = s.key_lengths;
  if (key_padding.given()) {
    in.padding = [values = key_padding.values(), keys = s.score_shape()[3]](int64_t b, int64_t key) {
      return values[static_cast<size_t>(b * keys + key)] != 0;
    };
  }
  if (dense.given()) {
    in.dense = [read = reader(dense)](int64_t b, int64_t h, int64_t i, int64_t j) { return read(b, h, i, j) != 0; };
  }
  if (bias.given()) in.bias = reader(bias);
  if (s.dropout && *s.dropout > 0) in.dropout = s.dropout;
  in.dropout_seed = s.dropout_seed;
  in.dropout_offset = s.dropout_offset;
  input_ = std::move(in);
  return *input_;
}

const ReferenceOutput& Case::exact() const {
  if (!exact_) exact_ = exact_reference(reference_input());
  return *exact_;
}

const ReferenceOutput& Case::plain() const {
  if (!plain_) plain_ = plain_reference(reference_input());
  return *plain_;
}

}  // namespace attnmux::test
