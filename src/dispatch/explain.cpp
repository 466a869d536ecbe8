// SPDX-License-Identifier: Apache-2.0
#include "dispatch/explain.h"

#include <nlohmann/json.hpp>

#include "api/run.h"
#include "dispatch/dtypes.h"
#include "dispatch/environment.h"
#include "dispatch/features.h"
#include "dispatch/registry.h"
#include "kernels/cpu/isa/cpu_isa.h"

namespace attnmux {
namespace {

std::string describe_problem(const Problem& p) {
  FixedText<512> text;
  text << "q " << p.batch << "×" << p.seqlen_q << "×" << p.num_heads_q << "×" << p.head_dim << ", " << p.seqlen_kv
       << " keys, " << p.num_heads_kv << " key heads";
  if (p.head_dim_v != p.head_dim) text << ", head_dim of v " << p.head_dim_v;
  text << ", " << dtype_name(p.dtype);
  for (const FeatureRow& row : kFeatures) {
    if ((p.features & row.bit & ~kDerivedFeatures) != 0) text << ", " << row.name;
  }
  return std::string(text.view());
}

std::string describe_device(const Problem& p) {
  if (p.device_type == ATTNMUX_CUDA) return "cuda:" + std::to_string(p.device_id);
  return "cpu (" + describe_cpu().brand + ")";
}

ExplainedBackend explain_backend(uint16_t id, const Problem& p, const attnmux_options& o, const Kernel* chosen,
                                 int32_t num_threads) {
  const BackendRow& row = *backend_row(id);
  const Kernel* slower = nullptr;  // would have come first, but for the chosen one's speed
  ExplainedBackend backend;
  backend.id = id;
  backend.missing = row.num_kernels() == 0 ? row.missing : "";
  for (const Kernel* kernel : row.list()) {
    ExplainedKernel k;
    k.name = kernel->name;
    Reason reason{};
    k.runs = supports(*kernel, p, &reason);
    k.reason = reason.text;
    if (k.runs) {
      // What must be prepared to be known is only prepared for the kernel that is chosen.
      if (kernel->prepare == nullptr) k.workspace_bytes = workspace_needed(*kernel, {}, p, num_threads);
      k.accuracy = accuracy_name(kernel->accuracy[p.dtype]);
      if (too_lossy(row, *kernel, p, o)) {
        k.runs = false;
        k.reason = "is below the 16-bit accuracy class; allow_lossy permits it";
      } else if (kernel == chosen) {
        k.reason = row.num_kernels() == 1 ? "its only kernel"
                   : slower != nullptr
                       ? "faster than " + std::string(slower->name) + " for this problem, by rule"
                       : "first in the order of \"" + std::string(row.name) + "\" that supports this problem";
      } else if (slower == nullptr && faster_kernel(row, *kernel, p) == chosen) {
        slower = kernel;
      }
    }
    backend.kernels.push_back(std::move(k));
  }
  return backend;
}

std::string bytes_text(size_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int unit = 0;
  size_t whole = bytes, tenth = 0;
  for (; whole >= 1024 && unit < 4; ++unit) {
    tenth = whole % 1024 * 10 / 1024;
    whole /= 1024;
  }
  std::string text = std::to_string(whole);
  if (unit > 0 && whole < 100) text += "." + std::to_string(tenth);
  return text + " " + kUnits[unit];
}

// Columns on a terminal, not bytes: "×" is one column and two bytes.
size_t columns(const std::string& text) {
  size_t n = 0;
  for (const char c : text) n += (static_cast<unsigned char>(c) & 0xc0) != 0x80 ? 1 : 0;
  return n;
}
std::string padded(const std::string& text, size_t width) {
  const size_t n = columns(text);
  return n < width ? text + std::string(width - n, ' ') : text;
}

void append_kernels(std::string& text, const ExplainedBackend& backend, const std::string& indent) {
  size_t width = 6;
  for (const ExplainedKernel& k : backend.kernels) width = std::max(width, k.name.size());
  for (const ExplainedKernel& k : backend.kernels) {
    std::string line = indent + padded(k.name, width + 2) + (k.runs ? "yes    " : "no     ");
    line += k.reason;
    if (k.runs)
      line += (k.reason.empty() ? "" : "; ") + std::string(k.accuracy) + ", workspace " + bytes_text(k.workspace_bytes);
    text += line + "\n";
  }
}

std::string level(uint16_t backend) { return backend == 0 ? "–" : backend_row(backend)->name; }

nlohmann::ordered_json kernels_json(const ExplainedBackend& backend) {
  auto list = nlohmann::ordered_json::array();
  for (const ExplainedKernel& k : backend.kernels) {
    list.push_back({{"name", k.name},
                    {"runs", k.runs},
                    {"reason", k.reason},
                    {"workspace_bytes", k.workspace_bytes},
                    {"class", k.accuracy}});
  }
  return list;
}

nlohmann::ordered_json level_json(uint16_t backend) {
  if (backend == 0) return nullptr;
  return backend_row(backend)->name;
}

}  // namespace

attnmux_code explain_choice(const Problem& p, const attnmux_options& o, int32_t num_threads, Explained& e,
                            attnmux_error* error) {
  e.problem = describe_problem(p);
  e.device = describe_device(p);
  ATTNMUX_TRY(read_precedence(o, e.precedence, error));
  resolve(e.precedence, e.selection);
  attnmux_error why{};
  if (const attnmux_code code = select(p, o, e.selection, &why);
      code != ATTNMUX_OK && code != ATTNMUX_UNAVAILABLE && code != ATTNMUX_UNSUPPORTED) {
    if (error != nullptr) *error = why;
    return code;
  }
  const Kernel* kernel = e.selection.kernel;
  if (kernel != nullptr) {
    Prepared prepared;
    if (prepared.make(*kernel, p, &why) == ATTNMUX_OK) {
      e.workspace_bytes = workspace_needed(*kernel, prepared, p, num_threads);
      e.accuracy = accuracy_name(kernel->accuracy[p.dtype]);
    } else {
      e.selection.kernel = kernel = nullptr;  // only trying told; its check() knows now
    }
  }
  e.chosen = explain_backend(e.selection.backend, p, o, kernel, num_threads);
  for (ExplainedKernel& k : e.chosen.kernels) {
    if (kernel != nullptr && k.name == kernel->name) k.workspace_bytes = e.workspace_bytes;
  }
  for (uint16_t id = 1; id <= num_backends(); ++id) {
    if (id != e.selection.backend) e.others.push_back(explain_backend(id, p, o, nullptr, num_threads));
  }
  return ATTNMUX_OK;
}

std::string explain_text(const Explained& e, bool all) {
  std::string text = backend_row(e.selection.backend)->name;
  text += " → ";
  text += e.selection.kernel == nullptr ? "no kernel" : e.selection.kernel->name;
  text += " on " + e.device + "   chosen by: " + chosen_by_name(e.selection.chosen_by);
  if (e.selection.kernel != nullptr)
    text += "   class: " + e.accuracy + "   workspace: " + bytes_text(e.workspace_bytes);
  text += "\n  problem: " + e.problem + "\n";
  if (e.chosen.kernels.empty()) {
    text += "  no kernel in this build: " + e.chosen.missing + "\n";
  } else {
    size_t width = 6;
    for (const ExplainedKernel& k : e.chosen.kernels) width = std::max(width, k.name.size());
    text += "  " + padded("kernel", width + 2) + "runs   why\n";
    append_kernels(text, e.chosen, "  ");
    const BackendRow& row = *backend_row(e.selection.backend);
    if (e.selection.kernel == nullptr && row.instead[0] != 0) text += "  " + std::string(row.instead) + "\n";
  }
  if (all) {
    for (const ExplainedBackend& other : e.others) {
      text +=
          "  " + std::string(backend_row(other.id)->name) + (other.kernels.empty() ? ": " + other.missing : "") + "\n";
      append_kernels(text, other, "    ");
    }
  }
  const Precedence& l = e.precedence;
  text += "precedence: ";
  if (l.force != 0) text += "ATTNMUX_FORCE_BACKEND " + level(l.force) + " over · ";
  text += "call " + level(l.call) + " · layer " + level(l.layer) + " · scope " + level(l.scope) +
          " · process default " + level(l.process_default);
  text += " · ATTNMUX_BACKEND " + (environment().default_backend.empty() ? "unset" : environment().default_backend) +
          " · native\n";
  return text;
}

std::string explain_json(const Explained& e) {
  nlohmann::ordered_json json;
  json["backend"] = backend_row(e.selection.backend)->name;
  json["kernel"] = e.selection.kernel == nullptr ? nlohmann::ordered_json(nullptr)
                                                 : nlohmann::ordered_json(e.selection.kernel->name);
  json["chosen_by"] = chosen_by_name(e.selection.chosen_by);
  json["device"] = e.device;
  json["problem"] = e.problem;
  json["class"] = e.accuracy;
  json["workspace_bytes"] = e.workspace_bytes;
  json["reason"] = e.chosen.missing;
  json["kernels"] = kernels_json(e.chosen);
  const Precedence& l = e.precedence;
  json["precedence"] = {
      {"force", level_json(l.force)},
      {"call", level_json(l.call)},
      {"layer", level_json(l.layer)},
      {"scope", level_json(l.scope)},
      {"process_default", level_json(l.process_default)},
      {"environment", environment().default_backend.empty() ? nlohmann::ordered_json(nullptr)
                                                            : nlohmann::ordered_json(environment().default_backend)}};
  json["backends"] = nlohmann::ordered_json::array();
  for (const ExplainedBackend& other : e.others) {
    json["backends"].push_back(
        {{"backend", backend_row(other.id)->name}, {"reason", other.missing}, {"kernels", kernels_json(other)}});
  }
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace attnmux
