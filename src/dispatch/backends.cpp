// SPDX-License-Identifier: Apache-2.0
// THE table: one line per backend name with its kernels in order of preference.
#include "dispatch/backends.h"

#include "kernels/cpu/flash/flash.h"
#include "kernels/cpu/math/math.h"
#ifdef ATTNMUX_HAS_CUDA
#include "kernels/cuda/efficient/efficient.h"
#include "kernels/cuda/flash/sm80.h"
#include "kernels/cuda/flash/sm90.h"
#include "kernels/cuda/math/math.h"
#endif
#ifdef ATTNMUX_HAS_CUDNN
#include "kernels/cuda/cudnn/cudnn.h"
#endif

namespace attnmux {

#define CPU_FLASH &kCpuFlashAmx, &kCpuFlashAvx512Bf16, &kCpuFlashAvx512, &kCpuFlashAvx2, &kCpuFlashBaseline
#ifdef ATTNMUX_HAS_CUDA
#define CUDA_FLASH , &kCudaFlashSm80
#define CUDA_FLASH_3 &kCudaFlashSm90
#define CUDA_FASTEST , &kCudaFlashSm90, &kCudaFlashSm80
#define NO_CUDA_FLASH_3(other) ""
#define CUDA_EFFICIENT , &kCudaEfficient
#define CUDA_MATH , &kCudaMath
#define NO_CUDA "this version has no kernel for it"
#else
#define CUDA_FLASH
#define CUDA_FLASH_3
#define CUDA_FASTEST
#define NO_CUDA_FLASH_3(other) "it needs a Hopper GPU (sm90a), and this build has no CUDA kernels; use \"" other "\""
#define CUDA_EFFICIENT
#define CUDA_MATH
#define NO_CUDA "this build has no CUDA kernels"
#endif
#ifdef ATTNMUX_HAS_CUDNN
#define CUDA_CUDNN &kCudaCudnn
#define NO_CUDA_CUDNN ""
#elif defined(ATTNMUX_HAS_CUDA)
#define CUDA_CUDNN
#define NO_CUDA_CUDNN "this build has no cuDNN kernel (tools/fetch_cudnn_headers fetches what it is compiled with)"
#else
#define CUDA_CUDNN
#define NO_CUDA_CUDNN NO_CUDA "; use \"_native_flash\""
#endif

// clang-format off
constexpr BackendRow kBackends[kBackendNames.size()] = {
  // name                            family      promise                                                              why it is missing                                                             kernels
  {"native",                         "native",   "the default: the best of the native family for this problem, by rule", "",                                                                        {CPU_FLASH, &kCpuMath CUDA_FASTEST CUDA_EFFICIENT CUDA_MATH}, true, "", true},
  {"_native_math",                   "native",   "plain softmax(QKᵀ)V: any argument, any shape; materialises scores",    "",                                                                        {&kCpuMath CUDA_MATH}},
  {"_native_flash",                  "native",   "fused and tiled: no score matrix in memory",                           "",                                                                        {CPU_FLASH CUDA_FASTEST}, false, "", true},
  {"_native_efficient",              "native",   "fused, with masks and biases of any shape, fp32 too, any head_dim",    "",                                                                        {CPU_FLASH CUDA_FLASH CUDA_EFFICIENT CUDA_MATH}},
  {"_native_cudnn",                  "native",   "cuDNN's fused attention graph",                                        NO_CUDA_CUDNN,                                                             {CUDA_CUDNN}, false, "\"_native_flash\" needs no cuDNN, and runs on the CPU too"},
  {"_native_xla",                    "native",   "attention compiled by XLA through the PJRT C API",                     "this build has no PJRT loader; use \"native\"",                           {}},
  {"_native_npu",                    "native",   "the NPU vendor's fused attention",                                     "this build has no NPU provider; use \"native\"",                          {}},
  {"flex",                           "flex",     "user-defined score and mask functions with block sparsity",            "this build has no flex kernels; use a typed mask with \"native\"",        {}},
  {"flash",                          "flash",    "FlashAttention-2: tiling and recomputation",                           "",                                                                        {CPU_FLASH CUDA_FLASH}},
  {"flash_varlen",                   "flash",    "FlashAttention-2 on packed sequences",                                 "",                                                                        {CPU_FLASH CUDA_FLASH}},
  {"_flash_3",                       "flash",    "FlashAttention-3: TMA, wgmma, warp specialization",                    NO_CUDA_FLASH_3("flash"),                                                  {CUDA_FLASH_3}, false, "it is for Hopper GPUs (sm90a); \"flash\" runs on others and on the CPU"},
  {"_flash_varlen_3",                "flash",    "FlashAttention-3 on packed sequences",                                 NO_CUDA_FLASH_3("flash_varlen"),                                           {CUDA_FLASH_3}, false, "it is for Hopper GPUs (sm90a); \"flash_varlen\" runs on others and on the CPU"},
  {"_flash_3_hub",                   "flash",    "FlashAttention-3 from a prebuilt kernel package of the Hub",           "this build has no loader for Hub packages; use \"flash\"",                {}},
  {"sage",                           "sage",     "SageAttention: INT8 QKᵀ with K smoothing",                             "this build has no sage kernels; use \"native\"",                          {}},
  {"sage_varlen",                    "sage",     "SageAttention on packed sequences",                                    "this build has no sage kernels; use \"flash_varlen\"",                    {}},
  {"_sage_qk_int8_pv_fp16_cuda",     "sage",     "INT8 QKᵀ, fp16 PV, CUDA",                                              "it needs an NVIDIA GPU (sm80 or newer), and " NO_CUDA "; use \"native\"", {}},
  {"_sage_qk_int8_pv_fp16_triton",   "sage",     "INT8 QKᵀ, fp16 PV, compiled by Triton ahead of time",                  "it needs an NVIDIA GPU (sm80 or newer), and " NO_CUDA "; use \"native\"", {}},
  {"_sage_qk_int8_pv_fp8_cuda",      "sage",     "INT8 QKᵀ, fp8 PV, CUDA",                                               "it needs an NVIDIA GPU (sm89 or newer), and " NO_CUDA "; use \"native\"", {}},
  {"_sage_qk_int8_pv_fp8_cuda_sm90", "sage",     "INT8 QKᵀ, fp8 PV on wgmma",                                            "it needs a Hopper GPU (sm90a), and " NO_CUDA "; use \"native\"",          {}},
  {"xformers",                       "xformers", "memory-efficient attention",                                           "",                                                                        {CPU_FLASH CUDA_FLASH CUDA_EFFICIENT CUDA_MATH}},
  {"auto",                           "auto",     "whichever measured fastest for this problem on this machine",          "choosing by measurement is not in this version; use \"native\"",          {}},
};
// clang-format on
#undef CPU_FLASH
#undef CUDA_FLASH
#undef CUDA_FLASH_3
#undef CUDA_FASTEST
#undef NO_CUDA_FLASH_3
#undef CUDA_EFFICIENT
#undef CUDA_MATH
#undef CUDA_CUDNN
#undef NO_CUDA_CUDNN
#undef NO_CUDA

consteval bool table_follows_names() {
  for (size_t i = 0; i < kBackendNames.size(); ++i) {
    if (kBackendNames[i] != kBackends[i].name) return false;
  }
  return true;
}
static_assert(table_follows_names(), "a row of the table per name in include/attnmux/backend.h, in the same order");

#ifdef ATTNMUX_HAS_CUDA
namespace {

// Measured on an H200 (benchmarks/gpu.py). Below so many rows per kv head (queries times the heads that share it) a
// call waits for K and V alone, and cuda_flash_sm80 puts the pieces of its tiles together sooner, unless heads share
// many keys. A dense mask of every head's own is read as it lies by cuda_flash_sm80, and first made into bits by the
// other.
constexpr int64_t kFewRows = 16, kManyKeys = 4096;

bool ampere_is_faster(const Problem& p) {
  const int64_t shared_by = p.num_heads_q / p.num_heads_kv;
  const bool few = p.seqlen_q * shared_by < kFewRows && (shared_by == 1 || p.seqlen_kv < kManyKeys);
  return few || (given(p.dense_mask) && p.dense_mask.strides[1] != 0);
}

}  // namespace
#endif

const Kernel* faster_kernel(const BackendRow& row, const Kernel& kernel, const Problem& problem) {
#ifdef ATTNMUX_HAS_CUDA
  if (row.by_speed && &kernel == &kCudaFlashSm90 && ampere_is_faster(problem)) return &kCudaFlashSm80;
#endif
  (void)row;
  (void)kernel;
  (void)problem;
  return nullptr;
}

}  // namespace attnmux
