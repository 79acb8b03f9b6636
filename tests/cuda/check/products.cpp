// SPDX-License-Identifier: Apache-2.0
// Products of experts: one strided batch, a loop over experts and a list, against one dense product
// of equal FLOPs and against the roofline of this process, for the forward product and both
// backward ones (gradients of weights in f32, written and added to).
#include "lib/base/format.h"
#include "lib/ops/product.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {
namespace {

struct Shapes {
  int64_t rows, experts, width, hidden;
  double flops() const {
    return 2.0 * static_cast<double>(rows) * static_cast<double>(experts) *
           static_cast<double>(width) * static_cast<double>(hidden);
  }
  // The largest of the study's tensors together.
  double bytes() const {
    const auto e = static_cast<double>(experts), r = static_cast<double>(rows),
               k = static_cast<double>(width), n = static_cast<double>(hidden);
    return e * (4 * r * k + 4 * r * n + 6 * k * n);
  }
  std::string text() const { return format("R {} E {} d {}", rows, experts, width); }
};

struct Operands {
  Tensor x, w, y, dx, dw;
  Operands(const Shapes& s, const Settings& settings)
      : x(random_tensor({s.experts, s.rows, s.width}, DType::bf16, settings.device, settings.seed)),
        w(random_tensor({s.experts, s.width, s.hidden}, DType::bf16, settings.device,
                        settings.seed + 1)),
        y(random_tensor({s.experts, s.rows, s.hidden}, DType::bf16, settings.device,
                        settings.seed + 2)),
        dx(Tensor::empty_like(x)),
        dw(Tensor::persistent({s.experts, s.width, s.hidden}, DType::f32, settings.device)) {}
};

struct Pass {
  std::string name;
  Product batch, dense;
  bool accumulate;
  double bytes;
};

std::vector<Pass> passes_of(const Shapes& s, const Operands& o) {
  const auto e = static_cast<double>(s.experts), r = static_cast<double>(s.rows),
             k = static_cast<double>(s.width), n = static_cast<double>(s.hidden);
  // The dense product: all rows through the weights of one expert.
  const auto rows = [&](const Tensor& t) { return matrix_view(t.reshape({-1, t.dim(2)})); };
  const MatrixView w = matrix_view(o.w), w0 = matrix_view(o.w.slice(0, 0, 1)),
                   dw = matrix_view(o.dw), dw0 = matrix_view(o.dw.slice(0, 0, 1));
  const MatrixView x = matrix_view(o.x), y = matrix_view(o.y), dx = matrix_view(o.dx);
  const auto first = [](MatrixView view) {
    view.batch = 1;
    return view;
  };
  const double moved = 2 * e * (r * k + k * n + r * n), weights = e * k * n;
  return {
      {"forward", {y, x, w}, {rows(o.y), rows(o.x), first(w0)}, false, moved},
      {"input gradient",
       {dx, y, w.transposed()},
       {rows(o.dx), rows(o.y), first(w0).transposed()},
       false,
       moved},
      {"weight gradient",
       {dw, x.transposed(), y},
       {first(dw0), rows(o.x).transposed(), rows(o.y)},
       false,
       moved + 2 * weights},
      {"weight gradient, added",
       {dw, x.transposed(), y},
       {first(dw0), rows(o.x).transposed(), rows(o.y)},
       true,
       moved + 6 * weights},
  };
}

void study(const Settings& settings, Report& report, const Shapes& shapes) {
  const Operands operands(shapes, settings);
  const Ceilings& limits = ceilings(settings.device);
  for (const Pass& pass : passes_of(shapes, operands)) {
    std::vector<Product> each;
    for (int64_t e = 0; e < shapes.experts; ++e) {
      const auto one = [&](const MatrixView& view) {
        return view.part(e, 0, view.rows, 0, view.cols);
      };
      each.push_back({one(pass.batch.c), one(pass.batch.a), one(pass.batch.b)});
    }
    const auto run = [&](const Product& p) { product(p.c, p.a, p.b, pass.accumulate); };
    const Timing strided = time_on(settings.device, [&] { run(pass.batch); }),
                 dense = time_on(settings.device, [&] { run(pass.dense); });
    Json values = {
        {"pass", pass.name},
        {"rows", shapes.rows},
        {"experts", shapes.experts},
        {"width", shapes.width},
        {"hidden", shapes.hidden},
        {"flops", shapes.flops()},
        {"strided_seconds", strided.median},
        {"strided_least_seconds", strided.least},
        {"dense_seconds", dense.median},
        {"strided_flops_per_second", shapes.flops() / strided.median},
        {"dense_flops_per_second", shapes.flops() / dense.median},
        {"strided_of_dense", dense.median / strided.median},
        {"strided_of_roofline",
         std::max(shapes.flops() / limits.product, pass.bytes / limits.copy) / strided.median}};
    // A loop starts as many kernels as there are experts; only one pass shows what that costs.
    if (pass.name == "forward") {
      const Timing loop = time_on(settings.device, [&] {
        for (const Product& one : each) run(one);
      });
      values["loop_seconds"] = loop.median;
      values["loop_of_dense"] = dense.median / loop.median;
    }
    report.line(shapes.text() + ", " + pass.name, values, "FLOP/s");
  }
}

// Those of the table first, then the rest of the grid.
std::vector<Shapes> grid(bool is_tiny) {
  if (is_tiny) return {{5, 3, 16, 24}, {8, 2, 8, 16}};
  const auto hidden = [](int64_t width) { return width == 1024 ? 5632 : 4 * width; };
  std::vector<Shapes> result;
  const auto add = [&](int64_t rows, int64_t experts, int64_t width) {
    const Shapes shapes{rows, experts, width, hidden(width)};
    for (const Shapes& known : result)
      if (known.rows == rows && known.experts == experts && known.width == width) return;
    result.push_back(shapes);
  };
  for (int64_t width : {768, 1024})
    for (int64_t experts : {128, 32, 8})
      for (int64_t rows : {640, 2048}) add(rows, experts, width);
  for (int64_t width : {768, 1024, 5120})
    for (int64_t experts : {128, 32, 8})
      for (int64_t rows : {142, 53, 256, 512, 640, 1024, 2048, 4096}) add(rows, experts, width);
  return result;
}

}  // namespace

void study_products(const Settings& settings, Report& report) {
  const Ceilings& limits = ceilings(settings.device);
  report.line("ceilings", {{"copy_bytes_per_second", limits.copy},
                           {"product_flops_per_second", limits.product}});
  int64_t left_out = 0;
  for (const Shapes& shapes : grid(settings.is_tiny)) {
    // Each pass and way is timed for 21 samples; the slowest shapes take seconds.
    const double needed = 9 * 24 * std::max(2e-3, shapes.flops() / limits.product);
    if (!settings.wants(shapes.text())) continue;
    if (shapes.bytes() > 60e9 || (!settings.is_tiny && !settings.has_time(needed))) {
      ++left_out;
      continue;
    }
    try {
      study(settings, report, shapes);
    } catch (const std::exception& error) {
      report.failed(shapes.text(), error.what());
    }
  }
  report.line("left out", {{"shapes", left_out}});
}

}  // namespace stmoe::check
