// SPDX-License-Identifier: Apache-2.0
#include "lib/data/corpus.h"

#include <fstream>

#include "tests/data/support.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

std::vector<int32_t> tokens_of(const Corpus& corpus, uint64_t document) {
  std::vector<int32_t> tokens;
  corpus.read(corpus.document(document), tokens);
  return tokens;
}

// Flips one bit of the byte at `offset` (from the end when negative).
void flip_byte(const Path& path, int64_t offset) {
  std::string bytes = read_file(path);
  bytes[static_cast<size_t>(offset < 0 ? std::ssize(bytes) + offset : offset)] ^= 0x10;
  write_file_atomically(path, bytes);
}

}  // namespace

TEST_CASE("a corpus gives back the documents it was written with", "[data][corpus]") {
  TemporaryFolder folder;
  const Path path = folder / "a.h5";
  // More than one chunk of tokens and of ends.
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < 9000; ++i) lengths.push_back(1 + i * 7 % 60);
  write_corpus(path, lengths);
  CHECK(names_in(folder.path()) == std::vector<std::string>{"a.h5"});

  const Corpus corpus = Corpus::open(path);
  CHECK(corpus.num_documents() == 9000);
  CHECK(corpus.vocabulary_name() == "spiece.model");
  CHECK(corpus.vocabulary_size() == 32100);
  CHECK(corpus.vocabulary_hash() == t5_vocabulary().hash());
  CHECK(corpus.text_bytes() == 4 * corpus.num_tokens());
  corpus.check_vocabulary(t5_vocabulary());
  uint64_t begin = 0;
  for (uint64_t i = 0; i < 9000; ++i) {
    const auto range = corpus.document(i);
    REQUIRE(range.begin == begin);
    REQUIRE(static_cast<int64_t>(range.size()) == lengths[i]);
    if (i % 500 == 499) {
      const auto tokens = tokens_of(corpus, i);
      REQUIRE(tokens.size() == range.size());
      REQUIRE(tokens.front() == static_cast<int32_t>(3 + begin % 30000));
      REQUIRE(tokens.back() == static_cast<int32_t>(3 + (range.end - 1) % 30000));
    }
    begin = range.end;
  }
  CHECK(corpus.num_tokens() == begin);
}

TEST_CASE("the file is what the contract says, for any HDF5 reader", "[data][corpus]") {
  TemporaryFolder folder;
  const Hdf5File file = Hdf5File::open(write_corpus(folder / "a.h5", {3, 2}));
  CHECK(file.dataset("tokens").type() == ElementType::u16);
  CHECK(file.dataset("tokens").values<uint16_t>() == std::vector<uint16_t>{3, 4, 5, 6, 7});
  CHECK_FALSE(file.dataset("tokens").chunk().empty());
  CHECK(file.dataset("document_ends").values<uint64_t>() == std::vector<uint64_t>{3, 5});
  CHECK(file.string_attribute("vocabulary_name") == "spiece.model");
  CHECK(file.integer_attribute("vocabulary_size") == 32100);
  CHECK(file.string_attribute("vocabulary_hash") == t5_vocabulary().hash());
  CHECK(file.integer_attribute("num_documents") == 2);
  CHECK(file.integer_attribute("num_tokens") == 5);
}

TEST_CASE("a writer that does not finish leaves nothing", "[data][corpus]") {
  TemporaryFolder folder;
  {
    CorpusWriter writer(folder / "a.h5", t5_vocabulary());
    writer.append(std::vector<int32_t>{5, 6}, 8);
  }
  {
    CorpusWriter writer(folder / "b.h5", t5_vocabulary());
    require_error(ExitCode::input, {"b.h5", "no document"}, [&] { writer.finish(); });
  }
  CHECK(names_in(folder.path()).empty());
  require_error(ExitCode::storage, {"nowhere", "No such file"},
                [&] { CorpusWriter(folder / "nowhere/c.h5", t5_vocabulary()); });
}

TEST_CASE("a corpus of another vocabulary is refused with both hashes", "[data][corpus]") {
  TemporaryFolder folder;
  const Corpus corpus = Corpus::open(write_corpus(folder / "a.h5", {3}));
  require_error(ExitCode::input,
                {"a.h5", "another vocabulary", t5_vocabulary().hash(), seqio_vocabulary().hash()},
                [&] { corpus.check_vocabulary(seqio_vocabulary()); });
}

TEST_CASE("files that are no usable corpus are refused with the reason", "[data][corpus]") {
  TemporaryFolder folder;
  auto open = [&](const std::string& name) {
    return [&folder, name] { Corpus::open(folder / name); };
  };
  require_error(ExitCode::input, {"missing.h5", "does not exist", "stmoe-data corpus"},
                open("missing.h5"));
  write_file_atomically(folder / "text.h5", "plain text\n");
  require_error(ExitCode::input, {"text.h5", "not an HDF5 file"}, open("text.h5"));
  {
    Hdf5File other = Hdf5File::create(folder / "other.h5");
    other.set_attribute("maker", "someone else");
    other.close();
  }
  require_error(ExitCode::input, {"other.h5", "not a packed corpus"}, open("other.h5"));

  std::vector<int64_t> lengths(100, 1000);
  write_corpus(folder / "good.h5", lengths);
  const std::string good = read_file(folder / "good.h5");
  write_file_atomically(folder / "cut.h5", good.substr(0, good.size() / 2));
  require_error(ExitCode::input, {"cut.h5", "truncated"}, open("cut.h5"));

  write_corpus(folder / "version.h5", {5});
  {
    Hdf5File file = Hdf5File::open(folder / "version.h5", Hdf5Access::read_write);
    file.set_attribute("format_version", 99);
    file.close();
  }
  require_error(ExitCode::input, {"version.h5", "version 99"}, open("version.h5"));

  write_corpus(folder / "short.h5", {5, 5});
  {
    Hdf5File file = Hdf5File::open(folder / "short.h5", Hdf5Access::read_write);
    file.dataset("tokens").resize_rows(7);
    file.close();
  }
  require_error(ExitCode::input, {"short.h5", "7 tokens", "10"}, open("short.h5"));

  write_corpus(folder / "empty.h5", {5});
  {
    Hdf5File file = Hdf5File::open(folder / "empty.h5", Hdf5Access::read_write);
    file.dataset("tokens").resize_rows(0);
    file.dataset("document_ends").resize_rows(0);
    file.set_attribute("num_documents", 0);
    file.set_attribute("num_tokens", 0);
    file.close();
  }
  require_error(ExitCode::input, {"empty.h5", "empty"}, open("empty.h5"));
}

TEST_CASE("damaged tokens are found when they are read", "[data][corpus]") {
  TemporaryFolder folder;
  const Path path = write_corpus(folder / "a.h5", std::vector<int64_t>(100, 1000));
  int64_t offset = 0;
  {
    const Hdf5File file = Hdf5File::open(path);
    offset = static_cast<int64_t>(file.dataset("tokens").chunks().at(1).file_offset);
  }
  flip_byte(path, offset + 100);
  const Corpus corpus = Corpus::open(path);
  CHECK(tokens_of(corpus, 0).size() == 1000);
  require_error(ExitCode::input, {"a.h5", "tokens", "checksum"}, [&] { tokens_of(corpus, 40); });
}

TEST_CASE("ids beyond the vocabulary and crossing document ends are found", "[data][corpus]") {
  TemporaryFolder folder;
  write_corpus(folder / "a.h5", {5, 5, 5});
  {
    Hdf5File file = Hdf5File::open(folder / "a.h5", Hdf5Access::read_write);
    file.dataset("tokens").write_rows(2, std::vector<uint16_t>{40000});
    file.dataset("document_ends").write_rows(1, std::vector<uint64_t>{4});
    file.close();
  }
  const Corpus corpus = Corpus::open(folder / "a.h5");
  require_error(ExitCode::input, {"id 40000", "32100"}, [&] { tokens_of(corpus, 0); });
  require_error(ExitCode::input, {"document 1", "damaged"}, [&] { corpus.document(1); });
}
