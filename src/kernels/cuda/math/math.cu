// SPDX-License-Identifier: Apache-2.0
// One warp per query row, 32 keys at a time: the lanes share a dot product, then each lane has one score. Softmax runs
// online (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018), so there is no score matrix. Rows
// of V wider than the accumulators are done in slices, each of which computes the scores again.
#include <cfloat>

#include "kernels/cuda/element.cuh"
#include "kernels/cuda/math/math.h"
#include "kernels/cuda/runtime/cuda_error.h"

namespace attnmux {
namespace {

constexpr int kLanes = 32, kWarps = 4;
constexpr int kSlice = 8;  // accumulators of a lane: 256 columns of V at a time
constexpr unsigned kAll = 0xFFFFFFFFu;

template <typename Real>
struct Limits;
template <>
struct Limits<float> {
  static constexpr float kLargest = FLT_MAX;
};
template <>
struct Limits<double> {
  static constexpr double kLargest = DBL_MAX;
};

// The same names for float and double.
__device__ inline float exponential(float x) { return expf(x); }
__device__ inline double exponential(double x) { return exp(x); }
__device__ inline float logarithm(float x) { return logf(x); }
__device__ inline double logarithm(double x) { return log(x); }
__device__ inline float hyperbolic_tangent(float x) { return tanhf(x); }
__device__ inline double hyperbolic_tangent(double x) { return tanh(x); }
// Ignores NaN: a NaN score becomes a NaN probability later, and so reaches the sum.
__device__ inline float larger(float a, float b) { return fmaxf(a, b); }
__device__ inline double larger(double a, double b) { return fmax(a, b); }

template <typename Real>
__device__ inline Real warp_sum(Real x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(kAll, x, step);
  return x;
}

template <typename Real>
__device__ inline Real warp_max(Real x) {
#pragma unroll
  for (int step = kLanes / 2; step > 0; step /= 2) x = larger(x, __shfl_xor_sync(kAll, x, step));
  return x;
}

template <typename T, typename Real>
struct Row {
  const Problem& p;
  const Sequence& s;
  int64_t b, head, kv_head, query;
  KeyRange keys;
  const T *q, *k, *v;  // row of q; row 0 of the head of k and v
  int lane;

  __device__ bool masked(int64_t key) const {
    if (given(p.key_padding) && !attends(p.key_padding, b * p.key_padding.strides[0] + key * p.key_padding.strides[1]))
      return true;
    const Tensor& m = p.dense_mask;
    return given(m) && !attends(m, b * m.strides[0] + head * m.strides[1] + query * m.strides[2] + key * m.strides[3]);
  }

  // What the lane's key scores from its product; -infinity where it is masked.
  __device__ Real score(int64_t key, Real product) const {
    const Real minus_infinity = -static_cast<Real>(INFINITY);
    if (key >= keys.last || masked(key)) return minus_infinity;
    Real x = product * static_cast<Real>(p.scale);
    const auto softcap = static_cast<Real>(p.softcap);
    if (softcap > 0) x = softcap * hyperbolic_tangent(x / softcap);
    if (given(p.bias)) {
      const Tensor& t = p.bias;
      const auto bias =
          load_bias_as<Real>(t, b * t.strides[0] + head * t.strides[1] + query * t.strides[2] + key * t.strides[3]);
      // An additive -inf masks, whatever the key holds; finite values stay finite.
      if (bias == minus_infinity) return minus_infinity;
      const Real shifted = x + bias, largest = Limits<Real>::kLargest;
      const bool finite = isfinite(x) && isfinite(bias);
      x = finite ? (shifted > largest ? largest : shifted < -largest ? -largest : shifted) : shifted;
    }
    return x;
  }

  // The scores of the keys [first, first + 32), one per lane.
  __device__ Real scores(int64_t first) const {
    const int64_t count = min_of(kLanes, keys.last - first);
    Real mine = 0;
    for (int64_t j = 0; j < count; ++j) {
      const T* key = k + (first + j) * p.k.strides[1];
      Real sum = 0;
      for (int64_t d = lane; d < p.head_dim; d += kLanes) sum += to_real<Real>(q[d]) * to_real<Real>(key[d]);
      sum = warp_sum(sum);
      if (j == lane) mine = sum;
    }
    return score(first + lane, mine);
  }

  // Columns [column, column + 32·kSlice) of the output, and the log-sum-exp.
  __device__ Real slice(int64_t column, uint32_t threshold, T* out) const {
    const Real minus_infinity = -static_cast<Real>(INFINITY);
    Real accumulated[kSlice] = {}, maximum = minus_infinity, sum = 0;
    for (int64_t first = keys.first; first < keys.last; first += kLanes) {
      const Real x = scores(first);
      const Real newest = larger(maximum, warp_max(x));
      // Equal maxima, and two of -infinity, rescale nothing.
      const Real rescale = newest == maximum ? Real{1} : exponential(maximum - newest);
      maximum = newest;
      Real probability = x == minus_infinity ? Real{0} : exponential(x - maximum);
      sum = sum * rescale + probability;
      if (threshold != 0 && first + lane < keys.last) {
        const Philox words = dropout_words(p, b, head, query, (first + lane) / 4);
        if (words.word[(first + lane) % 4] >> 8 < threshold) probability = 0;
      }
#pragma unroll
      for (int i = 0; i < kSlice; ++i) accumulated[i] *= rescale;
      const int64_t count = min_of(kLanes, keys.last - first);
      for (int j = 0; j < count; ++j) {
        const Real weight = __shfl_sync(kAll, probability, j);
        if (weight == 0) continue;  // what nobody attends may be NaN
        const T* value = v + (first + j) * p.v.strides[1] + column;
#pragma unroll
        for (int i = 0; i < kSlice; ++i) {
          const int64_t d = i * kLanes + lane;
          if (column + d < p.head_dim_v) accumulated[i] += weight * to_real<Real>(value[d]);
        }
      }
    }
    sum = warp_sum(sum);
    const bool empty = sum == 0;
    // One division per element: a reciprocal would round once more, which in fp64 nothing hides.
    const Real divisor = threshold != 0 ? sum * static_cast<Real>(1 - p.dropout_p) : sum;
#pragma unroll
    for (int i = 0; i < kSlice; ++i) {
      const int64_t d = column + i * kLanes + lane;
      if (d < p.head_dim_v) out[d] = from_real<T>(empty ? Real{0} : accumulated[i] / divisor);
    }
    return empty ? minus_infinity : maximum + logarithm(sum);
  }
};

template <typename T, typename Real>
__global__ void __launch_bounds__(kLanes* kWarps)
    attention_rows(const __grid_constant__ Problem p, int64_t rows, uint32_t threshold) {
  const int64_t step = int64_t{gridDim.x} * kWarps;
  for (int64_t row = int64_t{blockIdx.x} * kWarps + threadIdx.x / kLanes; row < rows; row += step) {
    const int64_t query = row % p.seqlen_q, head = row / p.seqlen_q % p.num_heads_q,
                  b = row / p.seqlen_q / p.num_heads_q;
    const Sequence s = sequence(p, b);
    if (query >= s.seqlen_q) continue;
    const int64_t kv_head = head / (p.num_heads_q / p.num_heads_kv);
    const Row<T, Real> r{p,
                         s,
                         b,
                         head,
                         kv_head,
                         query,
                         key_range(p, s, query),
                         element<const T>(p.q, s.q_offset + query * p.q.strides[1] + head * p.q.strides[2]),
                         element<const T>(p.k, s.k_offset + kv_head * p.k.strides[2]),
                         element<const T>(p.v, s.v_offset + kv_head * p.v.strides[2]),
                         static_cast<int>(threadIdx.x % kLanes)};
    T* out = element<T>(p.out, s.out_offset + query * p.out.strides[1] + head * p.out.strides[2]);
    for (int64_t column = 0; column < p.head_dim_v; column += kLanes * kSlice) {
      const Real lse = r.slice(column, threshold, out);
      if (column == 0 && r.lane == 0 && given(p.lse)) {
        *element<float>(p.lse, s.lse_offset + head * p.lse.strides[1] + query * p.lse.strides[2]) =
            static_cast<float>(lse);
      }
    }
  }
}

template <typename T, typename Real>
cudaError_t launch(const Problem& p, cudaStream_t stream) {
  const int64_t rows = p.batch * p.num_heads_q * p.seqlen_q;
  if (rows == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(min_of(ceil_div(rows, kWarps), INT32_MAX));
  const uint32_t threshold = p.dropout_p > 0 ? dropout_threshold(p.dropout_p) : 0;
  attention_rows<T, Real><<<blocks, kLanes * kWarps, 0, stream>>>(p, rows, threshold);
  return cudaGetLastError();
}

}  // namespace

attnmux_code run_cuda_math(const Problem* p, const RunContext* context, attnmux_error* error) {
  const auto stream = static_cast<cudaStream_t>(context->stream);
  const cudaError_t code = p->dtype == ATTNMUX_FP64   ? launch<double, double>(*p, stream)
                           : p->dtype == ATTNMUX_FP32 ? launch<float, float>(*p, stream)
                           : p->dtype == ATTNMUX_FP16 ? launch<__half, float>(*p, stream)
                                                      : launch<__nv_bfloat16, float>(*p, stream);
  ATTNMUX_CUDA_TRY(code, "launching cuda_math");
  return ATTNMUX_OK;
}

}  // namespace attnmux
