// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/runtime/device.h"

#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstring>

namespace attnmux {
namespace {

constinit std::atomic<const CudaMachine*> mocked{nullptr};

bool driver_library_exists() {
  void* library = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
  if (library != nullptr) dlclose(library);
  return library != nullptr;
}

bool describe(int32_t id, CudaDevice& device) {
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, id) != cudaSuccess) return false;
  std::snprintf(device.name, sizeof(device.name), "%s", properties.name);
  device.major = properties.major;
  device.minor = properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  device.shared_bytes = static_cast<int32_t>(properties.sharedMemPerBlockOptin);
  device.memory_bytes = static_cast<int64_t>(properties.totalGlobalMem);
  device.l2_bytes = properties.l2CacheSize;
  device.reads_host_memory = properties.pageableMemoryAccess != 0;
  return true;
}

CudaMachine ask() {
  CudaMachine machine{};
  machine.built = true;
  const auto because = [&](const char* reason) { std::snprintf(machine.reason, sizeof(machine.reason), "%s", reason); };
  cudaRuntimeGetVersion(&machine.runtime_version);
  if (!driver_library_exists()) {
    because("there is no NVIDIA driver: libcuda.so.1 is not found; install the driver, or take tensors on the cpu");
    return machine;
  }
  int driver = 0;
  if (cudaDriverGetVersion(&driver) == cudaSuccess) machine.driver_version = driver;
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  cudaGetLastError();  // the next call must not find this one's error
  if (code == cudaErrorInsufficientDriver) {
    std::snprintf(machine.reason, sizeof(machine.reason),
                  "the NVIDIA driver is too old: it supports CUDA %d.%d, this build needs %d.%d; update the driver",
                  machine.driver_version / 1000, machine.driver_version % 1000 / 10, machine.runtime_version / 1000,
                  machine.runtime_version % 1000 / 10);
    return machine;
  }
  if (code == cudaErrorNoDevice || (code == cudaSuccess && count == 0)) {
    because("the NVIDIA driver sees no GPU (is it passed into this container? does CUDA_VISIBLE_DEVICES hide it?)");
    return machine;
  }
  if (code != cudaSuccess) {
    std::snprintf(machine.reason, sizeof(machine.reason), "CUDA does not start: %s (%s)", cudaGetErrorString(code),
                  cudaGetErrorName(code));
    return machine;
  }
  for (int32_t id = 0; id < count && id < kMaxCudaDevices; ++id) {
    if (!describe(id, machine.device[id])) break;
    machine.num_devices = id + 1;
  }
  if (machine.num_devices == 0) because("the properties of the first GPU cannot be read");
  return machine;
}

}  // namespace

void mock_cuda_machine(const CudaMachine* machine) { mocked.store(machine, std::memory_order_release); }

const CudaMachine& cuda_machine() {
  if (const CudaMachine* machine = mocked.load(std::memory_order_acquire)) return *machine;
  static const CudaMachine& machine = *new CudaMachine(ask());  // never destroyed: static destructors may call us
  return machine;
}

int32_t cuda_available(int32_t capability, Reason* reason) {
  const CudaMachine& machine = cuda_machine();
  if (machine.reason[0] != 0) {
    refuse(reason, "%s", machine.reason);
    return 0;
  }
  for (int32_t id = 0; id < machine.num_devices; ++id) {
    if (machine.device[id].major * 10 + machine.device[id].minor >= capability) return 1;
  }
  refuse(reason, "needs an NVIDIA GPU of compute capability %d.%d or newer; %s has %d.%d", capability / 10,
         capability % 10, machine.device[0].name, machine.device[0].major, machine.device[0].minor);
  return 0;
}

int32_t cuda_device_is(const Problem& p, int32_t capability, Reason* reason) {
  const CudaMachine& machine = cuda_machine();
  if (p.device_id >= machine.num_devices) {
    refuse(reason, "tensors are on cuda:%d; this machine has %d GPU%s, from cuda:0", p.device_id, machine.num_devices,
           machine.num_devices == 1 ? "" : "s");
    return 0;
  }
  const CudaDevice& device = machine.device[p.device_id];
  if (device.major * 10 + device.minor >= capability) return 1;
  refuse(reason, "needs compute capability %d.%d or newer; cuda:%d, %s, has %d.%d", capability / 10, capability % 10,
         p.device_id, device.name, device.major, device.minor);
  return 0;
}

}  // namespace attnmux
