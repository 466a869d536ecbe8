// SPDX-License-Identifier: Apache-2.0
// The optional arguments of every verb: what is computed (AttentionOptions) and where (ExecContext). New fields go at
// the end.
#pragma once

#include <attnmux/layer.h>
#include <attnmux/mask.h>

#include <cstddef>
#include <exception>
#include <optional>
#include <span>

struct CUstream_st;  // what cudaStream_t and CUstream point to

namespace attnmux {

/// Dropout on the probabilities: Philox4x32-10 (Salmon et al., SC11) keyed by the seed; the same mask on every kernel.
struct Dropout {
  double p = 0;                       ///< in [0, 1)
  std::optional<uint64_t> seed = {};  ///< needed when p > 0
  uint64_t offset = 0;                ///< another stream of the same seed, below 2^32
};

/// Packed sequences: q is (T, H, D). cu_seqlens are (B+1) int32, rising from 0 to T.
struct Varlen {
  TensorView cu_seqlens_q = {}, cu_seqlens_kv = {};
  int64_t max_seqlen_q = 0, max_seqlen_kv = 0;  ///< upper bounds; 0: the number of packed tokens
};

/// For e4m3 tensors: what the elements of q, k and v are multiplied by, (B, Hkv) fp32 each; not given: 1. That of q is
/// the same for all query heads of a key head.
struct Descale {
  TensorView q = {}, k = {}, v = {};
};

/// What is computed.
struct AttentionOptions {
  Mask mask = {};
  TensorView bias = {};              ///< broadcastable to (B, Hq, Sq, Skv); fp32, fp16, bf16 (fp64 inputs: fp64)
  std::optional<double> scale = {};  ///< any finite value; default head_dim^-1/2
  double softcap = 0;                ///< s = softcap·tanh(scale·q·k / softcap); 0 is off
  MutableTensorView lse = {};        ///< output (B, Hq, Sq) fp32, natural log; (Hq, T) for packed sequences
  Dropout dropout = {};
  Varlen varlen = {};
  Backend backend = {};
  const AttentionLayer* layer = nullptr;  ///< its role and backend apply to this call
  bool allow_lossy = false;               ///< the automatic choice may go below the 16-bit accuracy class
  std::string_view kernel = {};           ///< this kernel of the backend and no other; for harnesses
  Descale descale = {};

  attnmux_options c() const {
    attnmux_options o{};
    o.struct_size = sizeof(o);
    mask.fill(o);
    o.bias = bias.c();
    if (o.bias.dtype != 0) o.set |= ATTNMUX_BIAS;
    o.lse = lse.c();
    if (o.lse.dtype != 0) o.set |= ATTNMUX_LSE;
    if (scale) {
      o.set |= ATTNMUX_SCALE;
      o.scale = *scale;
    }
    if (softcap != 0) o.set |= ATTNMUX_SOFTCAP;
    o.softcap = softcap;
    o.dropout_p = dropout.p;
    o.dropout_offset = dropout.offset;
    if (dropout.seed) {
      o.set |= ATTNMUX_DROPOUT;
      o.dropout_seed = *dropout.seed;
    }
    o.cu_seqlens_q = varlen.cu_seqlens_q.c();
    o.cu_seqlens_kv = varlen.cu_seqlens_kv.c();
    o.max_seqlen_q = varlen.max_seqlen_q;
    o.max_seqlen_kv = varlen.max_seqlen_kv;
    if (o.cu_seqlens_q.dtype != 0 || o.cu_seqlens_kv.dtype != 0) o.set |= ATTNMUX_VARLEN;
    o.q_descale = descale.q.c();
    o.k_descale = descale.k.c();
    o.v_descale = descale.v.c();
    if ((o.q_descale.dtype | o.k_descale.dtype | o.v_descale.dtype) != 0) o.set |= ATTNMUX_DESCALE;
    o.backend = backend.id();
    if (layer != nullptr) layer->fill(o);
    if (allow_lossy) o.set |= ATTNMUX_ALLOW_LOSSY;
    if (!kernel.empty()) {
      o.kernel = attnmux_kernel_find(kernel.data(), kernel.size());
      if (o.kernel == 0) o.kernel = UINT16_MAX;  // refused by the call
    }
    return o;
  }
};

/// A CUDA stream; Stream{} is absent, which is not CUDA's stream 0.
class Stream {
 public:
  constexpr Stream() = default;
  Stream(CUstream_st* stream) : handle_(stream == nullptr ? ATTNMUX_STREAM_LEGACY : static_cast<void*>(stream)) {}
  static Stream per_thread() {
    Stream s;
    s.handle_ = ATTNMUX_STREAM_PER_THREAD;
    return s;
  }
  void* handle() const { return handle_; }

 private:
  void* handle_ = nullptr;
};

/// The caller's threads: anything with `parallel_for(n, body)`, which calls body(i) for every i in [0, n) and returns
/// when all are done. The pool must outlive the call. What it throws reaches the caller of the verb.
class Executor {
 public:
  Executor() = default;  ///< the library's own pool
  template <typename Pool>
  static Executor from(Pool& pool, int num_threads) {
    Executor e;
    e.pool_ = &pool;
    e.num_threads_ = num_threads;
    e.run_ = [](void* p, int64_t n, void (*body)(void*, int64_t), void* arg) {
      static_cast<Pool*>(p)->parallel_for(n, [body, arg](int64_t task) { body(arg, task); });
    };
    return e;
  }
  template <typename Pool>
  static Executor from(const Pool&& pool, int num_threads) = delete;

 private:
  friend class ExecFrame;
  void* pool_ = nullptr;
  int num_threads_ = 0;
  void (*run_)(void*, int64_t, void (*)(void*, int64_t), void*) = nullptr;
};

/// Where CUDA calls without a workspace get it: anything with `void* allocate(device, stream, bytes)`, null where
/// memory ran out, and `deallocate(device, stream, pointer, bytes)`. Between the two, work that is queued on the stream
/// uses the memory. It must outlive the call, and does not throw.
class StreamAllocator {
 public:
  StreamAllocator() = default;  ///< a memory pool of the library's own
  template <typename Allocator>
  static StreamAllocator from(Allocator& allocator) {
    StreamAllocator a;
    a.user_ = &allocator;
    a.allocate_ = [](void* user, int32_t device, void* stream, size_t bytes) -> void* {
      return static_cast<Allocator*>(user)->allocate(device, static_cast<CUstream_st*>(stream), bytes);
    };
    a.deallocate_ = [](void* user, int32_t device, void* stream, void* pointer, size_t bytes) {
      static_cast<Allocator*>(user)->deallocate(device, static_cast<CUstream_st*>(stream), pointer, bytes);
    };
    return a;
  }
  template <typename Allocator>
  static StreamAllocator from(const Allocator&& allocator) = delete;

 private:
  friend class ExecFrame;
  void* user_ = nullptr;
  attnmux_stream_allocate allocate_ = nullptr;
  attnmux_stream_deallocate deallocate_ = nullptr;
};

/// Where it runs.
struct ExecContext {
  Stream stream = {};                                  ///< CUDA tensors need one; CPU tensors take none
  std::optional<std::span<std::byte>> workspace = {};  ///< used exclusively, also when it is empty
  Executor executor = {};
  int num_threads = 0;                    ///< caps the library's own pool for this call; 0: no cap
  StreamAllocator stream_allocator = {};  ///< of CUDA calls without a workspace
};

/// ExecContext as the C ABI wants it, for the length of one call; keeps what the caller's pool threw.
class ExecFrame {
 public:
  explicit ExecFrame(const ExecContext& exec) : executor_(exec.executor) {
    c_.struct_size = sizeof(c_);
    c_.num_threads = exec.num_threads;
    c_.stream = exec.stream.handle();
    if (exec.workspace) {
      c_.set |= ATTNMUX_EXEC_WORKSPACE;
      c_.workspace = exec.workspace->data();
      c_.workspace_bytes = exec.workspace->size();
    }
    c_.stream_allocate = exec.stream_allocator.allocate_;
    c_.stream_deallocate = exec.stream_allocator.deallocate_;
    c_.stream_user = exec.stream_allocator.user_;
    if (executor_.run_ != nullptr) {
      c_.num_threads = executor_.num_threads_;
      c_.parallel_for = &ExecFrame::run;
      c_.pool = this;
    }
  }
  ExecFrame(const ExecFrame&) = delete;
  ExecFrame& operator=(const ExecFrame&) = delete;

  const attnmux_exec* c() const { return &c_; }

#if defined(__cpp_exceptions)
  void rethrow_if_failed(const Status& status) const {
    if (failure_) std::rethrow_exception(failure_);
    detail::throw_if_failed(status);
  }
#endif

 private:
  static int32_t run(void* self, int64_t n, void (*body)(void*, int64_t), void* arg) {
    auto* frame = static_cast<ExecFrame*>(self);
#if defined(__cpp_exceptions)
    try {
      frame->executor_.run_(frame->executor_.pool_, n, body, arg);
    } catch (...) {
      frame->failure_ = std::current_exception();
      return 1;
    }
#else
    frame->executor_.run_(frame->executor_.pool_, n, body, arg);
#endif
    return 0;
  }

  attnmux_exec c_{};
  Executor executor_;
  std::exception_ptr failure_;
};

}  // namespace attnmux
