// SPDX-License-Identifier: Apache-2.0
#include "lib/base/profile.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string_view>
#include <tuple>
#include <utility>

#include "lib/base/format.h"

namespace stmoe {
namespace {

constexpr std::string_view kStep = "step";

using ProductKey = std::tuple<std::string_view, OpScope::Pass, std::string>;

struct Recorder {
  bool active = false;
  size_t most_events = 0;
  double began = 0;
  OpScope* innermost = nullptr;
  std::map<std::string_view, OpTime> by_op;
  std::map<ProductKey, ProductTime> by_product;
  Profile result;
};
thread_local Recorder recorder;
thread_local void (*wait_for_device)() = nullptr;

// Events of threads that do not compute.
struct Background {
  std::atomic<size_t> most_events{0};  // 0: nothing is recorded
  std::mutex mutex;
  std::vector<ProfileEvent> events;
};
Background& background() {
  static Background one;
  return one;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

void add_event(ProfileEvent event) {
  Profile& result = recorder.result;
  if (result.events.size() < recorder.most_events)
    result.events.push_back(std::move(event));
  else
    ++result.events_left_out;
}

PassTime& part_of(OpTime& time, OpScope::Pass pass) {
  return pass == OpScope::Pass::forward ? time.forward : time.backward;
}

void add(PassTime& time, double seconds, const Work& work) {
  time.seconds += seconds;
  ++time.calls;
  time.work += work;
}

}  // namespace

struct ProfileAccess {
  static void enter(OpScope& scope) {
    scope.parent_ = std::exchange(recorder.innermost, &scope);
    scope.start_ = now();
  }

  static void leave(OpScope& scope) {
    const double whole = now() - scope.start_, own = whole - scope.inner_;
    recorder.innermost = scope.parent_;
    if (scope.parent_) scope.parent_->inner_ += whole;
    const char* kind = scope.pass_ == OpScope::Pass::forward ? "forward" : "backward";
    if (scope.op_ == kStep) {
      Profile& result = recorder.result;
      ++result.steps;
      result.step_seconds += whole;
      result.outside_ops_seconds += own;
      kind = "step";
    } else {
      OpTime& time = recorder.by_op[scope.op_];
      time.op = scope.op_;
      add(part_of(time, scope.pass_), own, scope.work_);
    }
    add_event({scope.op_, kind, scope.start_ - recorder.began, whole, scope.work_,
               std::move(scope.detail_)});
  }

  static CurrentOp current() {
    const OpScope* scope = recorder.innermost;
    return scope && scope->op_ != kStep ? CurrentOp{scope->op_, scope->pass_} : CurrentOp{};
  }

  static void count_flops(ProductType type, double flops) {
    if (recorder.innermost) recorder.innermost->work_.flops[static_cast<size_t>(type)] += flops;
  }

  static void count_bytes(double bytes) {
    OpScope* scope = recorder.innermost;
    if (!scope) return;
    if (!std::exchange(scope->counts_own_bytes_, true)) scope->work_.bytes = 0;
    scope->work_.bytes += bytes;
  }

  static void note_overwritten_gradient() {
    if (recorder.innermost) recorder.innermost->overwrites_ = true;
  }

  static void describe(double bytes, bool is_passed_on, std::string detail) {
    OpScope* scope = recorder.innermost;
    if (!scope) return;
    if (!scope->counts_own_bytes_ && (!is_passed_on || scope->overwrites_))
      scope->work_.bytes += bytes;
    scope->detail_ = std::move(detail);
  }

  static void leave(const ProductShape& shape, double start) {
    const double seconds = now() - start;
    Work work;
    work.flops[static_cast<size_t>(shape.type)] =
        2.0 * static_cast<double>(shape.batch) * static_cast<double>(shape.m) *
        static_cast<double>(shape.n) * static_cast<double>(shape.k);
    const OpScope* scope = recorder.innermost;
    if (scope) recorder.innermost->work_ += work;  // its bytes are the op's tensors
    work.bytes = shape.bytes;
    const char* op = scope ? scope->op_ : "";
    const OpScope::Pass pass = scope ? scope->pass_ : OpScope::Pass::forward;
    std::string text = shape.text();
    ProductTime& time = recorder.by_product[{op, pass, text}];
    time.op = op;
    time.pass = pass;
    time.shape = shape;
    add(time.time, seconds, work);
    add_event({"product", "product", start - recorder.began, seconds, work, std::move(text)});
  }
};

OpScope::OpScope(const char* op, Pass pass) : op_(op), pass_(pass), active_(recorder.active) {
  if (active_) ProfileAccess::enter(*this);
}

OpScope::~OpScope() {
  if (!active_) return;
  if (wait_for_device) wait_for_device();
  ProfileAccess::leave(*this);
}

std::string ProductShape::text() const {
  constexpr const char* kTypes[] = {"f32", "bf16", "f64"};
  std::string text = batch > 1 ? format("{} x ", batch) : "";
  text += format("{}, {}, {} {}", m, k, n, kTypes[static_cast<size_t>(type)]);
  if (is_a_transposed) text += " A'";
  if (is_b_transposed) text += " B'";
  if (accumulates) text += " +=";
  if (*note) text += format(" {}", note);
  return text;
}

ProductScope::ProductScope(const ProductShape& shape) : shape_(shape), active_(recorder.active) {
  if (active_) start_ = now();
}

ProductScope::~ProductScope() {
  if (!active_) return;
  if (wait_for_device) wait_for_device();
  ProfileAccess::leave(shape_, start_);
}

BackgroundScope::BackgroundScope(const char* name) : name_(name) {
  if (background().most_events > 0) start_ = now();
}

BackgroundScope::~BackgroundScope() {
  Background& all = background();
  if (start_ == 0) return;
  const double end = now();
  std::lock_guard lock(all.mutex);
  if (all.events.size() < all.most_events)
    all.events.push_back({name_, "background", start_, end - start_, {}, {}});
}

bool is_profiling() { return recorder.active; }
CurrentOp current_op() { return recorder.active ? ProfileAccess::current() : CurrentOp{}; }

void count_flops(ProductType type, double flops) {
  if (recorder.active) ProfileAccess::count_flops(type, flops);
}
void count_bytes(double bytes) {
  if (recorder.active) ProfileAccess::count_bytes(bytes);
}
void describe_op(double bytes, bool is_passed_on, std::string detail) {
  if (recorder.active) ProfileAccess::describe(bytes, is_passed_on, std::move(detail));
}
void note_overwritten_gradient() {
  if (recorder.active) ProfileAccess::note_overwritten_gradient();
}

void set_profile_wait(void (*wait)()) { wait_for_device = wait; }

void start_profile(size_t most_events) {
  recorder.by_op.clear();
  recorder.by_product.clear();
  recorder.result = {};
  recorder.began = now();
  recorder.most_events = most_events;
  recorder.active = true;
  Background& others = background();
  std::lock_guard lock(others.mutex);
  others.events.clear();
  others.most_events = most_events;
}

Profile stop_profile() {
  recorder.active = false;
  Profile result = std::exchange(recorder.result, {});
  for (auto& [name, time] : recorder.by_op) result.ops.push_back(std::move(time));
  for (auto& [key, time] : recorder.by_product) result.products.push_back(std::move(time));
  recorder.by_op.clear();
  recorder.by_product.clear();
  auto total = [](const OpTime& t) { return t.forward.seconds + t.backward.seconds; };
  std::stable_sort(result.ops.begin(), result.ops.end(),
                   [&](const OpTime& a, const OpTime& b) { return total(a) > total(b); });
  std::stable_sort(
      result.products.begin(), result.products.end(),
      [](const ProductTime& a, const ProductTime& b) { return a.time.seconds > b.time.seconds; });
  Background& others = background();
  std::lock_guard lock(others.mutex);
  others.most_events = 0;
  for (ProfileEvent& event : others.events) {
    event.start = std::max(0.0, event.start - recorder.began);
    result.events.push_back(std::move(event));
  }
  others.events.clear();
  return result;
}

}  // namespace stmoe
