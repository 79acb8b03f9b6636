// SPDX-License-Identifier: Apache-2.0
// The one place that includes the formatting library (GCC 12 has no <format>).
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace stmoe {
using fmt::format;
}
