// SPDX-License-Identifier: Apache-2.0
// The library's own threads: started at first use, asleep when idle, replaceable per call by the caller's parallel_for.
#pragma once

#include <cstdint>

namespace attnmux {

/// The cores that this process may run on.
int32_t num_cores();

/// Threads of the pool, the calling one included; starts from ATTNMUX_NUM_THREADS, else one per core.
int32_t num_pool_threads();
/// 0: back to the start value.
void set_num_pool_threads(int32_t num_threads);

/// Runs body(arg, task) for every task in [0, num_tasks); the caller works too. Any number of threads may call at once.
/// What a task throws is rethrown here, after the other tasks have ended. Where threads cannot be made, tasks run
/// inline. Has the signature of attnmux_parallel_for; `pool` is not used.
int32_t pool_parallel_for(void* pool, int64_t num_tasks, void (*body)(void* arg, int64_t task), void* arg);

}  // namespace attnmux
