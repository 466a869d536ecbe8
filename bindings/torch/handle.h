// SPDX-License-Identifier: Apache-2.0
// Owning references to PyTorch's tensors, and errors, over the C functions that make up PyTorch's stable ABI.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace attnmux::torch_op {

// PyTorch turns this into a RuntimeError whose text is `message` and nothing else; the Python side reads the code off
// its front and raises attnmux.Error. Nothing but text crosses that boundary.
[[noreturn]] inline void throw_error(int code, const std::string& message) {
  throw std::runtime_error("attnmux:" + std::to_string(code) + ":[attention] " + message);
}

// PyTorch's functions report failure only; the reason went to stderr or, from 2.13 on, stays with PyTorch.
inline void check_torch(AOTITorchError failed, const char* what) {
  if (failed != 0) throw_error(9, std::string("PyTorch could not ") + what);
}

// One reference to a tensor. Boxed operators own their arguments, so every argument goes into one of these first.
class Handle {
 public:
  Handle() = default;
  explicit Handle(AtenTensorHandle owned) : tensor_(owned) {}
  Handle(Handle&& other) noexcept : tensor_(std::exchange(other.tensor_, nullptr)) {}
  Handle& operator=(Handle&& other) noexcept {
    std::swap(tensor_, other.tensor_);
    return *this;
  }
  ~Handle() {
    if (tensor_ != nullptr) aoti_torch_delete_tensor_object(tensor_);
  }

  AtenTensorHandle get() const { return tensor_; }
  AtenTensorHandle release() { return std::exchange(tensor_, nullptr); }
  explicit operator bool() const { return tensor_ != nullptr; }

 private:
  AtenTensorHandle tensor_ = nullptr;
};

}  // namespace attnmux::torch_op
