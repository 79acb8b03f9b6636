// SPDX-License-Identifier: Apache-2.0
// Where the time of a step goes. Each op opens an OpScope in its forward function, the tape opens
// one around each backward closure; a scope's own time excludes the scopes inside it. FLOPs are
// counted where they are done (product(), attention), bytes by the tape: the tensors that an op
// reads and writes, once each, whatever the kernels do. When profiling is off, all of this costs a
// branch.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace stmoe {

// The type of a product's operands: each has its own peak.
enum class ProductType : uint8_t { f32, bf16, f64 };
constexpr int kProductTypes = 3;

struct Work {
  std::array<double, kProductTypes> flops{};  // by ProductType
  double bytes = 0;

  double all_flops() const { return flops[0] + flops[1] + flops[2]; }
  Work& operator+=(const Work& other) {
    for (size_t i = 0; i < flops.size(); ++i) flops[i] += other.flops[i];
    bytes += other.bytes;
    return *this;
  }
};

class OpScope {
 public:
  enum class Pass : uint8_t { forward, backward };
  OpScope(const char* op, Pass pass);  // `op` is a string literal
  ~OpScope();
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  friend struct ProfileAccess;
  const char* op_;
  Pass pass_;
  bool active_, counts_own_bytes_ = false, overwrites_ = false;
  OpScope* parent_;
  double start_ = 0, inner_ = 0;
  Work work_;
  std::string detail_;
};

// One training step: time in it that no op accounts for is "outside ops".
class StepScope {
 public:
  StepScope() : scope_("step", OpScope::Pass::forward) {}

 private:
  OpScope scope_;
};

// One matrix product, or `batch` of them: C [m, n] = A [m, k] B [k, n]. Its FLOPs count for the op
// around it; by itself it is a row of the table of shapes.
struct ProductShape {
  int64_t batch = 1, m = 0, n = 0, k = 0;
  bool is_a_transposed = false, is_b_transposed = false, accumulates = false;
  ProductType type = ProductType::f32;
  double bytes = 0;          // of A, B and C
  const char* note = "";     // a literal: "f32 result", "packed"
  std::string text() const;  // "4096 x 512 x 2048, A^T"
};

class ProductScope {
 public:
  explicit ProductScope(const ProductShape& shape);
  ~ProductScope();
  ProductScope(const ProductScope&) = delete;
  ProductScope& operator=(const ProductScope&) = delete;

 private:
  ProductShape shape_;
  bool active_;
  double start_ = 0;
};

// Work of another thread, shown in the trace beside the steps; any thread, `name` is a literal.
class BackgroundScope {
 public:
  explicit BackgroundScope(const char* name);
  ~BackgroundScope();
  BackgroundScope(const BackgroundScope&) = delete;
  BackgroundScope& operator=(const BackgroundScope&) = delete;

 private:
  const char* name_;
  double start_ = 0;
};

// Whether this thread's scopes are recorded.
bool is_profiling();
// Of the innermost scope, "" when nothing is recorded.
struct CurrentOp {
  const char* op = "";
  OpScope::Pass pass = OpScope::Pass::forward;
};
CurrentOp current_op();
// Adds to the innermost scope.
void count_flops(ProductType type, double flops);
// What an op moves, where it knows better than the tape (its arguments and results).
void count_bytes(double bytes);
// The tape's count, taken unless the op counted itself, and a text for the trace. A backward pass
// whose gradients are all its arguments again moves nothing, unless it said that it overwrote one.
void describe_op(double bytes, bool is_passed_on, std::string detail);
void note_overwritten_gradient();

struct PassTime {
  double seconds = 0;
  int64_t calls = 0;
  Work work;
};

struct OpTime {
  std::string op;
  PassTime forward, backward;
};

struct ProductTime {
  std::string op;  // the op around it
  OpScope::Pass pass;
  ProductShape shape;
  PassTime time;
};

struct ProfileEvent {
  const char* name;
  const char* kind;       // "forward", "backward", "product", "step" or "background"
  double start, seconds;  // since the profile began
  Work work;
  std::string detail;
};

// Sums over everything recorded, largest time first.
struct Profile {
  int64_t steps = 0;
  double step_seconds = 0, outside_ops_seconds = 0;
  std::vector<OpTime> ops;
  std::vector<ProductTime> products;
  std::vector<ProfileEvent> events;  // as they ended
  int64_t events_left_out = 0;
};

// Records the calling thread's scopes, and the background's, from start to stop: sums, and the
// first `most_events` single events.
void start_profile(size_t most_events = 0);
// For a device that works on its own: called at the end of each op and product while profiling, to
// wait for what it asked for; null: nothing to wait for.
void set_profile_wait(void (*wait)());
Profile stop_profile();

}  // namespace stmoe
