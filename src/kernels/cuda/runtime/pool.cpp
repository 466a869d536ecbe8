// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/pool.h"

#include <array>
#include <atomic>

#include "kernels/cuda/runtime/cuda_error.h"
#include "kernels/cuda/runtime/device.h"

namespace attnmux {
namespace {

// A pool takes memory from the driver in pieces of tens of megabytes, and what it holds is compared in those.
constexpr uint64_t kSlack = uint64_t{128} << 20;

struct Pool {
  std::atomic<cudaMemPool_t> handle{nullptr};
  std::atomic<uint64_t> kept{0};  // bytes that are not given back to the driver: the largest call's, and some
};

// Never destroyed: work that is still queued may use their memory.
std::array<Pool, kMaxCudaDevices>& pools() {
  static auto& all = *new std::array<Pool, kMaxCudaDevices>;
  return all;
}

attnmux_code pool_of(int32_t device, cudaMemPool_t& handle, attnmux_error* error) {
  std::atomic<cudaMemPool_t>& slot = pools()[static_cast<size_t>(device)].handle;
  handle = slot.load(std::memory_order_acquire);
  if (handle != nullptr) return ATTNMUX_OK;
  cudaMemPoolProps properties{};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = device;
  cudaMemPool_t made = nullptr;
  ATTNMUX_CUDA_TRY(cudaMemPoolCreate(&made, &properties), "making a memory pool (pass exec.workspace to do without)");
  if (slot.compare_exchange_strong(handle, made, std::memory_order_acq_rel)) {
    handle = made;
  } else {
    cudaMemPoolDestroy(made);  // another thread was faster; handle is its pool now
  }
  return ATTNMUX_OK;
}

// Raises what the pool keeps. Of two calls that raise it at once, the smaller may set its size last: it sees then that
// the other's is larger, and sets that.
attnmux_code keep(Pool& pool, cudaMemPool_t handle, uint64_t bytes, attnmux_error* error) {
  uint64_t kept = pool.kept.load(std::memory_order_acquire);
  while (kept < bytes && !pool.kept.compare_exchange_weak(kept, bytes, std::memory_order_acq_rel)) {
  }
  if (kept >= bytes) return ATTNMUX_OK;
  for (uint64_t set = 0; set != pool.kept.load(std::memory_order_acquire);) {
    set = pool.kept.load(std::memory_order_acquire);
    ATTNMUX_CUDA_TRY(cudaMemPoolSetAttribute(handle, cudaMemPoolAttrReleaseThreshold, &set),
                     "setting what a memory pool keeps");
  }
  return ATTNMUX_OK;
}

}  // namespace

attnmux_code allocate_from_pool(int32_t device, size_t bytes, void* stream, void** data, attnmux_error* error) {
  cudaMemPool_t handle = nullptr;
  if (const attnmux_code code = pool_of(device, handle, error); code != ATTNMUX_OK) return code;
  const cudaError_t allocated = cudaMallocFromPoolAsync(data, bytes, handle, static_cast<cudaStream_t>(stream));
  if (allocated == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    *data = nullptr;
    return fail_with(error, ATTNMUX_OUT_OF_MEMORY,
                     "the GPU is out of memory: a workspace of %zu bytes does not fit on cuda:%d; free some, or pass "
                     "exec.workspace",
                     bytes, device);
  }
  ATTNMUX_CUDA_TRY(allocated, "allocating a workspace");
  return keep(pools()[static_cast<size_t>(device)], handle, bytes + kSlack, error);
}

void trim_pools() {
  for (Pool& pool : pools()) {
    cudaMemPool_t handle = pool.handle.load(std::memory_order_acquire);
    if (handle == nullptr) continue;
    pool.kept.store(0, std::memory_order_relaxed);
    uint64_t threshold = 0;
    if (cudaMemPoolSetAttribute(handle, cudaMemPoolAttrReleaseThreshold, &threshold) != cudaSuccess) cudaGetLastError();
    if (cudaMemPoolTrimTo(handle, 0) != cudaSuccess) cudaGetLastError();
  }
}

}  // namespace attnmux
