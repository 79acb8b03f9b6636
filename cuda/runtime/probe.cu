// SPDX-License-Identifier: Apache-2.0
#include "cuda/device/device.h"
#include "cuda/runtime/probe.h"

namespace stmoe::gpu {
namespace {

STMOE_KERNEL do_nothing() {}

}  // namespace

const void* probe_kernel() { return reinterpret_cast<const void*>(do_nothing); }

}  // namespace stmoe::gpu
