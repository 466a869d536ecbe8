// SPDX-License-Identifier: Apache-2.0
#include "dispatch/features.h"

namespace attnmux {

const FeatureRow kFeatures[ATTNMUX_FEATURE_COUNT] = {
    {ATTNMUX_MASK_CAUSAL, "causal", "a causal mask"},
    {ATTNMUX_MASK_WINDOW, "window", "a sliding window"},
    {ATTNMUX_MASK_KEY_LENGTHS, "key_lengths", "key lengths"},
    {ATTNMUX_MASK_KEY_PADDING, "key_padding", "a key-padding mask"},
    {ATTNMUX_MASK_DENSE, "dense", "a dense mask"},
    {ATTNMUX_BIAS, "bias", "an additive bias"},
    {ATTNMUX_SOFTCAP, "softcap", "a softcap"},
    {ATTNMUX_SCALE, "scale", "a scale other than head_dim^-1/2"},
    {ATTNMUX_LSE, "lse", "returning the log-sum-exp"},
    {ATTNMUX_DROPOUT, "dropout", "dropout"},
    {ATTNMUX_VARLEN, "varlen", "packed sequences (cu_seqlens)"},
    {ATTNMUX_GQA, "gqa", "fewer key heads than query heads"},
    {ATTNMUX_HEAD_DIM_V, "head_dim_v", "a head_dim of v that differs from that of q"},
    {ATTNMUX_DESCALE, "descale", "descales of e4m3 tensors"},
};

}  // namespace attnmux
