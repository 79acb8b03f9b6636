// SPDX-License-Identifier: Apache-2.0
#include "lib/config/yaml.h"

#include <sstream>

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

// Enough for any recipe; stops aliases that contain themselves or multiply.
constexpr int kMaxDepth = 32;
constexpr int kMaxNodes = 100000;

class Converter {
 public:
  Converter(const ConfigSource& source, Problems& problems)
      : source_(source), problems_(problems) {}

  ConfigNode convert(const YAML::Node& yaml, const std::string& path, int depth) {
    ConfigNode node;
    node.source = source_at(yaml);
    if (depth > kMaxDepth || ++num_nodes_ > kMaxNodes)
      throw UsageError(format("{}: {}...: is nested or repeated without end; remove the alias",
                              node.source.text(), path.substr(0, 60)));
    switch (yaml.Type()) {
      case YAML::NodeType::Scalar:
        node.kind = ConfigNode::Kind::scalar;
        node.scalar = yaml.Scalar();
        node.is_quoted = yaml.Tag() == "!";
        break;
      case YAML::NodeType::Sequence:
        convert_list(yaml, path, depth, node);
        break;
      case YAML::NodeType::Map:
        convert_map(yaml, path, depth, node);
        break;
      default:
        break;
    }
    return node;
  }

 private:
  ConfigSource source_at(const YAML::Node& yaml) const {
    ConfigSource source = source_;
    if (source.line > 0) source.line = yaml.Mark().line + 1;
    return source;
  }

  void convert_list(const YAML::Node& yaml, const std::string& path, int depth, ConfigNode& node) {
    node.kind = ConfigNode::Kind::list;
    for (const YAML::Node& item : yaml)
      node.children.push_back(
          convert(item, format("{}[{}]", path, node.children.size()), depth + 1));
  }

  void convert_map(const YAML::Node& yaml, const std::string& path, int depth, ConfigNode& node) {
    node.kind = ConfigNode::Kind::map;
    for (const auto& entry : yaml) {
      const ConfigSource source = source_at(entry.first);
      if (!entry.first.IsScalar()) {
        problems_.add_line(format("{}{}{}: a key is not plain text", source.text(),
                                  path.empty() ? "" : ": ", path));
        continue;
      }
      const std::string& key = entry.first.Scalar();
      const std::string child_path = join_keys(path, key);
      if (const ConfigNode* first = node.find(key)) {
        problems_.add_line(format("{}: {}: is set twice, first on line {}; keep one", source.text(),
                                  child_path, first->source.line));
        continue;
      }
      ConfigNode child = convert(entry.second, child_path, depth + 1);
      child.key = key;
      child.source = source;
      node.children.push_back(std::move(child));
    }
  }

  const ConfigSource& source_;
  Problems& problems_;
  int num_nodes_ = 0;
};

class IgnoreEvents final : public YAML::EventHandler {
  using Mark = const YAML::Mark&;
  using Text = const std::string&;
  using Anchor = YAML::anchor_t;
  using Style = YAML::EmitterStyle::value;
  void OnDocumentStart(Mark) override {}
  void OnDocumentEnd() override {}
  void OnNull(Mark, Anchor) override {}
  void OnAlias(Mark, Anchor) override {}
  void OnScalar(Mark, Text, Anchor, Text) override {}
  void OnSequenceStart(Mark, Text, Anchor, Style) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(Mark, Text, Anchor, Style) override {}
  void OnMapEnd() override {}
};

// Not YAML::LoadAll: yaml-cpp 0.7 makes documents without end out of a text that begins with a
// comma.
bool has_second_document(std::string_view text) {
  std::istringstream stream{std::string(text)};
  YAML::Parser parser(stream);
  IgnoreEvents ignore;
  return parser.HandleNextDocument(ignore) && parser.HandleNextDocument(ignore);
}

}  // namespace

ConfigNode parse_yaml(std::string_view text, const ConfigSource& source, Problems& problems) {
  try {
    if (has_second_document(text))
      throw UsageError(
          format("{}: is not one YAML document, expected keys and values; remove '---' lines and "
                 "what stands "
                 "before the first key",
                 source.name));
    return Converter(source, problems).convert(YAML::Load(std::string(text)), "", 0);
  } catch (const YAML::Exception& error) {
    ConfigSource at = source;
    if (at.line > 0) at.line = error.mark.line + 1;
    throw UsageError(format("{}: invalid YAML: {}", at.text(), error.msg));
  }
}

}  // namespace stmoe
