// SPDX-License-Identifier: Apache-2.0
// The tests' own attention: loops that follow the contract word by word and share no code with the library.
//
// Everything is packed: rows of q are tokens, and a sequence is a range of tokens. A padded batch is a packed one whose
// sequences have equal length.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "support/numbers.h"

namespace attnmux::test {

struct ReferenceInput {
  struct Sequence {
    int64_t q_begin, q_length, kv_begin, kv_length;  // in tokens
  };
  std::vector<Sequence> sequences;
  int64_t tokens_q = 0, tokens_kv = 0, heads_q = 1, heads_kv = 1, head_dim = 1, head_dim_v = 1;
  std::vector<double> q, k, v;  // (tokens, heads, dim)
  Dtype dtype = Dtype::kFp32;

  double scale = 1, softcap = 0;
  bool causal = false, window = false, bottom_right = false;
  int64_t window_left = 0, window_right = 0;                                       // -1: unlimited
  std::vector<int32_t> key_lengths;                                                // per sequence; empty: all keys
  std::function<bool(int64_t b, int64_t key)> padding;                             // true = attend; empty: no such mask
  std::function<bool(int64_t b, int64_t head, int64_t query, int64_t key)> dense;  // true = attend
  std::function<double(int64_t b, int64_t head, int64_t query, int64_t key)> bias;
  std::optional<double> dropout;
  uint64_t dropout_seed = 0, dropout_offset = 0;
};

struct ReferenceOutput {
  std::vector<double> out;   // (tokens_q, heads_q, head_dim_v)
  std::vector<double> lse;   // (tokens_q, heads_q)
  double largest_score = 0;  // the largest finite |score| of an attended key, before or after its bias
};

/// In double; for fp64 inputs in long double.
ReferenceOutput exact_reference(const ReferenceInput& input);
/// The textbook loop of the tolerance rule: fp32 scores and softmax, P rounded to the input type, fp32 accumulation,
/// output rounded. fp32 inputs: fp32 throughout; fp64 inputs: fp64 throughout.
ReferenceOutput plain_reference(const ReferenceInput& input);

/// May query `query` of sequence `b` attend to `key`, by causal, window, lengths and padding (not by dense or bias)?
bool positions_attend(const ReferenceInput& in, int64_t b, int64_t i, int64_t j);

/// Philox4x32-10, written from the paper (Salmon et al., SC11).
struct PhiloxBlock {
  uint32_t word[4];
};
PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1);
/// Does dropout keep this probability?
bool dropout_keeps(double p, uint64_t seed, uint64_t offset, int64_t batch_and_head, int64_t query, int64_t key);

}  // namespace attnmux::test
