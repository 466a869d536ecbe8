// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most: loops of nothing but multiply-adds, and a loop of nothing but loads. The benchmark
// divides by these. One file for every machine: each loop is compiled for its own instruction set and runs only where
// CPUID and the operating system have it.
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define EXPORT __attribute__((visibility("default")))
#if defined(__clang__)
#define UNROLL(n) _Pragma("unroll")
#define KEEP_ROLLED _Pragma("nounroll")
#else
#define PRAGMA(x) _Pragma(#x)
#define UNROLL(n) PRAGMA(GCC unroll n)
#define KEEP_ROLLED _Pragma("GCC unroll 1")
#endif

extern "C" {
// Rounds of the loop, each with a fixed number of operations; the tests know them by name.
// The accumulators hide the latency of a multiply-add on two ports: 24 of 32 registers, 12 of 16 with AVX2, 6 of 8
// tiles.
#if defined(__x86_64__)
EXPORT __attribute__((target("avx2,fma"), noinline)) void attnmux_peak_avx2_fma(int64_t rounds) {
  constexpr int kAccumulators = 12;
  __m256 acc[kAccumulators];
  __m256 a = _mm256_set1_ps(1.0F);
  __m256 b = a;
  asm volatile("" : "+x"(a), "+x"(b));  // else the compiler knows the products, and that all accumulators are one
  UNROLL(12)
  for (auto& x : acc) {
    x = _mm256_setzero_ps();
    asm volatile("" : "+x"(x));
  }
  KEEP_ROLLED
  for (int64_t i = 0; i < rounds; ++i) {
    UNROLL(12)
    for (auto& x : acc) x = _mm256_fmadd_ps(a, b, x);
  }
  UNROLL(12)
  for (auto& x : acc) asm volatile("" : : "x"(x));
}

EXPORT __attribute__((target("avx512f"), noinline)) void attnmux_peak_avx512_fma(int64_t rounds) {
  constexpr int kAccumulators = 24;
  __m512 acc[kAccumulators];
  __m512 a = _mm512_set1_ps(1.0F);
  __m512 b = a;
  asm volatile("" : "+v"(a), "+v"(b));
  UNROLL(24)
  for (auto& x : acc) {
    x = _mm512_setzero_ps();
    asm volatile("" : "+v"(x));
  }
  KEEP_ROLLED
  for (int64_t i = 0; i < rounds; ++i) {
    UNROLL(24)
    for (auto& x : acc) x = _mm512_fmadd_ps(a, b, x);
  }
  UNROLL(24)
  for (auto& x : acc) asm volatile("" : : "v"(x));
}

EXPORT __attribute__((target("avx512f,avx512bf16"), noinline)) void attnmux_peak_avx512_bf16(int64_t rounds) {
  constexpr int kAccumulators = 24;
  __m512 acc[kAccumulators];
  __m512i ones = _mm512_set1_epi16(0x3f80);  // 1 as bf16
  asm volatile("" : "+v"(ones));
  __m512bh a;
  std::memcpy(&a, &ones, sizeof(a));
  UNROLL(24)
  for (auto& x : acc) {
    x = _mm512_setzero_ps();
    asm volatile("" : "+v"(x));
  }
  KEEP_ROLLED
  for (int64_t i = 0; i < rounds; ++i) {
    UNROLL(24)
    for (auto& x : acc) x = _mm512_dpbf16_ps(x, a, a);
  }
  UNROLL(24)
  for (auto& x : acc) asm volatile("" : : "v"(x));
}

// The tiles are zero and stay so: their rate does not depend on what they hold.
EXPORT __attribute__((target("amx-tile,amx-bf16"), noinline)) void attnmux_peak_amx_bf16(int64_t rounds) {
  alignas(64) unsigned char config[64] = {1};  // palette 1; then 16-bit row lengths from byte 16, rows from byte 48
  for (int tile = 0; tile < 8; ++tile) {
    config[16 + 2 * tile] = 64;
    config[48 + tile] = 16;
  }
  asm volatile(
      "ldtilecfg %[config]\n\t"
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"
      "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7\n\t"
      "test %[rounds], %[rounds]\n\t"
      "jle 2f\n"
      "1:\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm0\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm1\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm2\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm3\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm4\n\t"
      "tdpbf16ps %%tmm7, %%tmm6, %%tmm5\n\t"
      "dec %[rounds]\n\t"
      "jnz 1b\n"
      "2:\n\t"
      "tilerelease"
      : [rounds] "+r"(rounds)
      : [config] "m"(config)
      : "memory", "cc");
}

EXPORT __attribute__((target("avx512f"), noinline)) void attnmux_read_avx512(const void* data, size_t lines) {
  constexpr int kAccumulators = 16;
  const auto* line = static_cast<const __m512i*>(data);
  __m512i acc[kAccumulators];
  UNROLL(16)
  for (auto& x : acc) x = _mm512_setzero_si512();
  for (size_t i = 0; i + kAccumulators <= lines; i += kAccumulators) {
    UNROLL(16)
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm512_or_si512(acc[j], _mm512_load_si512(line + i + j));
  }
  UNROLL(16)
  for (auto& x : acc) asm volatile("" : : "v"(x));
}

EXPORT __attribute__((target("avx2"), noinline)) void attnmux_read_avx2(const void* data, size_t lines) {
  constexpr int kAccumulators = 8;
  const auto* half = static_cast<const __m256i*>(data);
  __m256i acc[kAccumulators];
  UNROLL(8)
  for (auto& x : acc) x = _mm256_setzero_si256();
  for (size_t i = 0; i + kAccumulators <= 2 * lines; i += kAccumulators) {
    UNROLL(8)
    for (int j = 0; j < kAccumulators; ++j) acc[j] = _mm256_or_si256(acc[j], _mm256_load_si256(half + i + j));
  }
  UNROLL(8)
  for (auto& x : acc) asm volatile("" : : "x"(x));
}
#endif
}  // extern "C"

namespace {

// Words, which the compiler turns into whatever loads the baseline has.
void read_baseline(const void* data, size_t lines) {
  const auto* word = static_cast<const uint64_t*>(data);
  std::array<uint64_t, 8> acc{};
  for (size_t i = 0; i < 8 * lines; i += 8) {
    for (size_t j = 0; j < 8; ++j) acc[j] |= word[i + j];
  }
  for (const uint64_t x : acc) asm volatile("" : : "r"(x));
}

struct Peak {
  const char* name;
  void (*run)(int64_t rounds);
  double flops;  // per round
  bool usable;
};

#if defined(__x86_64__)
uint64_t xcr0() {
  uint32_t low = 0;
  uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return uint64_t{high} << 32 | low;
}

// Linux gives tiles only to processes that ask: ARCH_REQ_XCOMP_PERM of feature 18, the tile data.
bool tiles_allowed() {
#if defined(__linux__)
  return syscall(SYS_arch_prctl, 0x1023, 18) == 0;
#else
  return false;
#endif
}

struct Machine {
  bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;
  Machine() {
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx >> 27 & 1) == 0) return;  // OSXSAVE
    const bool fma = (ecx >> 12 & 1) != 0;
    const uint64_t saved = xcr0();
    if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return;
    const uint32_t subleaves = eax;
    avx2 = fma && (ebx >> 5 & 1) != 0 && (saved & 0x6) == 0x6;
    avx512 = avx2 && (ebx >> 16 & 1) != 0 && (saved & 0xe6) == 0xe6;
    const bool tiles = (edx >> 24 & 1) != 0 && (edx >> 22 & 1) != 0 && (saved & 0x60000) == 0x60000;
    amx = avx512 && tiles && tiles_allowed();
    if (subleaves >= 1 && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0)
      avx512_bf16 = avx512 && (eax >> 5 & 1) != 0;
  }
};

const Machine& machine() {
  static const Machine it;
  return it;
}

const std::vector<Peak>& peaks() {
  static const std::vector<Peak> all = {
      {"avx2_fma", attnmux_peak_avx2_fma, 12 * 8 * 2, machine().avx2},
      {"avx512_fma", attnmux_peak_avx512_fma, 24 * 16 * 2, machine().avx512},
      {"avx512_bf16", attnmux_peak_avx512_bf16, 24 * 32 * 2, machine().avx512_bf16},
      {"amx_bf16", attnmux_peak_amx_bf16, 6 * 16 * 16 * 32 * 2, machine().amx},
  };
  return all;
}
#else
const std::vector<Peak>& peaks() {
  static const std::vector<Peak> none;
  return none;
}
#endif

void read_lines(const void* data, size_t lines) {
#if defined(__x86_64__)
  if (machine().avx512) return attnmux_read_avx512(data, lines);
  if (machine().avx2) return attnmux_read_avx2(data, lines);
#endif
  read_baseline(data, lines);
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Runs body(thread) on so many threads that start together; the seconds until the last is done.
template <class Body>
double together(int threads, const Body& body) {
  std::atomic<int> waiting{threads};
  std::vector<double> ends(static_cast<size_t>(threads));
  const auto work = [&](int thread) {
    waiting.fetch_sub(1);
    while (waiting.load() > 0) {
    }
    body(thread);
    ends[static_cast<size_t>(thread)] = now();
  };
  std::vector<std::thread> others;
  others.reserve(static_cast<size_t>(threads));
  for (int thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  waiting.fetch_sub(1);
  while (waiting.load() > 0) {
  }
  const double begin = now();
  body(0);
  ends[0] = now();
  for (std::thread& other : others) other.join();
  double last = 0;
  for (const double end : ends) last = end > last ? end : last;
  return last - begin;
}

}  // namespace

extern "C" {
// The names of the peaks by index; null: no such index. Those that the machine lacks are listed and not usable.
EXPORT const char* attnmux_peak_name(int32_t index) {
  return index >= 0 && static_cast<size_t>(index) < peaks().size() ? peaks()[static_cast<size_t>(index)].name : nullptr;
}

EXPORT int32_t attnmux_peak_usable(int32_t index) {
  return attnmux_peak_name(index) != nullptr && peaks()[static_cast<size_t>(index)].usable ? 1 : 0;
}

EXPORT double attnmux_peak_flops_per_round(int32_t index) {
  return attnmux_peak_name(index) != nullptr ? peaks()[static_cast<size_t>(index)].flops : 0;
}

// Seconds for that many rounds on every one of the threads; negative: not usable.
EXPORT double attnmux_peak_seconds(int32_t index, int32_t threads, int64_t rounds) {
  if (attnmux_peak_usable(index) == 0 || threads < 1) return -1;
  const auto run = peaks()[static_cast<size_t>(index)].run;
  return together(threads, [&](int) { run(rounds); });
}

// Seconds to read `bytes` (a multiple of 1024) from `data` (at a cache line's start), shared among the threads.
EXPORT double attnmux_read_seconds(const void* data, size_t bytes, int32_t threads) {
  const auto parts = static_cast<size_t>(threads);
  const size_t kilobytes = bytes / 1024;
  return together(threads, [&](int thread) {
    const size_t first = kilobytes * static_cast<size_t>(thread) / parts;
    const size_t last = kilobytes * (static_cast<size_t>(thread) + 1) / parts;
    read_lines(static_cast<const char*>(data) + first * 1024, (last - first) * 16);
  });
}
}  // extern "C"
