// SPDX-License-Identifier: Apache-2.0
#include "lib/autograd/tape.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

#include "lib/autograd/op_bytes.h"
#include "lib/base/profile.h"
#include "lib/tensor/add_in_place.h"

namespace stmoe {

struct OpRecord {
  const char* op;
  uint64_t order;                                 // creation order: a topological order of the tape
  std::vector<std::shared_ptr<GradNode>> inputs;  // null where no gradient is needed
  std::vector<std::weak_ptr<GradNode>> outputs;
  std::vector<Shape> input_shapes;
  BackwardManyFunction backward;
  std::unique_ptr<BackwardBytes> bytes;  // while profiling
};

struct TapeAccess {
  static Var make(Tensor value, std::shared_ptr<GradNode> node) {
    Var result(std::move(value));
    result.node_ = std::move(node);
    return result;
  }
};

namespace {

thread_local bool recording = true;
thread_local uint64_t next_order = 0;

// Sets whether ops are recorded; what held before comes back, also after an exception.
class RecordingScope {
 public:
  explicit RecordingScope(bool value) : before_(std::exchange(recording, value)) {}
  ~RecordingScope() { recording = before_; }
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;

 private:
  bool before_;
};

std::vector<Var> record_always(const char* op, std::vector<Tensor> ys,
                               const std::vector<Var>& inputs, BackwardManyFunction backward) {
  auto entry = std::make_shared<OpRecord>();
  entry->op = op;
  entry->order = next_order++;
  entry->backward = std::move(backward);
  if (is_profiling()) entry->bytes = std::make_unique<BackwardBytes>(ys, inputs);
  for (const Var& input : inputs) {
    entry->inputs.push_back(input.node());
    entry->input_shapes.push_back(input.shape());
  }
  std::vector<Var> results;
  for (Tensor& y : ys) {
    if (!is_floating(y.dtype())) {
      entry->outputs.emplace_back();
      results.emplace_back(std::move(y));
      continue;
    }
    auto node = std::make_shared<GradNode>();
    node->producer = entry;
    entry->outputs.push_back(node);
    results.push_back(TapeAccess::make(std::move(y), std::move(node)));
  }
  return results;
}

void accumulate(GradNode& node, Tensor gradient) {
  gradient = gradient.contiguous();
  if (!node.grad.defined()) {
    // A leaf's gradient is its own: whoever scales it in place must not reach another one.
    node.grad = node.producer || !gradient.is_shared() ? std::move(gradient) : gradient.clone();
    return;
  }
  OpScope scope("sum of gradients", OpScope::Pass::backward);
  if (node.grad.is_shared()) node.grad = node.grad.clone();
  add_in_place(node.grad, gradient);
  count_bytes(3.0 * static_cast<double>(gradient.bytes()));
}

// What a backward pass walks: ops, latest first, and their nodes, which must live until their own
// op has read the gradient collected in them, even when no Var refers to them any more.
struct Reachable {
  std::vector<std::shared_ptr<OpRecord>> ops;
  std::vector<std::shared_ptr<GradNode>> nodes;
};

Reachable reachable_from(const std::vector<Var>& values) {
  Reachable found;
  std::vector<OpRecord*> pending;
  std::unordered_set<const OpRecord*> seen;
  auto visit = [&](const std::shared_ptr<GradNode>& node) {
    if (!node || !node->producer) return;
    found.nodes.push_back(node);
    if (!seen.insert(node->producer.get()).second) return;
    pending.push_back(node->producer.get());
    found.ops.push_back(node->producer);
  };
  for (const Var& value : values) visit(value.node());
  while (!pending.empty()) {
    OpRecord* op = pending.back();
    pending.pop_back();
    for (const auto& input : op->inputs) visit(input);
  }
  std::sort(found.ops.begin(), found.ops.end(),
            [](const auto& a, const auto& b) { return a->order > b->order; });
  return found;
}

void run_backward(OpRecord& op) {
  std::vector<Tensor> dys;
  bool any = false;
  for (auto& output : op.outputs) {
    auto node = output.lock();
    dys.push_back(node ? std::exchange(node->grad, Tensor()) : Tensor());
    any |= dys.back().defined();
  }
  if (any) {
    STMOE_CHECK(op.backward, "{}: backward was already run through this tape", op.op);
    std::vector<Tensor> dxs;
    {
      OpScope scope(op.op, OpScope::Pass::backward);
      if (op.bytes) op.bytes->before(dys, op.inputs);
      dxs = op.backward(dys);
      op.backward = nullptr;
      dys.clear();
      if (op.bytes && dxs.size() == op.inputs.size()) op.bytes->after(dxs, op.inputs);
    }
    STMOE_CHECK(dxs.size() == op.inputs.size(), "{}: {} gradients for {} inputs", op.op, dxs.size(),
                op.inputs.size());
    for (size_t i = 0; i < dxs.size(); ++i) {
      if (!op.inputs[i] || !dxs[i].defined()) continue;
      STMOE_CHECK(dxs[i].shape() == op.input_shapes[i], "{}: gradient {} of shape {}, input {}",
                  op.op, i, dxs[i].shape().text(), op.input_shapes[i].text());
      Tensor dx = std::move(dxs[i]);
      dxs[i] = Tensor();
      accumulate(*op.inputs[i], std::move(dx));
    }
  }
  op.backward = nullptr;
  op.inputs.clear();
}

}  // namespace

bool grad_enabled() { return recording; }

bool will_record(const std::vector<Var>& inputs) {
  return recording && std::any_of(inputs.begin(), inputs.end(),
                                  [](const Var& input) { return input.requires_grad(); });
}

Var record(const char* op, Tensor y, const std::vector<Var>& inputs, BackwardFunction backward) {
  if (is_profiling()) profile_forward({&y, 1}, inputs);
  if (!will_record(inputs)) return Var(std::move(y));
  std::vector<Tensor> ys;
  ys.push_back(std::move(y));
  return record_always(op, std::move(ys), inputs,
                       [backward = std::move(backward)](std::span<const Tensor> dys) {
                         return backward(dys[0]);
                       })[0];
}

std::vector<Var> record_many(const char* op, std::vector<Tensor> ys, const std::vector<Var>& inputs,
                             BackwardManyFunction backward) {
  if (is_profiling()) profile_forward(ys, inputs);
  if (will_record(inputs)) return record_always(op, std::move(ys), inputs, std::move(backward));
  std::vector<Var> results;
  for (Tensor& y : ys) results.emplace_back(std::move(y));
  return results;
}

Var Var::leaf(const WeightTensor& weight, RandomKey rounding_key) {
  Var result = leaf(weight.value);
  result.node_->storage = weight.storage;
  result.node_->low = weight.low;
  result.node_->rounding_key = rounding_key;
  return result;
}

Tensor Var::value_as(DType dtype) const {
  if (!is_plain()) {
    STMOE_CHECK(dtype == DType::bf16, "a weight that is stored as bf16 was asked for as {}",
                name_of(dtype));
    return value_;
  }
  const bool is_kept = node_ && !node_->producer && node_->keeps_rounded;
  if (value_.dtype() == dtype || !is_kept) return value_.to(dtype);
  Tensor& copy = node_->rounded;
  if (!copy.defined() || copy.dtype() != dtype) {
    copy = Tensor::persistent(shape(), dtype, device());
    copy.copy_from(value_);
  }
  return copy;
}

LeafGradient::LeafGradient(const Var& input)
    : node_(input.node() && !input.node()->producer ? input.node() : nullptr),
      shape_(input.shape()),
      dtype_(input.dtype()),
      device_(input.device()) {}

NoGradScope::NoGradScope() : before_(recording) { recording = false; }
NoGradScope::~NoGradScope() { recording = before_; }

void backward(const Var& loss) {
  STMOE_CHECK(loss.numel() == 1, "backward: the loss has shape {}", loss.shape().text());
  backward({loss}, {Tensor::full(loss.shape(), loss.dtype(), 1.0, loss.device())});
}

void backward(const std::vector<Var>& values, const std::vector<Tensor>& gradients) {
  STMOE_CHECK(values.size() == gradients.size());
  NoGradScope no_grad;
  for (size_t i = 0; i < values.size(); ++i)
    if (values[i].node() && gradients[i].defined()) accumulate(*values[i].node(), gradients[i]);
  const Reachable reachable = reachable_from(values);
  for (const auto& op : reachable.ops) run_backward(*op);
}

std::vector<Var> recompute(std::function<std::vector<Var>(const std::vector<Var>&)> block,
                           const std::vector<Var>& inputs) {
  if (!recording) return block(inputs);
  std::vector<Var> outputs;
  {
    NoGradScope no_grad;
    outputs = block(inputs);
  }
  std::vector<Tensor> ys, xs;
  std::vector<bool> needed;
  for (Var& output : outputs) ys.push_back(output.value());
  for (const Var& input : inputs) {
    xs.push_back(input.value());
    needed.push_back(input.requires_grad());
  }
  outputs.clear();
  // Recorded even when no input needs a gradient: the leaves inside the block may.
  return record_always("recompute", std::move(ys), inputs,
                       [block = std::move(block), xs, needed](std::span<const Tensor> dys) {
                         std::vector<Var> again;
                         for (size_t i = 0; i < xs.size(); ++i)
                           again.push_back(needed[i] ? Var::leaf(xs[i]) : Var(xs[i]));
                         std::vector<Var> values;
                         {
                           RecordingScope scope(true);
                           values = block(again);
                         }
                         backward(values, {dys.begin(), dys.end()});
                         std::vector<Tensor> dxs;
                         for (const Var& input : again) dxs.push_back(input.grad());
                         return dxs;
                       });
}

}  // namespace stmoe
