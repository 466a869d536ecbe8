// SPDX-License-Identifier: Apache-2.0
#include "dispatch/tensor_checks.h"

#include <algorithm>
#include <utility>

#include "dispatch/dtypes.h"

namespace attnmux {
namespace {

// Sums and products of extents and strides that may not fit 64 bits.
__extension__ typedef __int128 Wide;

// What an x86-64 or aarch64 process can address. A larger tensor cannot exist, and below it the sizes that kernels
// compute do not overflow.
constexpr int64_t kMaxBytes = int64_t{1} << 47;

// Bytes from the lowest to one past the highest element, relative to the data pointer.
struct ByteRange {
  int64_t low, high;
};

// False if the range is larger than an address space. Nothing overflows: what is added up stays below 2^49.
bool byte_range(const attnmux_tensor& t, ByteRange& range) {
  const int64_t size = dtype_row(t.dtype).size;
  range = {0, size};
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] == 0) {
      range = {0, 0};
      return true;
    }
  }
  for (int32_t i = 0; i < t.ndim; ++i) {
    int64_t reach = 0;
    if (__builtin_mul_overflow(t.shape[i] - 1, t.strides[i], &reach) || __builtin_mul_overflow(reach, size, &reach))
      return false;
    (reach < 0 ? range.low : range.high) += reach;
    if (range.low < -kMaxBytes || range.high > kMaxBytes) return false;
  }
  return true;
}

// Where a tensor lies modulo `period`: dimensions whose stride is a multiple of it do not move. False if the rest fills
// more than one period.
bool residue(const attnmux_tensor& t, int64_t period, int64_t& begin, int64_t& length) {
  const int64_t size = dtype_row(t.dtype).size;
  Wide low = 0, high = size;
  for (int32_t i = 0; i < t.ndim; ++i) {
    const Wide step = static_cast<Wide>(t.strides[i]) * size;
    if (t.shape[i] <= 1 || step % period == 0) continue;
    const Wide reach = step * (t.shape[i] - 1);
    (reach < 0 ? low : high) += reach;
  }
  if (high - low > period) return false;
  const auto address = static_cast<Wide>(reinterpret_cast<uintptr_t>(t.data)) + low;
  begin = static_cast<int64_t>(address % period);
  length = static_cast<int64_t>(high - low);
  return true;
}

bool disjoint_modulo(const attnmux_tensor& a, const attnmux_tensor& b, int64_t period) {
  int64_t a0 = 0, an = 0, b0 = 0, bn = 0;
  if (!residue(a, period, a0, an) || !residue(b, period, b0, bn)) return false;
  const int64_t from_a = (b0 - a0 + period) % period, from_b = (a0 - b0 + period) % period;
  return from_a >= an && from_b >= bn;
}

}  // namespace

int64_t num_elements(const attnmux_tensor& t) {
  int64_t n = 1;
  for (int32_t i = 0; i < t.ndim; ++i) n *= t.shape[i];
  return n;
}

attnmux_code check_tensor(const char* name, const attnmux_tensor& t, Pointers pointers, attnmux_error* error) {
  if (!is_dtype(t.dtype)) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".dtype is " << t.dtype << "; accepted are 1 (fp32) to "
                                     << ATTNMUX_DTYPE_COUNT - 1 << " (e4m3)"));
  }
  if (t.ndim < 0 || t.ndim > 4) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                t.ndim == -1 ? ATTNMUX_MESSAGE(name << " has another number of strides than of extents")
                             : ATTNMUX_MESSAGE(name << " has " << t.ndim << " dimensions; accepted are up to 4"));
  }
  if (t.device_type != ATTNMUX_CPU && t.device_type != ATTNMUX_CUDA) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".device_type is " << t.device_type << "; accepted are 1 (cpu) and 2 (cuda)"));
  }
  if (t.device_id < 0 || (t.device_type == ATTNMUX_CPU && t.device_id != 0)) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".device_id is " << t.device_id << "; accepted is "
                                     << (t.device_type == ATTNMUX_CPU ? "0 on the cpu" : "0 or more")));
  }
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] < 0) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE(name << ".shape[" << i << "] is " << t.shape[i] << "; it must be 0 or more"));
    }
  }
  const int64_t size = dtype_row(t.dtype).size;
  int64_t bytes = size;
  bool empty = false;
  for (int32_t i = 0; i < t.ndim; ++i) {
    empty = empty || t.shape[i] == 0;
    // The product of all extents but the zero ones: a shape that overflows is wrong, empty or not.
    if (__builtin_mul_overflow(bytes, std::max<int64_t>(t.shape[i], 1), &bytes) || bytes > kMaxBytes) {
      return fail(error, ATTNMUX_INVALID_ARGUMENT,
                  ATTNMUX_MESSAGE(name << " has shape " << Shape{t}
                                       << ": the product of its extents overflows an address space of 2^47 bytes"));
    }
  }
  if (empty) return ATTNMUX_OK;
  if (ByteRange range; !byte_range(t, range)) {
    return fail(
        error, ATTNMUX_INVALID_ARGUMENT,
        ATTNMUX_MESSAGE(name << " has strides that reach over more than an address space, 2^47 bytes of 64 bits"));
  }
  if (t.data == nullptr) {
    if (pointers == Pointers::kOptional) return ATTNMUX_OK;
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".data is null; null pointers are accepted by plan and explain only"));
  }
  if (reinterpret_cast<uintptr_t>(t.data) % static_cast<uintptr_t>(size) != 0) {
    return fail(error, ATTNMUX_INVALID_ARGUMENT,
                ATTNMUX_MESSAGE(name << ".data is not aligned to its elements of " << size << " bytes"));
  }
  return ATTNMUX_OK;
}

attnmux_code refuse_rank(const char* name, const attnmux_tensor& t, const char* accepted, attnmux_error* error) {
  return fail(error, ATTNMUX_INVALID_ARGUMENT,
              ATTNMUX_MESSAGE(name << " has shape " << Shape{t} << " with " << t.ndim << " dimensions; accepted is "
                                   << accepted));
}

attnmux_code refuse_extent(const char* name, const attnmux_tensor& t, int32_t dim, int64_t expected, const char* why,
                           attnmux_error* error) {
  return fail(error, ATTNMUX_INVALID_ARGUMENT,
              ATTNMUX_MESSAGE(name << " has shape " << Shape{t} << ": extent " << dim << " is " << t.shape[dim]
                                   << ", it must be " << expected << " (" << why << ")"));
}

attnmux_code refuse_last_stride(const char* name, const attnmux_tensor& t, attnmux_error* error) {
  const int32_t last = t.ndim - 1;
  return fail(error, ATTNMUX_INVALID_ARGUMENT,
              ATTNMUX_MESSAGE(name << ".strides[" << last << "] is " << t.strides[last]
                                   << "; the last dimension must be contiguous (stride 1)"));
}

attnmux_code check_writable(const char* name, const attnmux_tensor& t, attnmux_error* error) {
  int32_t order[4] = {0, 1, 2, 3};
  for (int32_t i = 1; i < t.ndim; ++i) {  // by rising stride
    for (int32_t j = i; j > 0 && t.strides[order[j]] < t.strides[order[j - 1]]; --j) std::swap(order[j], order[j - 1]);
  }
  Wide reach = 1;  // elements that the dimensions so far cover
  for (int32_t i = 0; i < t.ndim; ++i) {
    const int32_t dim = order[i];
    if (t.shape[dim] == 0) return ATTNMUX_OK;
  }
  for (int32_t i = 0; i < t.ndim; ++i) {
    const int32_t dim = order[i];
    if (t.shape[dim] == 1) continue;
    if (t.strides[dim] < reach) {
      return fail(
          error, ATTNMUX_INVALID_ARGUMENT,
          ATTNMUX_MESSAGE(name << ".strides[" << dim << "] is " << t.strides[dim]
                               << ": elements of an output must not share memory, and its strides must be positive"));
    }
    reach += static_cast<Wide>(t.shape[dim] - 1) * t.strides[dim];
  }
  return ATTNMUX_OK;
}

bool overlaps(const attnmux_tensor& a, const attnmux_tensor& b) {
  if (a.data == nullptr || b.data == nullptr || a.device_type != b.device_type || a.device_id != b.device_id)
    return false;
  ByteRange ra, rb;
  if (!byte_range(a, ra) || !byte_range(b, rb)) return true;  // check_tensor() has refused such tensors
  if (ra.low == ra.high || rb.low == rb.high) return false;
  // Distances are modulo 2^64; those of addresses that exist do not wrap.
  const auto at_a = reinterpret_cast<uintptr_t>(a.data), at_b = reinterpret_cast<uintptr_t>(b.data);
  if (ra.high - rb.low <= static_cast<int64_t>(at_b - at_a) || rb.high - ra.low <= static_cast<int64_t>(at_a - at_b))
    return false;
  // The ranges meet. Tensors that are interleaved (q, k, v and out as slices of one buffer) still share nothing if they
  // occupy different places modulo one of their strides.
  for (const attnmux_tensor* t : {&a, &b}) {
    for (int32_t i = 0; i < t->ndim; ++i) {
      const Wide step = static_cast<Wide>(t->strides[i]) * dtype_row(t->dtype).size;
      const Wide period = step < 0 ? -step : step;
      if (t->shape[i] > 1 && period > 0 && disjoint_modulo(a, b, static_cast<int64_t>(period))) return false;
    }
  }
  return true;
}

}  // namespace attnmux
