// SPDX-License-Identifier: Apache-2.0
#include "dispatch/describe.h"

#include <attnmux/attnmux_c.h>
#include <attnmux/version.h>

#include <cstddef>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "dispatch/dtypes.h"
#include "dispatch/environment.h"
#include "dispatch/features.h"
#include "dispatch/registry.h"
#include "dispatch/select.h"
#include "kernels/cpu/isa/cpu_isa.h"
#include "kernels/cpu/runtime/thread_pool.h"
#include "kernels/cuda/runtime/device.h"
#ifdef ATTNMUX_HAS_CUDNN
#include "kernels/cuda/cudnn/library.h"
#endif

namespace attnmux {
namespace {

using Json = nlohmann::ordered_json;

Json feature_names(uint64_t features) {
  Json names = Json::array();
  for (const FeatureRow& row : kFeatures) {
    if ((features & row.bit) != 0) names.push_back(row.name);
  }
  return names;
}

bool kernel_available(const Kernel& kernel, std::string& reason) {
  Reason why{};
  const bool available = kernel.available == nullptr || kernel.available(&why) != 0;
  reason = why.text;
  return available;
}

Json describe_kernel(const Kernel& kernel) {
  Json json;
  json["name"] = kernel.name;
  json["device"] = kernel.device_type == ATTNMUX_CPU ? "cpu" : "cuda";
  std::string reason;
  json["available"] = kernel_available(kernel, reason);
  json["reason"] = reason;
  json["dtypes"] = Json::array();
  json["accuracy"] = Json::object();
  for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
    if ((kernel.dtypes >> dtype & 1) == 0) continue;
    json["dtypes"].push_back(dtype_name(dtype));
    json["accuracy"][std::string(dtype_name(dtype))] = accuracy_name(kernel.accuracy[dtype]);
  }
  json["features"] = feature_names(kernel.features);
  json["one_shape"] = (kernel.traits & ATTNMUX_KERNEL_ONE_SHAPE) != 0;
  return json;
}

// Per dtype the lowest class among the kernels that can be picked on this machine; among all where none can.
Json lowest_accuracy(const BackendRow& row, bool available) {
  uint8_t lowest[ATTNMUX_DTYPE_COUNT] = {};
  for (const Kernel* kernel : row.list()) {
    std::string unused;
    if (available && !kernel_available(*kernel, unused)) continue;
    for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
      const bool takes = (kernel->dtypes >> dtype & 1) != 0;
      const bool automatic = !row.automatic || kernel->accuracy[dtype] <= ATTNMUX_16BIT;
      if (takes && automatic) lowest[dtype] = std::max(lowest[dtype], kernel->accuracy[dtype]);
    }
  }
  Json json = Json::object();
  for (int32_t dtype = 1; dtype < ATTNMUX_DTYPE_COUNT; ++dtype) {
    if (lowest[dtype] != 0) json[std::string(dtype_name(dtype))] = accuracy_name(lowest[dtype]);
  }
  return json;
}

std::string cuda_version(int32_t version) {
  return version == 0 ? "" : std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Json describe_cuda() {
  const CudaMachine& cuda = cuda_machine();
  Json json;
  json["built"] = cuda.built;
  json["reason"] = cuda.reason;
  if (!cuda.built) return json;
  json["runtime"] = cuda_version(cuda.runtime_version);
  json["driver"] = cuda_version(cuda.driver_version);
  json["gpus"] = Json::array();
  for (int32_t id = 0; id < cuda.num_devices; ++id) {
    const CudaDevice& d = cuda.device[id];
    json["gpus"].push_back({{"name", d.name},
                            {"compute_capability", std::to_string(d.major) + "." + std::to_string(d.minor)},
                            {"multiprocessors", d.multiprocessors},
                            {"memory_bytes", d.memory_bytes},
                            {"l2_bytes", d.l2_bytes},
                            {"shared_bytes", d.shared_bytes}});
  }
#ifdef ATTNMUX_HAS_CUDNN
  if (cuda.num_devices > 0) {  // not loaded where nothing can use it
    const CudnnLibrary& cudnn = cudnn_library();
    json["cudnn"] = {{"version", cudnn.version}, {"path", cudnn.path}, {"reason", cudnn.reason}};
  }
#endif
  return json;
}

#define FIELD(type, name) {#name, offsetof(type, name)}
Json layout(size_t size, const std::vector<std::pair<const char*, size_t>>& fields) {
  Json json;
  json["size"] = size;
  json["fields"] = Json::object();
  for (const auto& [name, offset] : fields) json["fields"][name] = offset;
  return json;
}

}  // namespace

std::string describe_backends() {
  Json list = Json::array();
  for (uint16_t id = 1; id <= num_backends(); ++id) {
    const BackendRow& row = *backend_row(id);
    Message reason;
    const bool available = is_available(row, reason);
    Json json;
    json["name"] = row.name;
    json["id"] = id;
    json["family"] = row.family;
    json["available"] = available;
    json["reason"] = reason.view();
    json["promise"] = row.promise;
    json["kernels"] = Json::array();
    json["accuracy"] = lowest_accuracy(row, available);
    uint64_t features = 0;
    json["features"] = Json::array();
    json["kernel_details"] = Json::array();
    for (const Kernel* kernel : row.list()) {
      json["kernels"].push_back(kernel->name);
      json["kernel_details"].push_back(describe_kernel(*kernel));
      features |= kernel->features;
    }
    json["features"] = feature_names(features);
    json["plugin"] = is_plugin(id);
    list.push_back(std::move(json));
  }
  return list.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string describe_machine() {
  const CpuDescription cpu = describe_cpu();
  Json json;
  json["version"] = ATTNMUX_VERSION_STRING;
  json["abi_version"] = ATTNMUX_ABI_VERSION;
  json["cpu"] = cpu.brand;
  json["isa"] = cpu_isa_name(usable_cpu_isa());
  json["isa_detected"] = cpu_isa_name(detected_cpu_isa());
  json["cores"] = num_cores();
  json["num_threads"] = num_pool_threads();
  for (const int level : {1, 2, 3}) {
    int64_t bytes = 0;  // 0: unknown
    for (const CpuCache& cache : cpu.caches)
      bytes = cache.level == level && cache.type != "Instruction" ? cache.bytes : bytes;
    json[level == 1 ? "l1d_bytes" : level == 2 ? "l2_bytes" : "l3_bytes"] = bytes;
  }
  json["devices"] = {{"cuda", describe_cuda()}};
  json["environment"] = Json::object();
  for (const char* name : kEnvironmentNames) {
    const char* value = std::getenv(name);
    json["environment"][name] = value == nullptr ? Json(nullptr) : Json(value);
  }
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

std::string describe_abi() {
  Json json;
  using T = attnmux_tensor;
  json["attnmux_tensor"] = layout(sizeof(T), {FIELD(T, data), FIELD(T, dtype), FIELD(T, device_type),
                                              FIELD(T, device_id), FIELD(T, ndim), FIELD(T, shape), FIELD(T, strides)});
  using O = attnmux_options;
  json["attnmux_options"] = layout(
      sizeof(O), {FIELD(O, struct_size),    FIELD(O, backend),       FIELD(O, layer_backend), FIELD(O, kernel),
                  FIELD(O, reserved),       FIELD(O, layer_role),    FIELD(O, set),           FIELD(O, conflicts),
                  FIELD(O, scale),          FIELD(O, softcap),       FIELD(O, dropout_p),     FIELD(O, dropout_seed),
                  FIELD(O, dropout_offset), FIELD(O, window_left),   FIELD(O, window_right),  FIELD(O, causal_align),
                  FIELD(O, window_align),   FIELD(O, max_seqlen_q),  FIELD(O, max_seqlen_kv), FIELD(O, key_lengths),
                  FIELD(O, key_padding),    FIELD(O, dense_mask),    FIELD(O, bias),          FIELD(O, lse),
                  FIELD(O, cu_seqlens_q),   FIELD(O, cu_seqlens_kv), FIELD(O, q_descale),     FIELD(O, k_descale),
                  FIELD(O, v_descale)});
  using E = attnmux_exec;
  json["attnmux_exec"] =
      layout(sizeof(E), {FIELD(E, struct_size), FIELD(E, num_threads), FIELD(E, set), FIELD(E, stream),
                         FIELD(E, workspace), FIELD(E, workspace_bytes), FIELD(E, parallel_for), FIELD(E, pool),
                         FIELD(E, stream_allocate), FIELD(E, stream_deallocate), FIELD(E, stream_user)});
  using R = attnmux_error;
  json["attnmux_error"] = layout(sizeof(R), {FIELD(R, code), FIELD(R, length), FIELD(R, message)});
  using P = attnmux_problem;
  json["attnmux_problem"] = layout(sizeof(P), {FIELD(P, struct_size),
                                               FIELD(P, dtype),
                                               FIELD(P, features),
                                               FIELD(P, device_type),
                                               FIELD(P, device_id),
                                               FIELD(P, batch),
                                               FIELD(P, seqlen_q),
                                               FIELD(P, seqlen_kv),
                                               FIELD(P, num_heads_q),
                                               FIELD(P, num_heads_kv),
                                               FIELD(P, head_dim),
                                               FIELD(P, head_dim_v),
                                               FIELD(P, scale),
                                               FIELD(P, softcap),
                                               FIELD(P, dropout_p),
                                               FIELD(P, dropout_seed),
                                               FIELD(P, dropout_offset),
                                               FIELD(P, window_left),
                                               FIELD(P, window_right),
                                               FIELD(P, align),
                                               FIELD(P, reserved),
                                               FIELD(P, q),
                                               FIELD(P, k),
                                               FIELD(P, v),
                                               FIELD(P, out),
                                               FIELD(P, lse),
                                               FIELD(P, key_lengths),
                                               FIELD(P, key_padding),
                                               FIELD(P, dense_mask),
                                               FIELD(P, bias),
                                               FIELD(P, cu_seqlens_q),
                                               FIELD(P, cu_seqlens_kv),
                                               FIELD(P, q_descale),
                                               FIELD(P, k_descale),
                                               FIELD(P, v_descale)});
  using C = attnmux_run_context;
  json["attnmux_run_context"] =
      layout(sizeof(C), {FIELD(C, struct_size), FIELD(C, num_threads), FIELD(C, stream), FIELD(C, workspace),
                         FIELD(C, workspace_bytes), FIELD(C, parallel_for), FIELD(C, pool), FIELD(C, prepared)});
  using K = attnmux_kernel;
  json["attnmux_kernel"] = layout(
      sizeof(K), {FIELD(K, struct_size), FIELD(K, device_type), FIELD(K, name), FIELD(K, features), FIELD(K, dtypes),
                  FIELD(K, accuracy), FIELD(K, available), FIELD(K, check), FIELD(K, workspace_bytes), FIELD(K, run),
                  FIELD(K, traits), FIELD(K, reserved), FIELD(K, prepare), FIELD(K, release)});
  using Q = attnmux_prepared;
  json["attnmux_prepared"] = layout(sizeof(Q), {FIELD(Q, state), FIELD(Q, workspace_bytes)});
  using B = attnmux_backend_desc;
  json["attnmux_backend_desc"] = layout(
      sizeof(B), {FIELD(B, struct_size), FIELD(B, num_kernels), FIELD(B, name), FIELD(B, promise), FIELD(B, kernels)});
  using H = attnmux_host;
  json["attnmux_host"] = layout(sizeof(H), {FIELD(H, struct_size), FIELD(H, abi_version), FIELD(H, register_backend)});
  using S = attnmux_scope;
  json["attnmux_scope"] = layout(sizeof(S), {FIELD(S, slot), FIELD(S, generation)});
  using X = attnmux_context;
  json["attnmux_context"] = layout(sizeof(X), {FIELD(X, struct_size), FIELD(X, count), FIELD(X, entries)});
  return json.dump(2);
}
#undef FIELD

}  // namespace attnmux
