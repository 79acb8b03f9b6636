// SPDX-License-Identifier: Apache-2.0
// Each change is planned as a recipe of its own. A change with a size (micro-batches, sequences,
// experts) goes as far as it takes to fit, found by bisection: memory falls with it.
#include <algorithm>

#include "lib/plan/plan.h"

namespace stmoe {
namespace {

using Changes = std::vector<std::pair<std::string, std::string>>;

struct Variant {
  Recipe recipe;
  Changes changes;

  template <class Value>
  void set(Value& key, const char* name, Value value) {
    key = std::move(value);
    changes.emplace_back(name, format("{}", key));
  }
};

bool is_valid(const Recipe& recipe) {
  Problems problems;
  recipe.model.validate(problems);
  recipe.moe.validate(problems);
  recipe.validate(problems);
  return problems.empty();
}

class Search {
 public:
  Search(const Recipe& recipe, const Machine& machine)
      : start_{recipe, {}}, available_(machine.memory_bytes), device_(machine.device) {}

  // A change without a size.
  void try_one(const Variant& variant, const char* effect) {
    if (is_valid(variant.recipe)) add(variant, needed(variant), effect);
  }

  // The first of `sizes` (from least to most) with which the variant fits, else the last.
  template <class Make>
  void try_sizes(const std::vector<int64_t>& sizes, Make&& make, const char* effect) {
    std::vector<Variant> variants;
    for (int64_t size : sizes) {
      variants.push_back(make(size));
      if (!is_valid(variants.back().recipe)) variants.pop_back();
    }
    if (variants.empty()) return;
    int64_t bytes = needed(variants.back());
    if (bytes > available_) return add(variants.back(), bytes, effect);
    size_t low = 0, high = variants.size() - 1;  // `high` fits and takes `bytes`
    while (low < high) {
      const size_t middle = (low + high) / 2;
      const int64_t now = needed(variants[middle]);
      if (now <= available_)
        high = middle, bytes = now;
      else
        low = middle + 1;
    }
    add(variants[high], bytes, effect);
  }

  const Variant& start() const { return start_; }
  int64_t needed(const Variant& variant) const {
    return plan_step(variant.recipe, device_).total();
  }
  bool has_fit() const {
    return std::ranges::any_of(found_, [](const Suggestion& s) { return s.fits; });
  }
  std::vector<Suggestion> take() { return std::move(found_); }

 private:
  void add(const Variant& variant, int64_t bytes, const char* effect) {
    found_.push_back({variant.changes, effect, bytes, bytes <= available_});
  }

  Variant start_;
  int64_t available_;
  Device device_;
  std::vector<Suggestion> found_;
};

Variant with_recompute(Variant variant) {
  if (variant.recipe.model.recompute != "block")
    variant.set<std::string>(variant.recipe.model.recompute, "model.recompute", "block");
  return variant;
}

Variant with_bf16(Variant variant) {
  if (variant.recipe.precision.compute != "bf16")
    variant.set<std::string>(variant.recipe.precision.compute, "precision.compute", "bf16");
  return variant;
}

Variant with_micro_batches(Variant variant, int64_t count) {
  variant.set(variant.recipe.train.accumulate, "train.accumulate", count);
  return variant;
}

// One sequence at a time, recomputed, in bf16: what no key but those of the model can go below.
Variant smallest_step(Variant variant) {
  return with_micro_batches(with_bf16(with_recompute(std::move(variant))),
                            variant.recipe.data.batch_size);
}

// count * 2, count * 4, ... up to `most`, of which they are divisors.
std::vector<int64_t> doublings(int64_t count, int64_t most) {
  std::vector<int64_t> sizes;
  for (count *= 2; count <= most; count *= 2)
    if (most % count == 0) sizes.push_back(count);
  if (most > 1 && (sizes.empty() || sizes.back() != most)) sizes.push_back(most);
  return sizes;
}

std::vector<int64_t> halvings(int64_t count, int64_t least) {
  std::vector<int64_t> sizes;
  for (count /= 2; count >= least; count /= 2) sizes.push_back(count);
  return sizes;
}

void try_step_keys(Search& search) {
  const Variant& start = search.start();
  const auto parts = doublings(start.recipe.train.accumulate, start.recipe.data.batch_size);
  const bool can_recompute = start.recipe.model.recompute != "block";
  search.try_sizes(
      parts, [&](int64_t count) { return with_micro_batches(start, count); },
      "the same update from smaller batches");
  if (can_recompute) search.try_one(with_recompute(start), "the same update, a forward pass more");
  if (can_recompute && !search.has_fit())
    search.try_sizes(
        parts, [&](int64_t count) { return with_micro_batches(with_recompute(start), count); },
        "the same update, a forward pass more");
  if (start.recipe.precision.compute != "bf16") {
    search.try_one(with_bf16(start), "activations and products in bf16");
    if (!search.has_fit())
      search.try_sizes(
          parts,
          [&](int64_t count) {
            return with_micro_batches(with_bf16(with_recompute(start)), count);
          },
          "activations and products in bf16, a forward pass more");
  }
  search.try_sizes(
      halvings(start.recipe.data.batch_size / start.recipe.train.accumulate, 1),
      [&](int64_t rows) {
        Variant variant = start;
        variant.set(variant.recipe.data.batch_size, "data.batch_size",
                    rows * variant.recipe.train.accumulate);
        return variant;
      },
      "another result: fewer sequences an update");
}

// Weights, gradients and optimizer state alone are too much.
void try_model_keys(Search& search) {
  const Variant least = smallest_step(search.start());
  if (least.recipe.optimizer.kind() != "adafactor") {
    Variant variant = least;
    variant.recipe.optimizer = Choice<Optimizer>("adafactor");
    variant.changes.emplace_back("optimizer.kind", "adafactor");
    search.try_one(variant, "another optimizer, with less state");
  }
  const MoeConfig& moe = least.recipe.moe;
  if (moe.encoder_sparse_layers.empty() && moe.decoder_sparse_layers.empty()) return;
  search.try_sizes(
      halvings(moe.num_experts, 2),
      [&](int64_t experts) {
        Variant variant = least;
        variant.set(variant.recipe.moe.num_experts, "moe.num_experts", experts);
        return variant;
      },
      "another model: fewer experts");
}

}  // namespace

std::vector<Suggestion> suggest_changes(const Recipe& recipe, const Machine& machine) {
  Search search(recipe, machine);
  if (search.needed(smallest_step(search.start())) <= machine.memory_bytes)
    try_step_keys(search);
  else
    try_model_keys(search);
  return search.take();
}

}  // namespace stmoe
