// SPDX-License-Identifier: Apache-2.0
// Matrix products of a warpgroup (four warps), sm90a. PTX ISA, "Asynchronous Warpgroup Level Matrix Multiply-Accumulate
// Instructions".
//
// The product of m64nNk16 is d[4i + {0, 1}] = row 16·warp + lane/4, columns 8i + 2(lane%4) + {0, 1}, and d[4i + {2, 3}]
// the row 8 further ("Matrix Fragments for wgmma.mma_async.m64nNk16").
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace attnmux::ptx {
namespace {

// "Matrix Descriptor Format": tiles in shared memory whose rows of 128 bytes are swizzled, eight rows to 1024 bytes.
// The address is in units of 16 bytes, so that adding to a descriptor moves it. `leading` is the distance of 64-column
// groups where columns are contiguous in a transposed factor; a factor that is contiguous along k does not use it. In a
// cluster, addresses have the block's rank above their lowest 24 bits, which is no part of a descriptor.
__device__ inline uint64_t matrix_descriptor(uint32_t shared_address, uint32_t leading_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kEightRows = uint64_t{1024 / 16} << 32;
  return kSwizzle128 | kEightRows | uint64_t{leading_bytes / 16} << 16 | (shared_address & 0x3FFFF) / 16;
}

// "wgmma.fence": before the first product that touches registers which other instructions wrote.
__device__ inline void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ inline void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` committed groups are under way.
template <int pending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}

// Results of asynchronous products are read after this, and not before: it stands behind the wait.
template <int kCount>
__device__ inline void pin(float (&d)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// "wgmma.mma_async": d = a·b, or d += a·b with accumulate. Both factors by descriptor, contiguous along k.
template <typename T, int kN>
__device__ inline void wgmma_shared(float (&d)[kN / 2], uint64_t a, uint64_t b, bool accumulate);

// d += a·b, with b contiguous along its columns.
template <typename T, int kN>
__device__ inline void wgmma_shared_columns(float (&d)[kN / 2], uint64_t a, uint64_t b);

// The same with a in registers, as mma_m16n8k16 of the warp's 16 rows.
template <typename T, int kN>
__device__ inline void wgmma_registers(float (&d)[kN / 2], const uint32_t (&a)[4], uint64_t b);

// Operands of the instructions: eight more registers a line.
// clang-format off
#define ATTNMUX_NAMES_1 "%0, %1, %2, %3, %4, %5, %6, %7"
#define ATTNMUX_NAMES_2 ATTNMUX_NAMES_1 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define ATTNMUX_NAMES_3 ATTNMUX_NAMES_2 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define ATTNMUX_NAMES_4 ATTNMUX_NAMES_3 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define ATTNMUX_NAMES_5 ATTNMUX_NAMES_4 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define ATTNMUX_NAMES_6 ATTNMUX_NAMES_5 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define ATTNMUX_NAMES_7 ATTNMUX_NAMES_6 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define ATTNMUX_NAMES_8 ATTNMUX_NAMES_7 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define ATTNMUX_NAMES_9 ATTNMUX_NAMES_8 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define ATTNMUX_NAMES_10 ATTNMUX_NAMES_9 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define ATTNMUX_NAMES_11 ATTNMUX_NAMES_10 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define ATTNMUX_NAMES_12 ATTNMUX_NAMES_11 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define ATTNMUX_NAMES_13 ATTNMUX_NAMES_12 ", %96, %97, %98, %99, %100, %101, %102, %103"
#define ATTNMUX_NAMES_14 ATTNMUX_NAMES_13 ", %104, %105, %106, %107, %108, %109, %110, %111"
#define ATTNMUX_NAMES_15 ATTNMUX_NAMES_14 ", %112, %113, %114, %115, %116, %117, %118, %119"
#define ATTNMUX_NAMES_16 ATTNMUX_NAMES_15 ", %120, %121, %122, %123, %124, %125, %126, %127"
#define ATTNMUX_OPERANDS_1 "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7])
#define ATTNMUX_OPERANDS_2 ATTNMUX_OPERANDS_1, "+f"(d[8]), "+f"(d[9]), "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15])
#define ATTNMUX_OPERANDS_3 ATTNMUX_OPERANDS_2, "+f"(d[16]), "+f"(d[17]), "+f"(d[18]), "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23])
#define ATTNMUX_OPERANDS_4 ATTNMUX_OPERANDS_3, "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]), "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
#define ATTNMUX_OPERANDS_5 ATTNMUX_OPERANDS_4, "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]), "+f"(d[37]), "+f"(d[38]), "+f"(d[39])
#define ATTNMUX_OPERANDS_6 ATTNMUX_OPERANDS_5, "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]), "+f"(d[46]), "+f"(d[47])
#define ATTNMUX_OPERANDS_7 ATTNMUX_OPERANDS_6, "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]), "+f"(d[55])
#define ATTNMUX_OPERANDS_8 ATTNMUX_OPERANDS_7, "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
#define ATTNMUX_OPERANDS_9 ATTNMUX_OPERANDS_8, "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71])
#define ATTNMUX_OPERANDS_10 ATTNMUX_OPERANDS_9, "+f"(d[72]), "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79])
#define ATTNMUX_OPERANDS_11 ATTNMUX_OPERANDS_10, "+f"(d[80]), "+f"(d[81]), "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87])
#define ATTNMUX_OPERANDS_12 ATTNMUX_OPERANDS_11, "+f"(d[88]), "+f"(d[89]), "+f"(d[90]), "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95])
#define ATTNMUX_OPERANDS_13 ATTNMUX_OPERANDS_12, "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]), "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103])
#define ATTNMUX_OPERANDS_14 ATTNMUX_OPERANDS_13, "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]), "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111])
#define ATTNMUX_OPERANDS_15 ATTNMUX_OPERANDS_14, "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]), "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119])
#define ATTNMUX_OPERANDS_16 ATTNMUX_OPERANDS_15, "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]), "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
// clang-format on

// n columns in `eights` eights of registers; then the numbers of the operands that follow.
#define ATTNMUX_WGMMA(T, type, n, eights, r0, r1, r2, r3, r4)                                                \
  template <>                                                                                                \
  __device__ inline void wgmma_shared<T, n>(float(&d)[n / 2], uint64_t a, uint64_t b, bool accumulate) {     \
    asm volatile("{\n.reg .pred more;\nsetp.ne.b32 more, %" #r2                                              \
                 ", 0;\n"                                                                                    \
                 "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" ATTNMUX_NAMES_##eights \
                 "}, %" #r0 ", %" #r1 ", more, 1, 1, 0, 0;\n}\n"                                             \
                 : ATTNMUX_OPERANDS_##eights                                                                 \
                 : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)));                                       \
  }                                                                                                          \
  template <>                                                                                                \
  __device__ inline void wgmma_shared_columns<T, n>(float(&d)[n / 2], uint64_t a, uint64_t b) {              \
    asm volatile(                                                                                            \
        "{\n.reg .pred more;\nsetp.ne.b32 more, 1, 0;\n"                                                     \
        "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" ATTNMUX_NAMES_##eights          \
        "}, %" #r0 ", %" #r1 ", more, 1, 1, 0, 1;\n}\n"                                                      \
        : ATTNMUX_OPERANDS_##eights                                                                          \
        : "l"(a), "l"(b));                                                                                   \
  }                                                                                                          \
  template <>                                                                                                \
  __device__ inline void wgmma_registers<T, n>(float(&d)[n / 2], const uint32_t(&a)[4], uint64_t b) {        \
    asm volatile(                                                                                            \
        "{\n.reg .pred more;\nsetp.ne.b32 more, 1, 0;\n"                                                     \
        "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32." type "." type " {" ATTNMUX_NAMES_##eights          \
        "}, {%" #r0 ", %" #r1 ", %" #r2 ", %" #r3 "}, %" #r4 ", more, 1, 1, 1;\n}\n"                         \
        : ATTNMUX_OPERANDS_##eights                                                                          \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                               \
  }
#define ATTNMUX_WGMMA_TYPES(...)                    \
  ATTNMUX_WGMMA(__nv_bfloat16, "bf16", __VA_ARGS__) \
  ATTNMUX_WGMMA(__half, "f16", __VA_ARGS__)

ATTNMUX_WGMMA_TYPES(32, 2, 16, 17, 18, 19, 20)
ATTNMUX_WGMMA_TYPES(48, 3, 24, 25, 26, 27, 28)
ATTNMUX_WGMMA_TYPES(64, 4, 32, 33, 34, 35, 36)
ATTNMUX_WGMMA_TYPES(80, 5, 40, 41, 42, 43, 44)
ATTNMUX_WGMMA_TYPES(96, 6, 48, 49, 50, 51, 52)
ATTNMUX_WGMMA_TYPES(112, 7, 56, 57, 58, 59, 60)
ATTNMUX_WGMMA_TYPES(128, 8, 64, 65, 66, 67, 68)
ATTNMUX_WGMMA_TYPES(144, 9, 72, 73, 74, 75, 76)
ATTNMUX_WGMMA_TYPES(160, 10, 80, 81, 82, 83, 84)
ATTNMUX_WGMMA_TYPES(176, 11, 88, 89, 90, 91, 92)
ATTNMUX_WGMMA_TYPES(192, 12, 96, 97, 98, 99, 100)
ATTNMUX_WGMMA_TYPES(208, 13, 104, 105, 106, 107, 108)
ATTNMUX_WGMMA_TYPES(224, 14, 112, 113, 114, 115, 116)
ATTNMUX_WGMMA_TYPES(256, 16, 128, 129, 130, 131, 132)

#undef ATTNMUX_WGMMA_TYPES
#undef ATTNMUX_WGMMA

}  // namespace
}  // namespace attnmux::ptx
