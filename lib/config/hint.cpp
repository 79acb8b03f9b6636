// SPDX-License-Identifier: Apache-2.0
#include "lib/config/hint.h"

#include <algorithm>

#include "lib/base/registry.h"
#include "lib/config/choice.h"

namespace stmoe {
namespace {

// Every key path of a config.
class PathCollector : public FieldVisitor {
 public:
  void field(const Field& field) override {
    const std::string outer = section_;
    section_ = join_keys(section_, field.key);
    paths_.push_back(section_);
    if (auto* section = std::get_if<ConfigRef>(&field.value)) section->visit(*this);
    if (auto* choice = std::get_if<ChoiceBase*>(&field.value)) (*choice)->box().ref().visit(*this);
    section_ = outer;
  }
  const std::vector<std::string>& paths() const { return paths_; }

 private:
  std::vector<std::string> paths_;
  std::string section_;
};

std::vector<std::string> words_of(const std::string& key) {
  std::vector<std::string> words(1);
  for (char c : key) {
    if (c == '_')
      words.emplace_back();
    else
      words.back() += c;
  }
  return words;
}

bool is_like(const std::string& a, const std::string& b) {
  constexpr size_t kMinPrefix = 4, kMinMisspelt = 5;
  const size_t common = std::min(a.size(), b.size());
  if (common >= kMinPrefix && a.compare(0, common, b, 0, common) == 0) return true;
  return a == b || (common >= kMinMisspelt && !nearest_name(a, {b}).empty());
}

// The known keys that share most words with `key`, at least half of them; several when they tie.
std::vector<std::string> nearest_by_words(const std::string& key,
                                          const std::vector<std::string>& known) {
  const std::vector<std::string> words = words_of(key);
  std::vector<std::string> nearest;
  size_t most = (words.size() + 1) / 2;
  for (const std::string& candidate : known) {
    const std::vector<std::string> others = words_of(candidate);
    const auto is_shared = [&](const std::string& word) {
      return std::any_of(others.begin(), others.end(),
                         [&](const std::string& other) { return is_like(word, other); });
    };
    const auto shared = static_cast<size_t>(std::count_if(words.begin(), words.end(), is_shared));
    if (shared > most) nearest.clear();
    if (shared >= most) nearest.push_back(candidate);
    most = std::max(most, shared);
  }
  return nearest;
}

}  // namespace

std::string unknown_key_hint(const std::string& key, const std::vector<std::string>& known,
                             ConfigRef root) {
  PathCollector collector;
  root.visit(collector);
  for (const std::string& path : collector.paths())
    if (path.ends_with("." + key)) return format("did you mean {}?", path);
  const std::string nearest = nearest_name(key, known);
  if (!nearest.empty()) return format("did you mean {}?", nearest);
  constexpr size_t kMostNamed = 3;
  const std::vector<std::string> alike = nearest_by_words(key, known);
  if (!alike.empty() && alike.size() <= kMostNamed)
    return format("did you mean {}?", fmt::join(alike, " or "));
  if (known.empty()) return "it takes no keys";
  return format("known keys: {}", fmt::join(known, ", "));
}

}  // namespace stmoe
