// SPDX-License-Identifier: Apache-2.0
// Lets the tests, which keep their tensors in host memory, call CUDA kernels: the linker sends the calls of the C ABI
// here (--wrap), and those that name a CUDA kernel get their tensors copied to the device and the memory copied back.
//
// Memory is copied as it lies, gaps and overlaps included: the byte ranges of all tensors of a call are merged where
// they meet, and each becomes one piece of device memory, at the same offset modulo 256 and between guard bands. So
// strides, alignment, shared buffers and "nothing else was written" are tested as on the CPU.
#include <attnmux/attnmux_c.h>
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>
#include <vector>

#include "support/catalog.h"
#include "support/numbers.h"

extern "C" {
attnmux_code __real_attnmux_attention(const attnmux_tensor*, const attnmux_tensor*, const attnmux_tensor*,
                                      const attnmux_tensor*, const attnmux_options*, const attnmux_exec*,
                                      attnmux_error*);
attnmux_code __real_attnmux_plan_create(const attnmux_tensor*, const attnmux_tensor*, const attnmux_tensor*,
                                        const attnmux_tensor*, const attnmux_options*, const attnmux_exec*,
                                        attnmux_plan**, attnmux_error*);
attnmux_code __real_attnmux_plan_run(const attnmux_plan*, const attnmux_tensor*, const attnmux_tensor*,
                                     const attnmux_tensor*, const attnmux_tensor*, const attnmux_options*,
                                     const attnmux_exec*, attnmux_error*);
}

namespace attnmux::test {
namespace {

constexpr size_t kAlign = 256, kGuard = 256;
constexpr unsigned char kGuardByte = 0x5A;

void must(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  // After a fault of the device no later case can run: say so and end, instead of failing thousands of times.
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(code));
  std::fflush(nullptr);
  std::_Exit(3);
}

bool names_cuda_kernel(const attnmux_options* options) {
  static const std::set<uint16_t> ids = [] {
    std::set<uint16_t> found;
    for (const Target& t : kernels()) {
      if (t.on_cuda) found.insert(attnmux_kernel_find(t.kernel.data(), t.kernel.size()));
    }
    return found;
  }();
  return options != nullptr && ids.contains(options->kernel);
}

struct Piece {
  unsigned char* begin;
  unsigned char* end;
  bool pattern_behind = false;
  unsigned char* device = nullptr;
  size_t size() const { return static_cast<size_t>(end - begin); }
};

// Grows, never shrinks: allocating for each of many thousand calls would take longer than they do.
unsigned char* arena(size_t bytes) {
  static unsigned char* memory = nullptr;
  static size_t capacity = 0;
  if (bytes > capacity) {
    if (memory != nullptr) must(cudaFree(memory), "freeing");
    capacity = std::max(bytes + bytes / 2, size_t{64} << 20);
    must(cudaMalloc(reinterpret_cast<void**>(&memory), capacity), "allocating");
  }
  return memory;
}

class Mirror {
 public:
  Mirror(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v, const attnmux_tensor* out,
         const attnmux_options& options, const attnmux_exec* exec)
      : options_(options) {
    static const cudaStream_t stream = [] {
      cudaStream_t made = nullptr;
      must(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "making a stream");
      return made;
    }();
    stream_ = stream;
    const attnmux_tensor* given[] = {q, k, v, out};
    for (int i = 0; i < 4; ++i) tensors_[i] = *given[i];
    for (attnmux_tensor* t : all()) add(*t);
    exec_.struct_size = sizeof(exec_);
    if (exec != nullptr) exec_ = *exec;
    exec_.stream = stream_;
    if (exec_.workspace != nullptr && exec_.workspace_bytes != 0) {
      auto* begin = static_cast<unsigned char*>(exec_.workspace);
      pieces_.push_back({begin, begin + exec_.workspace_bytes});
    }
    merge();
    upload();
    for (attnmux_tensor* t : all()) {
      if (t->dtype == 0) continue;
      t->device_type = ATTNMUX_CUDA;
      if (t->data != nullptr) t->data = on_device(t->data);
    }
    if (exec_.workspace != nullptr) exec_.workspace = on_device(exec_.workspace);
  }

  const attnmux_tensor* tensor(int i) const { return &tensors_[i]; }
  const attnmux_options* options() const { return &options_; }
  const attnmux_exec* exec() const { return &exec_; }

  // Back to where the pieces came from. What should not have changed is compared by the tests themselves.
  void download() {
    must(cudaStreamSynchronize(stream_), "running a kernel");
    for (const Piece& piece : pieces_) {
      std::vector<unsigned char> band(2 * kGuard);
      must(cudaMemcpy(band.data(), piece.device - kGuard, kGuard, cudaMemcpyDeviceToHost), "copying back");
      must(cudaMemcpy(band.data() + kGuard, piece.device + piece.size(), kGuard, cudaMemcpyDeviceToHost),
           "copying back");
      EXPECT_TRUE(std::all_of(band.begin(), band.end(), [](unsigned char b) { return b == kGuardByte; }))
          << "a kernel wrote around the memory of the tensors";
      std::vector<unsigned char> bytes(piece.size());
      must(cudaMemcpy(bytes.data(), piece.device, bytes.size(), cudaMemcpyDeviceToHost), "copying back");
      // Inputs may lie in memory that only the tests may write to: touch what differs.
      for (size_t i = 0; i < bytes.size(); ++i) {
        if (piece.begin[i] != bytes[i]) piece.begin[i] = bytes[i];
      }
    }
  }

 private:
  std::vector<attnmux_tensor*> all() {
    attnmux_options& o = options_;
    return {&tensors_[0],     &tensors_[1],  &tensors_[2], &tensors_[3], &o.key_lengths,
            &o.key_padding,   &o.dense_mask, &o.bias,      &o.lse,       &o.cu_seqlens_q,
            &o.cu_seqlens_kv, &o.q_descale,  &o.k_descale, &o.v_descale};
  }

  void add(const attnmux_tensor& t) {
    if (t.dtype == 0 || t.data == nullptr) return;
    const auto size = static_cast<int64_t>(size_of(static_cast<Dtype>(t.dtype)));
    int64_t low = 0, high = size;
    for (int i = 0; i < t.ndim && i < 4; ++i) {
      if (t.shape[i] <= 0) high = low = 0;
      const int64_t reach = (t.shape[i] - 1) * t.strides[i] * size;
      if (high > low) (reach < 0 ? low : high) += reach;
    }
    auto* data = static_cast<unsigned char*>(t.data);
    pieces_.push_back({data + low, data + high});
  }

  void merge() {
    std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
    std::vector<Piece> merged;
    for (const Piece& piece : pieces_) {
      if (!merged.empty() && piece.begin <= merged.back().end) {
        merged.back().end = std::max(merged.back().end, piece.end);
      } else {
        merged.push_back(piece);
      }
    }
    pieces_ = std::move(merged);
  }

  void upload() {
    size_t total = 0;
    for (const Piece& piece : pieces_) total += piece.size() + 2 * kGuard + 3 * kAlign;
    unsigned char* next = arena(total);
    must(cudaMemset(next, kGuardByte, total), "clearing");
    for (Piece& piece : pieces_) {
      piece.device = next + kGuard + kAlign + reinterpret_cast<uintptr_t>(piece.begin) % kAlign;
      next += (piece.size() + 2 * kGuard + 3 * kAlign) / kAlign * kAlign;
      must(cudaMemcpy(piece.device, piece.begin, piece.size(), cudaMemcpyHostToDevice), "copying to the device");
    }
    must(cudaDeviceSynchronize(), "copying to the device");
  }

  void* on_device(void* host) const {
    auto* pointer = static_cast<unsigned char*>(host);
    for (const Piece& piece : pieces_) {
      if (pointer >= piece.begin && pointer <= piece.end) return piece.device + (pointer - piece.begin);
    }
    return nullptr;
  }

  attnmux_tensor tensors_[4];
  attnmux_options options_;
  attnmux_exec exec_{};
  std::vector<Piece> pieces_;
  cudaStream_t stream_ = nullptr;
};

[[maybe_unused]] const bool can_mirror = cuda_tensors_can_be_mirrored = true;

// The arena is one, so calls from several threads take turns.
std::mutex& turn() {
  static std::mutex instance;
  return instance;
}

}  // namespace
}  // namespace attnmux::test

using attnmux::test::Mirror;
using attnmux::test::names_cuda_kernel;
using attnmux::test::turn;

extern "C" {

attnmux_code __wrap_attnmux_attention(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                      const attnmux_tensor* out, const attnmux_options* options,
                                      const attnmux_exec* exec, attnmux_error* error) {
  if (!names_cuda_kernel(options)) return __real_attnmux_attention(q, k, v, out, options, exec, error);
  const std::lock_guard lock(turn());
  Mirror mirror(q, k, v, out, *options, exec);
  const attnmux_code code = __real_attnmux_attention(mirror.tensor(0), mirror.tensor(1), mirror.tensor(2),
                                                     mirror.tensor(3), mirror.options(), mirror.exec(), error);
  mirror.download();
  return code;
}

attnmux_code __wrap_attnmux_plan_create(const attnmux_tensor* q, const attnmux_tensor* k, const attnmux_tensor* v,
                                        const attnmux_tensor* out, const attnmux_options* options,
                                        const attnmux_exec* exec, attnmux_plan** plan, attnmux_error* error) {
  if (!names_cuda_kernel(options)) return __real_attnmux_plan_create(q, k, v, out, options, exec, plan, error);
  const std::lock_guard lock(turn());
  const Mirror mirror(q, k, v, out, *options, exec);
  return __real_attnmux_plan_create(mirror.tensor(0), mirror.tensor(1), mirror.tensor(2), mirror.tensor(3),
                                    mirror.options(), mirror.exec(), plan, error);
}

attnmux_code __wrap_attnmux_plan_run(const attnmux_plan* plan, const attnmux_tensor* q, const attnmux_tensor* k,
                                     const attnmux_tensor* v, const attnmux_tensor* out, const attnmux_options* options,
                                     const attnmux_exec* exec, attnmux_error* error) {
  if (!names_cuda_kernel(options)) return __real_attnmux_plan_run(plan, q, k, v, out, options, exec, error);
  const std::lock_guard lock(turn());
  Mirror mirror(q, k, v, out, *options, exec);
  const attnmux_code code = __real_attnmux_plan_run(plan, mirror.tensor(0), mirror.tensor(1), mirror.tensor(2),
                                                    mirror.tensor(3), mirror.options(), mirror.exec(), error);
  mirror.download();
  return code;
}

}  // extern "C"
