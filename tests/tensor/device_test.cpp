// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/device.h"

#include <catch2/catch.hpp>

#include "lib/tensor/tensor.h"

namespace stmoe {
namespace {

struct AnswerKernels {
  static constexpr const char* kOp = "answer";
  int (*answer)();
};
struct NobodysKernels {
  static constexpr const char* kOp = "nobodys";
};

// As the ops' kernels: several, some with results, arguments by reference and by value.
struct MixedKernels {
  static constexpr const char* kOp = "mixed";
  struct Counts {
    int64_t tokens = 7;
    double share = 0.5;
  };
  void (*write)(const Tensor& y, std::span<const Tensor> terms, bool accumulate);
  double (*mean)(const Tensor& x);
  Counts (*count)(Counts before);
};

int answer_cpu() { return 42; }

STMOE_REGISTER_KERNELS(AnswerKernels, cpu, {answer_cpu})

}  // namespace

TEST_CASE("kernels are found by device", "[tensor][device]") {
  CHECK(kernels<AnswerKernels>(Device::cpu).answer() == 42);
  CHECK_THROWS_AS(kernels<AnswerKernels>(Device::emu), BugError);
}

TEST_CASE("a plan for a GPU asks its kernels, or the emulation's, for what they allocate",
          "[tensor][device][plan]") {
  static constexpr AnswerKernels kEmu{[] { return 44; }}, kCuda{[] { return 45; }};
  KernelTable table{};
  const auto answer = [&](Device planned) {
    const PlanScope scope(planned);
    return static_cast<const AnswerKernels*>(
               find_kernels(table, Device::plan, "answer", &idle_kernels<AnswerKernels>))
        ->answer();
  };
  CHECK(answer(Device::cuda) == 0);
  register_kernels(table, Device::emu, CpuLevel::portable, &kEmu);
  CHECK(answer(Device::cuda) == 44);
  CHECK(answer(Device::cpu) == 0);
  register_kernels(table, Device::cuda, CpuLevel::portable, &kCuda);
  CHECK(answer(Device::cuda) == 45);
}

TEST_CASE("kernels are taken from the CPU level, or the nearest below that has them",
          "[tensor][device][cpu_level]") {
  static constexpr AnswerKernels kAvx512{[] { return 512; }};
  KernelTable table{};
  const auto answer = [&](CpuLevel level) {
    CpuLevelScope scope(level);
    return static_cast<const AnswerKernels*>(find_kernels(table, Device::cpu, "answer"))->answer();
  };
  CHECK_THROWS_AS(answer(CpuLevel::portable), BugError);
  register_kernels(table, Device::cpu, CpuLevel::portable, &kernels<AnswerKernels>(Device::cpu));
  register_kernels(table, Device::cpu, CpuLevel::avx512, &kAvx512);
  CHECK(answer(CpuLevel::portable) == 42);
  CHECK(answer(CpuLevel::avx2) == 42);
  CHECK(answer(CpuLevel::avx512_bf16) == (cpu_level() >= CpuLevel::avx512 ? 512 : 42));
}

TEST_CASE("a missing kernel names the op and the device", "[tensor][device]") {
  CHECK_THROWS_WITH(kernels<AnswerKernels>(Device::cuda),
                    Catch::Contains("answer: there is no kernel for device cuda"));
  CHECK_THROWS_AS(kernels<NobodysKernels>(Device::emu), BugError);
}

TEST_CASE("on the plan device kernels do nothing", "[tensor][device][plan]") {
  const Tensor x = Tensor::empty({3}, DType::f32, Device::plan);
  const MixedKernels& idle = kernels<MixedKernels>(Device::plan);
  idle.write(x, {}, true);
  CHECK(idle.mean(x) == 0.0);
  CHECK(idle.count({1, 2.0}).tokens == 7);
  CHECK(kernels<AnswerKernels>(Device::plan).answer() == 0);
  CHECK_THROWS_AS(kernels<MixedKernels>(Device::cpu), BugError);
  CHECK_NOTHROW(kernels<NobodysKernels>(Device::plan));
}

TEST_CASE("a kernel registered for the plan device runs there", "[tensor][device][plan]") {
  static constexpr AnswerKernels kPlanned{[] { return 43; }};
  KernelTable table{};
  register_kernels(table, Device::plan, CpuLevel::portable, &kPlanned);
  CHECK(find_kernels(table, Device::plan, "answer", &idle_kernels<AnswerKernels>) == &kPlanned);
}

TEST_CASE("tensors on the plan device read as zeros and take no memory", "[tensor][device][plan]") {
  // A TiB: more than machines have that run tests.
  const Tensor large = Tensor::persistent({int64_t{1} << 38}, DType::f32, Device::plan);
  CHECK(large.device() == Device::plan);
  CHECK(large.bytes() == size_t{1} << 40);
  CHECK(large.span<float>()[(size_t{1} << 37) + 1] == 0.0f);
  large.fill(3.0);
  const Tensor small = Tensor::full({1}, DType::f32, 3.0, Device::plan);
  CHECK(small.item() == 0.0);
  small.copy_from(Tensor::full({1}, DType::f64, 4.0));
  CHECK(small.item() == 0.0);
  const Tensor host = Tensor::full({1}, DType::f64, 4.0);
  host.copy_from(small);
  CHECK(host.item() == 0.0);
  const Tensor other = Tensor::empty_like(small);
  CHECK(other.raw() != small.raw());
  CHECK(Tensor::empty({0}, DType::f32, Device::plan).numel() == 0);
}

TEST_CASE("while planning, no device computes and host code may write", "[tensor][device][plan]") {
  CHECK_FALSE(is_planning());
  {
    const PlanScope planning;
    CHECK(is_planning());
    CHECK(kernels<AnswerKernels>(Device::cpu).answer() == 0);
    // More than the machine has, of which one page is written.
    const Tensor large = Tensor::empty({int64_t{1} << 38}, DType::f32);
    CHECK(large.device() == Device::cpu);
    large.data<float>()[int64_t{1} << 37] = 2.0f;
    CHECK(large.data<float>()[int64_t{1} << 37] == 2.0f);
    CHECK(large.data<float>()[7] == 0.0f);
    large.fill(0.0);
  }
  CHECK(kernels<AnswerKernels>(Device::cpu).answer() == 42);
}

TEST_CASE("memory of a device that is not built in is refused", "[tensor][device]") {
  CHECK_THROWS_AS(Tensor::empty({1}, DType::f32, Device::cuda), BugError);
  CHECK_THROWS_AS(Tensor::empty({1}, DType::f32, Device::emu), BugError);
}

}  // namespace stmoe
