// SPDX-License-Identifier: Apache-2.0
#include "scalars.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <optional>
#include <string>
#include <tuple>

#include "errors.h"

namespace nb = nanobind;

namespace attnmux::python {
namespace {

using Window = std::tuple<int64_t, int64_t, int32_t>;  // left, right, alignment

Scalars make(std::optional<int32_t> causal_align, std::optional<Window> window, std::optional<double> scale,
             double softcap, double dropout_p, std::optional<uint64_t> seed, int64_t max_seqlen_q,
             int64_t max_seqlen_kv, bool allow_lossy, const std::string& kernel) {
  Scalars scalars;
  attnmux_options& o = scalars.options;
  o.struct_size = sizeof(o);
  if (causal_align) {
    o.set |= ATTNMUX_MASK_CAUSAL;
    o.causal_align = *causal_align;
  }
  if (window) {
    o.set |= ATTNMUX_MASK_WINDOW;
    std::tie(o.window_left, o.window_right, o.window_align) = *window;
  }
  if (scale) {
    o.set |= ATTNMUX_SCALE;
    o.scale = *scale;
  }
  if (softcap != 0) o.set |= ATTNMUX_SOFTCAP;
  o.softcap = softcap;
  o.dropout_p = dropout_p;
  if (seed) {
    o.set |= ATTNMUX_DROPOUT;
    o.dropout_seed = *seed;
  }
  o.max_seqlen_q = max_seqlen_q;
  o.max_seqlen_kv = max_seqlen_kv;
  if (allow_lossy) o.set |= ATTNMUX_ALLOW_LOSSY;
  if (!kernel.empty()) {
    o.kernel = attnmux_kernel_find(kernel.data(), kernel.size());
    if (o.kernel == 0)
      raise_invalid("kernel is \"" + kernel + "\"; attnmux.list_backends() has the kernels of each backend");
  }
  return scalars;
}

}  // namespace

void bind_scalars(nb::module_& m) {
  nb::class_<Scalars>(m, "Scalars")
      .def(
          "__init__",
          [](Scalars* self, std::optional<int32_t> causal_align, std::optional<Window> window,
             std::optional<double> scale, double softcap, double dropout_p, std::optional<uint64_t> seed,
             int64_t max_seqlen_q, int64_t max_seqlen_kv, bool allow_lossy, const std::string& kernel) {
            new (self) Scalars(make(causal_align, window, scale, softcap, dropout_p, seed, max_seqlen_q, max_seqlen_kv,
                                    allow_lossy, kernel));
          },
          nb::arg("causal_align").none() = nb::none(), nb::arg("window").none() = nb::none(),
          nb::arg("scale").none() = nb::none(), nb::arg("softcap") = 0.0, nb::arg("dropout_p") = 0.0,
          nb::arg("seed").none() = nb::none(), nb::arg("max_seqlen_q") = 0, nb::arg("max_seqlen_kv") = 0,
          nb::arg("allow_lossy") = false, nb::arg("kernel") = "");
}

}  // namespace attnmux::python
