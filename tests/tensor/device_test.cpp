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

int answer_cpu() { return 42; }

STMOE_REGISTER_KERNELS(AnswerKernels, cpu, {answer_cpu})

}  // namespace

TEST_CASE("kernels are found by device, emulation falls back to the CPU's", "[tensor][device]") {
  CHECK(kernels<AnswerKernels>(Device::cpu).answer() == 42);
  CHECK(kernels<AnswerKernels>(Device::emu).answer() == 42);
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

TEST_CASE("memory of a device that is not built in is refused", "[tensor][device]") {
  CHECK_THROWS_AS(Tensor::empty({1}, DType::f32, Device::cuda), BugError);
  CHECK(Tensor::empty({1}, DType::f32, Device::emu).device() == Device::emu);
}

}  // namespace stmoe
