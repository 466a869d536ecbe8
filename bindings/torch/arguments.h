// SPDX-License-Identifier: Apache-2.0
// The arguments of a boxed operator, taken off PyTorch's stack one by one in the order of the schema.
#pragma once

#include <torch/csrc/stable/stableivalue_conversions.h>

#include <cstdint>
#include <optional>

#include "handle.h"

namespace attnmux::torch_op {

class Arguments {
 public:
  Arguments(StableIValue* stack, uint64_t given, uint64_t expected) : next_(stack) {
    if (given != expected) {
      throw_error(9, "an operator was called with " + std::to_string(given) + " arguments; its schema has " +
                         std::to_string(expected) + ". Two versions of attnmux are loaded");
    }
  }

  Handle tensor() { return Handle(torch::stable::detail::to<AtenTensorHandle>(*next_++)); }
  int64_t integer() { return torch::stable::detail::to<int64_t>(*next_++); }
  double real() { return torch::stable::detail::to<double>(*next_++); }
  bool boolean() { return torch::stable::detail::to<bool>(*next_++); }

  // None is a null pointer; a value is a heap cell that the operator owns.
  Handle optional_tensor() {
    const auto value = torch::stable::detail::to<std::optional<AtenTensorHandle>>(*next_++);
    return value ? Handle(*value) : Handle();
  }
  std::optional<double> optional_real() { return torch::stable::detail::to<std::optional<double>>(*next_++); }

 private:
  StableIValue* next_;
};

}  // namespace attnmux::torch_op
