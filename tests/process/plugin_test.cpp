// SPDX-License-Identifier: Apache-2.0
// Backends of one's own: registered in the same program, and loaded from a shared library.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "support/catalog.h"
#include "support/subprocess.h"

namespace attnmux::test {
namespace {

// Writes what it was asked for into out, so that a test sees what reached the kernel.
attnmux_code write_scale(const attnmux_problem* p, const attnmux_run_context* context, attnmux_error* error) {
  if (p->scale == 7) {
    error->code = ATTNMUX_DEVICE_ERROR;
    std::strcpy(error->message, "[attention] the device is on fire");
    error->length = static_cast<uint32_t>(std::strlen(error->message));
    return ATTNMUX_DEVICE_ERROR;
  }
  if (p->scale == 8) return ATTNMUX_DEVICE_ERROR;  // without a message
  const bool aligned = reinterpret_cast<uintptr_t>(context->workspace) % 64 == 0 && context->workspace_bytes == 100;
  for (int64_t i = 0; i < p->batch * p->seqlen_q * p->num_heads_q * p->head_dim_v; ++i) {
    static_cast<float*>(p->out.data)[i] = aligned ? static_cast<float>(p->scale) : -1;
  }
  return ATTNMUX_OK;
}
size_t hundred_bytes(const attnmux_problem*, int32_t) { return 100; }
int32_t even_head_dim(const attnmux_problem* p, attnmux_reason* reason) {
  if (p->head_dim % 2 == 0) return 1;
  if (reason != nullptr) std::strcpy(reason->text, "takes even head dimensions only");
  return 0;
}
int32_t never(attnmux_reason* reason) {
  if (reason != nullptr) std::strcpy(reason->text, "needs an Acme card");
  return 0;
}

attnmux_code prepare_or_not(const attnmux_problem* p, attnmux_prepared* state, attnmux_error* error);

attnmux_kernel kernel(const char* name, uint64_t features) {
  attnmux_kernel k{};
  k.struct_size = sizeof(k);
  k.device_type = ATTNMUX_CPU;
  k.name = name;
  k.features = features;
  k.dtypes = 1u << ATTNMUX_FP32;
  k.accuracy[ATTNMUX_FP32] = ATTNMUX_QUANTIZED;
  k.check = even_head_dim;
  k.workspace_bytes = hundred_bytes;
  k.run = write_scale;
  return k;
}

Status registered(const char* name, const std::vector<attnmux_kernel>& kernels) {
  attnmux_backend_desc desc{};
  desc.struct_size = sizeof(desc);
  desc.num_kernels = static_cast<uint32_t>(kernels.size());
  desc.name = name;
  desc.promise = "for tests";
  desc.kernels = kernels.data();
  Status status;
  attnmux_register_backend(&desc, status.c_error());
  return status;
}

Backend acme() {
  static const Backend backend = [] {
    detail::throw_if_failed(registered("acme.scale", {kernel("acme_scale", ATTNMUX_SCALE)}));
    return Backend::named("acme.scale");
  }();
  return backend;
}

struct Tensors {
  std::vector<float> q = std::vector<float>(2 * 3 * 4 * 8), out = std::vector<float>(q.size());
  TensorView in{q.data(), {2, 3, 4, 8}};
  MutableTensorView result{out.data(), {2, 3, 4, 8}};
};

TEST(Plugins, RunByName) {
  Tensors t;
  attention(t.in, t.in, t.in, t.result, {.scale = 0.75, .backend = acme()});
  for (const float x : t.out) ASSERT_EQ(x, 0.75f);
  EXPECT_EQ(acme().name(), "acme.scale");
  EXPECT_GT(acme().id(), kBackendNames.size());
  EXPECT_TRUE(acme().available().ok());
  const AttentionBackendScope scope(acme());
  attention(t.in, t.in, t.in, t.result, {.scale = 0.5});
  EXPECT_EQ(t.out[0], 0.5f);
}

TEST(Plugins, AreNeverChosenByNative) {
  acme();
  Tensors t;
  EXPECT_FALSE(std::string(plan(t.in, t.in, t.in, t.result).kernel()).starts_with("acme"));
  EXPECT_FALSE(std::string(plan(t.in, t.in, t.in, t.result, {.allow_lossy = true}).kernel()).starts_with("acme"));
}

// Whatever a kernel does not claim is refused for it: a plugin cannot overlook a mask that it does not know.
TEST(Plugins, FeaturesAreRefusedUntilClaimed) {
  Tensors t;
  const std::vector<int32_t> lengths = {3, 1};
  const std::vector<uint8_t> bytes(6, 1);
  std::vector<float> lse(2 * 4 * 3);
  const std::pair<std::string, AttentionOptions> rows[] = {
      {"causal", {.mask = Mask::causal()}},
      {"window", {.mask = Mask::window(1, 1)}},
      {"key lengths", {.mask = Mask::key_lengths(lengths)}},
      {"padding", {.mask = Mask::key_padding(TensorView(bytes.data(), {2, 3}))}},
      {"dense", {.mask = Mask::dense(TensorView(bytes.data(), {3}))}},
      {"bias", {.bias = TensorView(t.q.data(), {3})}},
      {"softcap", {.softcap = 2}},
      {"log-sum-exp", {.lse = MutableTensorView(lse.data(), {2, 4, 3})}},
      {"dropout", {.dropout = {.p = 0.5, .seed = 1}}}};
  for (auto [wording, options] : rows) {
    options.backend = acme();
    std::fill(t.out.begin(), t.out.end(), -7.f);
    const Status status = try_attention(t.in, t.in, t.in, t.result, options);
    EXPECT_EQ(status.code(), Code::kUnsupported) << wording;
    EXPECT_TRUE(status.message().starts_with("[attention] backend \"acme.scale\"")) << status.message();
    EXPECT_NE(status.message().find("acme_scale"), std::string_view::npos) << status.message();
    EXPECT_NE(status.message().find(wording), std::string_view::npos) << status.message();
    EXPECT_EQ(t.out[0], -7.f);
    const std::string told = explain(t.in, t.in, t.in, t.result, options).text;
    EXPECT_TRUE(told.starts_with("acme.scale → no kernel")) << told;
    EXPECT_NE(told.find(wording), std::string::npos) << told;
  }
  const MutableTensorView half(t.out.data(), Dtype::kFp16, {2, 3, 4, 8});
  const Status dtype = try_attention(TensorView(t.q.data(), Dtype::kFp16, {2, 3, 4, 8}),
                                     TensorView(t.q.data(), Dtype::kFp16, {2, 3, 4, 8}),
                                     TensorView(t.q.data(), Dtype::kFp16, {2, 3, 4, 8}), half, {.backend = acme()});
  EXPECT_EQ(dtype.code(), Code::kUnsupported);
  EXPECT_NE(dtype.message().find("fp16"), std::string_view::npos) << dtype.message();
}

TEST(Plugins, TheirOwnCheckIsHeard) {
  std::vector<float> q(2 * 3 * 4 * 7), out(q.size());
  const TensorView in(q.data(), {2, 3, 4, 7});
  const Status status = try_attention(in, in, in, MutableTensorView(out.data(), {2, 3, 4, 7}), {.backend = acme()});
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_NE(status.message().find("takes even head dimensions only"), std::string_view::npos) << status.message();
}

TEST(Plugins, TheirErrorsAreHeard) {
  Tensors t;
  const Status said = try_attention(t.in, t.in, t.in, t.result, {.scale = 7.0, .backend = acme()});
  EXPECT_EQ(said.code(), Code::kDeviceError);
  EXPECT_EQ(said.message(), "[attention] the device is on fire");
  const Status silent = try_attention(t.in, t.in, t.in, t.result, {.scale = 8.0, .backend = acme()});
  EXPECT_EQ(silent.code(), Code::kDeviceError);
  EXPECT_NE(silent.message().find("acme_scale"), std::string_view::npos) << silent.message();
}

TEST(Plugins, AreListed) {
  acme();
  for (const auto& row : describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    if (row.at("name") != "acme.scale") continue;
    EXPECT_TRUE(row.at("plugin").get<bool>());
    EXPECT_TRUE(row.at("available").get<bool>());
    EXPECT_EQ(row.at("kernels"), nlohmann::json({"acme_scale"}));
    EXPECT_EQ(row.at("promise"), "for tests");
    EXPECT_EQ(row.at("features"), nlohmann::json({"scale"}));
    EXPECT_EQ(row.at("accuracy"), nlohmann::json({{"fp32", "quantized"}}));
    return;
  }
  FAIL() << "not listed";
}

TEST(Plugins, MayBeUnavailable) {
  attnmux_kernel k = kernel("acme_card", 0);
  k.available = never;
  ASSERT_TRUE(registered("acme.card", {k}).ok());
  const Status status = Backend::named("acme.card").available();
  EXPECT_EQ(status.code(), Code::kUnavailable);
  EXPECT_NE(status.message().find("needs an Acme card"), std::string_view::npos) << status.message();
}

TEST(Plugins, WrongOnesAreRefused) {
  acme();
  const auto refused = [](const std::string& names, const char* backend, const std::vector<attnmux_kernel>& kernels) {
    const Status status = registered(backend, kernels);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << names;
    EXPECT_TRUE(status.message().starts_with("[attention] ")) << status.message();
    EXPECT_NE(status.message().find(names), std::string_view::npos) << status.message();
  };
  const attnmux_kernel good = kernel("acme_good", 0);
  const auto spoilt = [&](auto change) {
    attnmux_kernel k = good;
    change(k);
    return std::vector<attnmux_kernel>{k};
  };
  refused("\"flash\"", "flash", {good});
  refused("\"nodot\"", "nodot", {good});
  refused("\".dot\"", ".dot", {good});
  refused("\"dot.\"", "dot.", {good});
  refused("\"\"", nullptr, {good});
  refused("acme.scale", "acme.scale", {good});
  refused("num_kernels is 0", "acme.none", {});
  refused("name", "acme.bad", spoilt([](auto& k) { k.name = ""; }));
  refused("name", "acme.bad", spoilt([](auto& k) { k.name = nullptr; }));
  refused("acme_scale", "acme.bad", spoilt([](auto& k) { k.name = "acme_scale"; }));
  refused("cpu_math", "acme.bad", spoilt([](auto& k) { k.name = "cpu_math"; }));
  refused("run is null", "acme.bad", spoilt([](auto& k) { k.run = nullptr; }));
  refused("has one of prepare and release", "acme.bad", spoilt([](auto& k) { k.prepare = prepare_or_not; }));
  refused("device_type is 9", "acme.bad", spoilt([](auto& k) { k.device_type = 9; }));
  refused("accuracy[1] is 0", "acme.bad", spoilt([](auto& k) { k.accuracy[ATTNMUX_FP32] = 0; }));
  refused("struct_size is 8", "acme.bad", spoilt([](auto& k) { k.struct_size = 8; }));
  refused("acme_twin", "acme.bad", {kernel("acme_twin", 0), kernel("acme_twin", 0)});
  EXPECT_EQ(Backend::find("acme.bad"), std::nullopt) << "a refused backend is registered";
  Status status;
  EXPECT_EQ(attnmux_register_backend(nullptr, status.c_error()), ATTNMUX_INVALID_ARGUMENT);
}

// Bits of a version that does not exist yet are no claim on bits that do.
TEST(Plugins, OfANewerVersionMayClaimMore) {
  ASSERT_TRUE(registered("acme.newer", {kernel("acme_newer", ATTNMUX_SCALE | uint64_t{1} << 50)}).ok());
  Tensors t;
  EXPECT_TRUE(try_attention(t.in, t.in, t.in, t.result, {.scale = 0.5, .backend = Backend::named("acme.newer")}).ok());
}

// A program and a plugin that were built with the first version pass smaller structs.
TEST(Plugins, OfAnOlderVersionStillRun) {
  attnmux_kernel old = kernel("acme_older", ATTNMUX_SCALE);
  old.struct_size = offsetof(attnmux_kernel, traits);
  old.traits = ~0u;  // bytes behind the struct that it knows
  ASSERT_TRUE(registered("acme.older", {old}).ok());
  Tensors t;
  const AttentionOptions options{.scale = 0.5, .backend = Backend::named("acme.older")};
  EXPECT_TRUE(try_attention(t.in, t.in, t.in, t.result, options).ok());
  attnmux_exec exec{};
  exec.struct_size = offsetof(attnmux_exec, stream_allocate);
  exec.stream_user = &t;
  const attnmux_options o = options.c();
  Status status;
  attnmux_attention(&t.in.c(), &t.in.c(), &t.in.c(), &t.result.c(), &o, &exec, status.c_error());
  EXPECT_TRUE(status.ok()) << status.message();
}

int prepared = 0, released = 0;
attnmux_code prepare_or_not(const attnmux_problem* p, attnmux_prepared* state, attnmux_error* error) {
  if (p->head_dim == 6) {
    error->code = ATTNMUX_UNSUPPORTED;
    std::strcpy(error->message, "[attention] tried, and did not like it");
    error->length = static_cast<uint32_t>(std::strlen(error->message));
    return ATTNMUX_UNSUPPORTED;
  }
  ++prepared;
  state->state = &prepared;
  state->workspace_bytes = 100;
  return ATTNMUX_OK;
}
attnmux_code run_prepared(const attnmux_problem* p, const attnmux_run_context* context, attnmux_error* error) {
  return context->prepared == &prepared ? write_scale(p, context, error) : ATTNMUX_INTERNAL;
}

// A plan prepares once; a call without one each time; whatever was prepared is given back.
TEST(Plugins, MayPrepare) {
  attnmux_kernel k = kernel("acme_prepares", ATTNMUX_SCALE);
  k.workspace_bytes = nullptr;
  k.run = run_prepared;
  k.prepare = prepare_or_not;
  k.release = [](void* state) { released += state == &prepared ? 1 : 1000; };
  k.traits = ATTNMUX_KERNEL_ONE_SHAPE;
  ASSERT_TRUE(registered("acme.prepares", {k}).ok());
  Tensors t;
  const AttentionOptions options{.scale = 0.5, .backend = Backend::named("acme.prepares")};
  {
    Plan made = plan(t.in, t.in, t.in, t.result, options);
    EXPECT_EQ(prepared, 1);
    EXPECT_GE(made.workspace_bytes(), 100u);
    for (int i = 0; i < 3; ++i) made.run(t.in, t.in, t.in, t.result, options);
    EXPECT_EQ(t.out[0], 0.5f);
    EXPECT_EQ(prepared, 1);
    EXPECT_EQ(released, 0);
    const TensorView shorter(t.q.data(), {2, 2, 4, 8});
    const Status status = made.try_run(t.in, shorter, shorter, t.result, options);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_NE(status.message().find("seqlen_kv is 2; accepted is (this kernel serves one shape) 3"),
              std::string_view::npos)
        << status.message();
    const TensorView strided(t.q.data(), Dtype::kFp32, {2, 3, 4, 8}, {96, 8, 24, 1});
    EXPECT_NE(made.try_run(strided, t.in, t.in, t.result, options).message().find("the strides of q differ"),
              std::string_view::npos);
  }
  EXPECT_EQ(released, 1);
  attention(t.in, t.in, t.in, t.result, options);
  EXPECT_EQ(prepared, 2);
  EXPECT_EQ(released, 2);
  const TensorView six(t.q.data(), {2, 3, 4, 6});
  const MutableTensorView six_out(t.out.data(), {2, 3, 4, 6});
  Plan refused;
  for (const Status& status :
       {try_attention(six, six, six, six_out, options), try_plan(refused, six, six, six, six_out, options)}) {
    EXPECT_EQ(status.code(), Code::kUnsupported);
    EXPECT_EQ(status.message(), "[attention] tried, and did not like it");
  }
  EXPECT_EQ(released, 2) << "gave back what was never made";
}

TEST(Plugins, FilesThatAreNone) {
  const std::pair<std::string, std::string> rows[] = {{"", "empty"},
                                                      {"/nowhere/libacme.so", "/nowhere/libacme.so"},
                                                      {"/dev/null", "/dev/null"},
                                                      {ATTNMUX_SHARED_LIBRARY, "attnmux_plugin_init"}};
  for (const auto& [path, says] : rows) {
    const Status status = try_load_plugin(path);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << path;
    EXPECT_NE(status.message().find(says), std::string_view::npos) << status.message();
    EXPECT_THROW(load_plugin(path), Error);
  }
}

#ifdef ATTNMUX_SKELETON_KERNEL
// The copyable start of a kernel, loaded as a user would: listed, explained, right, and twice is an error.
ATTNMUX_PROBE(load_skeleton) {
  const size_t before = describe(ATTNMUX_DESCRIBE_BACKENDS).size();
  load_plugin(ATTNMUX_SKELETON_KERNEL);
  const auto table = describe(ATTNMUX_DESCRIBE_BACKENDS);
  if (table.size() <= before) return "not listed";
  const auto& row = table.back();
  const std::string name = row.at("name");
  if (!row.at("plugin").get<bool>() || name.find('.') == std::string::npos) return "not a plugin: " + name;
  const Backend backend = Backend::named(name);
  std::vector<float> q(2 * 3 * 4 * 8), out(q.size()), expected(q.size());
  for (size_t i = 0; i < q.size(); ++i) q[i] = static_cast<float>(i * 37 % 41) / 20 - 1;
  const TensorView in(q.data(), {2, 3, 4, 8});
  const Status status = try_attention(in, in, in, MutableTensorView(out.data(), {2, 3, 4, 8}), {.backend = backend});
  if (!status) return std::string(status.message());
  attention(in, in, in, MutableTensorView(expected.data(), {2, 3, 4, 8}), {.backend = "_native_math"});
  for (size_t i = 0; i < out.size(); ++i) {
    if (!(out[i] - expected[i] < 1e-5f && expected[i] - out[i] < 1e-5f)) return "wrong at " + std::to_string(i);
  }
  std::string told = explain(in, in, in, MutableTensorView(out.data(), {2, 3, 4, 8}), {.backend = backend}).text;
  if (!told.starts_with(name + " → ")) return told;
  const Status again = try_load_plugin(ATTNMUX_SKELETON_KERNEL);
  if (again.ok() || again.message().find(name) == std::string_view::npos)
    return "twice: " + std::string(again.message());
  return "right";
}

TEST(Plugins, SkeletonKernel) {
  const Finished child = run_probe("load_skeleton");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "right") << child.output;
}
#endif

}  // namespace
}  // namespace attnmux::test
