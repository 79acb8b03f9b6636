// SPDX-License-Identifier: Apache-2.0
// What the runtime says where there is no device, and, on one, what its tensors do.
#include <cstdio>

#include <catch2/catch.hpp>

#include "apps/common/device_choice.h"
#include "cuda/runtime/check.h"
#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"
#include "lib/tensor/device_info.h"
#include "lib/tensor/host_copies.h"
#include "lib/tensor/step_graph.h"
#include "lib/tensor/tensor.h"
#include "tests/support/close.h"

namespace stmoe {
namespace {

using Catch::Contains;

// Whether to go on with a test that needs a GPU.
bool has_gpu() {
  if (is_usable(Device::cuda)) return true;
  std::printf("skipped: no CUDA device: %s\n", device_problem(Device::cuda).c_str());
  return false;
}

}  // namespace

TEST_CASE("an error of a CUDA call names the call, its place, the error and what to do", "[cuda]") {
  try {
    STMOE_CHECK_CUDA(cudaErrorIllegalAddress);
    FAIL("no error");
  } catch (const PeerError& error) {
    CHECK_THAT(error.what(), Contains("cudaErrorIllegalAddress at ") &&
                                 Contains("runtime_test.cpp:") && Contains("(700): ") &&
                                 Contains("CUDA_LAUNCH_BLOCKING=1"));
    CHECK(error.code() == ExitCode::peer);
  }
  CHECK_NOTHROW(STMOE_CHECK_CUDA(cudaSuccess));
}

TEST_CASE("without a CUDA device everything says what was found, with exit code 5", "[cuda]") {
  const std::string problem = device_problem(Device::cuda);
  if (problem.empty()) return;
  CHECK(!gpu::gpu().problem.empty());
  int driver = 0;
  static_cast<void>(cudaDriverGetVersion(&driver));
  if (driver == 0) CHECK(problem == "no NVIDIA driver was found (cudaErrorInsufficientDriver 35)");
  CHECK_THROWS_WITH(Tensor::zeros({3}, DType::f32, Device::cuda),
                    "no CUDA device can be used: " + problem);
  CHECK_THROWS_AS(Tensor::zeros({3}, DType::f32, Device::cuda), PeerError);
  CHECK_THROWS_WITH(choose_device("cuda"), "--device cuda: no CUDA device can be used: " + problem +
                                               "; use --device cpu or auto");
  const DeviceChoice chosen = choose_device("auto");
  CHECK(chosen.device == Device::cpu);
  CHECK(chosen.reason == problem);
  CHECK_THROWS_AS(make_step_graph(Device::cuda)->begin(), PeerError);
}

TEST_CASE("the device is chosen by name", "[cuda]") {
  CHECK(choose_device("cpu").device == Device::cpu);
  CHECK(choose_device("emu").device == Device::emu);
  CHECK_THROWS_WITH(choose_device("tpu"), Contains("'tpu' is unknown; expected auto, cpu or cuda"));
  if (!has_gpu()) return;
  CHECK(choose_device("auto").device == Device::cuda);
  CHECK_THAT(choose_device("cuda").reason, Contains("multiprocessors") && Contains("driver"));
}

TEST_CASE("bytes come back from the GPU as they went, in parts and at once", "[cuda][gpu]") {
  if (!has_gpu()) return;
  for (int64_t count : {1, 1000, 40 << 20}) {
    Tensor host = Tensor::empty({count}, DType::i32);
    for (int64_t i = 0; i < count; ++i) host.data<int32_t>()[i] = static_cast<int32_t>(i * 7);
    const Tensor there = host.on(Device::cuda);
    const Tensor back = there.on(Device::cpu);
    test::require_same_bits(back, host);
    there.fill(0);
    CHECK(there.slice(0, count - 1, count).item() == 0);
  }
}

TEST_CASE("recorded steps on the GPU run when asked, again with other arguments", "[cuda][gpu]") {
  if (!has_gpu()) return;
  const auto graph = make_step_graph(Device::cuda);
  const Tensor x = Tensor::zeros({1000}, DType::f32, Device::cuda);
  for (int i = 0; i < 3; ++i) {
    StepRecording recording(*graph);
    Tensor::full({1000}, DType::f32, i + 1, Device::cuda);
    x.copy_from(Tensor::full({1000}, DType::f32, 10 * i));
    if (i == 2) x.fill(5);  // another topology
    CHECK_THROWS_AS(x.slice(0, 0, 1).item(), BugError);
    recording.run();
    CHECK(x.slice(0, 999, 1000).item() == (i == 2 ? 5 : 10 * i));
  }
  {
    const StepRecording dropped(*graph);
    x.fill(1);
  }
  CHECK(x.slice(0, 999, 1000).item() == 5);
}

TEST_CASE("a GPU without room says how much was asked for and which keys lower it", "[cuda][gpu]") {
  if (!has_gpu()) return;
  try {
    Tensor::empty({int64_t{1} << 44}, DType::f32, Device::cuda);
    FAIL("no error");
  } catch (const OutOfMemoryError& error) {
    CHECK_THAT(error.what(), Contains("65536.00 GiB asked for") && Contains("data.batch_size") &&
                                 Contains("train.accumulate"));
  }
}

TEST_CASE("copies for the host have the bytes of when they were asked for", "[cuda][gpu]") {
  if (!has_gpu()) return;
  std::vector<Tensor> tensors, expected;
  for (const int64_t count : {int64_t{3}, int64_t{0}, int64_t{40} << 20, int64_t{1}}) {
    expected.push_back(Tensor::full({count}, DType::f32, static_cast<double>(count) + 0.5));
    tensors.push_back(expected.back().on(Device::cuda));
  }
  const auto copies = start_host_copies(tensors);
  copies->wait_until_read();
  for (const Tensor& tensor : tensors) tensor.fill(-1);
  for (size_t i = 0; i < tensors.size(); ++i) {
    test::require_same_bits(copies->wait(i), expected[i]);
    if (tensors[i].numel() > 0) CHECK(tensors[i].slice(0, 0, 1).item() == -1);
  }
}

}  // namespace stmoe
