// SPDX-License-Identifier: Apache-2.0
// attnmux doctor: this machine, this build, what runs, and what is missing for the rest.
#include <CLI/CLI.hpp>
#include <memory>

#include "attnmux/backend_table.h"
#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/machine.h"
#include "attnmux/numbers.h"
#include "attnmux/problem_flags.h"
#include "attnmux/table.h"

namespace attnmux::cli {
namespace {

constexpr std::string_view kAdvice =
    "A name of which this build has no kernels runs with a version or build that has them; the name after \"use\" does "
    "the "
    "same work today. Kernels of your own: --plugin FILE.so (docs/adding_a_kernel.md).";

struct DoctorFlags {
  bool json = false, abi = false;
};

std::string kibibytes_text(const Json& bytes) {
  const auto n = bytes.is_number() ? bytes.get<int64_t>() : 0;
  if (n <= 0) return "?";
  return n % (1 << 20) == 0 ? std::to_string(n >> 20) + " MiB" : std::to_string(n >> 10) + " KiB";
}

// What the CUDA runtime of this build says, else what the kernel driver says.
std::string gpu_text(const GpuDriver& driver, const Json& cuda) {
  if (cuda.value("built", false)) {
    std::string reason = cuda.value("reason", "");
    if (!reason.empty()) return reason;
    std::string line;
    for (const Json& gpu : cuda["gpus"]) {
      line += gpu.value("name", "?") + " (compute capability " + gpu.value("compute_capability", "?") + ", " +
              bytes_text(gpu.value("memory_bytes", 0.0)) + "), ";
    }
    return line + "driver " + (driver.version.empty() ? "?" : driver.version) + " for CUDA " +
           cuda.value("driver", "?") + ", built with CUDA " + cuda.value("runtime", "?");
  }
  const std::string build = "; " + cuda.value("reason", "this build has no CUDA kernels");
  if (driver.version.empty()) return "no NVIDIA driver is loaded" + build;
  std::string line;
  for (const Gpu& gpu : driver.gpus) line += gpu.name + ", ";
  return (line.empty() ? "none, " : line) + "driver " + driver.version + build;
}

// "" where this build has no kernel that calls cuDNN, or no GPU that it could run on.
std::string cudnn_text(const Json& cuda) {
  if (!cuda.contains("cudnn")) return "";
  const Json& cudnn = cuda["cudnn"];
  std::string reason = cudnn.value("reason", "");
  if (!reason.empty()) return reason;
  const auto version = cudnn.value("version", int64_t{0});
  return std::to_string(version / 10000) + "." + std::to_string(version % 10000 / 100) + "." +
         std::to_string(version % 100) + ", " + cudnn.value("path", "?");
}

Json gpu_json(const GpuDriver& driver) {
  Json gpus = Json::array();
  for (const Gpu& gpu : driver.gpus) gpus.push_back({{"name", gpu.name}});
  return {{"driver", driver.version.empty() ? Json(nullptr) : Json(driver.version)}, {"gpus", std::move(gpus)}};
}

// A kernel that this machine lacks something for, although the backend runs.
std::string missing_kernels(const BackendInfo& backend) {
  std::string list;
  for (const KernelInfo& k : backend.kernels) {
    if (!k.available) list += (list.empty() ? "" : "; ") + k.name + ": " + k.reason;
  }
  return list;
}

void print_report() {
  const Json m = machine();
  const Memory mem = memory();
  const Json devices = m.value("devices", Json::object());
  std::fputs((styled("attnmux " + m.value("version", "?"), Style::kBold) + ", ABI " +
              m.value("abi_version", Json(0)).dump() + "\n")
                 .c_str(),
             stdout);
  Table facts({"machine", ""});
  const std::string isa = m.value("isa", "?"), detected = m.value("isa_detected", isa);
  facts.row({"CPU", m.value("cpu", "?") + ", " + counted(m.value("cores", 1), "core")});
  facts.row({"ISA", isa == detected ? isa : isa + " (the machine has " + detected + "; ATTNMUX_MAX_CPU_ISA caps it)"});
  facts.row({"caches", kibibytes_text(m["l1d_bytes"]) + " L1D, " + kibibytes_text(m["l2_bytes"]) + " L2, " +
                           kibibytes_text(m["l3_bytes"]) + " L3"});
  facts.row({"memory", mem.total_bytes > 0
                           ? bytes_text(mem.total_bytes) + ", " + bytes_text(mem.available_bytes) + " available"
                           : "?"});
  facts.row({"threads", std::to_string(m.value("num_threads", 1))});
  const Json cuda = devices.value("cuda", Json::object());
  facts.row({"GPU", gpu_text(nvidia_driver(), cuda)});
  if (const std::string cudnn = cudnn_text(cuda); !cudnn.empty()) facts.row({"cuDNN", cudnn});
  facts.print();

  std::fputs("\n", stdout);
  Table variables({"environment", "value"});
  const Json environment = m.value("environment", Json::object());
  for (const auto& variable : environment.items()) {
    const bool set = variable.value().is_string();
    variables.row(
        {variable.key(), {set ? variable.value().get<std::string>() : "unset", set ? Style::kPlain : Style::kDim}});
  }
  variables.print();

  const auto table = backend_table();
  std::fputs("\n", stdout);
  Table running({"runs here", "kernels, the preferred one first"});
  for (const BackendInfo& b : table) {
    if (!b.available) continue;
    std::vector<std::string> names;
    for (const KernelInfo& k : b.kernels) {
      if (k.available) names.push_back(k.name);
    }
    running.row({{b.name, Style::kGood}, brief_list(names)});
  }
  running.print();

  std::fputs("\n", stdout);
  Table missing({"does not run", "what is missing, and what to do"});
  for (const BackendInfo& b : table) {
    if (!b.available) missing.row({b.name, b.reason});
  }
  for (const BackendInfo& b : table) {
    const std::string kernels = b.available ? missing_kernels(b) : "";
    // `native` holds the kernels of its family; saying it once is enough.
    if (!kernels.empty() && b.name == "native") missing.row({"some of native", kernels});
  }
  missing.print();
  const int width = terminal_width(stdout);
  std::fputs("\n", stdout);
  for (const std::string& line : wrapped(kAdvice, width > 0 ? static_cast<size_t>(width) : 100))
    std::fputs((line + "\n").c_str(), stdout);
}

int doctor(const DoctorFlags& flags) {
  if (!flags.json && !flags.abi) {
    print_report();
    return kExitOk;
  }
  if (flags.abi && !flags.json) {
    const Json structs = describe(ATTNMUX_DESCRIBE_ABI);
    for (const auto& item : structs.items()) {
      std::fputs((styled(item.key(), Style::kBold) + ", " + item.value()["size"].dump() + " bytes\n").c_str(), stdout);
      Table fields({">offset", "field"});
      for (const auto& field : item.value()["fields"].items()) fields.row({field.value().dump(), field.key()});
      fields.print();
    }
    return kExitOk;
  }
  if (flags.abi) {
    print_json(describe(ATTNMUX_DESCRIBE_ABI));
    return kExitOk;
  }
  Json document = machine();
  const Memory mem = memory();
  document["memory"] = {{"total_bytes", mem.total_bytes}, {"available_bytes", mem.available_bytes}};
  document["nvidia"] = gpu_json(nvidia_driver());
  document["backends"] = describe(ATTNMUX_DESCRIBE_BACKENDS);
  print_json(document);
  return kExitOk;
}

}  // namespace

void add_doctor(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("doctor", "this machine, what runs on it, and what is missing for the rest");
  const auto flags = std::make_shared<DoctorFlags>();
  add_switch(*sub, "--abi", flags->abi, "sizes and offsets of the C structs, for bindings");
  add_switch(*sub, "--json", flags->json, "one JSON document");
  sub->footer(examples({"attnmux doctor", "attnmux doctor --json", "attnmux doctor --abi"}));
  sub->callback([flags, &program] { program.action = [flags] { return doctor(*flags); }; });
}

}  // namespace attnmux::cli
