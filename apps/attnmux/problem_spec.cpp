// SPDX-License-Identifier: Apache-2.0
#include "attnmux/problem_spec.h"

#include <algorithm>

#include "attnmux/errors.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/tensors.h"

namespace attnmux::cli {
namespace {

Json align_json(Align align) {
  switch (align) {
    case Align::kTopLeft:
      return "top_left";
    case Align::kBottomRight:
      return "bottom_right";
    case Align::kNone:
      break;
  }
  return nullptr;
}

std::string align_suffix(Align align, std::string_view separator) {
  const Json name = align_json(align);
  return name.is_null() ? "" : std::string(separator) + name.get<std::string>();
}

std::string lengths_text(const std::vector<int32_t>& lengths) {
  std::string list;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (i == 4 && lengths.size() > 5) return list + ",… (" + std::to_string(lengths.size()) + ")";
    if (i > 0) list += ',';
    list += std::to_string(lengths[i]);
  }
  return list;
}

// Of q and out together, and of k and v. Sizes that no library call has seen yet may be of any magnitude.
double row_elements(const ProblemSpec& s) {
  return static_cast<double>(s.head_dim) + static_cast<double>(s.head_dim_v);
}

}  // namespace

AttentionOptions ProblemSpec::options(Backend backend, const MutableTensorView& lse_view) const {
  AttentionOptions o;
  if (causal) o.mask = o.mask & Mask::causal(*causal);
  if (window) o.mask = o.mask & Mask::window(window->left, window->right, window->align);
  if (key_lengths) {
    // Lengths of a CUDA problem live in device memory; planning needs no pointer.
    const void* data = device == Device::cpu() ? key_lengths->data() : nullptr;
    o.mask = o.mask &
             Mask::key_lengths(TensorView(data, Dtype::kInt32, {static_cast<int64_t>(key_lengths->size())}, device));
  }
  o.scale = scale;
  o.softcap = softcap.value_or(0);
  if (dropout) o.dropout = {.p = *dropout, .seed = seed};
  if (lse) o.lse = lse_view;
  o.backend = backend;
  o.kernel = kernel;
  o.allow_lossy = allow_lossy;
  return o;
}

Call planned_call(const ProblemSpec& s, Backend backend) {
  const auto view = [&](int64_t seqlen, int64_t heads, int64_t dim) {
    return MutableTensorView(nullptr, s.dtype, {s.batch, seqlen, heads, dim}, s.device);
  };
  const MutableTensorView lse(nullptr, Dtype::kFp32, {s.batch, s.heads_q, s.seqlen_q}, s.device);
  return {view(s.seqlen_q, s.heads_q, s.head_dim), view(s.seqlen_kv, s.heads_kv, s.head_dim),
          view(s.seqlen_kv, s.heads_kv, s.head_dim_v), view(s.seqlen_q, s.heads_q, s.head_dim_v),
          s.options(backend, lse)};
}

void set_key_lengths(ProblemSpec& spec, std::vector<int32_t> lengths) {
  const auto count = static_cast<int64_t>(lengths.size());
  if (count != spec.batch) {
    throw UsageError("--key-lengths: " + counted(count, "length") + " for a batch of " + std::to_string(spec.batch) +
                     "; it takes one per sequence");
  }
  for (const int32_t length : lengths) {
    if (length < 0 || length > spec.seqlen_kv) {
      throw UsageError("--key-lengths: " + std::to_string(length) + " is not accepted; it takes 0 to " +
                       std::to_string(spec.seqlen_kv) + ", the number of keys");
    }
  }
  spec.key_lengths = std::move(lengths);
}

void apply_options(const ProblemFlags& f, ProblemSpec& s) {
  s.causal = f.causal;
  s.window = f.window;
  s.softcap = f.softcap;
  s.scale = f.scale;
  s.dropout = f.dropout;
  s.seed = f.seed.value_or(0);
  s.lse = f.lse;
  s.kernel = f.kernel;
  s.allow_lossy = f.allow_lossy;
  s.device = f.device.value_or(Device::cpu());
  if (f.dropout && !f.seed)
    throw UsageError("--dropout needs --seed: the same seed drops the same weights on every kernel");
}

ProblemSpec complete(const ProblemFlags& f) {
  ProblemSpec s;
  s.batch = f.batch.value_or(s.batch);
  s.seqlen_q = f.seqlen_q.value_or(s.seqlen_q);
  s.seqlen_kv = f.seqlen_kv.value_or(s.seqlen_q);
  s.heads_q = f.heads_q.value_or(s.heads_q);
  s.heads_kv = f.heads_kv.value_or(s.heads_q);
  s.head_dim = f.head_dim.value_or(s.head_dim);
  s.head_dim_v = f.head_dim_v.value_or(s.head_dim);
  s.dtype = f.dtype.value_or(s.dtype);
  apply_options(f, s);
  if (f.key_lengths) set_key_lengths(s, parse_lengths("--key-lengths", *f.key_lengths));
  return s;
}

void apply_threads(const ProblemFlags& flags) {
  if (flags.threads) set_num_threads(*flags.threads);
}

Backend one_backend(const ProblemFlags& flags) {
  if (flags.backends.empty()) return {};
  if (flags.backends.size() > 1)
    throw UsageError("--backend is given " + std::to_string(flags.backends.size()) + " times; it takes one name here");
  return Backend::named(flags.backends.front());
}

std::vector<Backend> named_backends(const ProblemFlags& flags) {
  std::vector<Backend> backends;
  for (const std::string& name : flags.backends) {
    const Backend backend = Backend::named(name);
    if (std::find(backends.begin(), backends.end(), backend) == backends.end()) backends.push_back(backend);
  }
  return backends;
}

ExecContext exec_for(const Device& device) {
  ExecContext exec;
  if (device.type == ATTNMUX_CUDA) exec.stream = Stream(static_cast<CUstream_st*>(nullptr));
  return exec;
}

std::string_view dtype_name(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp32:
      return "fp32";
    case Dtype::kFp16:
      return "fp16";
    case Dtype::kBf16:
      return "bf16";
    case Dtype::kFp64:
      return "fp64";
    case Dtype::kBool:
      return "bool";
    case Dtype::kUint8:
      return "uint8";
    case Dtype::kInt32:
      return "int32";
    case Dtype::kE4m3:
      return "e4m3";
    case Dtype::kNone:
      break;
  }
  return "none";
}

std::string_view dtype_word(Dtype dtype) {
  switch (dtype) {
    case Dtype::kFp32:
      return "float32";
    case Dtype::kFp16:
      return "float16";
    case Dtype::kBf16:
      return "bfloat16";
    case Dtype::kFp64:
      return "float64";
    default:
      return dtype_name(dtype);
  }
}

std::string device_name(const Device& device) {
  return device.type == ATTNMUX_CUDA ? "cuda:" + std::to_string(device.id) : "cpu";
}

std::string shape_text(const ProblemSpec& s) {
  std::string line = std::to_string(s.batch) + "×" + std::to_string(s.seqlen_q) + "×" + std::to_string(s.heads_q) +
                     "×" + std::to_string(s.head_dim);
  if (s.seqlen_kv != s.seqlen_q) line += ", " + counted(s.seqlen_kv, "key");
  if (s.heads_kv != s.heads_q) line += ", " + counted(s.heads_kv, "key head");
  if (s.head_dim_v != s.head_dim) line += ", values of " + std::to_string(s.head_dim_v);
  return line;
}

std::string text(const ProblemSpec& s) {
  std::string line = shape_text(s) + ", " + std::string(dtype_word(s.dtype));
  if (s.causal) line += ", causal" + align_suffix(*s.causal, " ");
  if (s.window) {
    line += ", window " + std::to_string(s.window->left) + "," + std::to_string(s.window->right) +
            align_suffix(s.window->align, ",");
  }
  if (s.key_lengths) line += ", key lengths " + lengths_text(*s.key_lengths);
  if (s.softcap.value_or(0) != 0) line += ", softcap " + Json(*s.softcap).dump();
  if (s.scale) line += ", scale " + Json(*s.scale).dump();
  if (s.dropout) line += ", dropout " + Json(*s.dropout).dump() + " of seed " + std::to_string(s.seed);
  if (s.lse) line += ", log-sum-exp";
  return line;
}

Json to_json(const ProblemSpec& s) {
  Json j = {{"batch", s.batch},
            {"seqlen_q", s.seqlen_q},
            {"seqlen_kv", s.seqlen_kv},
            {"heads_q", s.heads_q},
            {"heads_kv", s.heads_kv},
            {"head_dim", s.head_dim},
            {"head_dim_v", s.head_dim_v},
            {"dtype", dtype_name(s.dtype)},
            {"device", device_name(s.device)},
            {"causal", s.causal.has_value()},
            {"causal_align", s.causal ? align_json(*s.causal) : Json(nullptr)},
            {"window", nullptr},
            {"key_lengths", nullptr},
            {"softcap", s.softcap.value_or(0)},
            {"scale", nullptr},
            {"dropout", s.dropout.value_or(0)},
            {"seed", nullptr},
            {"lse", s.lse}};
  if (s.window)
    j["window"] = {{"left", s.window->left}, {"right", s.window->right}, {"align", align_json(s.window->align)}};
  if (s.key_lengths) j["key_lengths"] = *s.key_lengths;
  if (s.scale) j["scale"] = *s.scale;
  if (s.dropout) j["seed"] = s.seed;
  return j;
}

double attended_pairs(const ProblemSpec& s) {
  const bool bottom_right =
      (s.causal && *s.causal == Align::kBottomRight) || (s.window && s.window->align == Align::kBottomRight);
  const int64_t left = s.window ? s.window->left : -1;
  int64_t right = s.window ? s.window->right : -1;
  if (s.causal) right = right < 0 ? 0 : std::min<int64_t>(right, 0);
  double pairs = 0;
  for (int64_t b = 0; b < s.batch; ++b) {
    const int64_t length = s.key_lengths ? (*s.key_lengths)[static_cast<size_t>(b)] : s.seqlen_kv;
    if (left < 0 && right < 0) {
      pairs += static_cast<double>(s.seqlen_q) * static_cast<double>(length);
      continue;
    }
    const int64_t delta = bottom_right ? length - s.seqlen_q : 0;
    for (int64_t i = 0; i < s.seqlen_q; ++i) {
      const int64_t diagonal = i + delta;
      const int64_t first = left < 0 || diagonal <= left ? 0 : diagonal - left;
      const int64_t last = right < 0 || right >= length - diagonal ? length : diagonal + right + 1;
      if (last > first) pairs += static_cast<double>(last - first);
    }
  }
  return pairs * static_cast<double>(s.heads_q);
}

double flops(const ProblemSpec& s) { return 2 * row_elements(s) * attended_pairs(s); }

double bytes_moved(const ProblemSpec& s) {
  const auto batch = static_cast<double>(s.batch);
  const double q_rows = batch * static_cast<double>(s.seqlen_q) * static_cast<double>(s.heads_q);
  const double kv_rows = batch * static_cast<double>(s.seqlen_kv) * static_cast<double>(s.heads_kv);
  return (q_rows + kv_rows) * row_elements(s) * static_cast<double>(element_size(s.dtype)) + (s.lse ? 4 * q_rows : 0);
}

}  // namespace attnmux::cli
