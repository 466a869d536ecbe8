// SPDX-License-Identifier: Apache-2.0
// A kernel that may start while the one before it in the stream still runs (a programmatic dependent launch), sm90 and
// newer. PTX ISA, "Parallel Synchronization and Communication Instructions: griddepcontrol".
#pragma once

namespace attnmux::ptx {
namespace {

// The next kernel may start.
__device__ inline void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
// Waits until the kernel before has ended, and sees what it wrote.
__device__ inline void wait_for_kernel_before() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

}  // namespace
}  // namespace attnmux::ptx
