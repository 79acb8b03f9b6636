// SPDX-License-Identifier: Apache-2.0
#include "lib/config/choice.h"

namespace stmoe {

ConfigBox::ConfigBox(const ConfigBox& other) : type_(other.type_), clone_(other.clone_) {
  if (other.object_) object_ = clone_(other.object_.get());
}

ConfigBox& ConfigBox::operator=(const ConfigBox& other) {
  if (this != &other) *this = ConfigBox(other);
  return *this;
}

void ConfigBox::check_type(const std::type_info& wanted) const {
  STMOE_CHECK(object_ && *type_->id == wanted, "the config is a {}, asked for a {}",
              object_ ? type_->id->name() : "nothing", wanted.name());
}

void ChoiceBase::choose(std::string_view kind) {
  box_ = source_->make(kind);
  kind_ = kind;
}

}  // namespace stmoe
