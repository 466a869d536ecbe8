// SPDX-License-Identifier: Apache-2.0
#include "dispatch/problem_masks.h"

#include <bit>
#include <tuple>
#include <utility>

#include "dispatch/dtypes.h"
#include "dispatch/features.h"
#include "dispatch/tensor_checks.h"

namespace attnmux {
namespace {

attnmux_code invalid(attnmux_error* error, const Message& message) {
  return fail(error, ATTNMUX_INVALID_ARGUMENT, message);
}

// A rank-1 int32 tensor: key_lengths or cu_seqlens.
attnmux_code check_int32_vector(const char* name, const attnmux_tensor& t, int64_t extent, const char* shape,
                                const Problem& p, Pointers pointers, attnmux_error* error) {
  ATTNMUX_TRY(check_tensor(name, t, pointers, error));
  if (t.dtype != ATTNMUX_INT32)
    return invalid(error, ATTNMUX_MESSAGE(name << ".dtype is " << dtype_name(t.dtype) << "; accepted is int32"));
  ATTNMUX_TRY(check_rank(name, t, 1, shape, error));
  ATTNMUX_TRY(check_same_device(name, t, p.q, error));
  if (extent >= 0) ATTNMUX_TRY(check_extent(name, t, 0, extent, shape, error));
  return ATTNMUX_OK;
}

bool readable_on_host(const attnmux_tensor& t) { return t.device_type == ATTNMUX_CPU && t.data != nullptr; }
int64_t entry(const attnmux_tensor& t, int64_t i) { return *element<const int32_t>(t, i * t.strides[0]); }

attnmux_code check_cu_seqlens(const char* name, const char* tokens_of, const attnmux_tensor& cu, int64_t total,
                              int64_t max_seqlen, attnmux_error* error) {
  if (!readable_on_host(cu)) return ATTNMUX_OK;
  const int64_t last = cu.shape[0] - 1;
  if (entry(cu, 0) != 0) return invalid(error, ATTNMUX_MESSAGE(name << "[0] is " << entry(cu, 0) << "; it must be 0"));
  for (int64_t b = 0; b < last; ++b) {
    const int64_t begin = entry(cu, b), end = entry(cu, b + 1);
    if (end < begin) {
      return invalid(error, ATTNMUX_MESSAGE(name << "[" << b + 1 << "] is " << end << ", below [" << b << "], which is "
                                                 << begin << "; the values must not fall"));
    }
    if (end - begin > max_seqlen) {
      return invalid(error, ATTNMUX_MESSAGE(name << " gives sequence " << b << " a length of " << end - begin
                                                 << ", above the max_seqlen of " << max_seqlen));
    }
  }
  if (entry(cu, last) != total) {
    return invalid(error, ATTNMUX_MESSAGE(name << "[" << last << "] is " << entry(cu, last) << "; it must be " << total
                                               << ", the tokens of " << tokens_of));
  }
  return ATTNMUX_OK;
}

// Broadcasts `t`, whose dimensions align at the right, to (B, Hq, Sq, Skv).
attnmux_code broadcast(const char* name, const attnmux_tensor& t, const Problem& p, attnmux_tensor& wide,
                       attnmux_error* error) {
  const int64_t extents[4] = {p.batch, p.num_heads_q, p.seqlen_q, p.seqlen_kv};
  wide = t;
  wide.ndim = 4;
  for (int32_t i = 0; i < 4; ++i) {
    const int32_t from = i - (4 - t.ndim);
    const int64_t extent = from < 0 ? 1 : t.shape[from];
    if (extent != 1 && extent != extents[i]) {
      return invalid(
          error,
          ATTNMUX_MESSAGE(name << " has shape " << Shape{t} << ", which does not broadcast to (B, Hq, Sq, Skv) = ("
                               << extents[0] << ", " << extents[1] << ", " << extents[2] << ", " << extents[3] << ")"));
    }
    wide.shape[i] = extents[i];
    wide.strides[i] = from < 0 || extent == 1 ? 0 : t.strides[from];
  }
  return ATTNMUX_OK;
}

attnmux_code check_one_byte(const char* name, const attnmux_tensor& t, attnmux_error* error) {
  if (t.dtype == ATTNMUX_BOOL || t.dtype == ATTNMUX_UINT8) return ATTNMUX_OK;
  return invalid(error, ATTNMUX_MESSAGE(name << ".dtype is " << dtype_name(t.dtype)
                                             << "; accepted are bool and uint8 (an additive mask is options.bias)"));
}

attnmux_code check_key_length_values(const Problem& p, attnmux_error* error) {
  if (!readable_on_host(p.key_lengths)) return ATTNMUX_OK;
  for (int64_t b = 0; b < p.batch; ++b) {
    int64_t limit = p.seqlen_kv;
    if (readable_on_host(p.cu_seqlens_kv)) limit = entry(p.cu_seqlens_kv, b + 1) - entry(p.cu_seqlens_kv, b);
    if (const int64_t length = entry(p.key_lengths, b); length < 0 || length > limit) {
      return invalid(error, ATTNMUX_MESSAGE("mask.key_lengths[" << b << "] is " << length << "; accepted is 0 to "
                                                                << limit << ", the number of keys"));
    }
  }
  return ATTNMUX_OK;
}

attnmux_code check_cu_seqlens_values(const Problem& p, attnmux_error* error) {
  if (!given(p.cu_seqlens_q)) return ATTNMUX_OK;
  ATTNMUX_TRY(check_cu_seqlens("varlen.cu_seqlens_q", "q", p.cu_seqlens_q, p.q.shape[1], p.seqlen_q, error));
  return check_cu_seqlens("varlen.cu_seqlens_kv", "k", p.cu_seqlens_kv, p.k.shape[1], p.seqlen_kv, error);
}

attnmux_code read_key_lengths(const attnmux_options& o, Pointers pointers, Problem& p, attnmux_error* error) {
  constexpr const char* kName = "mask.key_lengths";
  ATTNMUX_TRY(check_int32_vector(kName, o.key_lengths, p.batch, "(B): one length per sequence", p, pointers, error));
  p.key_lengths = o.key_lengths;
  return check_key_length_values(p, error);
}

// Do both corners of a causal or window mask mean the same, sequence by sequence?
bool corners_coincide(const Problem& p) {
  if (given(p.key_lengths)) return false;
  if (!given(p.cu_seqlens_q)) return p.seqlen_q == p.seqlen_kv;
  const attnmux_tensor &a = p.cu_seqlens_q, &b = p.cu_seqlens_kv;
  if (a.data == b.data && a.strides[0] == b.strides[0]) return true;
  if (!readable_on_host(a) || !readable_on_host(b)) return false;
  for (int64_t i = 0; i < a.shape[0]; ++i) {
    if (entry(a, i) != entry(b, i)) return false;
  }
  return true;
}

attnmux_code check_window_values(const attnmux_options& o, attnmux_error* error) {
  for (const auto& [name, value] : {std::pair("left", o.window_left), std::pair("right", o.window_right)}) {
    if (value < -1)
      return invalid(
          error, ATTNMUX_MESSAGE("mask.window " << name << " is " << value << "; accepted is -1 (unlimited) or more"));
  }
  return ATTNMUX_OK;
}

// Causal and window become one window around one diagonal.
attnmux_code read_diagonal(const attnmux_options& o, Problem& p, attnmux_error* error) {
  const bool causal = (o.set & ATTNMUX_MASK_CAUSAL) != 0, window = (o.set & ATTNMUX_MASK_WINDOW) != 0;
  p.window_left = p.window_right = kUnlimited;
  for (const auto& [name, align, used] :
       {std::tuple("causal", o.causal_align, causal), std::tuple("window", o.window_align, window)}) {
    if (align < ATTNMUX_ALIGN_NONE || align > ATTNMUX_ALIGN_BOTTOM_RIGHT) {
      return invalid(error, ATTNMUX_MESSAGE("mask." << name << " align is " << align
                                                    << "; accepted are 0 (none), 1 (top_left), 2 (bottom_right)"));
    }
    if (align != ATTNMUX_ALIGN_NONE && !used) {
      return invalid(error,
                     ATTNMUX_MESSAGE("mask." << name << " align is " << align << " but no " << name << " mask is set"));
    }
  }
  if (!window && (o.window_left != 0 || o.window_right != 0)) {
    return invalid(error, ATTNMUX_MESSAGE("mask.window is (" << o.window_left << ", " << o.window_right
                                                             << ") but ATTNMUX_MASK_WINDOW is not set"));
  }
  if (!causal && !window) return ATTNMUX_OK;
  if (causal && window && o.causal_align != 0 && o.window_align != 0 && o.causal_align != o.window_align) {
    return invalid(error, ATTNMUX_MESSAGE("the mask gives causal and window different alignments, top_left and "
                                          "bottom_right; give both the same, or one only"));
  }
  p.align = o.causal_align != 0 ? o.causal_align : o.window_align;
  if (window) {
    ATTNMUX_TRY(check_window_values(o, error));
    // A window that reaches over everything is unlimited; then i ± window cannot overflow in a kernel.
    const int64_t everything = p.seqlen_q + p.seqlen_kv;
    p.window_left = o.window_left >= everything ? kUnlimited : o.window_left;
    p.window_right = o.window_right >= everything ? kUnlimited : o.window_right;
    p.features |= ATTNMUX_MASK_WINDOW;
  }
  if (causal) {
    p.window_right = 0;
    p.features |= ATTNMUX_MASK_CAUSAL;
  }
  const bool masks_something = p.window_left >= 0 || p.window_right >= 0;
  if (p.align == ATTNMUX_ALIGN_NONE && masks_something && !corners_coincide(p)) {
    Message why;
    if (given(p.key_lengths)) {
      why << "key lengths are given";
    } else if (given(p.cu_seqlens_q)) {
      why << "cu_seqlens_q and cu_seqlens_kv are not known to be equal";
    } else {
      why << p.seqlen_q << " queries and " << p.seqlen_kv << " keys";
    }
    return invalid(
        error,
        ATTNMUX_MESSAGE("mask." << (causal ? "causal" : "window")
                                << " needs an alignment, since top_left and bottom_right differ here (" << why.view()
                                << "): top_left puts query 0 at key 0 (PyTorch), bottom_right the last query at the "
                                   "last key (FlashAttention)"));
  }
  return ATTNMUX_OK;
}

attnmux_code refuse_unset_tensors(const attnmux_options& o, attnmux_error* error) {
  const struct {
    const char* name;
    const attnmux_tensor& t;
    uint64_t bit;
    const char* bit_name;
  } fields[] = {{"mask.key_lengths", o.key_lengths, ATTNMUX_MASK_KEY_LENGTHS, "ATTNMUX_MASK_KEY_LENGTHS"},
                {"mask.key_padding", o.key_padding, ATTNMUX_MASK_KEY_PADDING, "ATTNMUX_MASK_KEY_PADDING"},
                {"mask.dense", o.dense_mask, ATTNMUX_MASK_DENSE, "ATTNMUX_MASK_DENSE"},
                {"bias", o.bias, ATTNMUX_BIAS, "ATTNMUX_BIAS"},
                {"lse", o.lse, ATTNMUX_LSE, "ATTNMUX_LSE"},
                {"varlen.cu_seqlens_q", o.cu_seqlens_q, ATTNMUX_VARLEN, "ATTNMUX_VARLEN"},
                {"varlen.cu_seqlens_kv", o.cu_seqlens_kv, ATTNMUX_VARLEN, "ATTNMUX_VARLEN"},
                {"descale.q", o.q_descale, ATTNMUX_DESCALE, "ATTNMUX_DESCALE"},
                {"descale.k", o.k_descale, ATTNMUX_DESCALE, "ATTNMUX_DESCALE"},
                {"descale.v", o.v_descale, ATTNMUX_DESCALE, "ATTNMUX_DESCALE"}};
  for (const auto& field : fields) {
    if (given(field.t) && (o.set & field.bit) == 0) {
      return invalid(
          error, ATTNMUX_MESSAGE(field.name << " is filled in but " << field.bit_name << " is not set in options.set"));
    }
  }
  if ((o.set & ATTNMUX_VARLEN) == 0 && (o.max_seqlen_q != 0 || o.max_seqlen_kv != 0)) {
    return invalid(error, ATTNMUX_MESSAGE("varlen.max_seqlen is given (" << o.max_seqlen_q << ", " << o.max_seqlen_kv
                                                                         << ") without cu_seqlens"));
  }
  return ATTNMUX_OK;
}

}  // namespace

attnmux_code check_same_device(const char* name, const attnmux_tensor& t, const attnmux_tensor& q,
                               attnmux_error* error) {
  if (t.device_type == q.device_type && t.device_id == q.device_id) return ATTNMUX_OK;
  const auto device = [](const attnmux_tensor& x) { return x.device_type == ATTNMUX_CPU ? "cpu" : "cuda"; };
  return invalid(error, ATTNMUX_MESSAGE(name << " is on " << device(t) << ":" << t.device_id << ", q on " << device(q)
                                             << ":" << q.device_id << "; all tensors of a call are on one device"));
}

attnmux_code check_struct(const char* name, const void* data, uint32_t struct_size, size_t known, attnmux_error* error,
                          size_t oldest) {
  if (struct_size < (oldest == 0 ? known : oldest)) {
    return invalid(error, ATTNMUX_MESSAGE(name << ".struct_size is " << struct_size
                                               << "; it must be sizeof the struct, " << known));
  }
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (size_t i = known; i < struct_size; ++i) {
    if (bytes[i] != 0) {
      return invalid(error, ATTNMUX_MESSAGE(name << " has a field at byte " << i << " that this version (" << known
                                                 << " bytes) does not know; it must be zero"));
    }
  }
  return ATTNMUX_OK;
}

attnmux_tensor with_leading_one(const attnmux_tensor& t) {
  attnmux_tensor wide = t;
  wide.ndim = t.ndim + 1;
  wide.shape[0] = 1;
  wide.strides[0] = 0;
  for (int32_t i = 0; i < t.ndim && i < 3; ++i) {
    wide.shape[i + 1] = t.shape[i];
    wide.strides[i + 1] = t.strides[i];
  }
  return wide;
}

attnmux_code read_varlen(const attnmux_options& o, Pointers pointers, Problem& p, attnmux_error* error) {
  constexpr const char* kShape = "(B+1), as many as in cu_seqlens_q";
  ATTNMUX_TRY(check_int32_vector("varlen.cu_seqlens_q", o.cu_seqlens_q, -1, "(B+1)", p, pointers, error));
  ATTNMUX_TRY(
      check_int32_vector("varlen.cu_seqlens_kv", o.cu_seqlens_kv, o.cu_seqlens_q.shape[0], kShape, p, pointers, error));
  if (o.cu_seqlens_q.shape[0] < 1)
    return invalid(error, ATTNMUX_MESSAGE("varlen.cu_seqlens_q is empty; it has B+1 entries, the first is 0"));
  const int64_t total_q = p.q.shape[1], total_kv = p.k.shape[1];
  for (const auto& [name, value] : {std::pair("q", o.max_seqlen_q), std::pair("kv", o.max_seqlen_kv)}) {
    if (value < 0)
      return invalid(error, ATTNMUX_MESSAGE("varlen.max_seqlen_" << name << " is " << value
                                                                 << "; accepted is 0 (all tokens) or more"));
  }
  p.cu_seqlens_q = o.cu_seqlens_q;
  p.cu_seqlens_kv = o.cu_seqlens_kv;
  p.batch = o.cu_seqlens_q.shape[0] - 1;
  p.seqlen_q = o.max_seqlen_q == 0 ? total_q : min_of(o.max_seqlen_q, total_q);
  p.seqlen_kv = o.max_seqlen_kv == 0 ? total_kv : min_of(o.max_seqlen_kv, total_kv);
  return check_cu_seqlens_values(p, error);
}

attnmux_code check_length_values(const Problem& p, attnmux_error* error) {
  ATTNMUX_TRY(check_cu_seqlens_values(p, error));
  return check_key_length_values(p, error);
}

attnmux_code read_masks(const attnmux_options& o, Pointers pointers, Problem& p, attnmux_error* error) {
  if (o.conflicts != 0) {
    const int bit = std::countr_zero(o.conflicts);
    return invalid(error, ATTNMUX_MESSAGE("the mask has two masks of the kind \""
                                          << (bit < ATTNMUX_FEATURE_COUNT ? kFeatures[bit].name : "unknown")
                                          << "\"; one of each kind is accepted"));
  }
  ATTNMUX_TRY(refuse_unset_tensors(o, error));
  if ((o.set & ATTNMUX_MASK_KEY_LENGTHS) != 0) ATTNMUX_TRY(read_key_lengths(o, pointers, p, error));
  if ((o.set & ATTNMUX_MASK_KEY_PADDING) != 0) {
    constexpr const char* kName = "mask.key_padding";
    ATTNMUX_TRY(check_tensor(kName, o.key_padding, pointers, error));
    ATTNMUX_TRY(check_one_byte(kName, o.key_padding, error));
    ATTNMUX_TRY(check_rank(kName, o.key_padding, 2, "(B, Skv)", error));
    ATTNMUX_TRY(check_same_device(kName, o.key_padding, p.q, error));
    ATTNMUX_TRY(check_extent(kName, o.key_padding, 0, p.batch, "one row per sequence", error));
    ATTNMUX_TRY(check_extent(kName, o.key_padding, 1, p.seqlen_kv, "one column per key", error));
    p.key_padding = o.key_padding;
  }
  if ((o.set & ATTNMUX_MASK_DENSE) != 0) {
    ATTNMUX_TRY(check_tensor("mask.dense", o.dense_mask, pointers, error));
    ATTNMUX_TRY(check_one_byte("mask.dense", o.dense_mask, error));
    ATTNMUX_TRY(check_same_device("mask.dense", o.dense_mask, p.q, error));
    ATTNMUX_TRY(broadcast("mask.dense", o.dense_mask, p, p.dense_mask, error));
  }
  if ((o.set & ATTNMUX_BIAS) != 0) {
    ATTNMUX_TRY(check_tensor("bias", o.bias, pointers, error));
    const bool fp64 = o.bias.dtype == ATTNMUX_FP64 && p.dtype == ATTNMUX_FP64;
    if (o.bias.dtype != ATTNMUX_FP32 && o.bias.dtype != ATTNMUX_FP16 && o.bias.dtype != ATTNMUX_BF16 && !fp64) {
      return invalid(error,
                     ATTNMUX_MESSAGE("bias.dtype is " << dtype_name(o.bias.dtype) << "; accepted are fp32, fp16, bf16"
                                                      << (p.dtype == ATTNMUX_FP64 ? ", fp64" : "")
                                                      << " (a boolean mask is Mask::dense)"));
    }
    ATTNMUX_TRY(check_same_device("bias", o.bias, p.q, error));
    ATTNMUX_TRY(broadcast("bias", o.bias, p, p.bias, error));
  }
  p.features |= o.set & (ATTNMUX_MASK_KEY_LENGTHS | ATTNMUX_MASK_KEY_PADDING | ATTNMUX_MASK_DENSE | ATTNMUX_BIAS);
  return read_diagonal(o, p, error);
}

}  // namespace attnmux
