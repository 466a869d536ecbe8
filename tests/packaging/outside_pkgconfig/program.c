/* SPDX-License-Identifier: Apache-2.0 */
/* Exits with 0 if attention works from plain C11, with the C header alone. */
#include <attnmux/attnmux_c.h>
#include <stdio.h>
#include <string.h>

enum { kSeqlen = 4, kHeadDim = 8, kCount = kSeqlen * kHeadDim };

static attnmux_tensor view(float* data) {
  const attnmux_tensor tensor = {.data = data,
                                 .dtype = ATTNMUX_FP32,
                                 .device_type = ATTNMUX_CPU,
                                 .ndim = 4,
                                 .shape = {1, kSeqlen, 1, kHeadDim},
                                 .strides = {kCount, kHeadDim, kHeadDim, 1}};
  return tensor;
}

int main(void) {
  float inputs[kCount], values[kCount], outputs[kCount];
  attnmux_error error;
  attnmux_options options = {.struct_size = sizeof options, .set = ATTNMUX_MASK_CAUSAL};
  for (int i = 0; i < kCount; ++i) {
    inputs[i] = 0.5F;
    values[i] = 2.0F;
    outputs[i] = 0.0F;
  }
  const attnmux_tensor q = view(inputs), v = view(values), out = view(outputs);

  options.backend = attnmux_backend_find("flash", strlen("flash"));
  if (attnmux_attention(&q, &q, &v, &out, &options, NULL, &error) != ATTNMUX_OK) {
    puts(error.message);
    return 1;
  }
  for (int i = 0; i < kCount; ++i) {
    if (outputs[i] < 1.9999F || outputs[i] > 2.0001F) return 2;
  }
  options.struct_size = 0; /* a mistake has to be an answer */
  if (attnmux_attention(&q, &q, &v, &out, &options, NULL, &error) != ATTNMUX_INVALID_ARGUMENT) return 3;
  printf("C11, pkg-config: attnmux %s, ABI %u\n", attnmux_version(), (unsigned)attnmux_abi_version());
  return 0;
}
