// SPDX-License-Identifier: Apache-2.0
// What fails below the front door: tasks that throw, memory that runs out.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

namespace attnmux {
namespace {

struct Tensors {
  std::vector<float> q = std::vector<float>(2 * 64 * 4 * 32, 0.5f), out = std::vector<float>(q.size());
  TensorView in{q.data(), {2, 64, 4, 32}};
  MutableTensorView result{out.data(), {2, 64, 4, 32}};
};

// A kernel in C++ that throws from a task of the library's pool: the exception crosses the workers and becomes a
// status.
attnmux_code throwing_run(const attnmux_problem* problem, const attnmux_run_context* context, attnmux_error*) {
  if (problem->scale != 0.5) return ATTNMUX_OK;
  return context->parallel_for(
      context->pool, context->num_threads,
      [](void*, int64_t task) {
        if (task == 1) throw std::runtime_error("task 1 is out of luck");
      },
      nullptr);
}

const Backend& throwing_backend() {
  static const Backend backend = [] {
    attnmux_kernel kernel{};
    kernel.struct_size = sizeof(kernel);
    kernel.device_type = ATTNMUX_CPU;
    kernel.name = "acme_throws";
    kernel.features = ATTNMUX_SCALE;
    kernel.dtypes = 1u << ATTNMUX_FP32;
    kernel.accuracy[ATTNMUX_FP32] = ATTNMUX_EXACT;
    kernel.run = throwing_run;
    attnmux_backend_desc desc{};
    desc.struct_size = sizeof(desc);
    desc.num_kernels = 1;
    desc.name = "acme.throws";
    desc.promise = "fails on request";
    desc.kernels = &kernel;
    Status status;
    attnmux_register_backend(&desc, status.c_error());
    detail::throw_if_failed(status);
    return Backend::named("acme.throws");
  }();
  return backend;
}

TEST(Failures, AnExceptionInAWorkerReachesTheCaller) {
  Tensors t;
  set_num_threads(3);
  for (int round = 0; round < 20; ++round) {
    const Status status = try_attention(t.in, t.in, t.in, t.result, {.scale = 0.5, .backend = throwing_backend()});
    EXPECT_EQ(status.code(), Code::kExecutorFailed);
    EXPECT_NE(status.message().find("task 1 is out of luck"), std::string_view::npos) << status.message();
    EXPECT_THROW(attention(t.in, t.in, t.in, t.result, {.scale = 0.5, .backend = throwing_backend()}), Error);
    // The workers are none the worse for it.
    EXPECT_TRUE(try_attention(t.in, t.in, t.in, t.result, {.scale = 2.0, .backend = throwing_backend()}).ok());
    EXPECT_TRUE(try_attention(t.in, t.in, t.in, t.result).ok());
  }
  set_num_threads(0);
}

// An allocator that has nothing left: an error with the number of bytes, and the next call works again.
TEST(Failures, OutOfMemory) {
  Tensors t;
  release_workspace();
  ASSERT_EQ(attnmux_set_allocator([](void*, int32_t, size_t, size_t) -> void* { return nullptr; },
                                  [](void*, int32_t, void*, size_t) {}, nullptr, nullptr),
            ATTNMUX_OK);
  const Status status = try_attention(t.in, t.in, t.in, t.result, {.backend = "_native_math"});
  EXPECT_EQ(status.code(), Code::kOutOfMemory);
  const Plan made = plan(t.in, t.in, t.in, t.result, {.backend = "_native_math"});
  EXPECT_NE(status.message().find(std::to_string(made.workspace_bytes())), std::string_view::npos) << status.message();
  EXPECT_NE(status.message().find("cpu_math"), std::string_view::npos) << status.message();
  // With a workspace of the caller nothing is allocated.
  std::vector<std::byte> workspace(made.workspace_bytes());
  EXPECT_TRUE(
      made.try_run(t.in, t.in, t.in, t.result, {.backend = "_native_math"}, {.workspace = std::span(workspace)}).ok());
  ASSERT_EQ(attnmux_set_allocator(nullptr, nullptr, nullptr, nullptr), ATTNMUX_OK);
  EXPECT_TRUE(try_attention(t.in, t.in, t.in, t.result, {.backend = "_native_math"}).ok());
}

}  // namespace
}  // namespace attnmux
