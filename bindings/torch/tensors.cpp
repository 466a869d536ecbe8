// SPDX-License-Identifier: Apache-2.0
#include "tensors.h"

#include <algorithm>
#include <string>
#include <utility>

namespace attnmux::torch_op {
namespace {

// PyTorch's numbers are functions of its C ABI; asked once.
struct Numbers {
  struct {
    int32_t theirs, ours;
  } dtypes[7] = {
      {aoti_torch_dtype_float32(), ATTNMUX_FP32},  {aoti_torch_dtype_float16(), ATTNMUX_FP16},
      {aoti_torch_dtype_bfloat16(), ATTNMUX_BF16}, {aoti_torch_dtype_float64(), ATTNMUX_FP64},
      {aoti_torch_dtype_bool(), ATTNMUX_BOOL},     {aoti_torch_dtype_uint8(), ATTNMUX_UINT8},
      {aoti_torch_dtype_int32(), ATTNMUX_INT32},
  };
  int32_t cpu = aoti_torch_device_type_cpu(), cuda = aoti_torch_device_type_cuda();
};

const Numbers& numbers() {
  static const Numbers kNumbers;
  return kNumbers;
}

int32_t our_dtype(const char* name, int32_t theirs) {
  for (const auto& row : numbers().dtypes) {
    if (row.theirs == theirs) return row.ours;
  }
  throw_error(ATTNMUX_INVALID_ARGUMENT,
              std::string(name) + ".dtype is PyTorch's number " + std::to_string(theirs) +
                  "; accepted are float32, float16, bfloat16 and float64, for masks also bool and uint8, for lengths "
                  "int32");
}

}  // namespace

int32_t torch_dtype(int32_t dtype) {
  for (const auto& row : numbers().dtypes) {
    if (row.ours == dtype) return row.theirs;
  }
  throw_error(ATTNMUX_INTERNAL, "no PyTorch dtype for " + std::to_string(dtype));
}

attnmux_tensor view(const char* name, const Handle& tensor) {
  const AtenTensorHandle handle = tensor.get();
  attnmux_tensor t{};
  int32_t dtype = 0, device = 0;
  int64_t ndim = 0, *sizes = nullptr, *strides = nullptr;
  check_torch(aoti_torch_get_dtype(handle, &dtype), "tell a dtype");
  check_torch(aoti_torch_get_device_type(handle, &device), "tell a device");
  check_torch(aoti_torch_get_dim(handle, &ndim), "tell a rank");
  check_torch(aoti_torch_get_sizes(handle, &sizes), "tell a shape");
  check_torch(aoti_torch_get_strides(handle, &strides), "tell strides");
  check_torch(aoti_torch_get_data_ptr(handle, &t.data), "tell an address");
  if (ndim > 4) {
    throw_error(ATTNMUX_INVALID_ARGUMENT,
                std::string(name) + " has " + std::to_string(ndim) + " dimensions; accepted are up to 4");
  }
  t.dtype = our_dtype(name, dtype);
  t.device_type = device == numbers().cuda ? ATTNMUX_CUDA : ATTNMUX_CPU;
  if (t.device_type == ATTNMUX_CUDA) {
    check_torch(aoti_torch_get_device_index(handle, &t.device_id), "tell a device");
  } else if (device != numbers().cpu) {
    throw_error(ATTNMUX_INVALID_ARGUMENT, std::string(name) + " is on a device that is neither cpu nor cuda");
  }
  t.ndim = static_cast<int32_t>(ndim);
  std::copy_n(sizes, ndim, t.shape);
  std::copy_n(strides, ndim, t.strides);
  return t;
}

void swap_heads_and_rows(attnmux_tensor& t) {
  std::swap(t.shape[1], t.shape[2]);
  std::swap(t.strides[1], t.strides[2]);
}

Handle new_tensor(const attnmux_tensor& like, int32_t dtype, std::span<const int64_t> shape,
                  std::span<const int> order) {
  int64_t strides[4] = {}, stride = 1;
  for (size_t i = order.size(); i-- > 0;) {
    strides[order[i]] = stride;
    stride *= std::max<int64_t>(shape[static_cast<size_t>(order[i])], 1);  // as PyTorch strides empty tensors
  }
  const Numbers& n = numbers();
  AtenTensorHandle created = nullptr;
  check_torch(aoti_torch_empty_strided(static_cast<int64_t>(shape.size()), shape.data(), strides, torch_dtype(dtype),
                                       like.device_type == ATTNMUX_CUDA ? n.cuda : n.cpu, like.device_id, &created),
              "allocate an output");
  return Handle(created);
}

Handle contiguous_copy(const attnmux_tensor& like, const Handle& tensor) {
  constexpr int kOrder[] = {0, 1, 2, 3};
  const auto rank = static_cast<size_t>(like.ndim);
  Handle copy = new_tensor(like, like.dtype, std::span(like.shape, rank), std::span(kOrder, rank));
  check_torch(aoti_torch_copy_(copy.get(), tensor.get(), 0), "copy a tensor");
  return copy;
}

}  // namespace attnmux::torch_op
