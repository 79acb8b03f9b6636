// SPDX-License-Identifier: Apache-2.0
#include "lib/config/config.h"

#include "lib/config/inherit.h"
#include "lib/config/read.h"
#include "lib/config/yaml.h"

namespace stmoe::detail {

void load_config(ConfigRef config, const Path& file, const std::vector<std::string>& overrides) {
  Problems problems;
  ConfigNode recipe = read_recipe_file(file, problems);
  apply_overrides(recipe, overrides, problems);
  read_config(config, recipe, file.string(), problems);
  problems.throw_if_any();
}

void parse_config(ConfigRef config, std::string_view yaml, const Path& origin) {
  Problems problems;
  const ConfigNode recipe = read_recipe_text(yaml, origin, problems);
  read_config(config, recipe, origin.string(), problems);
  problems.throw_if_any();
}

void validate_config(ConfigRef config) {
  Problems problems;
  const ConfigNode tree = parse_yaml(print_config(config), {}, problems);
  read_config(config, tree, "", problems);
  problems.throw_if_any();
}

}  // namespace stmoe::detail
