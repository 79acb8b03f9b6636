// SPDX-License-Identifier: Apache-2.0
// Up to six dimensions, stored inline.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

#include "lib/base/error.h"

namespace stmoe {

class Shape {
 public:
  static constexpr int kMaxRank = 6;
  Shape() = default;
  Shape(std::initializer_list<int64_t> dims)
      : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims) {
    STMOE_CHECK(dims.size() <= kMaxRank, "shape: {} dimensions, at most {}", dims.size(), kMaxRank);
    for (int64_t dim : dims) dims_[static_cast<size_t>(rank_++)] = dim;
  }

  int rank() const { return rank_; }
  // Negative indices count from the end.
  int64_t operator[](int i) const { return dims_[index(i)]; }
  int64_t& operator[](int i) { return dims_[index(i)]; }
  int64_t numel() const {
    int64_t product = 1;
    for (int i = 0; i < rank_; ++i) product *= dims_[static_cast<size_t>(i)];
    return product;
  }
  void append(int64_t dim) {
    STMOE_CHECK(rank_ < kMaxRank);
    dims_[static_cast<size_t>(rank_++)] = dim;
  }
  std::span<const int64_t> dims() const { return {dims_.data(), static_cast<size_t>(rank_)}; }
  bool operator==(const Shape& other) const {
    return std::equal(dims().begin(), dims().end(), other.dims().begin(), other.dims().end());
  }
  // "[8, 512, 64]"
  std::string text() const;

 private:
  size_t index(int i) const {
    const int at = i < 0 ? i + rank_ : i;
    STMOE_CHECK(at >= 0 && at < rank_, "shape: dimension {} of {}", i, text());
    return static_cast<size_t>(at);
  }
  std::array<int64_t, kMaxRank> dims_{};
  int rank_ = 0;
};

}  // namespace stmoe
