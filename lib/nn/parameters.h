// SPDX-License-Identifier: Apache-2.0
// The weights of a model, by checkpoint path. Layers ask a scope for their weights; the store makes
// them once, in the order of asking, and owns the list that the optimizer, checkpoints and plans
// walk. A weight starts from the store's key folded with its path, so a model's weights do not
// depend on the order or the layout in which they are made.
#pragma once

#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "lib/autograd/parameter.h"
#include "lib/nn/initializer.h"

namespace stmoe {

// What reads a weight.
enum class WeightUse {
  any,
  product  // only products (and look-ups) in the type of the activations
};

// What is known of a weight without its memory.
struct ParameterShape {
  std::string name;
  Shape shape;
  int stacked_dims = 0;  // see Parameter
};

class ParameterStore {
 public:
  enum class Mode {
    initialized,  // memory and starting values
    zeroed,       // memory only: a checkpoint is read into it
    shapes_only   // no memory: every Var is undefined, parameters() is empty, shapes() is complete
  };
  // `storage` is that of weights that only products read, the others are stored in `dtype`.
  explicit ParameterStore(RandomKey key, DType dtype = DType::f32, Mode mode = Mode::initialized,
                          Device device = Device::cpu, WeightStorage storage = WeightStorage::f32)
      : key_(key), dtype_(dtype), mode_(mode), device_(device), storage_(storage) {}
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  ParameterList& parameters() { return parameters_; }
  const ParameterList& parameters() const { return parameters_; }
  const std::vector<ParameterShape>& shapes() const { return shapes_; }
  Mode mode() const { return mode_; }
  DType dtype() const { return dtype_; }

  // A new leaf on the heap; throws BugError when the name is taken.
  Var create(const std::string& name, const Shape& shape, const Initializer& initializer,
             int stacked_dims, WeightUse use = WeightUse::any);

 private:
  Var make(const std::string& name, const Shape& shape, const Initializer& initializer,
           WeightUse use) const;

  RandomKey key_;
  DType dtype_;
  Mode mode_;
  Device device_;
  WeightStorage storage_;
  ParameterList parameters_;
  std::vector<ParameterShape> shapes_;
  std::unordered_set<std::string> names_;
};

// A path in a store: scope / "encoder" / "block_0". Holds a reference to the store, which must live
// longer.
class ParameterScope {
 public:
  explicit ParameterScope(ParameterStore& store, std::string path = "")
      : store_(&store), path_(std::move(path)) {}
  ParameterScope operator/(std::string_view name) const;
  const std::string& path() const { return path_; }

  // The weight `path/name`. A constructor must not look at the value: it is undefined in
  // Mode::shapes_only.
  Var create(std::string_view name, const Shape& shape, const Initializer& initializer,
             int stacked_dims = 0, WeightUse use = WeightUse::any) const;

 private:
  ParameterStore* store_;
  std::string path_;
};

}  // namespace stmoe
