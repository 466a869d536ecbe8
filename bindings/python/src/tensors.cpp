// SPDX-License-Identifier: Apache-2.0
#include "tensors.h"

#include <nanobind/stl/string.h>

#include <string>
#include <utility>

#include "errors.h"

namespace nb = nanobind;

namespace attnmux::python {
namespace {

const char* accepted_dtypes(Accepts accepts) {
  switch (accepts) {
    case Accepts::kFloating:
      return "float32, float16, bfloat16 and float64";
    case Accepts::kMask:
      return "bool and uint8 (a mask hides keys; numbers that are added to the scores are a bias)";
    case Accepts::kInt32:
      return "int32";
    case Accepts::kFp32:
      return "float32";
  }
  return "";
}

bool is_accepted(int32_t dtype, Accepts accepts) {
  switch (accepts) {
    case Accepts::kFloating:
      return dtype == ATTNMUX_FP32 || dtype == ATTNMUX_FP16 || dtype == ATTNMUX_BF16 || dtype == ATTNMUX_FP64 ||
             dtype == ATTNMUX_E4M3;
    case Accepts::kMask:
      return dtype == ATTNMUX_BOOL || dtype == ATTNMUX_UINT8;
    case Accepts::kInt32:
      return dtype == ATTNMUX_INT32;
    case Accepts::kFp32:
      return dtype == ATTNMUX_FP32;
  }
  return false;
}

std::string text_of(nb::handle object) { return nb::cast<std::string>(nb::str(object)); }

std::string class_of(nb::handle object) { return text_of(nb::handle(object.type()).attr("__qualname__")); }

// The dtype in the words of the array's own library.
std::string dtype_of(nb::handle object) {
  return nb::hasattr(object, "dtype") ? text_of(object.attr("dtype")) : class_of(object);
}

void check_dtype(int32_t dtype, nb::handle object, const char* name, Accepts accepts) {
  if (is_accepted(dtype, accepts)) return;
  std::string text = std::string(name) + ".dtype is " + dtype_of(object) + "; accepted are " + accepted_dtypes(accepts);
  if (text.find("uint16") != std::string::npos && accepts != Accepts::kMask)
    text += "; bits of bfloat16 in uint16 are said by attnmux.bfloat16_bits(array)";
  raise_invalid(text);
}

int32_t dtype_from(dlpack::DataType type) {
  if (type.lanes != 1) return 0;
  switch (type.code << 8 | type.bits) {
    case dlpack::kFloat << 8 | 16:
      return ATTNMUX_FP16;
    case dlpack::kFloat << 8 | 32:
      return ATTNMUX_FP32;
    case dlpack::kFloat << 8 | 64:
      return ATTNMUX_FP64;
    case dlpack::kBfloat << 8 | 16:
      return ATTNMUX_BF16;
    case dlpack::kBool << 8 | 8:
      return ATTNMUX_BOOL;
    case dlpack::kUint << 8 | 8:
      return ATTNMUX_UINT8;
    case dlpack::kInt << 8 | 32:
      return ATTNMUX_INT32;
    case dlpack::kFloat8E4m3fn << 8 | 8:
      return ATTNMUX_E4M3;
    default:
      return 0;
  }
}

// A format of the struct module with one element of native byte order, and its size.
int32_t dtype_from(const char* format, Py_ssize_t size) {
  if (format == nullptr) return size == 1 ? ATTNMUX_UINT8 : 0;
  if (*format == '@' || *format == '=' || *format == '<') ++format;
  if (format[0] == 0 || format[1] != 0) return 0;
  switch (format[0]) {
    case 'e':
      return ATTNMUX_FP16;
    case 'f':
      return ATTNMUX_FP32;
    case 'd':
      return ATTNMUX_FP64;
    case '?':
      return ATTNMUX_BOOL;
    case 'B':
      return ATTNMUX_UINT8;
    case 'i':
    case 'l':
      return size == 4 ? ATTNMUX_INT32 : 0;
    default:
      return 0;
  }
}

void check_rank(int32_t ndim, const char* name) {
  if (ndim > 4) raise_invalid(std::string(name) + " has " + std::to_string(ndim) + " dimensions; accepted are up to 4");
}

void fill(attnmux_tensor& view, const dlpack::Tensor& t, nb::handle object, const char* name, Accepts accepts) {
  switch (t.device.type) {
    case dlpack::kCpu:
    case dlpack::kCudaHost:
      view.device_type = ATTNMUX_CPU;
      break;
    case dlpack::kCuda:
    case dlpack::kCudaManaged:
      view.device_type = ATTNMUX_CUDA;
      view.device_id = t.device.id;
      break;
    default:
      raise_invalid(std::string(name) + " is on a device of DLPack's type " + std::to_string(t.device.type) +
                    "; accepted are the CPU (1) and CUDA (2)");
  }
  view.dtype = dtype_from(t.dtype);
  check_dtype(view.dtype, object, name, accepts);
  check_rank(t.ndim, name);
  view.ndim = t.ndim;
  view.data = static_cast<char*>(t.data) + t.byte_offset;
  int64_t contiguous = 1;
  for (int32_t i = t.ndim - 1; i >= 0; --i) {
    view.shape[i] = t.shape[i];
    view.strides[i] = t.strides == nullptr ? contiguous : t.strides[i];
    contiguous *= t.shape[i];
  }
}

const dlpack::ExchangeApi* exchange_api(nb::handle object) {
  PyObject* type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
  PyObject* capsule = PyObject_GetAttrString(type, "__dlpack_c_exchange_api__");
  if (capsule == nullptr) {
    PyErr_Clear();
    return nullptr;
  }
  const auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
  Py_DECREF(capsule);  // the type keeps it
  if (api == nullptr) PyErr_Clear();
  return api != nullptr && api->header.version.major == 1 ? api : nullptr;
}

bool requires_grad(nb::handle object) {
  PyObject* value = PyObject_GetAttrString(object.ptr(), "requires_grad");
  if (value == nullptr) {
    PyErr_Clear();
    return false;
  }
  const bool answer = value == Py_True;
  Py_DECREF(value);
  return answer;
}

std::pair<int32_t, int32_t> device_of(nb::handle object, const std::string& failed) {
  try {
    const auto device = nb::cast<nb::tuple>(object.attr("__dlpack_device__")());
    return {nb::cast<int32_t>(nb::int_(device[0])), nb::cast<int32_t>(nb::int_(device[1]))};
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_Exception)) throw;
    error.restore();
    raise_invalid_from_current(failed);
  }
}

// object.__dlpack__(), on CUDA with the stream that is to wait for the producer's work.
nb::object export_capsule(nb::handle object, bool on_cuda, void* stream) {
  const auto arguments = [&](bool versioned) {
    nb::dict d;
    if (on_cuda) d["stream"] = nb::steal(PyLong_FromVoidPtr(stream == nullptr ? ATTNMUX_STREAM_LEGACY : stream));
    if (versioned) d["max_version"] = nb::make_tuple(1, 1);
    return d;
  };
  const nb::object method = object.attr("__dlpack__");
  try {
    return method(**arguments(true));
  } catch (nb::python_error& error) {
    if (!error.matches(PyExc_TypeError)) throw;
  }
  return method(**arguments(false));  // a library from before DLPack 1.0
}

}  // namespace

Borrowed::~Borrowed() {
  if (buffer_.obj != nullptr) PyBuffer_Release(&buffer_);
  if (managed_ != nullptr && managed_->deleter != nullptr) managed_->deleter(managed_);
  if (versioned_ != nullptr && versioned_->deleter != nullptr) versioned_->deleter(versioned_);
}

Importer::Importer(nb::handle stream, bool computes) : computes_(computes) {
  if (stream.is_none()) return;
  if (!PyLong_Check(stream.ptr()) || PyBool_Check(stream.ptr())) {
    raise_invalid("stream is a " + class_of(stream) +
                  "; accepted are None and an int: 1 for CUDA's legacy default stream, 2 for its per-thread default "
                  "stream, else the handle of a stream, such as torch.cuda.Stream.cuda_stream");
  }
  given_ = true;
  stream_ = PyLong_AsVoidPtr(stream.ptr());
  if (PyErr_Occurred() != nullptr) raise_invalid_from_current("stream is no handle");
  if (stream_ == nullptr) stream_ = ATTNMUX_STREAM_LEGACY;  // PyTorch and CuPy write their default stream as 0
}

void Importer::read(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  import(to, object, name, accepts);
}

void Importer::write(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  import(to, object, name, accepts);
  if (to.read_only) raise_invalid(std::string(name) + " is read-only; an output must be writable");
}

void Importer::import(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  // Buffers first: a look for an attribute that NumPy's arrays do not have costs more than reading them.
  if (!from_buffer(to, object, name, accepts) && !from_exchange_api(to, object, name, accepts) &&
      !from_dlpack(to, object, name, accepts))
    from_python(to, object, name, accepts);
  first_ = false;
}

void Importer::find_stream(nb::handle object, int32_t device_id, const dlpack::ExchangeApi* api) {
  if (given_ || !first_) return;
  if (api != nullptr && api->current_work_stream != nullptr) {
    if (api->current_work_stream(dlpack::kCuda, device_id, &stream_) != 0)
      raise_invalid_from_current("the current stream cannot be told");
  } else {
    const nb::object handle = nb::module_::import_("attnmux._arrays").attr("current_stream")(object);
    stream_ = PyLong_AsVoidPtr(handle.ptr());
    if (PyErr_Occurred() != nullptr) throw nb::python_error();
  }
  if (stream_ == nullptr) stream_ = ATTNMUX_STREAM_LEGACY;
}

bool Importer::from_exchange_api(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  const dlpack::ExchangeApi* api = exchange_api(object);
  if (api == nullptr || api->from_object == nullptr) return false;
  if (computes_ && requires_grad(object))
    nb::module_::import_("attnmux._arrays").attr("refuse_grad")(object, nb::str(name));
  if (api->from_object(object.ptr(), &to.versioned_) != 0) {
    to.versioned_ = nullptr;
    raise_invalid_from_current(std::string(name) + " cannot be read through DLPack");
  }
  to.read_only = (to.versioned_->flags & dlpack::kReadOnly) != 0;
  fill(to.view, to.versioned_->tensor, object, name, accepts);
  if (to.view.device_type != ATTNMUX_CUDA) return true;
  // This export does not wait for the producer's stream. That is right on that very stream; for another one, the Python
  // protocol makes the other stream wait.
  find_stream(object, to.view.device_id, api);
  if (stream_ == nullptr) return true;  // the first tensor lies on the CPU: the call refuses this one
  void* current = nullptr;
  if (api->current_work_stream == nullptr || api->current_work_stream(dlpack::kCuda, to.view.device_id, &current) != 0)
    raise_invalid_from_current("the current stream cannot be told");
  if (current == nullptr) current = ATTNMUX_STREAM_LEGACY;
  if (current == stream_) return true;
  to.versioned_->deleter(to.versioned_);
  to.versioned_ = nullptr;
  return false;
}

bool Importer::from_buffer(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  if (PyObject_CheckBuffer(object.ptr()) == 0) return false;
  if (PyObject_GetBuffer(object.ptr(), &to.buffer_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();  // a dtype that buffers have no letter for, such as bfloat16
    to.buffer_.obj = nullptr;
    return false;
  }
  const Py_buffer& b = to.buffer_;
  to.read_only = b.readonly != 0;
  to.view.dtype = dtype_from(b.format, b.itemsize);
  check_dtype(to.view.dtype, object, name, accepts);
  check_rank(b.ndim, name);
  to.view.device_type = ATTNMUX_CPU;
  to.view.data = b.buf;
  to.view.ndim = b.ndim;
  for (int i = 0; i < b.ndim; ++i) {
    to.view.shape[i] = b.shape[i];
    // A dimension of one element may have any stride; only one that moves must be whole elements.
    if (b.strides[i] % b.itemsize != 0 && b.shape[i] > 1) {
      raise_invalid(std::string(name) + ".strides[" + std::to_string(i) + "] is " + std::to_string(b.strides[i]) +
                    " bytes; it must be a multiple of the element's " + std::to_string(b.itemsize));
    }
    to.view.strides[i] = b.strides[i] / b.itemsize;
  }
  return true;
}

bool Importer::from_dlpack(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  if (!nb::hasattr(object, "__dlpack__") || !nb::hasattr(object, "__dlpack_device__")) return false;
  const std::string failed = std::string(name) + " cannot be read through its __dlpack__";
  const auto [device_type, device_id] = device_of(object, failed);
  const bool on_cuda = device_type == dlpack::kCuda || device_type == dlpack::kCudaManaged;
  if (on_cuda) find_stream(object, device_id, nullptr);
  nb::object capsule;
  try {
    capsule = export_capsule(object, on_cuda, stream_);
  } catch (nb::python_error& error) {
    // bfloat16 of NumPy, and other dtypes that only its own interface can say
    if (error.matches(PyExc_BufferError) && nb::hasattr(object, "__array_interface__")) return false;
    if (!error.matches(PyExc_Exception)) throw;  // an interrupt is not ours to word
    error.restore();
    raise_invalid_from_current(failed);
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned") != 0) {
    auto* managed = static_cast<dlpack::ManagedVersioned*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != 1) raise_invalid(failed + ": its DLPack version is not 1");
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    to.versioned_ = managed;
    to.read_only = (managed->flags & dlpack::kReadOnly) != 0;
    fill(to.view, managed->tensor, object, name, accepts);
    return true;
  }
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor") == 0) raise_invalid(failed + ": it returned no DLPack capsule");
  auto* managed = static_cast<dlpack::Managed*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  to.managed_ = managed;
  fill(to.view, managed->tensor, object, name, accepts);
  return true;
}

void Importer::from_python(Borrowed& to, nb::handle object, const char* name, Accepts accepts) {
  const nb::object described =
      nb::module_::import_("attnmux._arrays").attr("describe")(object, nb::str(name));  // raises where it is no array
  const auto fields = nb::cast<nb::tuple>(described);
  to.view.device_type = ATTNMUX_CPU;
  to.view.data = PyLong_AsVoidPtr(nb::handle(fields[0]).ptr());
  to.view.dtype = nb::cast<int32_t>(fields[1]);
  to.read_only = nb::cast<bool>(fields[4]);
  check_dtype(to.view.dtype, object, name, accepts);
  const auto shape = nb::cast<nb::tuple>(fields[2]), strides = nb::cast<nb::tuple>(fields[3]);
  to.view.ndim = static_cast<int32_t>(shape.size());
  check_rank(to.view.ndim, name);
  for (size_t i = 0; i < shape.size(); ++i) {
    to.view.shape[i] = nb::cast<int64_t>(shape[i]);
    to.view.strides[i] = nb::cast<int64_t>(strides[i]);
  }
}

}  // namespace attnmux::python
