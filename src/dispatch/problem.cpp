// SPDX-License-Identifier: Apache-2.0
#include "dispatch/problem.h"

#include <bit>
#include <cmath>

#include "dispatch/dtypes.h"
#include "dispatch/features.h"
#include "dispatch/problem_masks.h"
#include "dispatch/tensor_checks.h"

namespace attnmux {
namespace {

attnmux_code check_numbers(const attnmux_options& o, attnmux_error* error) {
  const auto wrong = [&](const char* name, double value, const char* accepted) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << " is " << value << "; accepted is " << accepted));
  };
  if ((o.set & ATTNMUX_SCALE) != 0 && !std::isfinite(o.scale)) return wrong("scale", o.scale, "any finite number");
  if ((o.set & ATTNMUX_SCALE) == 0 && o.scale != 0) return wrong("scale", o.scale, "0 unless ATTNMUX_SCALE is set");
  if (!std::isfinite(o.softcap) || o.softcap < 0)
    return wrong("softcap", o.softcap, "a finite number, 0 (off) or more");
  if ((o.set & ATTNMUX_SOFTCAP) == 0 && o.softcap != 0)
    return wrong("softcap", o.softcap, "0 unless ATTNMUX_SOFTCAP is set");
  if (!(o.dropout_p >= 0 && o.dropout_p < 1)) return wrong("dropout.p", o.dropout_p, "0 or more and below 1");
  if (o.dropout_p > 0 && (o.set & ATTNMUX_DROPOUT) == 0) {
    return wrong("dropout.p", o.dropout_p, "0 without a seed: dropout needs dropout.seed (C: ATTNMUX_DROPOUT set)");
  }
  if (o.dropout_offset > UINT32_MAX) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("dropout.offset is " << o.dropout_offset << "; accepted is 0 to 4294967295"));
  }
  return ATTNMUX_OK;
}

attnmux_code check_same_kind(const char* name, const attnmux_tensor& t, const attnmux_tensor& q, attnmux_error* error) {
  if (t.dtype != q.dtype) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".dtype is " << dtype_name(t.dtype) << ", q.dtype is " << dtype_name(q.dtype)
                                     << "; q, k, v and out have one dtype"));
  }
  return check_same_device(name, t, q, error);
}

// Reads the shapes of q, k and v, padded (B, S, H, D) or packed (T, H, D), into the problem.
attnmux_code read_shapes(const attnmux_tensor& q, const attnmux_tensor& k, const attnmux_tensor& v, bool packed,
                         Pointers pointers, Problem& p, attnmux_error* error) {
  const struct {
    const char* name;
    const attnmux_tensor& given;
    attnmux_tensor& canonical;
    const char* padded_shape;
    const char* packed_shape;
  } inputs[] = {
      {"q", q, p.q, "(B, Sq, Hq, D)", "(T, Hq, D), since cu_seqlens are given"},
      {"k", k, p.k, "(B, Skv, Hkv, D)", "(T, Hkv, D), since cu_seqlens are given"},
      {"v", v, p.v, "(B, Skv, Hkv, Dv)", "(T, Hkv, Dv), since cu_seqlens are given"},
  };
  for (const auto& in : inputs) {
    ATTNMUX_TRY(check_tensor(in.name, in.given, pointers, error));
    ATTNMUX_TRY(check_rank(in.name, in.given, packed ? 3 : 4, packed ? in.packed_shape : in.padded_shape, error));
    ATTNMUX_TRY(check_contiguous_last(in.name, in.given, error));
    ATTNMUX_TRY(check_same_kind(in.name, in.given, q, error));
    in.canonical = packed ? with_leading_one(in.given) : in.given;
  }
  const uint32_t floating =
      1u << ATTNMUX_FP32 | 1u << ATTNMUX_FP16 | 1u << ATTNMUX_BF16 | 1u << ATTNMUX_FP64 | 1u << ATTNMUX_E4M3;
  if ((floating >> q.dtype & 1) == 0) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("q.dtype is " << dtype_name(q.dtype) << "; accepted are fp32, fp16, bf16, fp64, e4m3"));
  }
  p.dtype = q.dtype;
  p.device_type = q.device_type;
  p.device_id = q.device_id;
  p.batch = p.q.shape[0];
  p.seqlen_q = p.q.shape[1];
  p.num_heads_q = p.q.shape[2];
  p.head_dim = p.q.shape[3];
  p.seqlen_kv = p.k.shape[1];
  p.num_heads_kv = p.k.shape[2];
  p.head_dim_v = p.v.shape[3];
  const int32_t s = packed ? 0 : 1;  // the index of the sequence dimension in the caller's tensors
  if (!packed) {
    ATTNMUX_TRY(check_extent("k", k, 0, p.batch, "the batch of q", error));
    ATTNMUX_TRY(check_extent("v", v, 0, p.batch, "the batch of q", error));
  }
  ATTNMUX_TRY(check_extent("k", k, s + 2, p.head_dim, "head_dim of q", error));
  ATTNMUX_TRY(check_extent("v", v, s, p.seqlen_kv, "as many values as keys", error));
  ATTNMUX_TRY(check_extent("v", v, s + 1, p.num_heads_kv, "heads of k", error));
  if (p.head_dim == 0)
    return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("head_dim of q is 0; it must be 1 or more"));
  if (p.head_dim_v == 0)
    return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("head_dim of v is 0; it must be 1 or more"));
  if (p.num_heads_q > 0 && (p.num_heads_kv == 0 || p.num_heads_q % p.num_heads_kv != 0)) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("q has " << p.num_heads_q << " heads and k has " << p.num_heads_kv
                                         << "; the heads of q must be a multiple of those of k"));
  }
  if (p.num_heads_q != p.num_heads_kv) p.features |= ATTNMUX_GQA;
  if (p.head_dim != p.head_dim_v) p.features |= ATTNMUX_HEAD_DIM_V;
  return ATTNMUX_OK;
}

attnmux_code read_out(const attnmux_tensor& out, bool packed, Pointers pointers, Problem& p, attnmux_error* error) {
  ATTNMUX_TRY(check_tensor("out", out, pointers, error));
  ATTNMUX_TRY(check_rank("out", out, packed ? 3 : 4,
                         packed ? "(T, Hq, Dv), since cu_seqlens are given" : "(B, Sq, Hq, Dv)", error));
  ATTNMUX_TRY(check_contiguous_last("out", out, error));
  if (p.dtype != ATTNMUX_E4M3) {
    ATTNMUX_TRY(check_same_kind("out", out, p.q, error));
  } else {
    if (out.dtype != ATTNMUX_BF16) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("out.dtype is " << dtype_name(out.dtype) << "; accepted for e4m3 inputs is bf16"));
    }
    ATTNMUX_TRY(check_same_device("out", out, p.q, error));
  }
  p.out = packed ? with_leading_one(out) : out;
  const int32_t s = packed ? 0 : 1;
  if (!packed) ATTNMUX_TRY(check_extent("out", out, 0, p.q.shape[0], "the batch of q", error));
  ATTNMUX_TRY(check_extent("out", out, s, p.q.shape[1], "rows of q", error));
  ATTNMUX_TRY(check_extent("out", out, s + 1, p.num_heads_q, "heads of q", error));
  ATTNMUX_TRY(check_extent("out", out, s + 2, p.head_dim_v, "head_dim of v", error));
  return check_writable("out", out, error);
}

attnmux_code read_lse(const attnmux_options& o, bool packed, Pointers pointers, Problem& p, attnmux_error* error) {
  if ((o.set & ATTNMUX_LSE) == 0) return ATTNMUX_OK;
  const attnmux_tensor& lse = o.lse;
  ATTNMUX_TRY(check_tensor("lse", lse, pointers, error));
  if (lse.dtype != ATTNMUX_FP32) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("lse.dtype is " << dtype_name(lse.dtype) << "; accepted is fp32"));
  }
  ATTNMUX_TRY(
      check_rank("lse", lse, packed ? 2 : 3, packed ? "(Hq, T), since cu_seqlens are given" : "(B, Hq, Sq)", error));
  ATTNMUX_TRY(check_same_device("lse", lse, p.q, error));
  const int32_t h = packed ? 0 : 1;
  if (!packed) ATTNMUX_TRY(check_extent("lse", lse, 0, p.q.shape[0], "the batch of q", error));
  ATTNMUX_TRY(check_extent("lse", lse, h, p.num_heads_q, "heads of q", error));
  ATTNMUX_TRY(check_extent("lse", lse, h + 1, p.q.shape[1], "rows of q", error));
  p.lse = packed ? with_leading_one(lse) : lse;
  p.features |= ATTNMUX_LSE;
  return check_writable("lse", lse, error);
}

attnmux_code read_descales(const attnmux_options& o, Pointers pointers, Problem& p, attnmux_error* error) {
  if ((o.set & ATTNMUX_DESCALE) == 0) return ATTNMUX_OK;
  const struct {
    const char* name;
    const attnmux_tensor& given;
    attnmux_tensor& canonical;
  } factors[] = {{"descale.q", o.q_descale, p.q_descale},
                 {"descale.k", o.k_descale, p.k_descale},
                 {"descale.v", o.v_descale, p.v_descale}};
  if (p.dtype != ATTNMUX_E4M3) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("descale is given, and q.dtype is " << dtype_name(p.dtype)
                                                                    << "; descales are for e4m3 tensors"));
  }
  for (const auto& factor : factors) {
    if (factor.given.dtype == 0) continue;
    ATTNMUX_TRY(check_tensor(factor.name, factor.given, pointers, error));
    if (factor.given.dtype != ATTNMUX_FP32) {
      return fail(
          error, ATTNMUX_INVALID_ARGUMENT,
          ATTNMUX_MESSAGE(factor.name << ".dtype is " << dtype_name(factor.given.dtype) << "; accepted is fp32"));
    }
    ATTNMUX_TRY(check_rank(factor.name, factor.given, 2, "(B, Hkv)", error));
    ATTNMUX_TRY(check_same_device(factor.name, factor.given, p.q, error));
    ATTNMUX_TRY(check_extent(factor.name, factor.given, 0, p.batch, "one row per sequence", error));
    ATTNMUX_TRY(check_extent(factor.name, factor.given, 1, p.num_heads_kv, "heads of k", error));
    factor.canonical = factor.given;
  }
  p.features |= ATTNMUX_DESCALE;
  return ATTNMUX_OK;
}

attnmux_code check_overlaps(const Problem& p, attnmux_error* error) {
  const struct {
    const char* name;
    const attnmux_tensor& t;
  } outputs[] = {{"out", p.out}, {"lse", p.lse}}, inputs[] = {{"q", p.q},
                                                              {"k", p.k},
                                                              {"v", p.v},
                                                              {"mask.key_lengths", p.key_lengths},
                                                              {"mask.key_padding", p.key_padding},
                                                              {"mask.dense", p.dense_mask},
                                                              {"bias", p.bias},
                                                              {"varlen.cu_seqlens_q", p.cu_seqlens_q},
                                                              {"varlen.cu_seqlens_kv", p.cu_seqlens_kv},
                                                              {"descale.q", p.q_descale},
                                                              {"descale.k", p.k_descale},
                                                              {"descale.v", p.v_descale}};
  const auto refuse_pair = [&](const char* a, const char* b) {
    return fail(
        error, ATTNMUX_INVALID_ARGUMENT,
        ATTNMUX_MESSAGE(a << " overlaps " << b << " in memory; an output must not share memory with another argument"));
  };
  for (const auto& output : outputs) {
    if (!given(output.t)) continue;
    for (const auto& input : inputs) {
      if (given(input.t) && overlaps(output.t, input.t)) return refuse_pair(output.name, input.name);
    }
  }
  if (given(p.lse) && given(p.out) && overlaps(p.out, p.lse)) return refuse_pair("out", "lse");
  return ATTNMUX_OK;
}

attnmux_code make(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v, const attnmux_tensor* out,
                  const attnmux_options& o, Pointers pointers, Problem& p, attnmux_error* error) {
  if (q == nullptr || k == nullptr || v == nullptr) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE((q == nullptr   ? "q"
                                 : k == nullptr ? "k"
                                                : "v")
                                << " is a null pointer; a tensor is needed"));
  }
  p = Problem{};
  p.struct_size = sizeof(p);
  ATTNMUX_TRY(check_numbers(o, error));
  const bool packed = (o.set & ATTNMUX_VARLEN) != 0;
  ATTNMUX_TRY(read_shapes(*q, *k, *v, packed, pointers, p, error));
  if (packed) ATTNMUX_TRY(read_varlen(o, pointers, p, error));
  if (out != nullptr) {
    ATTNMUX_TRY(read_out(*out, packed, pointers, p, error));
    ATTNMUX_TRY(read_lse(o, packed, pointers, p, error));
  }
  ATTNMUX_TRY(read_masks(o, pointers, p, error));
  ATTNMUX_TRY(read_descales(o, pointers, p, error));
  p.features |= o.set & (ATTNMUX_SCALE | ATTNMUX_VARLEN);
  p.scale = (o.set & ATTNMUX_SCALE) != 0 ? o.scale : 1.0 / std::sqrt(static_cast<double>(p.head_dim));
  if (o.softcap > 0) {
    p.features |= ATTNMUX_SOFTCAP;
    p.softcap = o.softcap;
  }
  if (o.dropout_p > 0) {
    if (p.seqlen_q > UINT32_MAX || p.seqlen_kv / 4 > UINT32_MAX || p.batch > UINT32_MAX ||
        p.num_heads_q > UINT32_MAX / max_of(p.batch, 1)) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE("dropout.p is "
                                  << o.dropout_p
                                  << ": dropout counts queries and heads in 32 bits, and this problem has more"));
    }
    p.features |= ATTNMUX_DROPOUT;
    p.dropout_p = o.dropout_p;
    p.dropout_seed = o.dropout_seed;
    p.dropout_offset = o.dropout_offset;
  }
  return out == nullptr ? ATTNMUX_OK : check_overlaps(p, error);
}

}  // namespace

attnmux_code read_options(const attnmux_options* given_options, const attnmux_options*& options, attnmux_error* error) {
  if (given_options == nullptr) {
    static constexpr attnmux_options kNone = [] {
      attnmux_options none{};
      none.struct_size = sizeof(none);
      return none;
    }();
    options = &kNone;
    return ATTNMUX_OK;
  }
  ATTNMUX_TRY(check_struct("options", given_options, given_options->struct_size, sizeof(attnmux_options), error));
  const attnmux_options& o = *given_options;
  if (const uint64_t unknown = o.set & ~kSettable; unknown != 0) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("options.set has bit "
                                << std::countr_zero(unknown)
                                << ", which this version does not know or which is seen from the shapes"));
  }
  if (o.reserved[0] != 0 || o.reserved[1] != 0 || o.reserved[2] != 0) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("options.reserved is not zero; this version knows no such field"));
  }
  if (o.layer_role[sizeof(o.layer_role) - 1] != 0) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE("layer.role starts with \"" << std::string_view(o.layer_role, sizeof(o.layer_role))
                                                            << "\"; a role has at most 15 characters"));
  }
  options = given_options;
  return ATTNMUX_OK;
}

attnmux_code make_problem(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                          const attnmux_tensor* out, const attnmux_options& options, Pointers pointers,
                          Problem& problem, attnmux_error* error) {
  if (out == nullptr)
    return fail(error, ATTNMUX_INVALID_ARGUMENT, ATTNMUX_MESSAGE("out is a null pointer; a tensor is needed"));
  return make(q, k, v, out, options, pointers, problem, error);
}

attnmux_code make_problem_without_output(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                         const attnmux_options& options, Problem& problem, attnmux_error* error) {
  return make(q, k, v, nullptr, options, Pointers::kRequired, problem, error);
}

}  // namespace attnmux
