// SPDX-License-Identifier: Apache-2.0
// A config with every kind of field, for the tests of this room.
#pragma once

#include <memory>

#include "lib/config/config.h"

namespace stmoe {

// A plug-in interface with two kinds.
struct Shape {
  static constexpr const char* kKind = "shape";
  struct Factory {
    ConfigBox (*make_config)();
  };
};
struct CircleConfig {
  double radius = 1.0;
  void visit(auto& v) { v("radius", radius, "radius of the circle", greater_than(0.0)); }
};
struct BoxConfig {
  int64_t width = 2, height = 3;
  void visit(auto& v) {
    v("width", width, "width of the box", at_least(1));
    v("height", height, "height of the box", at_least(1));
  }
  void validate(Problems& problems) const {
    if (width > height) problems.add("width", "is {}, more than height {}", width, height);
  }
};

struct SourceConfig {
  ConfigPath file;
  double weight = 1.0;
  void visit(auto& v) {
    v("file", file, "a corpus");
    v("weight", weight, "its share", greater_than(0.0));
  }
};

struct ModelPart {
  int64_t width = 8, heads = 2;
  std::string activation = "relu";
  std::vector<int64_t> layers = {1, 3};
  void visit(auto& v) {
    v("width", width, "size of a state", at_least(1));
    v("heads", heads, "attention heads", at_least(1));
    v("activation", activation, "of the feed-forward layer", one_of({"relu", "geglu"}));
    v("layers", layers, "sparse layers", at_least(0));
  }
  void validate(Problems& problems) const {
    if (width % heads != 0)
      problems.add("heads", "is {}, but width {} is not a multiple of it", heads, width);
  }
};

struct ExampleConfig {
  int64_t steps = 100;
  double rate = 0.1;
  bool is_packed = true;
  std::string name = "run";
  ConfigPath vocabulary;
  std::optional<double> clip;
  std::vector<double> betas = {0.9, 0.999};
  std::vector<std::string> tags;
  std::vector<SourceConfig> train;
  ModelPart model;
  Choice<Shape> shape{"circle"};
  void visit(auto& v) {
    v("steps", steps, "number of steps", at_least(0));
    v("rate", rate, "learning rate", between(0.0, 1.0));
    v("is_packed", is_packed, "whether sequences are packed");
    v("name", name, "name of the run");
    v("vocabulary", vocabulary, "a vocabulary file");
    v("clip", clip, "clipping threshold", greater_than(0.0));
    v("betas", betas, "decay rates", less_than(1.0));
    v("tags", tags, "free words");
    v("train", train, "corpora", shorthand("file"));
    v("model", model, "The model.");
    v("shape", shape, "The shape");
  }
};

}  // namespace stmoe
