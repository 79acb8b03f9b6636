// SPDX-License-Identifier: Apache-2.0
// Products on a GPU: keys, plans and the file of algorithms without one; values on one.
#include <cstdio>
#include <cstdlib>

#include <catch2/catch.hpp>

#include "cuda/lib_ops/algorithm_file.h"
#include "cuda/lib_ops/product_plan.h"
#include "cuda/runtime/gpu.h"
#include "lib/base/error.h"
#include "lib/base/random.h"
#include "lib/ops/product_tuning.h"
#include "lib/tensor/device_info.h"
#include "tests/support/close.h"
#include "tests/support/temporary_folder.h"

namespace stmoe::gpu {
namespace {

using Catch::Contains;

bool has_gpu() {
  if (is_usable(Device::cuda)) return true;
  std::printf("skipped: no CUDA device: %s\n", device_problem(Device::cuda).c_str());
  return false;
}

MatrixView view_at(uintptr_t address, DType dtype, int64_t rows, int64_t cols, int64_t row_stride,
                   int64_t col_stride) {
  return {.data = reinterpret_cast<std::byte*>(address),
          .dtype = dtype,
          .rows = rows,
          .cols = cols,
          .row_stride = row_stride,
          .col_stride = col_stride};
}

Tensor random(const Shape& shape, DType dtype, const char* name) {
  const Tensor result = Tensor::empty(shape, DType::f64);
  for (int64_t i = 0; i < result.numel(); ++i)
    result.data<double>()[i] =
        2 * random_uniform(RandomKey{}.fold(name), static_cast<uint64_t>(i)) - 1;
  return result.to(dtype);
}

// The same values, contiguous with dimensions i and j exchanged.
Tensor lying(const Tensor& x, int i, int j) {
  return x.transpose(i, j).contiguous().transpose(i, j);
}

// With its strides.
Tensor on_gpu(const Tensor& x) {
  for (int i = 0; i < 3; ++i)
    for (int j = i; j < 3; ++j)
      if (const Tensor exchanged = x.transpose(i, j); exchanged.is_contiguous())
        return exchanged.on(Device::cuda).transpose(i, j);
  return x.on(Device::cuda);
}

}  // namespace

TEST_CASE("a matrix is read by its rows or by its columns, whichever are contiguous",
          "[cuda][product]") {
  const auto rows = operand_key(view_at(256, DType::f32, 3, 5, 8, 1));
  REQUIRE(rows);
  CHECK((!rows->is_transposed && rows->leading == 8 && rows->alignment == 256));
  const auto columns = operand_key(view_at(16, DType::f32, 3, 5, 1, 8));
  REQUIRE(columns);
  CHECK((columns->is_transposed && columns->leading == 8 && columns->alignment == 16));
  CHECK(!operand_key(view_at(256, DType::f32, 3, 5, 16, 2)));
  CHECK(!operand_key(view_at(256, DType::f32, 3, 5, 0, 1)));
  // One row or one column lies either way.
  CHECK(operand_key(view_at(256, DType::f32, 1, 5, 0, 1))->leading == 5);
  CHECK(operand_key(view_at(256, DType::f32, 1, 5, 1, 7))->leading == 7);
  CHECK(operand_key(view_at(256, DType::f32, 1, 5, 1, 7))->is_transposed);
  CHECK(operand_key(view_at(256, DType::f32, 3, 1, 4, 9))->leading == 4);
  CHECK(!operand_key(view_at(256, DType::f32, 3, 1, 4, 9))->is_transposed);
}

TEST_CASE("the alignment of a batch is that of all its matrices", "[cuda][product]") {
  MatrixView view = view_at(512, DType::bf16, 4, 4, 4, 1);
  view.batch = 3;
  view.batch_stride = 128;
  CHECK(operand_key(view)->alignment == 256);
  view.batch_stride = 24;
  CHECK(operand_key(view)->alignment == 16);
  view.batch_stride = 17;
  CHECK(operand_key(view)->alignment == 2);
}

TEST_CASE("products that may need other algorithms have other texts", "[cuda][product]") {
  const MatrixView a = view_at(256, DType::bf16, 4, 6, 6, 1),
                   b = view_at(256, DType::bf16, 6, 8, 8, 1),
                   c = view_at(256, DType::f32, 4, 8, 8, 1);
  const ProductKey key = product_key({c, a, b}, false);
  CHECK(key.text() == "bf16>f32 4x8x6 batch 1 A 6+0@256 B 8+0@256 C 8+0@256");
  CHECK(product_key({c, a, b}, true).text() == key.text() + " add");
  CHECK(product_key({c, a, b}, true) != key);
  CHECK(key.flops() == 2 * 4 * 8 * 6);
  const MatrixView moved = view_at(256 + 16, DType::bf16, 4, 6, 6, 1);
  CHECK(product_key({c, moved, b}, false) != key);
  // Another address that is as good.
  CHECK(product_key({c, view_at(1024, DType::bf16, 4, 6, 6, 1), b}, false) == key);
}

TEST_CASE("algorithms are kept by version, device and number of multiprocessors",
          "[cuda][product]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "cache" / "algorithms.txt";
  const Platform h200{130100, "NVIDIA H200", 132}, other{130200, "NVIDIA H200", 132};
  CHECK(read_algorithms(path, h200).empty());
  Algorithm one;
  for (size_t i = 0; i < one.words.size(); ++i) one.words[i] = 0x0123456789abcdefu * (i + 1);
  one.microseconds = 12.5;
  write_algorithms(path, h200, {{"bf16>f32 4x8x6 A", one}, {"f32>f32 1x1x1", Algorithm{}}});
  write_algorithms(path, other, {{"bf16>f32 4x8x6 A", Algorithm{{1, 2}, 3}}});
  Algorithms found = read_algorithms(path, h200);
  REQUIRE(found.size() == 2);
  CHECK(found["bf16>f32 4x8x6 A"].words == one.words);
  CHECK(found["bf16>f32 4x8x6 A"].microseconds == 12.5);
  CHECK(read_algorithms(path, other)["bf16>f32 4x8x6 A"].words[1] == 2);
  // What is found anew replaces what was there; the rest stays.
  write_algorithms(path, h200, {{"f32>f32 1x1x1", Algorithm{{7}, 1}}});
  found = read_algorithms(path, h200);
  CHECK(found.size() == 2);
  CHECK(found["f32>f32 1x1x1"].words[0] == 7);
  CHECK(from_algorithm(to_algorithm(from_algorithm(one), 1)).data[3] == one.words[3]);
}

TEST_CASE("a file of algorithms that cannot be read is named with its line", "[cuda][product]") {
  const TemporaryFolder folder;
  const Path path = folder.path() / "algorithms.txt";
  const Platform platform{1, "x", 1};
  write_file_atomically(path, "something else\n");
  CHECK_THROWS_WITH(read_algorithms(path, platform), Contains("algorithms.txt:1: expected 'stmoe"));
  write_file_atomically(path, "stmoe product algorithms 1\n[a]\nbf16>f32 1x1x1 = 2 us 3 4\n");
  CHECK_THROWS_WITH(
      read_algorithms(path, platform),
      Contains(":3: expected a time in us and eight words") && Contains("--autotune"));
  write_file_atomically(path, "stmoe product algorithms 1\nbf16>f32 1x1x1 = 2 us 3 4\n");
  CHECK_THROWS_AS(read_algorithms(path, platform), InputError);
}

TEST_CASE("the place of the file of algorithms is the user's cache, or what is named",
          "[cuda][product]") {
  ::unsetenv("STMOE_ALGORITHMS");
  ::setenv("XDG_CACHE_HOME", "/cache", 1);
  CHECK(algorithm_path() == Path("/cache/stmoe/algorithms.txt"));
  ::setenv("STMOE_ALGORITHMS", "/elsewhere.txt", 1);
  CHECK(algorithm_path() == Path("/elsewhere.txt"));
  ::setenv("STMOE_ALGORITHMS", "none", 1);
  CHECK(!algorithm_path());
  ::unsetenv("STMOE_ALGORITHMS");
}

TEST_CASE("cuBLASLt takes the descriptors of every kind of product", "[cuda][product]") {
  try {
    CHECK(cublaslt().get_version() >= 130000);
  } catch (const PeerError& error) {
    std::printf("skipped: no cuBLASLt: %s\n", error.what());
    return;
  }
  for (DType result : {DType::bf16, DType::f32, DType::f64})
    for (bool accumulates : {false, true}) {
      ProductKey key;
      key.operands = result == DType::f64 ? DType::f64 : DType::bf16;
      key.result = result;
      key.m = 640, key.n = 768, key.k = 3072, key.batch = 8;
      key.a = {false, 3072, 640 * 3072, 256};
      key.b = {true, 3072, 3072 * 768, 16};
      key.c = {false, 768, 640 * 768, 256};
      key.accumulates = accumulates;
      CHECK_NOTHROW(ProductPlan(key));
    }
  CHECK_THROWS_WITH(STMOE_CHECK_CUBLASLT(CUBLAS_STATUS_NOT_SUPPORTED),
                    Contains("CUBLAS_STATUS_NOT_SUPPORTED") && Contains("product_test.cpp:"));
}

TEST_CASE("products are recorded once each, with how often they are asked for", "[cuda][product]") {
  const Tensor a = Tensor::zeros({4, 6}, DType::f32), b = Tensor::zeros({6, 8}, DType::f32),
               c = Tensor::zeros({4, 8}, DType::f32);
  const auto recorded = record_products([&] {
    for (int i = 0; i < 3; ++i) product(matrix_view(c), matrix_view(a), matrix_view(b));
    product(matrix_view(c), matrix_view(a), matrix_view(b), true);
  });
  REQUIRE(recorded.size() == 2);
  CHECK((recorded[0].count == 3 && !recorded[0].accumulate));
  CHECK((recorded[1].count == 1 && recorded[1].accumulate));
  CHECK(recorded[0].product.b.cols == 8);
}

TEST_CASE("products on the GPU are those of the CPU", "[cuda][gpu][product]") {
  if (!has_gpu()) return;
  struct Case {
    DType operands, result;
    double tolerance;
  };
  for (const auto& [operands, result, tolerance] :
       {Case{DType::f32, DType::f32, 1e-5}, Case{DType::bf16, DType::f32, 1e-5},
        Case{DType::bf16, DType::bf16, 1e-2}, Case{DType::f64, DType::f64, 1e-12}})
    for (const bool accumulates : {false, true})
      for (const int64_t m : {1, 7, 64, 130})
        for (const int64_t k : {1, 5, 96}) {
          if (accumulates && result == DType::bf16) continue;
          const Shape shapes[] = {{3, m, k}, {3, k, 33}, {3, m, 33}};
          const Tensor a = random(shapes[0], operands, "a"), b = random(shapes[1], operands, "b"),
                       c = random(shapes[2], result, "c");
          // Transposed in memory, and with neither rows nor columns contiguous.
          for (const Tensor& right : {b, lying(b, 1, 2), lying(b, 0, 2)}) {
            const Tensor expected = c.clone(), actual = c.on(Device::cuda);
            product(matrix_view(expected), matrix_view(a), matrix_view(right), accumulates);
            product(matrix_view(actual), matrix_view(a.on(Device::cuda)),
                    matrix_view(on_gpu(right)), accumulates);
            test::require_close(actual.on(Device::cpu), test::values_of(expected),
                                {tolerance * static_cast<double>(k), tolerance});
          }
        }
}

TEST_CASE("a product without a sum is zero on the GPU too", "[cuda][gpu][product]") {
  if (!has_gpu()) return;
  const Tensor c = Tensor::full({2, 3, 4}, DType::f32, 5, Device::cuda);
  product(matrix_view(c.slice(2, 0, 3)),
          matrix_view(Tensor::zeros({2, 3, 0}, DType::f32, Device::cuda)),
          matrix_view(Tensor::zeros({2, 0, 3}, DType::f32, Device::cuda)));
  const Tensor host = c.on(Device::cpu);
  CHECK(host.data<float>()[0] == 0);
  CHECK(host.data<float>()[3] == 5);
}

}  // namespace stmoe::gpu
