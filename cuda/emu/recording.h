// SPDX-License-Identifier: Apache-2.0
// A step recorded on the emulated device (lib/tensor/step_graph.h): work is kept with copies of its
// arguments and done later, in order. Memory released meanwhile is not used again before that.
#pragma once

#include <functional>

namespace stmoe::emu {

bool is_recording();
// Does `work` now, or when the recording is run.
void run_or_record(std::function<void()> work);
// Calls `release` now, or after the recording.
void run_after_recording(std::function<void()> release);

}  // namespace stmoe::emu
