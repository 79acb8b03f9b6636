// SPDX-License-Identifier: Apache-2.0
// Kernels that move bytes rather than compute, at the shapes of Switch-Base with 128 sequences:
// bytes that must move (each tensor once) a second, over the copy bandwidth of this process.
#include "lib/base/format.h"
#include "lib/base/random.h"
#include "lib/ops/activation.h"
#include "lib/ops/assign_slots.h"
#include "lib/ops/combine.h"
#include "lib/ops/cross_entropy.h"
#include "lib/ops/dispatch.h"
#include "lib/ops/embedding.h"
#include "lib/ops/residual_norm.h"
#include "lib/ops/rms_norm.h"
#include "lib/ops/softmax_with_lse.h"
#include "lib/optim/gradients.h"
#include "lib/optim/optimizer.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {
namespace {

struct Sizes {
  int64_t tokens = 128 * 512, width = 768, hidden = 2048, experts = 128, vocabulary = 32128,
          chunk = 8192, expert_rows = 768, expert_cols = 3072;
};

class Kernels {
 public:
  Kernels(const Settings& settings, Report& report)
      : settings_(settings), report_(report), device_(settings.device) {
    if (settings.is_tiny)
      s_ = {.tokens = 96,
            .width = 64,
            .hidden = 64,
            .experts = 4,
            .vocabulary = 256,
            .chunk = 16,
            .expert_rows = 128,
            .expert_cols = 128};
  }

  void all() {
    part("norms", [&] { norms(); });
    part("activations", [&] { activations(); });
    part("embedding", [&] { embeddings(); });
    part("experts", [&] { experts(); });
    part("losses", [&] { losses(); });
    part("optimizers", [&] { optimizers(); });
    part("copies", [&] { copies(); });
  }

 private:
  void part(const char* name, const std::function<void()>& body) {
    if (!settings_.has_time()) return report_.failed(name, "no time was left");
    try {
      body();
    } catch (const std::exception& error) {
      report_.failed(name, error.what());
    }
  }

  Tensor random(const Shape& shape, DType dtype = DType::bf16) const {
    return random_tensor(shape, dtype, device_, settings_.seed);
  }
  static double bytes_of(std::initializer_list<Tensor> tensors) {
    double sum = 0;
    for (const Tensor& tensor : tensors) sum += static_cast<double>(tensor.bytes());
    return sum;
  }
  void time(const std::string& name, double bytes, const std::function<void()>& call) {
    if (!settings_.wants(name)) return;
    const Timing timing = time_on(device_, call);
    Json values = to_json(timing);
    values["bytes"] = bytes;
    values["bytes_per_second"] = bytes / timing.median;
    values["of_copy"] = bytes / timing.median / ceilings(device_).copy;
    report_.line(name, values, "bytes/s");
  }

  void norms() {
    const Shape shape = {s_.tokens, s_.width};
    const Tensor x = random(shape), branch = random(shape), dy = random(shape),
                 from_sum = random(shape), scale = random({s_.width}, DType::f32);
    const Tensor sum = Tensor::empty_like(x), y = Tensor::empty_like(x),
                 dsum = Tensor::empty_like(x), dbranch = Tensor::empty_like(x),
                 rstd = Tensor::empty({s_.tokens}, DType::f32, device_),
                 dscale = Tensor::empty_like(scale);
    const DropoutMask mask =
        dropout_mask("check", shape, {.rate = 0.1, .key = RandomKey{settings_.seed}});
    const auto& fused = kernels<ResidualNormKernels>(device_);
    const ResidualNormForward forward{sum, y, rstd, x, branch, scale, mask, 1e-6};
    const ResidualNormBackward backward{dsum, dbranch, dscale, from_sum, dy,
                                        sum,  scale,   rstd,   mask};
    time("residual_norm forward", bytes_of({sum, y, x, branch}), [&] { fused.forward(forward); });
    time("residual_norm backward", bytes_of({dsum, dbranch, from_sum, dy, sum}),
         [&] { fused.backward(backward); });
    const auto& norm = kernels<RmsNormKernels>(device_);
    time("rms_norm forward", bytes_of({x, y}), [&] { norm.forward(y, rstd, x, scale, 1e-6); });
    time("rms_norm backward", bytes_of({dy, x, dsum}),
         [&] { norm.backward(dsum, dscale, dy, x, scale, rstd); });
    const auto& drop = kernels<DropoutKernels>(device_);
    time("dropout", bytes_of({x, y}),
         [&] { drop.apply(y, x, {.rate = 0.1, .key = RandomKey{settings_.seed}}); });
  }

  void activations() {
    const Shape shape = {s_.tokens, s_.hidden};
    const Tensor gate = random(shape), x = random(shape), dy = random(shape);
    const Tensor y = Tensor::empty_like(x), dgate = Tensor::empty_like(x),
                 dx = Tensor::empty_like(x);
    const HiddenMask mask = hidden_mask("check", shape, {});
    const auto& geglu = kernels<GegluKernels>(device_);
    time("geglu forward", bytes_of({y, gate, x}), [&] { geglu.forward(y, gate, x, mask); });
    time("geglu backward", bytes_of({dgate, dx, dy, gate, x}),
         [&] { geglu.backward(dgate, dx, dy, gate, x, mask); });
    const auto& relu = kernels<ReluKernels>(device_);
    time("relu forward", bytes_of({y, x}), [&] { relu.forward(y, x, mask); });
    time("relu backward", bytes_of({dx, dy, y}), [&] { relu.backward(dx, dy, y, 1); });
  }

  Tensor random_ids(int64_t count, int64_t below) const {
    std::vector<int32_t> ids(static_cast<size_t>(count));
    RandomStream stream(RandomKey{settings_.seed});
    for (int32_t& id : ids) id = static_cast<int32_t>(stream.below(static_cast<uint64_t>(below)));
    return Tensor::from({count}, ids).on(device_);
  }

  void embeddings() {
    const Tensor table = random({s_.vocabulary, s_.width}, DType::f32);
    const Tensor ids = random_ids(s_.tokens, s_.vocabulary);
    const Tensor y = random({s_.tokens, s_.width}), dtable = Tensor::empty_like(table);
    const auto& embedding = kernels<EmbeddingKernels>(device_);
    time("embedding forward", bytes_of({y, table, ids}),
         [&] { embedding.forward(y, table, ids, {}); });
    time("embedding backward", bytes_of({dtable, y, ids}),
         [&] { embedding.backward(dtable, y, ids, {}, false); });
  }

  void experts() {
    const int64_t n = s_.tokens, capacity = (5 * n / 4 + s_.experts - 1) / s_.experts;
    const Tensor expert_NK = random_ids(n, s_.experts).reshape({n, 1});
    const SlotOptions slots{
        .num_experts = s_.experts, .num_groups = 1, .capacity = capacity, .order_N = {}};
    const Tensor slot_NK = assign_slots(expert_NK, slots);
    const DispatchPlan plan = plan_dispatch(expert_NK, slot_NK, s_.experts, capacity);
    const Tensor x = random({n, s_.width}), rows = random({plan.num_rows(), s_.width}),
                 drows = Tensor::empty_like(rows), y = Tensor::empty_like(x),
                 weight = random({n, 1}, DType::f32), dweight = Tensor::empty_like(weight);
    const auto& dispatch = kernels<DispatchKernels>(device_);
    const auto& combine = kernels<CombineKernels>(device_);
    time("dispatch forward", bytes_of({x, rows}), [&] { dispatch.forward(drows, x, plan); });
    time("dispatch backward", bytes_of({x, x}), [&] { dispatch.backward(y, rows, plan); });
    time("combine forward", bytes_of({x, x}), [&] { combine.forward(y, rows, weight, plan); });
    time("combine backward", bytes_of({x, x, rows}),
         [&] { combine.backward(drows, dweight, x, rows, weight, plan); });
    const Tensor logits = random({n, s_.experts}, DType::f32), p = Tensor::empty_like(logits),
                 dlogits = Tensor::empty_like(logits), lse = random({n}, DType::f32);
    const auto& softmax = kernels<SoftmaxWithLseKernels>(device_);
    time("router softmax forward", bytes_of({p, logits}), [&] { softmax.forward(p, lse, logits); });
    time("router softmax backward", bytes_of({dlogits, logits, p}),
         [&] { softmax.backward(dlogits, logits, lse, p); });
  }

  void losses() {
    const Tensor logits = random({s_.chunk, s_.vocabulary}, DType::f32),
                 dlogits = Tensor::empty(logits.shape(), DType::bf16, device_);
    const Tensor targets = random_ids(s_.chunk, s_.vocabulary);
    const CrossEntropyRows rows = empty_loss_rows(s_.chunk, device_);
    const auto& loss = kernels<CrossEntropyKernels>(device_);
    time("cross_entropy forward and gradient", bytes_of({logits, dlogits}),
         [&] { loss.forward_and_gradient(rows, dlogits, logits, targets, 1, {}); });
  }

  void optimizers() {
    const Shape shape = {s_.experts, s_.expert_rows, s_.expert_cols};
    const Tensor weight = random(shape, DType::f32), gradient = random(shape, DType::f32);
    const Var leaf = Var::leaf(weight);
    leaf.keep_rounded();
    const Tensor rounded = leaf.value_as(DType::bf16);
    leaf.set_grad(gradient);
    const ParameterList parameters = {{"experts", leaf, 1}};
    const auto update = [&](const char* kind, double bytes) {
      const auto optimizer = make_optimizer(Choice<Optimizer>{kind}, parameters);
      time(kind, bytes, [&] { optimizer->update(parameters, 1e-6, 10); });
    };
    const double touched = bytes_of({weight, weight, gradient, rounded});
    update("adafactor", touched);
    update("adamw", touched + 2 * bytes_of({weight, weight}));
    time("squares of gradients", bytes_of({gradient}), [&] { sum_of_squares(gradient); });
  }

  void copies() {
    const Tensor x = random({s_.tokens, s_.hidden}, DType::f32);
    const Tensor y = Tensor::empty(x.shape(), DType::bf16, device_);
    time("f32 to bf16", bytes_of({x, y}), [&] { y.copy_from(x); });
  }

  const Settings& settings_;
  Report& report_;
  Device device_;
  Sizes s_;
};

}  // namespace

void time_kernels(const Settings& settings, Report& report) {
  report.line("ceilings", {{"copy_bytes_per_second", ceilings(settings.device).copy}});
  Kernels(settings, report).all();
}

}  // namespace stmoe::check
