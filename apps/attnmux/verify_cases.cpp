// SPDX-License-Identifier: Apache-2.0
#include "attnmux/verify_cases.h"

namespace attnmux::cli {
namespace {

// Cases of one dtype; each starts from the same base and changes what it is about.
class Cases {
 public:
  Cases(Dtype dtype, std::vector<VerifyCase>& cases) : dtype_(dtype), cases_(cases) {}

  ProblemSpec& add(int64_t seqlen_q, int64_t seqlen_kv, int64_t head_dim, const RandomExtras& extras = {}) {
    VerifyCase c;
    c.extras = extras;
    c.spec.batch = 2;
    c.spec.seqlen_q = seqlen_q;
    c.spec.seqlen_kv = seqlen_kv;
    c.spec.heads_q = c.spec.heads_kv = 2;
    c.spec.head_dim = c.spec.head_dim_v = head_dim;
    c.spec.dtype = dtype_;
    c.spec.seed = cases_.size() + 1;
    c.spec.lse = cases_.size() % 2 == 0;
    cases_.push_back(std::move(c));
    return cases_.back().spec;
  }
  ProblemSpec& square(const RandomExtras& extras = {}) { return add(65, 65, 64, extras); }

 private:
  Dtype dtype_;
  std::vector<VerifyCase>& cases_;
};

void add_shapes(Cases& cases) {
  for (const int64_t head_dim : {1, 8, 40, 64, 80, 128, 256}) cases.add(33, 63, head_dim);
  cases.add(1, 127, 64);  // one query over a cache
  cases.add(127, 1, 64);
  cases.add(7, 129, 96);
  cases.add(160, 160, 32);
  cases.add(5, 0, 64);  // no keys: zeros, and a log-sum-exp of -inf
  cases.add(0, 5, 64);
  ProblemSpec& grouped = cases.add(33, 65, 64);
  grouped.heads_q = 6;
  ProblemSpec& shared = cases.add(1, 65, 128);
  shared.heads_q = 8;
  shared.heads_kv = 1;
  cases.add(33, 65, 64).head_dim_v = 40;
}

void add_masks(Cases& cases) {
  cases.square().causal = Align::kNone;
  cases.add(40, 100, 64).causal = Align::kTopLeft;
  cases.add(40, 100, 64).causal = Align::kBottomRight;
  cases.add(100, 40, 64).causal = Align::kBottomRight;  // the first rows see no key
  cases.square().window = {8, 3};
  cases.add(40, 100, 64).window = {16, -1, Align::kBottomRight};
  ProblemSpec& both = cases.add(128, 128, 32);
  both.causal = Align::kNone;
  both.window = {30, 0};
  cases.square().key_lengths = std::vector<int32_t>{65, 13};
  ProblemSpec& ragged = cases.add(33, 65, 64);
  ragged.key_lengths = std::vector<int32_t>{0, 50};
  ragged.causal = Align::kBottomRight;
  cases.square({.key_padding = true});
  cases.square({.dense_mask = true});
  cases.square({.bias = true});
  cases.add(33, 65, 64, {.key_padding = true, .dense_mask = true, .bias = true}).causal = Align::kTopLeft;
}

void add_scores(Cases& cases) {
  cases.square().softcap = 2.0;
  cases.square().scale = 1.0;
  cases.square().scale = -0.2;
  cases.square().scale = 0.0;
  cases.square({.magnitude = 30});  // logits of a hundred
  ProblemSpec& dropped = cases.square();
  dropped.dropout = 0.25;
  ProblemSpec& everything = cases.add(33, 65, 64, {.bias = true});
  everything.heads_q = 4;
  everything.softcap = 10.0;
  everything.scale = 0.3;
  everything.window = {20, 4, Align::kBottomRight};
  everything.key_lengths = std::vector<int32_t>{65, 40};
}

}  // namespace

std::string text(const VerifyCase& c) {
  std::string line = text(c.spec);
  if (c.extras.key_padding) line += ", key padding";
  if (c.extras.dense_mask) line += ", dense mask";
  if (c.extras.bias) line += ", bias";
  if (c.extras.magnitude != 1) line += ", large logits";
  return line;
}

std::vector<VerifyCase> built_in_cases() {
  std::vector<VerifyCase> list;
  for (const Dtype dtype : {Dtype::kFp32, Dtype::kBf16, Dtype::kFp16, Dtype::kFp64}) {
    Cases cases(dtype, list);
    add_shapes(cases);
    add_masks(cases);
    add_scores(cases);
  }
  return list;
}

}  // namespace attnmux::cli
