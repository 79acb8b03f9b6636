// SPDX-License-Identifier: Apache-2.0
#include "data_tools/corpus/counts.h"

#include <nlohmann/json.hpp>

#include "lib/base/error.h"

namespace stmoe {
namespace {

double mega(double value) { return value / 1e6; }

}  // namespace

CorpusCounts& CorpusCounts::operator+=(const CorpusCounts& other) {
  std::vector<uint64_t> numbers;
  each(other, [&](const char*, uint64_t number) { numbers.push_back(number); });
  size_t i = 0;
  each(*this, [&](const char*, uint64_t& number) { number += numbers[i++]; });
  return *this;
}

std::string CorpusCounts::to_json() const {
  nlohmann::ordered_json json;
  each(*this, [&](const char* name, uint64_t number) { json[name] = number; });
  return json.dump();
}

CorpusCounts CorpusCounts::from_json(std::string_view text, const std::string& origin) {
  try {
    const auto json = nlohmann::json::parse(text);
    CorpusCounts counts;
    each(counts,
         [&](const char* name, uint64_t& number) { number = json.at(name).get<uint64_t>(); });
    return counts;
  } catch (const nlohmann::json::exception& error) {
    throw InputError(
        format("{}: not readable ({}); remove it and run again", origin, error.what()));
  }
}

std::string report_table(const CorpusCounts& counts, const CorpusCounts& this_run, double seconds) {
  std::string text;
  auto line = [&](std::string name, uint64_t number) {
    std::replace(name.begin(), name.end(), '_', ' ');
    text += format("{:<28}{:>16}\n", name, number);
  };
  CorpusCounts::each(counts, [&](std::string_view name, uint64_t number) {
    const bool is_size = !name.starts_with("dropped_") && !name.starts_with("lines_");
    if (is_size || number > 0) line(std::string(name), number);
  });
  if (counts.tokens > 0)
    text += format("{:<28}{:>16.2f}\n", "bytes per token",
                   static_cast<double>(counts.text_bytes) / static_cast<double>(counts.tokens));
  if (this_run.input_bytes > 0 && seconds > 0)
    text +=
        format("read and tokenised {:.1f} MB in {:.1f} s: {:.1f} MB/s, {:.2f} million tokens/s\n",
               mega(static_cast<double>(this_run.input_bytes)), seconds,
               mega(static_cast<double>(this_run.input_bytes)) / seconds,
               mega(static_cast<double>(this_run.tokens)) / seconds);
  return text;
}

}  // namespace stmoe
