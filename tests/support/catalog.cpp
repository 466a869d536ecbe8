// SPDX-License-Identifier: Apache-2.0
#include "support/catalog.h"

#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <stdexcept>
#include <string_view>

namespace attnmux::test {
namespace {

const std::map<std::string, int32_t> kDtypeBits = {{"fp32", ATTNMUX_FP32},
                                                   {"fp16", ATTNMUX_FP16},
                                                   {"bf16", ATTNMUX_BF16},
                                                   {"fp64", ATTNMUX_FP64},
                                                   {"e4m3", ATTNMUX_E4M3}};
const std::map<std::string, uint64_t> kFeatureBits = {{"causal", ATTNMUX_MASK_CAUSAL},
                                                      {"window", ATTNMUX_MASK_WINDOW},
                                                      {"key_lengths", ATTNMUX_MASK_KEY_LENGTHS},
                                                      {"key_padding", ATTNMUX_MASK_KEY_PADDING},
                                                      {"dense", ATTNMUX_MASK_DENSE},
                                                      {"bias", ATTNMUX_BIAS},
                                                      {"softcap", ATTNMUX_SOFTCAP},
                                                      {"scale", ATTNMUX_SCALE},
                                                      {"lse", ATTNMUX_LSE},
                                                      {"dropout", ATTNMUX_DROPOUT},
                                                      {"varlen", ATTNMUX_VARLEN},
                                                      {"gqa", ATTNMUX_GQA},
                                                      {"head_dim_v", ATTNMUX_HEAD_DIM_V},
                                                      {"descale", ATTNMUX_DESCALE}};

// "" where every device is wanted.
std::string only_device() {
  const char* value = std::getenv("ATTNMUX_TEST_DEVICES");
  const std::string text = value == nullptr ? "all" : value;
  if (text != "all" && text != "cpu" && text != "cuda") {
    throw std::runtime_error("ATTNMUX_TEST_DEVICES is \"" + text + "\"; accepted are all, cpu, cuda");
  }
  return text == "all" ? "" : text;
}

// "" where every kernel is wanted.
std::string only_kernel() {
  const char* value = std::getenv("ATTNMUX_TEST_KERNEL");
  const std::string name = value == nullptr ? "" : value;
  if (!name.empty() && attnmux_kernel_find(name.data(), name.size()) == 0) {
    throw std::runtime_error("ATTNMUX_TEST_KERNEL is \"" + name + "\", which names no kernel");
  }
  return name;
}

void say_why_cuda_is_missing() {
  const auto cuda = describe(ATTNMUX_DESCRIBE_MACHINE).at("devices").at("cuda");
  const std::string reason = cuda.at("reason");
  if (!reason.empty()) std::printf("CUDA kernels are not tested: %s\n", reason.c_str());
}

std::vector<Target> find_targets() {
  const std::string only = only_device(), one = only_kernel();
  if (cuda_tensors_can_be_mirrored && only != "cpu") say_why_cuda_is_missing();
  std::vector<Target> all;
  for (const auto& backend : describe(ATTNMUX_DESCRIBE_BACKENDS)) {
    if (!backend.at("available").get<bool>()) continue;
    for (const auto& kernel : backend.at("kernel_details")) {
      if (!one.empty() && kernel.at("name") != one) continue;
      const bool on_cuda = kernel.at("device") == "cuda";
      if (on_cuda && !cuda_tensors_can_be_mirrored) continue;
      if (!kernel.at("available").get<bool>() || (!only.empty() && kernel.at("device") != only)) continue;
      Target t;
      t.on_cuda = on_cuda;
      t.one_shape = kernel.at("one_shape");
      t.backend_name = backend.at("name");
      t.backend = Backend::named(t.backend_name);
      t.kernel = kernel.at("name");
      for (const auto& dtype : kernel.at("dtypes")) {
        const std::string name = dtype;
        t.dtypes |= 1u << kDtypeBits.at(name);
        if (kernel.at("accuracy").at(name) == "exact") t.exact |= 1u << kDtypeBits.at(name);
      }
      for (const auto& feature : kernel.at("features")) t.features |= kFeatureBits.at(feature.get<std::string>());
      all.push_back(t);
    }
  }
  return all;
}

}  // namespace

nlohmann::json describe(int32_t topic) {
  std::string text;
  Status status;
  attnmux_describe(
      topic, [](void* to, const char* part, size_t n) { static_cast<std::string*>(to)->append(part, n); }, &text,
      status.c_error());
  detail::throw_if_failed(status);
  return nlohmann::json::parse(text);
}

const std::vector<Target>& targets() {
  static const std::vector<Target> all = find_targets();
  return all;
}

const std::vector<Target>& kernels() {
  static const std::vector<Target> all = [] {
    std::vector<Target> once;
    std::set<std::string> seen;
    for (const Target& t : targets()) {
      if (seen.insert(t.kernel).second) once.push_back(t);
    }
    return once;
  }();
  return all;
}

const Target& kernel_named(std::string_view name) {
  for (const Target& t : kernels()) {
    if (t.kernel == name) return t;
  }
  throw std::runtime_error("no kernel \"" + std::string(name) + "\" here");
}

std::string source_dir() {
  const char* value = std::getenv("ATTNMUX_TEST_SOURCE_DIR");
  return value == nullptr ? ATTNMUX_SOURCE_DIR : value;
}

Intensity intensity() {
  static const Intensity chosen = [] {
    const char* value = std::getenv("ATTNMUX_TEST_INTENSITY");
    const std::string_view text = value == nullptr ? "ci" : value;
    if (text == "smoke") return Intensity::kSmoke;
    if (text == "ci") return Intensity::kCi;
    if (text == "full") return Intensity::kFull;
    throw std::runtime_error("ATTNMUX_TEST_INTENSITY is \"" + std::string(text) + "\"; accepted are smoke, ci, full");
  }();
  return chosen;
}

}  // namespace attnmux::test
