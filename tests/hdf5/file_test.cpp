// SPDX-License-Identifier: Apache-2.0
// Files, groups, attributes, texts; a file made by h5py; equal contents giving equal bytes; use by
// several threads.
#include "lib/hdf5/file.h"

#include <numeric>
#include <thread>

#include <catch2/catch.hpp>

#include "lib/base/error.h"
#include "lib/hdf5/version.h"
#include "tests/support/temporary_folder.h"

using namespace stmoe;

namespace {

void write_example(const Path& path) {
  Hdf5File file = Hdf5File::create(path);
  file.set_attribute("text", "grüße");
  file.set_attribute("empty", "");
  file.set_attribute("count", uint16_t{500});
  file.set_attribute("rate", 0.25f);
  file.write_text("notes/recipe", std::string(200000, 'y'));
  file.write_text("notes/none", "");
  std::vector<float> values(3000);
  std::iota(values.begin(), values.end(), 0.5f);
  Hdf5Dataset dataset = file.create_dataset("b/x", ElementType::f32, {3000}, {.chunk = {1000}});
  dataset.write(values);
  dataset.set_attribute("unit", "nats");
  file.create_dataset("b/a/y", ElementType::u8, {2}).write(std::vector<uint8_t>{1, 2});
  file.close();
}

}  // namespace

TEST_CASE("attributes and texts come back", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  Hdf5File file = Hdf5File::open(folder / "a.h5");
  CHECK(file.attribute_names() == std::vector<std::string>{"count", "empty", "rate", "text"});
  CHECK(file.string_attribute("text") == "grüße");
  CHECK(file.string_attribute("empty").empty());
  CHECK(file.integer_attribute("count") == 500);
  CHECK(file.number_attribute("count") == 500.0);
  CHECK(file.number_attribute("rate") == 0.25);
  CHECK(file.read_text("notes/recipe") == std::string(200000, 'y'));
  CHECK(file.read_text("notes/none").empty());
  CHECK(file.is_text("notes/none"));
  CHECK_FALSE(file.is_text("b/x"));
  CHECK(file.dataset("b/x").string_attribute("unit") == "nats");
  CHECK_THROWS_AS(file.integer_attribute("rate"), InputError);
  CHECK_THROWS_AS(file.string_attribute("count"), InputError);
  CHECK_THROWS_AS(file.string_attribute("absent"), InputError);
}

TEST_CASE("setting an attribute again replaces it", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  Hdf5File file = Hdf5File::open(folder / "a.h5", Hdf5Access::read_write);
  file.set_attribute("count", "many");
  file.close();
  CHECK(Hdf5File::open(folder / "a.h5").string_attribute("count") == "many");
}

TEST_CASE("groups list what they hold", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  Hdf5File file = Hdf5File::open(folder / "a.h5");
  CHECK(file.children() == std::vector<std::string>{"b", "notes"});
  CHECK(file.datasets() == std::vector<std::string>{"b/a/y", "b/x", "notes/none", "notes/recipe"});
  Hdf5Group b = file.group("b");
  CHECK(b.datasets() == std::vector<std::string>{"a/y", "x"});
  CHECK(b.dataset("a/y").name() == "b/a/y");
  CHECK(file.contains("b/a/y"));
  CHECK_FALSE(file.contains("b/z/y"));
  CHECK_FALSE(file.contains("b/x/y"));
}

TEST_CASE("equal contents give equal bytes", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  std::this_thread::sleep_for(std::chrono::milliseconds(1100));  // HDF5's times have seconds
  write_example(folder / "b.h5");
  CHECK((read_file(folder / "a.h5") == read_file(folder / "b.h5")));
}

TEST_CASE("a file written by h5py is read", "[hdf5][golden]") {
  Hdf5File file = Hdf5File::open(STMOE_SOURCE_DIR "/tests/golden/moe_layer.h5");
  CHECK(file.string_attribute("maker") == "scripts/golden/moe_layer.py");  // of variable length
  CHECK(file.integer_attribute("num_experts") == 4);
  CHECK(file.number_attribute("load_balance_coefficient") == 0.01);
  CHECK(file.dataset("gradients/router_kernel").shape() == std::vector<int64_t>{8, 4});
  std::vector<int32_t> experts = file.dataset("expert").values<int32_t>();
  REQUIRE(experts.size() == 28);
  for (int32_t expert : experts) CHECK((expert >= -1 && expert < 4));
  CHECK(file.dataset("load_balance_loss").values<double>().size() == 1);
}

TEST_CASE("objects of a closed file say so", "[hdf5]") {
  TemporaryFolder folder;
  write_example(folder / "a.h5");
  Hdf5File file = Hdf5File::open(folder / "a.h5");
  Hdf5Dataset dataset = file.dataset("b/x");
  file.close();
  CHECK_THROWS_WITH(dataset.values<float>(), Catch::Contains("the file is closed"));
  CHECK_THROWS_AS(file.children(), BugError);
}

TEST_CASE("threads read and write their own files at the same time", "[hdf5][threads]") {
  TemporaryFolder folder;
  write_example(folder / "shared.h5");
  std::atomic<int> right = 0;
  auto work = [&](int thread) {
    for (int round = 0; round < 20; ++round) {
      Path path = folder / format("{}.h5", thread);
      write_example(path);
      Hdf5File own = Hdf5File::open(path), shared = Hdf5File::open(folder / "shared.h5");
      right += own.dataset("b/x").values<float>() == shared.dataset("b/x").values<float>();
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back(work, i);
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 80);
}

TEST_CASE("versions of HDF5 and MPI are known without starting MPI", "[hdf5]") {
  CHECK_THAT(hdf5_version(), Catch::Matches("[0-9]+\\.[0-9]+\\.[0-9]+"));
  CHECK_FALSE(mpi_version().empty());
}
