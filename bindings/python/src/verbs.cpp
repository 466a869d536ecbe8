// SPDX-License-Identifier: Apache-2.0
#include "verbs.h"

#include <nanobind/stl/string.h>

#include <memory>
#include <string>

#include "errors.h"
#include "gil.h"
#include "scalars.h"
#include "tensors.h"

namespace nb = nanobind;

namespace attnmux::python {
namespace {

// The tensors of a call that are optional, in the order of the tuple that Python passes.
struct Optional {
  const char* name;
  uint64_t bit;
  attnmux_tensor attnmux_options::*field;
  Accepts accepts;
};
constexpr Optional kOptional[] = {
    {"mask", ATTNMUX_MASK_DENSE, &attnmux_options::dense_mask, Accepts::kMask},
    {"key_padding", ATTNMUX_MASK_KEY_PADDING, &attnmux_options::key_padding, Accepts::kMask},
    {"key_lengths", ATTNMUX_MASK_KEY_LENGTHS, &attnmux_options::key_lengths, Accepts::kInt32},
    {"bias", ATTNMUX_BIAS, &attnmux_options::bias, Accepts::kFloating},
    {"varlen.cu_seqlens_q", ATTNMUX_VARLEN, &attnmux_options::cu_seqlens_q, Accepts::kInt32},
    {"varlen.cu_seqlens_kv", ATTNMUX_VARLEN, &attnmux_options::cu_seqlens_kv, Accepts::kInt32},
};
constexpr size_t kNumOptional = std::size(kOptional);

enum class Output { kGiven, kPlanned };

attnmux_tensor contiguous(const attnmux_tensor& like, int32_t dtype, int32_t ndim, const int64_t* shape) {
  attnmux_tensor t{};
  t.dtype = dtype;
  t.device_type = like.device_type;
  t.device_id = like.device_id;
  t.ndim = ndim;
  int64_t stride = 1;
  for (int32_t i = ndim - 1; i >= 0; --i) {
    t.shape[i] = shape[i];
    t.strides[i] = stride;
    stride *= shape[i];
  }
  return t;
}

// One call's arguments as the C ABI wants them, and what keeps their memory alive meanwhile.
class Call {
 public:
  // Without `out` (planning) the outputs are those that attention() would allocate, as views without memory; `lse`
  // then says by True whether there is one.
  Call(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, const Scalars& scalars,
       nb::handle arrays, uint16_t backend, nb::handle stream)
      : options_(scalars.options) {
    const bool plans = out.is_none();
    Importer importer(stream, !plans);
    importer.read(q_, q, "q", Accepts::kFloating);
    importer.read(k_, k, "k", Accepts::kFloating);
    importer.read(v_, v, "v", Accepts::kFloating);
    options_.backend = backend;
    if (!arrays.is_none()) read_optional(importer, nb::borrow<nb::tuple>(arrays));
    if (plans) {
      plan_outputs(lse.ptr() == Py_True);
    } else {
      importer.write(out_, out, "out", Accepts::kFloating);
      if (!lse.is_none()) {
        importer.write(lse_, lse, "lse", Accepts::kFp32);
        options_.set |= ATTNMUX_LSE;
        options_.lse = lse_.view;
      }
    }
    exec_.struct_size = sizeof(exec_);
    exec_.stream = importer.stream();
  }

  // Runs function(q, k, v, out, options, exec) of the C ABI without the GIL.
  template <typename Function>
  void run(Function function) {
    attnmux_error error;
    const attnmux_code code =
        without_gil([&] { return function(&q_.view, &k_.view, &v_.view, &out_.view, &options_, &exec_, &error); });
    check(code, error);
  }

 private:
  void read_optional(Importer& importer, const nb::tuple& arrays) {
    for (size_t i = 0; i < kNumOptional; ++i) {
      const nb::handle array = arrays[i];
      if (array.is_none()) continue;
      importer.read(optional_[i], array, kOptional[i].name, kOptional[i].accepts);
      options_.*kOptional[i].field = optional_[i].view;
      options_.set |= kOptional[i].bit;
    }
  }

  void plan_outputs(bool with_lse) {
    const attnmux_tensor &q = q_.view, &v = v_.view;
    int64_t shape[4] = {};
    for (int32_t i = 0; i < q.ndim; ++i) shape[i] = q.shape[i];
    if (q.ndim > 0 && v.ndim > 0) shape[q.ndim - 1] = v.shape[v.ndim - 1];
    out_.view = contiguous(q, q.dtype, q.ndim, shape);
    if (!with_lse) return;
    const int64_t packed[] = {q.shape[1], q.shape[0]}, padded[] = {q.shape[0], q.shape[2], q.shape[1]};
    options_.set |= ATTNMUX_LSE;
    options_.lse = q.ndim == 3 ? contiguous(q, ATTNMUX_FP32, 2, packed) : contiguous(q, ATTNMUX_FP32, 3, padded);
  }

  attnmux_options options_;
  attnmux_exec exec_{};
  Borrowed q_, k_, v_, out_, lse_, optional_[kNumOptional];
};

void attention(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, const Scalars& scalars,
               nb::handle arrays, uint16_t backend, nb::handle stream) {
  Call call(q, k, v, out, lse, scalars, arrays, backend, stream);
  call.run(attnmux_attention);
}

std::string explain(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, const Scalars& scalars,
                    nb::handle arrays, uint16_t backend, nb::handle stream, uint32_t flags) {
  Call call(q, k, v, out, lse, scalars, arrays, backend, stream);
  std::string text;
  const attnmux_write append = [](void* user, const char* part, size_t length) {
    static_cast<std::string*>(user)->append(part, length);
  };
  call.run([&](auto* cq, auto* ck, auto* cv, auto* co, auto* options, auto* exec, auto* error) {
    return attnmux_explain(cq, ck, cv, co, options, exec, flags, append, &text, error);
  });
  return text;
}

class Plan {
 public:
  Plan(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, const Scalars& scalars,
       nb::handle arrays, uint16_t backend, nb::handle stream) {
    Call call(q, k, v, out, lse, scalars, arrays, backend, stream);
    attnmux_plan* plan = nullptr;
    call.run([&](auto* cq, auto* ck, auto* cv, auto* co, auto* options, auto* exec, auto* error) {
      return attnmux_plan_create(cq, ck, cv, co, options, exec, &plan, error);
    });
    plan_.reset(plan);
  }

  void run(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, const Scalars& scalars,
           nb::handle arrays, nb::handle stream) const {
    Call call(q, k, v, out, lse, scalars, arrays, 0, stream);
    call.run([&](auto* cq, auto* ck, auto* cv, auto* co, auto* options, auto* exec, auto* error) {
      return attnmux_plan_run(plan_.get(), cq, ck, cv, co, options, exec, error);
    });
  }

  const char* kernel() const { return attnmux_plan_kernel(plan_.get()); }
  uint16_t backend() const { return attnmux_plan_backend(plan_.get()); }
  size_t workspace_bytes() const { return attnmux_plan_workspace_bytes(plan_.get()); }

 private:
  struct Release {
    void operator()(attnmux_plan* plan) const { attnmux_plan_release(plan); }
  };
  std::unique_ptr<attnmux_plan, Release> plan_;
};

}  // namespace

void bind_verbs(nb::module_& m) {
  m.def("attention", &attention, nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(),
        nb::arg("lse").none(), nb::arg("scalars"), nb::arg("arrays").none(), nb::arg("backend"),
        nb::arg("stream").none());
  m.def("explain", &explain, nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(),
        nb::arg("lse").none(), nb::arg("scalars"), nb::arg("arrays").none(), nb::arg("backend"),
        nb::arg("stream").none(), nb::arg("flags"));
  m.attr("EXPLAIN_ALL") = static_cast<uint32_t>(ATTNMUX_EXPLAIN_ALL);
  m.attr("EXPLAIN_JSON") = static_cast<uint32_t>(ATTNMUX_EXPLAIN_JSON);
  nb::class_<Plan>(m, "Plan")
      .def(nb::init<nb::handle, nb::handle, nb::handle, nb::handle, nb::handle, const Scalars&, nb::handle, uint16_t,
                    nb::handle>(),
           nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(), nb::arg("lse").none(),
           nb::arg("scalars"), nb::arg("arrays").none(), nb::arg("backend"), nb::arg("stream").none())
      .def("run", &Plan::run, nb::arg("q").none(), nb::arg("k").none(), nb::arg("v").none(), nb::arg("out").none(),
           nb::arg("lse").none(), nb::arg("scalars"), nb::arg("arrays").none(), nb::arg("stream").none())
      .def_prop_ro("kernel", &Plan::kernel)
      .def_prop_ro("backend", &Plan::backend)
      .def_prop_ro("workspace_bytes", &Plan::workspace_bytes);
}

}  // namespace attnmux::python
