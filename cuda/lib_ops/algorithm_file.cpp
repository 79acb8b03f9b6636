// SPDX-License-Identifier: Apache-2.0
#include "cuda/lib_ops/algorithm_file.h"

#include <cstdlib>
#include <sstream>

#include "lib/base/error.h"

namespace stmoe::gpu {
namespace {

constexpr const char* kFirstLine = "stmoe product algorithms 1";
constexpr const char* kBetween = " = ";

using Sections = std::map<std::string, Algorithms>;

[[noreturn]] void fail(const Path& path, int line, const std::string& what) {
  throw InputError(
      format("{}:{}: {}; delete the file and run --autotune again", path.string(), line, what));
}

std::pair<std::string, Algorithm> parse_line(const Path& path, int number,
                                             const std::string& line) {
  const size_t at = line.find(kBetween);
  if (at == std::string::npos) fail(path, number, "expected 'PRODUCT = TIME us WORDS'");
  Algorithm algorithm;
  std::istringstream rest(line.substr(at + std::char_traits<char>::length(kBetween)));
  std::string unit;
  rest >> algorithm.microseconds >> unit >> std::hex;
  for (uint64_t& word : algorithm.words) rest >> word;
  if (!rest || unit != "us") fail(path, number, "expected a time in us and eight words");
  return {line.substr(0, at), algorithm};
}

Sections read_sections(const Path& path) {
  Sections sections;
  if (!std::filesystem::exists(path)) return sections;
  std::istringstream text(read_file(path));
  std::string line;
  Algorithms* section = nullptr;
  for (int number = 1; std::getline(text, line); ++number) {
    if (number == 1) {
      if (line != kFirstLine) fail(path, 1, format("expected '{}'", kFirstLine));
    } else if (line.starts_with('[') && line.ends_with(']')) {
      section = &sections[line.substr(1, line.size() - 2)];
    } else if (!line.empty()) {
      if (!section) fail(path, number, "expected a section, [cublasLt VERSION, DEVICE, ...]");
      section->insert(parse_line(path, number, line));
    }
  }
  return sections;
}

std::string text_of(const Sections& sections) {
  std::string text = format("{}\n", kFirstLine);
  for (const auto& [name, algorithms] : sections) {
    text += format("[{}]\n", name);
    for (const auto& [product, algorithm] : algorithms) {
      text += format("{}{}{:.2f} us", product, kBetween, algorithm.microseconds);
      for (uint64_t word : algorithm.words) text += format(" {:016x}", word);
      text += '\n';
    }
  }
  return text;
}

}  // namespace

std::string Platform::text() const {
  return format("cublasLt {}, {}, {} multiprocessors", cublaslt_version, device, multiprocessors);
}

std::optional<Path> algorithm_path() {
  if (const char* named = std::getenv("STMOE_ALGORITHMS"); named && *named) {
    if (std::string(named) == "none") return std::nullopt;
    return Path(named);
  }
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache)
    return Path(cache) / "stmoe" / "algorithms.txt";
  if (const char* home = std::getenv("HOME"); home && *home)
    return Path(home) / ".cache" / "stmoe" / "algorithms.txt";
  return std::nullopt;
}

Algorithms read_algorithms(const Path& path, const Platform& platform) {
  return read_sections(path)[platform.text()];
}

void write_algorithms(const Path& path, const Platform& platform, const Algorithms& algorithms) {
  Sections sections = read_sections(path);
  for (const auto& [product, algorithm] : algorithms)
    sections[platform.text()].insert_or_assign(product, algorithm);
  if (path.has_parent_path()) make_directories(path.parent_path());
  write_file_atomically(path, text_of(sections));
}

}  // namespace stmoe::gpu
