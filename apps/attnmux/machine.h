// SPDX-License-Identifier: Apache-2.0
// This machine, as the library and the operating system describe it.
#pragma once

#include <attnmux/tensor.h>

#include <string>
#include <vector>

#include "attnmux/json_out.h"

namespace attnmux::cli {

/// ATTNMUX_DESCRIBE_MACHINE.
Json machine();
/// The ISA that CPU kernels use, in the words of ATTNMUX_MAX_CPU_ISA.
std::string isa_name();
/// "2 cores (AVX-512)"
std::string machine_text();

struct Memory {
  double total_bytes = 0, available_bytes = 0;  // 0: unknown
};
Memory memory();
/// Refuses what cannot fit, before the operating system ends the program for it.
void require_memory(double bytes);

struct Gpu {
  std::string name;
};
struct GpuDriver {
  std::string version;  // empty: no driver is loaded
  std::vector<Gpu> gpus;
};
GpuDriver nvidia_driver();

}  // namespace attnmux::cli
