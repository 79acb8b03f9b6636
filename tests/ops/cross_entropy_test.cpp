// SPDX-License-Identifier: Apache-2.0
#include "lib/ops/cross_entropy.h"

#include <cmath>

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "lib/autograd/tape.h"
#include "lib/base/files.h"
#include "lib/base/random.h"
#include "tests/support/op_case.h"

namespace stmoe {
namespace {

Tensor draw_targets(int64_t count, int64_t vocabulary) {
  const Tensor targets = Tensor::persistent({count}, DType::i32);
  for (int64_t n = 0; n < count; ++n)
    targets.data<int32_t>()[n] = static_cast<int32_t>(
        random_bits(RandomKey{5}, static_cast<uint64_t>(n)) % static_cast<uint64_t>(vocabulary));
  if (count > 1) targets.data<int32_t>()[1] = 0;  // padding
  return targets;
}

// t5x's formula, term by term.
double naive_loss(const double* x, int64_t size, int64_t target,
                  const CrossEntropyOptions& options) {
  double z = 0;
  for (int64_t v = 0; v < size; ++v) z += std::exp(x[v]);
  const double on = 1 - options.label_smoothing;
  const double off = options.label_smoothing / static_cast<double>(size - 1);
  double loss = options.z_loss * std::log(z) * std::log(z);
  for (int64_t v = 0; v < size; ++v) {
    const double soft = v == target ? on : off;
    if (soft > 0) loss += soft * (std::log(soft) - (x[v] - std::log(z)));
  }
  return loss;
}

test::OpCase loss_case(int64_t tokens, int64_t vocabulary, const CrossEntropyOptions& options) {
  const Tensor targets = draw_targets(tokens, vocabulary);
  test::OpCase op_case;
  op_case.name = format("cross_entropy {} of {}, z-loss {}, smoothing {}", tokens, vocabulary,
                        options.z_loss, options.label_smoothing);
  op_case.inputs = {{.shape = {tokens, vocabulary}, .low = -4, .high = 4}};
  op_case.dtypes = {DType::f64, DType::f32};
  op_case.call = [=](const test::OpArguments& x) {
    return cross_entropy(x[0], x.on_device(targets), options).total;
  };
  op_case.reference = [=](const test::OpValues& x) {
    double total = 0;
    for (int64_t n = 0; n < tokens; ++n)
      if (const int32_t target = targets.data<int32_t>()[n]; target != 0)
        total += naive_loss(x[0].data() + n * vocabulary, vocabulary, target, options);
    return test::OpValues{{total}};
  };
  // Forward: one reading of the logits. Backward: one more, and the gradient.
  const auto elements = static_cast<double>(tokens * vocabulary);
  op_case.forward_bytes = [=](DType dtype) {
    return elements * static_cast<double>(size_of(dtype));
  };
  op_case.backward_bytes = [=](DType dtype) {
    return 2 * elements * static_cast<double>(size_of(dtype));
  };
  return op_case;
}

// A case of t5x's, with the classes renumbered (which changes no loss) so that no counted target is
// class 0, and with target 0 where the weight is 0.
struct GoldenLoss {
  std::vector<int32_t> targets;
  std::vector<double> logits, gradient;  // [tokens, classes], gradient of the sum
  double total = 0;
  int64_t num_targets = 0;
};

GoldenLoss read_golden(const nlohmann::json& from) {
  const std::vector<size_t> targets = from["targets"];
  const std::vector<double> weights = from["weights"], losses = from["per_token_loss"];
  const size_t classes = from["logits"][0].size();
  size_t unused = 0;
  while (std::count(targets.begin(), targets.end(), unused) > 0) ++unused;
  GoldenLoss golden;
  for (size_t n = 0; n < targets.size(); ++n) {
    for (size_t v = 0; v < classes; ++v) {
      const size_t original = (v + unused) % classes;
      golden.logits.push_back(from["logits"][n][original]);
      golden.gradient.push_back(from["gradient"][n][original].get<double>() *
                                from["weight_sum"].get<double>());
    }
    golden.targets.push_back(
        weights[n] > 0 ? static_cast<int32_t>((targets[n] + classes - unused) % classes) : 0);
    golden.total += weights[n] * losses[n];
    golden.num_targets += weights[n] > 0;
  }
  return golden;
}

}  // namespace

TEST_CASE("cross_entropy, z-loss and label smoothing", "[ops][cross_entropy]") {
  test::check_ops({loss_case(5, 11, {}), loss_case(5, 11, {.z_loss = 1e-2}),
                   loss_case(5, 11, {.label_smoothing = 0.1}),
                   loss_case(5, 11, {.z_loss = 1e-3, .label_smoothing = 0.2}), loss_case(0, 4, {}),
                   loss_case(1, 1, {})});
}

TEST_CASE("cross_entropy over rows longer than a block, on several threads",
          "[ops][cross_entropy]") {
  test::check_op(loss_case(37, 1300, {.z_loss = 1e-4, .label_smoothing = 0.1}));
  // On a GPU: more vectors, and more single logits, than a block has under way at once.
  test::check_ops({loss_case(2, 8204, {.z_loss = 1e-4, .label_smoothing = 0.1}),
                   loss_case(3, 2051, {.z_loss = 1e-4})});
}

TEST_CASE("cross_entropy agrees with t5x", "[ops][cross_entropy][golden]") {
  const auto golden =
      nlohmann::json::parse(read_file(STMOE_SOURCE_DIR "/tests/golden/losses.json"));
  REQUIRE(golden["cases"].size() >= 6);
  for (const auto& golden_case : golden["cases"]) {
    INFO(golden_case["name"]);
    const GoldenLoss expected = read_golden(golden_case);
    const auto rows = static_cast<int64_t>(expected.targets.size());
    const Shape shape{rows, static_cast<int64_t>(expected.logits.size()) / rows};
    const CrossEntropyOptions options{golden_case["z_loss"], golden_case["label_smoothing"]};
    for (DType dtype : {DType::f64, DType::f32}) {
      const Var x = Var::leaf(Tensor::from(shape, expected.logits).to(dtype));
      const auto loss = cross_entropy(x, Tensor::from({rows}, expected.targets), options);
      CHECK(loss.read().num_targets == expected.num_targets);
      const double relative = dtype == DType::f64 ? 1e-12 : 1e-6;
      test::require_close(loss.total.value().item(), expected.total, {0, relative});
      backward(loss.total);
      test::require_close(x.grad(), expected.gradient, {relative, 4 * relative});
    }
  }
}

TEST_CASE("cross_entropy reports nats, targets and correct predictions", "[ops][cross_entropy]") {
  const Tensor logits =
      Tensor::from<float>({4, 4}, {0, 9, 0, 0, 0, 0, 9, 0, 1, 1, 1, 1, 5, 5, 5, 5});
  const Tensor targets = Tensor::from<int32_t>({4}, {1, 3, 0, 2});
  const auto loss = cross_entropy(Var(logits), targets, {.z_loss = 1, .label_smoothing = 0.5});
  CHECK(loss.read().num_targets == 3);
  CHECK(loss.read().num_correct == 1);  // of equal logits the first is the prediction
  const double z = std::log(3 + std::exp(9.0));
  test::require_close(loss.read().cross_entropy, (z - 9) + z + std::log(4.0), {1e-6, 1e-6});
}

TEST_CASE("the loss of huge logits is finite and a NaN is not hidden", "[ops][cross_entropy]") {
  for (Device device : {Device::cpu, Device::emu}) {
    const Tensor targets = Tensor::from<int32_t>({1}, {1}).on(device);
    const Tensor huge = Tensor::from<float>({1, 3}, {3e4f, -3e4f, 0}).on(device);
    test::require_close(cross_entropy(Var(huge), targets, {}).read().cross_entropy, 6e4, {0, 1e-6});
    const Tensor broken = Tensor::from<float>({1, 3}, {1, 2, NAN}).on(device);
    CHECK(std::isnan(cross_entropy(Var(broken), targets, {}).total.value().item()));
  }
}

TEST_CASE("the sums of a device are the CPU's, and a target outside the vocabulary makes NaN there",
          "[ops][cross_entropy][gpu]") {
  const int64_t count = 1300;  // more rows than the threads that add them up
  const Tensor targets = draw_targets(count, 5);
  const Tensor logits = Tensor::empty({count, 5}, DType::f32);
  for (int64_t i = 0; i < logits.numel(); ++i)  // with equal ones
    logits.data<float>()[i] =
        static_cast<float>(random_bits(RandomKey{6}, static_cast<uint64_t>(i)) % 4);
  const auto here = cross_entropy(Var(logits), targets, {}).read();
  const auto there = cross_entropy(Var(logits.on(Device::emu)), targets.on(Device::emu), {}).read();
  CHECK(there.num_targets == here.num_targets);
  CHECK(there.num_correct == here.num_correct);
  test::require_close(there.cross_entropy, here.cross_entropy, {0, 1e-6});
  for (int32_t target : {5, -1}) {
    targets.data<int32_t>()[7] = target;
    CHECK(std::isnan(cross_entropy(Var(logits.on(Device::emu)), targets.on(Device::emu), {})
                         .read()
                         .cross_entropy));
  }
}

TEST_CASE("the gradient overwrites the logits only when nothing else holds them",
          "[ops][cross_entropy]") {
  const Tensor targets = Tensor::from<int32_t>({2}, {1, 2});
  const Tensor values = Tensor::from<float>({2, 3}, {1, 2, 3, 4, 5, 6});
  for (bool is_held : {true, false}) {
    INFO("held " << is_held);
    // The logits of a model are the result of an op, not a leaf.
    const Var leaf = Var::leaf(values.clone());
    std::byte* memory = nullptr;
    Var logits = record("identity", values.clone(), {leaf}, [&](const Tensor& dy) {
      CHECK((dy.raw() == memory) == !is_held);
      return std::vector<Tensor>{dy};
    });
    memory = logits.value().raw();
    const auto loss = cross_entropy(logits, targets, {});
    if (!is_held) logits = Var();
    backward(loss.total);
    if (is_held) test::require_same_bits(logits.value(), values);
    const Var again = Var::leaf(values.clone());
    backward(cross_entropy(again, targets, {}).total);
    test::require_same_bits(leaf.grad(), again.grad());
  }
}

TEST_CASE("cross_entropy refuses targets outside the vocabulary", "[ops][cross_entropy]") {
  const Var logits(Tensor::zeros({2, 3}, DType::f32));
  CHECK_THROWS_WITH(cross_entropy(logits, Tensor::from<int32_t>({2}, {0, 3}), {}),
                    Catch::Contains("target 3, the vocabulary has 3 entries"));
  CHECK_THROWS_AS(cross_entropy(logits, Tensor::from<int32_t>({1}, {0}), {}), BugError);
  CHECK_THROWS_AS(cross_entropy(Var(Tensor::zeros({2, 3}, DType::bf16)),
                                Tensor::from<int32_t>({2}, {0, 1}), {}),
                  BugError);
}

TEST_CASE("cross_entropy speed", "[ops][cross_entropy][.bench]") {
  test::time_op(loss_case(912, 32128, {.z_loss = 1e-4}));
}

}  // namespace stmoe
