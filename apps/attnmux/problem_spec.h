// SPDX-License-Identifier: Apache-2.0
// A problem in which every value is known: what the flags say, completed by the defaults.
#pragma once

#include <attnmux/attnmux.h>

#include "attnmux/json_out.h"
#include "attnmux/problem_flags.h"

namespace attnmux::cli {

struct ProblemSpec {
  int64_t batch = 1, seqlen_q = 1024, seqlen_kv = 1024, heads_q = 16, heads_kv = 16, head_dim = 128, head_dim_v = 128;
  Dtype dtype = Dtype::kBf16;
  std::optional<Align> causal;
  std::optional<WindowFlag> window;
  std::optional<double> softcap, scale, dropout;
  uint64_t seed = 0;
  std::optional<std::vector<int32_t>> key_lengths;
  bool lse = false;
  std::string kernel;
  bool allow_lossy = false;
  Device device = Device::cpu();

  /// Views the spec's own key lengths and kernel name: it must outlive the options. `lse_view` is used where lse is
  /// set.
  AttentionOptions options(Backend backend, const MutableTensorView& lse_view) const;
};

/// The arguments of a verb.
struct Call {
  TensorView q, k, v;
  MutableTensorView out;
  AttentionOptions options;
};
/// Null pointers, which is enough to plan and to explain.
Call planned_call(const ProblemSpec& spec, Backend backend);

/// Flags over defaults. `run` takes its shapes from a file and passes them as the defaults: see require_shape.
ProblemSpec complete(const ProblemFlags& flags);
/// Sets what is not a shape: masks, scores, dropout, lse, kernel.
void apply_options(const ProblemFlags& flags, ProblemSpec& spec);
void set_key_lengths(ProblemSpec& spec, std::vector<int32_t> lengths);

/// Loads what the flags say about the process: the number of threads.
void apply_threads(const ProblemFlags& flags);
/// The one backend of --backend; Backend{} where none is given.
Backend one_backend(const ProblemFlags& flags);
std::vector<Backend> named_backends(const ProblemFlags& flags);
/// CUDA tensors need a stream; planning takes CUDA's own default one.
ExecContext exec_for(const Device& device);

std::string_view dtype_name(Dtype dtype);  ///< "bf16"
std::string_view dtype_word(Dtype dtype);  ///< "bfloat16"
std::string device_name(const Device& device);
/// "1×512×12×32", with what differs between q, k and v.
std::string shape_text(const ProblemSpec& spec);
/// The shape, the dtype, and what else was asked for.
std::string text(const ProblemSpec& spec);
Json to_json(const ProblemSpec& spec);

/// (query, key) pairs that causal, window and key lengths leave, over all query heads.
double attended_pairs(const ProblemSpec& spec);
/// 2·(D+Dv) per attended pair.
double flops(const ProblemSpec& spec);
/// q, k, v once in, out (and the log-sum-exp) once out.
double bytes_moved(const ProblemSpec& spec);

}  // namespace attnmux::cli
