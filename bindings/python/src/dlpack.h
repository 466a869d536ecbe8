// SPDX-License-Identifier: Apache-2.0
// The structs of DLPack 1.x, as far as a consumer needs them: the layout is the standard's, the words are ours.
// https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace attnmux::python::dlpack {

enum DeviceType : int32_t { kCpu = 1, kCuda = 2, kCudaHost = 3, kCudaManaged = 13 };
enum TypeCode : uint8_t { kInt = 0, kUint = 1, kFloat = 2, kBfloat = 4, kBool = 6, kFloat8E4m3fn = 10 };

struct Device {
  int32_t type;
  int32_t id;
};

struct DataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; null: contiguous
  uint64_t byte_offset;
};

// What a capsule named "dltensor" points to.
struct Managed {
  Tensor tensor;
  void* context;
  void (*deleter)(Managed*);
};

struct Version {
  uint32_t major, minor;
};

inline constexpr uint64_t kReadOnly = 1;

// What a capsule named "dltensor_versioned" points to.
struct ManagedVersioned {
  Version version;
  void* context;
  void (*deleter)(ManagedVersioned*);
  uint64_t flags;
  Tensor tensor;
};

// The capsule "dlpack_exchange_api" in a type's __dlpack_c_exchange_api__: an export without Python calls. It does not
// synchronise; the consumer works on the stream that `current_work_stream` tells.
struct ExchangeHeader {
  Version version;
  ExchangeHeader* previous;
};

struct ExchangeApi {
  ExchangeHeader header;
  void* allocate;
  int (*from_object)(void* object, ManagedVersioned** out);
  void* to_object;
  int (*borrow_object)(void* object, Tensor* out);  // null where the library has none; valid while the object lives
  int (*current_work_stream)(int32_t device_type, int32_t device_id, void** stream);
};

}  // namespace attnmux::python::dlpack
