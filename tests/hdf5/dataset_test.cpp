// SPDX-License-Identifier: Apache-2.0
// Datasets: exact round trips of every type, partial reads and writes, growth, chunk shapes,
// virtual datasets.
#include "lib/hdf5/dataset.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/hdf5/file.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;

namespace {

// Edge values of a type first, then a ramp.
template <class T>
std::vector<T> example_values(size_t count) {
  std::vector<T> values(count);
  std::iota(values.begin(), values.end(), T(1));
  values[0] = std::numeric_limits<T>::max();
  values[1] = std::numeric_limits<T>::lowest();
  if constexpr (std::is_floating_point_v<T>) {
    values[2] = std::numeric_limits<T>::denorm_min();
    values[3] = -std::numeric_limits<T>::infinity();
    values[4] = T(-0.0);
    values[5] = std::numeric_limits<T>::quiet_NaN();
  }
  return values;
}

template <class T>
bool same_bytes(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

std::vector<int32_t> ramp(int count, int first = 0) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), first);
  return values;
}

}  // namespace

TEMPLATE_TEST_CASE("values of every number type come back bit by bit", "[hdf5]", double, float,
                   int64_t, int32_t, int16_t, int8_t, uint64_t, uint32_t, uint16_t, uint8_t) {
  TemporaryFolder folder;
  const std::vector<TestType> values = example_values<TestType>(120);
  const std::vector<Hdf5Layout> layouts = {{},
                                           {.chunk = {7, 3}},
                                           {.chunk = {5, 6}, .deflate = 4},
                                           {.has_checksum = false},
                                           {.chunk = {4, 6}, .is_extendible = true}};
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  for (size_t i = 0; i < layouts.size(); ++i)
    file.create_dataset(format("group/{}", i), kElementTypeOf<TestType>, {20, 6}, layouts[i])
        .write(values);
  file.close();
  file = Hdf5File::open(folder / "a.h5");
  REQUIRE(file.datasets().size() == layouts.size());
  for (size_t i = 0; i < layouts.size(); ++i) {
    Hdf5Dataset dataset = file.dataset(format("group/{}", i));
    CHECK(dataset.shape() == std::vector<int64_t>{20, 6});
    CHECK(dataset.type() == kElementTypeOf<TestType>);
    CHECK(dataset.has_checksum() == layouts[i].has_checksum);
    CHECK(same_bytes(dataset.template values<TestType>(), values));
  }
}

TEST_CASE("all 65536 bf16 patterns come back bit by bit", "[hdf5]") {
  TemporaryFolder folder;
  std::vector<uint16_t> bits(65536), back(65536);
  std::iota(bits.begin(), bits.end(), uint16_t{0});
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.create_dataset("x", ElementType::bf16, {65536})
      .write(Hdf5ConstMemory(ElementType::bf16, bits.data(), 65536));
  file.close();
  file = Hdf5File::open(folder / "a.h5");
  CHECK(file.dataset("x").type() == ElementType::bf16);
  file.dataset("x").read(Hdf5Memory(ElementType::bf16, back.data(), 65536));
  CHECK(back == bits);
}

TEST_CASE("single values and empty datasets are datasets too", "[hdf5]") {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  file.create_dataset("value", ElementType::f64, {}).write(std::vector<double>{0.1});
  file.create_dataset("none", ElementType::i32, {0, 4}).write(std::vector<int32_t>{});
  file.close();
  file = Hdf5File::open(folder / "a.h5");
  CHECK(file.dataset("value").shape().empty());
  CHECK(file.dataset("value").values<double>() == std::vector<double>{0.1});
  CHECK(file.dataset("none").shape() == std::vector<int64_t>{0, 4});
  CHECK(file.dataset("none").values<int32_t>().empty());
}

TEST_CASE("rows and boxes can be read and written apart", "[hdf5]") {
  TemporaryFolder folder;
  Hdf5File file = Hdf5File::create(folder / "a.h5");
  Hdf5Dataset dataset = file.create_dataset("x", ElementType::i32, {10, 3}, {.chunk = {4, 2}});
  dataset.write(ramp(30));
  dataset.write_rows(8, ramp(6, 100));
  std::vector<int32_t> rows(9);
  dataset.read_rows(6, rows);
  CHECK(rows == std::vector<int32_t>{18, 19, 20, 21, 22, 23, 100, 101, 102});
  std::vector<int32_t> memory(8, -1);  // [2, 4]
  dataset.read_box({{7, 1}, {2, 2}}, memory, std::vector<int64_t>{2, 4}, {{0, 2}, {2, 2}});
  CHECK(memory == std::vector<int32_t>{-1, -1, 22, 23, -1, -1, 101, 102});
  CHECK_THROWS_AS(dataset.read_rows(8, rows), InputError);
  CHECK_THROWS_AS(
      dataset.read_box({{9, 1}, {2, 2}}, memory, std::vector<int64_t>{2, 4}, {{0, 2}, {2, 2}}),
      InputError);
}

TEST_CASE("an extendible dataset grows by appending and can be cut", "[hdf5]") {
  TemporaryFolder folder;
  {
    Hdf5File file = Hdf5File::create(folder / "a.h5");
    Hdf5Dataset tokens = file.create_dataset("tokens", ElementType::i32, {0},
                                             {.chunk = {64}, .is_extendible = true});
    for (int first = 0; first < 1000; first += 50) tokens.append(ramp(50, first));
    file.close();
  }
  Hdf5File file = Hdf5File::open(folder / "a.h5", Hdf5Access::read_write);
  Hdf5Dataset tokens = file.dataset("tokens");
  CHECK(tokens.values<int32_t>() == ramp(1000));
  tokens.resize_rows(130);
  tokens.append(ramp(7, 130));
  file.close();
  file = Hdf5File::open(folder / "a.h5");
  CHECK(file.dataset("tokens").values<int32_t>() == ramp(137));
}

TEST_CASE("chunks cover a shape in whole rows without much waste", "[hdf5]") {
  using Shape = std::vector<int64_t>;
  auto chunk = [](Shape shape) { return hdf5_chunk(shape, ElementType::f32, 1 << 20); };
  CHECK(chunk({768}) == Shape{768});
  CHECK(chunk({512, 512}) == Shape{512, 512});
  CHECK(chunk({513, 512}) == Shape{257, 512});  // two halves, not 512 rows and one
  CHECK(chunk({8, 2048, 512}) == Shape{1, 512, 512});
  CHECK(chunk({0, 3}) == Shape{1, 3});
  CHECK(chunk({4, 1 << 20}) == Shape{1, 1 << 18});
}

TEST_CASE("a virtual dataset shows the pieces of other files, wherever the folder is", "[hdf5]") {
  TemporaryFolder folder;
  make_directories(folder / "here");
  for (int part : {0, 1}) {
    Hdf5File file = Hdf5File::create(folder / format("here/part{}.h5", part));
    file.create_dataset("a%b/x", ElementType::f32, {2, 3})
        .write(std::vector<float>(6, static_cast<float>(part)));
    file.close();
  }
  const std::vector<Hdf5VirtualPiece> pieces = {
      {"part0.h5", "a%b/x", {{0, 0}, {2, 3}}, {{0, 0}, {2, 3}}},
      {"part1.h5", "a%b/x", {{2, 0}, {1, 3}}, {{1, 0}, {1, 3}}}};
  Hdf5File whole = Hdf5File::create(folder / "here/whole.h5");
  whole.create_virtual("x", ElementType::f32, std::vector<int64_t>{3, 3}, pieces);
  whole.close();
  rename_durably(folder / "here", folder / "there");

  whole = Hdf5File::open(folder / "there/whole.h5");
  Hdf5Dataset x = whole.dataset("x");
  CHECK(x.values<float>() == std::vector<float>{0, 0, 0, 0, 0, 0, 1, 1, 1});
  REQUIRE(x.virtual_pieces().size() == 2);
  CHECK(x.virtual_pieces()[1].file == "part1.h5");
  CHECK(x.virtual_pieces()[1].target.start == std::vector<int64_t>{2, 0});
  CHECK(x.virtual_pieces()[1].source.start == std::vector<int64_t>{1, 0});
  CHECK(x.virtual_pieces()[1].source.count == std::vector<int64_t>{1, 3});
  whole.close();

  stmoe::remove_all(folder / "there/part1.h5");
  whole = Hdf5File::open(folder / "there/whole.h5");
  std::vector<float> values = whole.dataset("x").values<float>();
  CHECK(std::count_if(values.begin(), values.end(), [](float v) { return std::isnan(v); }) == 3);
}
