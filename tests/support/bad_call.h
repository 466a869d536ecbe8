// SPDX-License-Identifier: Apache-2.0
// A right call at the level of the C ABI, for tests that spoil one argument of it.
#pragma once

#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace attnmux::test {

// A right call of two batches, which a test then spoils.
struct Call {
  std::vector<float> q = std::vector<float>(2 * 4 * 6 * 8, 0.5f), k = std::vector<float>(2 * 5 * 2 * 8, 0.5f),
                     v = std::vector<float>(2 * 5 * 2 * 8, 0.5f), out = std::vector<float>(2 * 4 * 6 * 8, -7.f),
                     lse = std::vector<float>(2 * 6 * 4, -7.f), bias = std::vector<float>(5);
  std::vector<uint8_t> bytes = std::vector<uint8_t>(2 * 6 * 4 * 5, 1);
  std::vector<int32_t> ints = {0, 2, 5, 5, 5, 5};
  attnmux_tensor tq = TensorView(q.data(), {2, 4, 6, 8}).c(), tk = TensorView(k.data(), {2, 5, 2, 8}).c(),
                 tv = TensorView(v.data(), {2, 5, 2, 8}).c(), tout = TensorView(out.data(), {2, 4, 6, 8}).c();
  attnmux_options o = AttentionOptions{}.c();
  attnmux_exec e{};

  Call() { e.struct_size = sizeof(e); }
  Call(const Call&) = delete;

  void pack(std::vector<int32_t> cu_q, std::vector<int32_t> cu_kv) {
    cu_q_ = std::move(cu_q);
    cu_kv_ = std::move(cu_kv);
    tq = TensorView(q.data(), {8, 6, 8}).c();
    tk = TensorView(k.data(), {10, 2, 8}).c();
    tv = TensorView(v.data(), {10, 2, 8}).c();
    tout = TensorView(out.data(), {8, 6, 8}).c();
    o.set |= ATTNMUX_VARLEN;
    o.cu_seqlens_q = TensorView(cu_q_).c();
    o.cu_seqlens_kv = TensorView(cu_kv_).c();
  }
  attnmux_tensor lengths() { return TensorView(ints.data(), {2}).c(); }

  Status attention() {
    Status s;
    attnmux_attention(&tq, &tk, &tv, &tout, &o, &e, s.c_error());
    return s;
  }
  Status plan() {
    Status s;
    attnmux_plan* made = nullptr;
    attnmux_plan_create(&tq, &tk, &tv, &tout, &o, &e, &made, s.c_error());
    EXPECT_EQ(made != nullptr, s.ok());
    attnmux_plan_release(made);
    return s;
  }
  Status explain() {
    Status s;
    attnmux_explain(&tq, &tk, &tv, &tout, &o, &e, 0, [](void*, const char*, size_t) {}, nullptr, s.c_error());
    return s;
  }

 private:
  std::vector<int32_t> cu_q_, cu_kv_;
};

}  // namespace attnmux::test
