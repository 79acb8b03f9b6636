// SPDX-License-Identifier: Apache-2.0
// A recipe before it has types: the YAML tree in which every node knows where it was written, and
// its merging.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

// Where a node was written: a line of a file, or a --set.
struct ConfigSource {
  std::string name;     // the file, or "--set a.b"
  int line = 0;         // 0: none
  Path directory = {};  // what relative paths are relative to
  std::string text() const;
};

struct ConfigNode {
  enum class Kind { null, scalar, list, map };
  Kind kind = Kind::null;
  std::string key;         // in a map
  std::string scalar;      // the text of a scalar
  bool is_quoted = false;  // "8" rather than 8
  ConfigSource source;     // of the key, in a map
  // Set by merging: inherited from a section that did not name its `kind`, under one that does.
  bool needs_default_kind = false;
  std::vector<ConfigNode> children;  // of a list or a map, in written order

  const ConfigNode* find(std::string_view child) const;
  ConfigNode* find(std::string_view child);
  // "is 'x'", "is a list", ...: how messages quote the node.
  std::string description() const;
};

// Where an override names another `kind` than the base, the base's other keys of that section
// belong to another plug-in.
enum class MergeKinds { drop_other, keep_all };

// Writes the keys of `overrides` over those of `base`, section by section. A list replaces a list.
void merge_config(ConfigNode& base, const ConfigNode& overrides,
                  MergeKinds kinds = MergeKinds::drop_other);

}  // namespace stmoe
