// SPDX-License-Identifier: Apache-2.0
#include "lib/config/node.h"

#include <algorithm>
#include <utility>

#include "lib/base/format.h"

namespace stmoe {

std::string ConfigSource::text() const { return line > 0 ? format("{}:{}", name, line) : name; }

const ConfigNode* ConfigNode::find(std::string_view child) const {
  auto found = std::find_if(children.begin(), children.end(),
                            [&](const ConfigNode& node) { return node.key == child; });
  return kind == Kind::map && found != children.end() ? &*found : nullptr;
}

ConfigNode* ConfigNode::find(std::string_view child) {
  return const_cast<ConfigNode*>(std::as_const(*this).find(child));
}

std::string ConfigNode::description() const {
  switch (kind) {
    case Kind::null:
      return "is empty";
    case Kind::list:
      return "is a list";
    case Kind::map:
      return "is a section";
    case Kind::scalar:
      break;
  }
  return is_quoted ? format("is the text \"{}\"", scalar) : format("is '{}'", scalar);
}

namespace {

// Makes `base` ready for an override that names a kind.
void drop_other_kind(ConfigNode& base, const ConfigNode& wanted) {
  const ConfigNode* current = base.find("kind");
  if (!current) {
    for (ConfigNode& child : base.children) child.needs_default_kind = true;
  } else if (current->scalar != wanted.scalar) {
    base.children.clear();
  }
}

}  // namespace

void merge_config(ConfigNode& base, const ConfigNode& overrides, MergeKinds kinds) {
  const ConfigNode* kind = overrides.find("kind");
  if (kind && kinds == MergeKinds::drop_other) drop_other_kind(base, *kind);
  for (const ConfigNode& child : overrides.children) {
    ConfigNode* existing = base.find(child.key);
    if (!existing) {
      base.children.push_back(child);
    } else if (existing->kind == ConfigNode::Kind::map && child.kind == ConfigNode::Kind::map) {
      merge_config(*existing, child, kinds);
      if (child.source.line > 0) existing->source = child.source;
    } else if (existing->kind != ConfigNode::Kind::map || child.kind != ConfigNode::Kind::null) {
      *existing = child;
    }
  }
}

}  // namespace stmoe
