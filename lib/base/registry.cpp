// SPDX-License-Identifier: Apache-2.0
#include "lib/base/registry.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>

namespace stmoe {
namespace {

size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

void fail_duplicate_name(std::string_view kind, std::string_view name, std::string_view first_file,
                         std::string_view second_file) {
  // Runs before main: an exception could not be caught.
  std::fputs(
      format("{} '{}' is registered twice: in {} and in {}\n", kind, name, first_file, second_file)
          .c_str(),
      stderr);
  std::abort();
}

void fail_unknown_name(std::string_view kind, std::string_view name,
                       const std::vector<std::string>& known) {
  std::string nearest = nearest_name(name, known);
  throw UsageError(format("{} '{}' is unknown{}; known: {}", kind, name,
                          nearest.empty() ? "" : format("; did you mean '{}'?", nearest),
                          fmt::join(known, ", ")));
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto& candidate : candidates) {
    size_t distance = edit_distance(name, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace stmoe
