// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/cudnn/library.h"

#include <dlfcn.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "kernels/cuda/cudnn/api.h"

namespace {

// Filled before the first call: whoever calls has seen cudnn_library().
struct Functions {
  decltype(&cudnnGetVersion) get_version;
  decltype(&cudnnGetErrorString) get_error_string;
  decltype(&cudnnGetLastErrorString) get_last_error_string;
  decltype(&cudnnCreate) create;
  decltype(&cudnnDestroy) destroy;
  decltype(&cudnnSetStream) set_stream;
  decltype(&cudnnGetStream) get_stream;
  decltype(&cudnnBackendCreateDescriptor) create_descriptor;
  decltype(&cudnnBackendDestroyDescriptor) destroy_descriptor;
  decltype(&cudnnBackendFinalize) finalize;
  decltype(&cudnnBackendSetAttribute) set_attribute;
  decltype(&cudnnBackendGetAttribute) get_attribute;
  decltype(&cudnnBackendExecute) execute;
};
constinit Functions functions{};

template <typename Function>
bool find(void* library, const char* name, Function*& function) {
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

// The name of the first function that is missing; null: all are there.
const char* missing_function(void* library) {
  Functions& f = functions;
#define ATTNMUX_FIND(member, name) \
  if (!find(library, name, f.member)) return name
  ATTNMUX_FIND(get_version, "cudnnGetVersion");
  ATTNMUX_FIND(get_error_string, "cudnnGetErrorString");
  ATTNMUX_FIND(get_last_error_string, "cudnnGetLastErrorString");
  ATTNMUX_FIND(create, "cudnnCreate");
  ATTNMUX_FIND(destroy, "cudnnDestroy");
  ATTNMUX_FIND(set_stream, "cudnnSetStream");
  ATTNMUX_FIND(get_stream, "cudnnGetStream");
  ATTNMUX_FIND(create_descriptor, "cudnnBackendCreateDescriptor");
  ATTNMUX_FIND(destroy_descriptor, "cudnnBackendDestroyDescriptor");
  ATTNMUX_FIND(finalize, "cudnnBackendFinalize");
  ATTNMUX_FIND(set_attribute, "cudnnBackendSetAttribute");
  ATTNMUX_FIND(get_attribute, "cudnnBackendGetAttribute");
  ATTNMUX_FIND(execute, "cudnnBackendExecute");
#undef ATTNMUX_FIND
  return nullptr;
}

}  // namespace

extern "C" {

size_t cudnnGetVersion() { return functions.get_version(); }
const char* cudnnGetErrorString(cudnnStatus_t status) { return functions.get_error_string(status); }
void cudnnGetLastErrorString(char* message, size_t max_size) { functions.get_last_error_string(message, max_size); }
cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) { return functions.create(handle); }
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) { return functions.destroy(handle); }
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) { return functions.set_stream(handle, stream); }
cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  return functions.get_stream(handle, stream);
}
cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* descriptor) {
  return functions.create_descriptor(type, descriptor);
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return functions.destroy_descriptor(descriptor);
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) { return functions.finalize(descriptor); }
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void* elements) {
  return functions.set_attribute(descriptor, name, type, count, elements);
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t requested, int64_t* count,
                                       void* elements) {
  return functions.get_attribute(descriptor, name, type, requested, count, elements);
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
  return functions.execute(handle, plan, pack);
}

}  // extern "C"

namespace attnmux {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "libcudnn.so.9";
constexpr const char* kInstall = "install one (pip install 'nvidia-cudnn-cu13==9.19.*'), or set ATTNMUX_CUDNN_PATH";

constinit std::atomic<const CudnnLibrary*> mocked{nullptr};

// Versions that are not used, and why. A closed range each.
struct Denied {
  int64_t first, last;
  const char* why;
};
constexpr Denied kDenied[] = {
    {0, 90999, "masks keys with a large negative number instead of -inf, so rows without a key get an average"},
    {91000, 91001, "gives wrong results of fp16 and bf16 attention"},
    {91400, 91400, "gives wrong results under a window with more than 1024 keys"},
    {100000, INT64_MAX, "has an interface that this build does not know"},
};

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr || value[0] == 0 ? nullptr : value;
}

// nvidia/cudnn/lib of Python's packages below a prefix.
void add_python_prefix(const fs::path& prefix, std::vector<std::string>& files) {
  std::error_code ignored;
  for (const char* lib : {"lib", "local/lib"}) {
    for (const auto& entry : fs::directory_iterator(prefix / lib, ignored)) {
      if (!entry.path().filename().string().starts_with("python3")) continue;
      for (const char* packages : {"site-packages", "dist-packages"}) {
        fs::path file = entry.path() / packages / "nvidia/cudnn/lib" / kFile;
        if (fs::exists(file, ignored)) files.push_back(file.string());
      }
    }
  }
}

// The activated environment's, and that of the python3 that the PATH leads to.
std::vector<std::string> python_files() {
  std::vector<std::string> files;
  for (const char* name : {"VIRTUAL_ENV", "CONDA_PREFIX"}) {
    if (const char* prefix = variable(name)) add_python_prefix(prefix, files);
  }
  const char* path = variable("PATH");
  std::string folders = path == nullptr ? "" : path;
  std::error_code ignored;
  for (size_t begin = 0; begin < folders.size();) {
    const size_t end = std::min(folders.find(':', begin), folders.size());
    const fs::path python = fs::path(folders.substr(begin, end - begin)) / "python3";
    if (fs::exists(python, ignored)) {
      add_python_prefix(python.parent_path().parent_path(), files);
      break;
    }
    begin = end + 1;
  }
  return files;
}

// Opens one file, or only asks whether it is loaded already (RTLD_NOLOAD). True where there is a library, usable or
// not.
bool look_at(const std::string& file, int flags, CudnnLibrary& found) {
  void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | flags);
  Reason reason{};
  if (library == nullptr) {
    const char* text = dlerror();
    refuse(&reason, "%s", text == nullptr ? "unknown error" : text);
  } else if (const char* name = missing_function(library)) {
    refuse(&reason, "the cuDNN in %s has no function %s; %s", file.c_str(), name, kInstall);
  } else {
    found.version = static_cast<int64_t>(functions.get_version());
    Dl_info info{};
    if (dladdr(reinterpret_cast<void*>(functions.get_version), &info) != 0 && info.dli_fname != nullptr)
      std::snprintf(found.path, sizeof(found.path), "%s", info.dli_fname);
    cudnn_version_is_usable(found.version, &reason);
  }
  std::snprintf(found.reason, sizeof(found.reason), "%s", reason.text);
  // One that stays unused must not be in the way of the next, which has the same names inside.
  if (library != nullptr && found.reason[0] != 0) dlclose(library);
  return library != nullptr;
}

CudnnLibrary load() {
  CudnnLibrary found{};
  if (const char* wanted = variable("ATTNMUX_CUDNN_PATH")) {
    std::error_code ignored;
    const bool folder = fs::is_directory(wanted, ignored);
    if (look_at(folder ? (fs::path(wanted) / kFile).string() : wanted, 0, found)) return found;
    Reason reason{};
    refuse(&reason, "ATTNMUX_CUDNN_PATH is \"%s\", which gives no cuDNN: %s", wanted, found.reason);
    std::snprintf(found.reason, sizeof(found.reason), "%s", reason.text);
    return found;
  }
  // A second cuDNN beside the one that the program uses would take its parts from the first.
  if (look_at(kFile, RTLD_NOLOAD, found)) return found;
  std::vector<std::string> files = python_files();
  files.insert(files.begin(), kFile);
  CudnnLibrary first{};
  bool any = false;
  for (const std::string& file : files) {
    found = {};
    if (!look_at(file, 0, found)) continue;
    if (found.reason[0] == 0) return found;
    if (!any) first = found;
    any = true;
  }
  if (!any) std::snprintf(first.reason, sizeof(first.reason), "cuDNN (%s) is not found; %s", kFile, kInstall);
  return first;
}

}  // namespace

int32_t cudnn_version_is_usable(int64_t version, Reason* reason) {
  for (const auto& [first, last, why] : kDenied) {
    if (version < first || version > last) continue;
    // Since cuDNN 9 a version is major·10000 + minor·100 + patch; before that it was major·1000.
    const int64_t major = version < 10000 ? version / 1000 : version / 10000;
    const int64_t minor = version < 10000 ? version % 1000 / 100 : version % 10000 / 100;
    refuse(reason, "cuDNN %lld.%lld.%lld %s; %s", static_cast<long long>(major), static_cast<long long>(minor),
           static_cast<long long>(version % 100), why, kInstall);
    return 0;
  }
  return 1;
}

void mock_cudnn_library(const CudnnLibrary* library) { mocked.store(library, std::memory_order_release); }

const CudnnLibrary& cudnn_library() {
  if (const CudnnLibrary* library = mocked.load(std::memory_order_acquire)) return *library;
  static const CudnnLibrary& library = *new CudnnLibrary(load());  // never destroyed, and cuDNN never unloaded
  return library;
}

}  // namespace attnmux
