// SPDX-License-Identifier: Apache-2.0
#include "support/spec.h"

#include <cmath>
#include <sstream>

namespace attnmux::test {
namespace {

const char* name_of(Align align) {
  return align == Align::kNone ? "" : align == Align::kTopLeft ? " top_left" : " bottom_right";
}

std::string dims_text(uint32_t dims) {
  std::string text;
  for (int i = 0; i < 4; ++i) text += dims >> i & 1 ? "BHQK"[i] : '1';
  return text;
}

template <typename List>
std::string list_text(const List& list) {
  std::string text;
  for (const auto x : list) text += (text.empty() ? "" : ",") + std::to_string(x);
  return "[" + text + "]";
}

Align random_align(Random& random) { return random.chance(0.5) ? Align::kTopLeft : Align::kBottomRight; }

void add_position_masks(Random& random, Spec& s, bool corners_differ) {
  s.causal = random.chance(0.4);
  s.window = random.chance(0.3);
  if (s.window) {
    s.window_left = random.between(-1, 40);
    s.window_right = random.between(-1, 40);
  }
  if (!s.causal && !s.window) return;
  if (!corners_differ && random.chance(0.3)) return;  // legal without an alignment
  const Align align = random_align(random);
  const int who = static_cast<int>(random.between(0, 2));  // one of the two may name it for both
  if (s.causal && (who != 1 || !s.window)) s.causal_align = align;
  if (s.window && (who != 0 || !s.causal)) s.window_align = align;
}

}  // namespace

uint64_t Spec::features() const {
  uint64_t set = 0;
  if (causal) set |= ATTNMUX_MASK_CAUSAL;
  if (window && (window_left >= 0 || window_right >= 0)) set |= ATTNMUX_MASK_WINDOW;
  if (!key_lengths.empty()) set |= ATTNMUX_MASK_KEY_LENGTHS;
  if (padding != Padding::kNone) set |= ATTNMUX_MASK_KEY_PADDING;
  if (dense) set |= ATTNMUX_MASK_DENSE;
  if (bias != BiasKind::kNone) set |= ATTNMUX_BIAS;
  if (softcap > 0) set |= ATTNMUX_SOFTCAP;
  if (scale && *scale != 1 / std::sqrt(static_cast<double>(head_dim))) set |= ATTNMUX_SCALE;
  if (lse) set |= ATTNMUX_LSE;
  if (dropout && *dropout > 0) set |= ATTNMUX_DROPOUT;
  if (packed()) set |= ATTNMUX_VARLEN;
  if (heads_q != heads_kv) set |= ATTNMUX_GQA;
  if (dim_v() != head_dim) set |= ATTNMUX_HEAD_DIM_V;
  if (descales != 0) set |= ATTNMUX_DESCALE;
  return set;
}

std::string Spec::text() const {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  text << attnmux::test::name_of(dtype) << " B" << batch << " Sq" << seqlen_q << " Skv" << seqlen_kv << " Hq" << heads_q
       << " Hkv" << heads_kv << " D" << head_dim << " Dv" << dim_v();
  if (packed()) {
    text << " packed q" << list_text(lengths_q) << " kv" << list_text(lengths_kv)
         << (shared_cu_seqlens ? " shared" : "") << (tight_max_seqlen ? "" : " no max_seqlen");
  }
  if (causal) text << " causal" << name_of(causal_align);
  if (window) text << " window(" << window_left << "," << window_right << ")" << name_of(window_align);
  if (!key_lengths.empty()) text << " key_lengths" << list_text(key_lengths);
  if (padding != Padding::kNone)
    text << " padding" << static_cast<int>(padding) << " " << attnmux::test::name_of(padding_dtype);
  if (dense)
    text << " dense " << dims_text(dense_dims) << "/" << static_cast<int>(dense_broadcast) << " density "
         << dense_density;
  if (bias != BiasKind::kNone) {
    text << " bias" << static_cast<int>(bias) << " " << attnmux::test::name_of(bias_dtype) << " "
         << dims_text(bias_dims) << "/" << static_cast<int>(bias_broadcast);
  }
  if (scale) text << " scale " << *scale;
  if (softcap != 0) text << " softcap " << softcap;
  if (lse) text << " lse";
  if (dropout) text << " dropout " << *dropout << " seed " << dropout_seed << "+" << dropout_offset;
  text << " layouts " << attnmux::test::name_of(layout_q) << "/" << attnmux::test::name_of(layout_k) << "/"
       << attnmux::test::name_of(layout_v) << "/" << attnmux::test::name_of(layout_out);
  if (descales != 0) text << " descales " << descales;
  if (broadcast_kv != 0) text << " broadcast_kv " << broadcast_kv;
  text << " values " << static_cast<int>(values) << "*" << value_scale << " seed " << seed;
  return text.str();
}

Spec random_spec(Random& random) {
  Spec s;
  s.seed = random.bits();
  constexpr Dtype kDtypes[] = {Dtype::kFp32, Dtype::kFp16, Dtype::kBf16, Dtype::kBf16, Dtype::kFp64};
  constexpr int64_t kLengths[] = {0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 100, 127, 129, 200};
  constexpr int64_t kDims[] = {1, 3, 8, 16, 32, 33, 64, 72, 80, 96, 128, 200, 256};
  s.dtype = random.pick(kDtypes);
  s.head_dim = random.pick(kDims);
  s.head_dim_v = random.chance(0.3) ? random.pick(kDims) : 0;
  s.heads_kv = random.between(1, 3);
  s.heads_q = s.heads_kv * random.between(1, 3);
  s.batch = random.between(1, 3);
  s.seqlen_kv = random.pick(kLengths);
  s.seqlen_q = random.chance(0.4) ? s.seqlen_kv : random.pick(kLengths);
  s.lse = random.chance(0.7);

  bool corners_differ = s.seqlen_q != s.seqlen_kv;
  if (random.chance(0.25)) {
    s.shared_cu_seqlens = random.chance(0.4);
    for (int64_t b = 0; b < s.batch; ++b) {
      s.lengths_kv.push_back(random.between(0, 70));
      s.lengths_q.push_back(s.shared_cu_seqlens ? s.lengths_kv.back() : random.between(0, 70));
    }
    s.tight_max_seqlen = random.chance(0.7);
    corners_differ = !s.shared_cu_seqlens;
  }
  if (random.chance(0.25)) {
    for (int64_t b = 0; b < s.batch; ++b) {
      const int64_t keys = s.packed() ? s.lengths_kv[static_cast<size_t>(b)] : s.seqlen_kv;
      s.key_lengths.push_back(static_cast<int32_t>(random.between(0, keys)));
    }
    corners_differ = true;
  }
  if (random.chance(0.25)) s.padding = static_cast<Padding>(random.between(1, 4));
  if (random.chance(0.3)) s.padding_dtype = Dtype::kUint8;
  if (random.chance(0.25)) {
    s.dense = true;
    s.dense_dims = static_cast<uint32_t>(random.between(0, 15));
    s.dense_broadcast = static_cast<Broadcast>(random.between(0, 2));
    s.dense_density = random.uniform();
    if (random.chance(0.3)) s.dense_dtype = Dtype::kUint8;
  }
  if (random.chance(0.3)) {
    s.bias = static_cast<BiasKind>(random.between(1, 4));
    s.bias_dims = static_cast<uint32_t>(random.between(0, 15));
    s.bias_broadcast = static_cast<Broadcast>(random.between(0, 2));
    constexpr Dtype kBiasDtypes[] = {Dtype::kFp32, Dtype::kFp16, Dtype::kBf16};
    s.bias_dtype = random.pick(kBiasDtypes);
    if (s.dtype == Dtype::kFp64 && random.chance(0.5)) s.bias_dtype = Dtype::kFp64;
  }
  add_position_masks(random, s, corners_differ);
  if (random.chance(0.2)) s.softcap = 0.5 + 30 * random.uniform();
  if (random.chance(0.3)) s.scale = random.chance(0.1) ? 0 : 0.5 * random.normal();
  if (random.chance(0.15)) {
    s.dropout = 0.9 * random.uniform();
    s.dropout_seed = random.bits();
    s.dropout_offset = random.bits() & 0xFFFFFFFF;
  }
  s.layout_q = random.pick(kInputLayouts);
  s.layout_k = random.pick(kInputLayouts);
  s.layout_v = random.pick(kInputLayouts);
  s.layout_out = random.pick(kOutputLayouts);
  if (random.chance(0.1)) s.broadcast_kv = static_cast<uint32_t>(random.between(1, s.packed() ? 3 : 7));
  if (random.chance(0.15)) s.values = static_cast<Values>(random.between(1, 3));
  if (random.chance(0.15)) {
    s.dtype = Dtype::kE4m3;
    if (s.bias_dtype == Dtype::kFp64) s.bias_dtype = Dtype::kFp32;  // fp64 is for fp64 alone
    s.descales = static_cast<uint32_t>(random.between(0, 7));
  }
  return s;
}

}  // namespace attnmux::test
