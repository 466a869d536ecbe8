// SPDX-License-Identifier: Apache-2.0
// The structs of the C ABI and the validation behind them: whatever a caller writes into them, a call is refused with a
// message or does what it promises, and touches nothing outside of the tensors.
//
// The input is a stream of bytes, each a choice. Tensors are views of one arena; a call whose views leave the arena is
// planned and explained without pointers instead of run, since then the caller is lying about his memory.
#include <attnmux/attnmux_c.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>
#include <vector>

namespace {

class Choices {
 public:
  Choices(const uint8_t* data, size_t size) : data_(data), size_(size) {}
  bool empty() const { return at_ >= size_; }
  uint8_t byte() { return at_ < size_ ? data_[at_++] : 0; }
  bool rarely() { return (byte() & 127) == 1; }
  uint64_t word() {
    uint64_t x = 0;
    for (int i = 0; i < 8; ++i) x = x << 8 | byte();
    return x;
  }
  // Mostly small, sometimes anything.
  int64_t extent() {
    const uint8_t kind = byte();
    return kind < 240 ? kind % 10 : kind < 248 ? int64_t{1} << (kind % 64) : static_cast<int64_t>(word());
  }
  double number() {
    const uint8_t kind = byte();
    if (kind < 200) return (kind - 100) / 16.0;
    const uint64_t bits = word();
    double x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

// Inputs, then outputs, each area large enough for ten to the fourth elements of eight bytes, with room before and
// behind.
constexpr size_t kArea = 1 << 18;
struct Arena {
  std::vector<uint8_t> bytes = std::vector<uint8_t>(16 * kArea);
  uint8_t* area(int which) { return bytes.data() + static_cast<size_t>(which) * kArea + kArea / 2; }
};
Arena& arena() {
  static Arena instance;
  return instance;
}

int64_t size_of(int32_t dtype) {
  constexpr int64_t kSizes[] = {1, 4, 2, 2, 8, 1, 1, 4, 1};
  return dtype >= 0 && dtype < 9 ? kSizes[dtype] : 1;
}

// Does the view stay within its area, and is it small?
bool inside(const attnmux_tensor& t, int which) {
  if (t.dtype == 0) return true;
  if (t.ndim < 0 || t.ndim > 4) return false;
  __int128 low = 0, high = size_of(t.dtype), elements = 1;
  for (int32_t i = 0; i < t.ndim; ++i) {
    if (t.shape[i] <= 0) return t.shape[i] == 0;
    if ((elements *= t.shape[i]) > 8192) return false;  // stride 0 makes much of little memory
    const __int128 reach = static_cast<__int128>(t.shape[i] - 1) * t.strides[i] * size_of(t.dtype);
    (reach < 0 ? low : high) += reach;
  }
  const auto* start = static_cast<const uint8_t*>(t.data);
  const auto* begin = arena().bytes.data() + static_cast<size_t>(which) * kArea;
  const __int128 offset = start - begin;
  return offset + low >= 0 && offset + high <= static_cast<__int128>(kArea);
}

attnmux_tensor tensor(Choices& c, int which, int32_t dtype, std::vector<int64_t> shape) {
  attnmux_tensor t{};
  t.data = arena().area(which) + (c.byte() % 4 == 1 ? size_of(dtype) * (c.byte() % 64) : 0);
  t.dtype = c.rarely() ? static_cast<int32_t>(c.byte()) : dtype;
  t.device_type = c.rarely() ? static_cast<int32_t>(c.byte()) % 4 : ATTNMUX_CPU;
  t.device_id = c.rarely() ? static_cast<int8_t>(c.byte()) : 0;
  t.ndim = c.rarely() ? static_cast<int8_t>(c.byte()) : static_cast<int32_t>(shape.size());
  int64_t stride = 1;
  for (size_t i = shape.size(); i-- > 0;) {
    t.shape[i] = c.rarely() ? c.extent() : shape[i];
    t.strides[i] = stride;
    if (c.rarely()) t.strides[i] = c.extent() - c.extent() % 7;
    // Wraps, as a caller's arithmetic would.
    stride =
        static_cast<int64_t>(static_cast<uint64_t>(stride) * static_cast<uint64_t>(std::max<int64_t>(shape[i], 1)));
  }
  return t;
}

[[noreturn]] void broken(const char* promise, const attnmux_error& error) {
  std::fprintf(stderr, "broken promise: %s (code %d: %s)\n", promise, error.code, error.message);
  std::abort();
}

void check_error(attnmux_code code, const attnmux_error& error) {
  if (code == ATTNMUX_OK) return;
  if (code != error.code) broken("the error has the code of the call", error);
  if (code < 0 || code > ATTNMUX_INTERNAL) broken("codes are those of the header", error);
  if (code == ATTNMUX_INTERNAL) broken("nothing fails internally", error);
  if (error.length >= sizeof(error.message) || std::strlen(error.message) != error.length)
    broken("the length is that of the message", error);
  if (std::strncmp(error.message, "[attention] ", 12) != 0) broken("messages start with [attention]", error);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Choices c(data, size);
  constexpr int32_t kDtypes[] = {ATTNMUX_FP32, ATTNMUX_FP16, ATTNMUX_BF16, ATTNMUX_FP64, ATTNMUX_E4M3};
  const int32_t dtype = kDtypes[c.byte() % 5], out_dtype = dtype == ATTNMUX_E4M3 ? ATTNMUX_BF16 : dtype;
  const bool packed = c.byte() % 4 == 1;
  const int64_t batch = c.byte() % 4, sq = c.extent(), skv = c.byte() % 3 == 0 ? sq : c.extent();
  const int64_t hkv = 1 + c.byte() % 3, hq = hkv * (1 + c.byte() % 3), d = 1 + c.byte() % 20,
                dv = c.byte() % 3 == 0 ? 1 + c.byte() % 20 : d;

  // What the tensors hold is a choice, too: lengths, masks, NaN.
  uint8_t* ints = arena().area(8);
  for (int which = 0; which < 8; ++which) {
    const uint8_t kind = c.byte();
    for (size_t i = 0; i < 8192; ++i)
      arena().area(which)[i] = kind < 128 ? static_cast<uint8_t>((i * 37 + kind) % 61) : kind;
  }
  for (int list = 0; list < 3; ++list) {
    int32_t value = 0;
    for (int i = 0; i < 8; ++i) {
      const uint8_t step = c.byte();
      if (list == 0) value = step % 12;
      std::memcpy(ints + 64 * list + 4 * i, &value, 4);
      value += step > 250 ? -1 : step % 5;
    }
  }
  const auto packed_total = [&](int list) {
    int32_t value;
    std::memcpy(&value, ints + 64 * list + 4 * batch, 4);
    return int64_t{value};
  };

  attnmux_options o{};
  o.struct_size = c.rarely() ? c.byte() * 4u : sizeof(o);
  o.set = c.word() & c.word() & (c.byte() % 16 == 1 ? ~uint64_t{0} : uint64_t{0x3FF});
  if (packed)
    o.set |= ATTNMUX_VARLEN;
  else
    o.set &= ~uint64_t{ATTNMUX_VARLEN};
  o.backend = c.byte() % 2 ? c.byte() % 26 : 0;
  o.layer_backend = c.rarely() ? c.byte() : 0;
  o.kernel = c.rarely() ? c.byte() % 8 : 0;
  o.reserved[2] = c.rarely();
  o.conflicts = c.rarely() ? c.word() : 0;
  for (char& letter : o.layer_role) letter = c.rarely() ? static_cast<char>(c.byte()) : 0;
  if (o.set & ATTNMUX_SCALE) o.scale = c.number();
  if (o.set & ATTNMUX_SOFTCAP) o.softcap = c.number();
  if (o.set & ATTNMUX_DROPOUT) o.dropout_p = c.number() / 8, o.dropout_seed = c.word(), o.dropout_offset = c.byte();
  if (o.set & ATTNMUX_MASK_WINDOW)
    o.window_left = c.extent() - 1, o.window_right = c.extent() - 1, o.window_align = c.byte() % 4;
  if (o.set & ATTNMUX_MASK_CAUSAL) o.causal_align = c.byte() % 4;

  attnmux_tensor q, k, v, out;
  int64_t rows = sq, keys = skv;
  if (packed) {
    rows = c.rarely() ? sq : packed_total(1);
    keys = c.rarely() ? skv : packed_total(2);
    q = tensor(c, 0, dtype, {rows, hq, d});
    k = tensor(c, 1, dtype, {keys, hkv, d});
    v = tensor(c, 2, dtype, {keys, hkv, dv});
    out = tensor(c, 9, out_dtype, {rows, hq, dv});
    o.cu_seqlens_q = tensor(c, 8, ATTNMUX_INT32, {batch + 1});
    o.cu_seqlens_kv = tensor(c, 8, ATTNMUX_INT32, {batch + 1});
    o.cu_seqlens_q.data = ints + 64;
    o.cu_seqlens_kv.data = ints + 128;
    o.max_seqlen_q = c.byte() % 8, o.max_seqlen_kv = c.byte() % 8;
  } else {
    q = tensor(c, 0, dtype, {batch, sq, hq, d});
    k = tensor(c, 1, dtype, {batch, skv, hkv, d});
    v = tensor(c, 2, dtype, {batch, skv, hkv, dv});
    out = tensor(c, 9, out_dtype, {batch, sq, hq, dv});
  }
  const auto score_shaped = [&](int which, int32_t type) {
    const int64_t full[4] = {batch, hq, packed && o.max_seqlen_q > 0 ? o.max_seqlen_q : rows,
                             packed && o.max_seqlen_kv > 0 ? o.max_seqlen_kv : keys};
    std::vector<int64_t> shape;
    const uint8_t dims = c.byte();
    for (int i = dims % 5; i < 4; ++i) shape.push_back(dims >> (i + 3) & 1 ? 1 : full[i]);
    return tensor(c, which, type, shape);
  };
  if (o.set & ATTNMUX_MASK_KEY_LENGTHS) o.key_lengths = tensor(c, 8, ATTNMUX_INT32, {batch}), o.key_lengths.data = ints;
  if (o.set & ATTNMUX_MASK_KEY_PADDING) o.key_padding = tensor(c, 3, ATTNMUX_BOOL, {batch, keys});
  if (o.set & ATTNMUX_MASK_DENSE) o.dense_mask = score_shaped(4, c.byte() % 2 ? ATTNMUX_BOOL : ATTNMUX_UINT8);
  if (o.set & ATTNMUX_BIAS) o.bias = score_shaped(5, 1 + c.byte() % 3);
  if (o.set & ATTNMUX_LSE) {
    o.lse = packed ? tensor(c, 10, ATTNMUX_FP32, {hq, rows}) : tensor(c, 10, ATTNMUX_FP32, {batch, hq, sq});
  }
  if (o.set & ATTNMUX_DESCALE) {
    o.q_descale = tensor(c, 11, ATTNMUX_FP32, {batch, hkv});
    o.k_descale = tensor(c, 12, ATTNMUX_FP32, {batch, hkv});
    o.v_descale = tensor(c, 13, ATTNMUX_FP32, {batch, hkv});
  }
  if (c.rarely()) out.data = q.data;  // overlaps
  if (c.rarely()) o.lse.data = v.data;

  attnmux_exec e{};
  e.struct_size = c.rarely() ? c.byte() : sizeof(e);
  e.num_threads = c.rarely() ? static_cast<int8_t>(c.byte()) : 1 + c.byte() % 3;

  const std::pair<attnmux_tensor*, int> views[] = {{&q, 0},
                                                   {&k, 1},
                                                   {&v, 2},
                                                   {&out, 9},
                                                   {&o.key_lengths, 8},
                                                   {&o.key_padding, 3},
                                                   {&o.dense_mask, 4},
                                                   {&o.bias, 5},
                                                   {&o.lse, 10},
                                                   {&o.cu_seqlens_q, 8},
                                                   {&o.cu_seqlens_kv, 8},
                                                   {&o.q_descale, 11},
                                                   {&o.k_descale, 12},
                                                   {&o.v_descale, 13}};
  bool runnable = o.struct_size <= sizeof(o) && e.struct_size <= sizeof(e);
  for (const auto& [view, which] : views) {
    const bool moved = view->data < static_cast<void*>(arena().bytes.data() + static_cast<size_t>(which) * kArea) ||
                       view->data >= static_cast<void*>(arena().bytes.data() + static_cast<size_t>(which + 1) * kArea);
    runnable = runnable && (view->dtype == 0 || inside(*view, moved ? (view == &out ? 0 : 2) : which));
  }
  if (!runnable) {
    for (const auto& [view, which] : views) view->data = nullptr;
    o.struct_size = std::min<uint32_t>(o.struct_size, sizeof(o));
    e.struct_size = std::min<uint32_t>(e.struct_size, sizeof(e));
  }

  attnmux_error planned{}, explained{}, ran{};
  attnmux_plan* plan = nullptr;
  const attnmux_code plan_code = attnmux_plan_create(&q, &k, &v, &out, &o, &e, &plan, &planned);
  check_error(plan_code, planned);
  if ((plan != nullptr) != (plan_code == ATTNMUX_OK))
    broken("there is a plan if, and only if, planning succeeds", planned);
  const attnmux_code explain_code =
      attnmux_explain(&q, &k, &v, &out, &o, &e, c.byte() % 4, [](void*, const char*, size_t) {}, nullptr, &explained);
  check_error(explain_code, explained);
  const bool refused_by_kernels = plan_code == ATTNMUX_UNSUPPORTED || plan_code == ATTNMUX_UNAVAILABLE;
  if ((explain_code == ATTNMUX_OK) != (plan_code == ATTNMUX_OK || refused_by_kernels))
    broken("explain answers exactly the valid problems", explained);
  if (runnable) {
    const attnmux_code run_code = attnmux_attention(&q, &k, &v, &out, &o, &e, &ran);
    check_error(run_code, ran);
    if (run_code != plan_code) broken("a call succeeds if, and only if, its plan could be made", ran);
    if (plan != nullptr && attnmux_plan_run(plan, &q, &k, &v, &out, &o, &e, &ran) != ATTNMUX_OK)
      broken("a plan runs what it was made for", ran);
  }
  attnmux_plan_release(plan);
  return 0;
}
