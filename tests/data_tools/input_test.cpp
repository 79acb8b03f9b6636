// SPDX-License-Identifier: Apache-2.0
#include "data_tools/input/block_reader.h"
#include "data_tools/input/byte_source.h"
#include "lib/base/utf8.h"
#include "tests/data/support.h"
#include "tests/data_tools/packed.h"

using namespace stmoe;
using namespace stmoe::test;

namespace {

// Everything, in small steps.
std::string read_all(const Path& path, size_t step = 1000) {
  auto source = open_bytes(path);
  std::string text, buffer(step, '\0');
  for (size_t got = source->read(buffer); got > 0; got = source->read(buffer))
    text.append(buffer, 0, got);
  CHECK(source->file_position() == std::filesystem::file_size(path));
  return text;
}

std::vector<TextBlock> blocks_of(const Path& path, DocumentEnd end, size_t block_bytes) {
  BlockReader reader(path, end, block_bytes);
  std::vector<TextBlock> blocks;
  for (TextBlock block; reader.next(block);) blocks.push_back(block);
  return blocks;
}

}  // namespace

TEST_CASE("valid and invalid UTF-8 are told apart", "[data_tools][utf8]") {
  constexpr size_t kValid = std::string_view::npos;
  CHECK(find_invalid_utf8("") == kValid);
  CHECK(find_invalid_utf8("plain ASCII that is longer than eight bytes") == kValid);
  CHECK(find_invalid_utf8("naïve 日本語 🙂 \xf4\x8f\xbf\xbf \xef\xbf\xbf") == kValid);
  CHECK(find_invalid_utf8(std::string_view("a\0b", 3)) == kValid);
  CHECK(find_invalid_utf8("latin caf\xe9.") == 9);
  CHECK(find_invalid_utf8("\x80") == 0);
  CHECK(find_invalid_utf8("ab\xc3") == 2);            // cut
  CHECK(find_invalid_utf8("ab\xe2\x82") == 2);        // cut
  CHECK(find_invalid_utf8("\xc0\xaf") == 0);          // overlong
  CHECK(find_invalid_utf8("\xe0\x80\xaf") == 0);      // overlong
  CHECK(find_invalid_utf8("\xf0\x80\x80\xaf") == 0);  // overlong
  CHECK(find_invalid_utf8("\xed\xa0\x80") == 0);      // surrogate
  CHECK(find_invalid_utf8("\xf4\x90\x80\x80") == 0);  // above U+10FFFF
  CHECK(find_invalid_utf8("\xff\xfe"
                          "a") == 0);
  CHECK(count_characters("naïve 日本語") == 9);
  CHECK(first_character("é").code == 0xE9);
  CHECK(first_character("🙂x").bytes == 4);
}

TEST_CASE("plain, gzip and zstd files give the same bytes", "[data_tools][input]") {
  TemporaryFolder folder;
  const std::string text = varied_text(3'000'000);
  const std::string half = text.substr(0, 1'000'000), rest = text.substr(1'000'000);
  write_file_atomically(folder / "a.txt", text);
  write_file_atomically(folder / "a.txt.gz", gzip(text));
  write_file_atomically(folder / "members.gz", gzip(half) + gzip("") + gzip(rest));
  write_file_atomically(folder / "zeros.gz", gzip(half) + gzip(rest) + std::string(1000, '\0'));
  write_file_atomically(folder / "a.zst", zstd(text));
  write_file_atomically(folder / "frames.zst", zstd(half) + zstd("") + zstd(rest));
  write_file_atomically(folder / "gzip-without-the-name.txt", gzip(text));
  for (const std::string& name : names_in(folder.path())) {
    INFO(name);
    CHECK(read_all(folder / name) == text);
    CHECK(read_all(folder / name, 1 << 20) == text);
  }
  write_file_atomically(folder / "empty.txt", "");
  write_file_atomically(folder / "empty.gz", gzip(""));
  write_file_atomically(folder / "empty.zst", zstd(""));
  for (const char* name : {"empty.txt", "empty.gz", "empty.zst"})
    CHECK(read_all(folder / name).empty());
}

TEST_CASE("damaged and missing files are refused with the place", "[data_tools][input]") {
  TemporaryFolder folder;
  const std::string text = varied_text(300'000);
  auto refused = [&](const std::string& name, const std::string& bytes,
                     std::vector<std::string> parts) {
    write_file_atomically(folder / name, bytes);
    parts.push_back(name);
    require_error(ExitCode::input, parts, [&] { read_all(folder / name); });
  };
  const std::string packed = gzip(text), other = zstd(text);
  refused("cut.gz", packed.substr(0, packed.size() / 2), {"broken gzip", "truncated"});
  refused("no-trailer.gz", packed.substr(0, packed.size() - 5), {"broken gzip", "truncated"});
  refused("cut-header.gz", packed.substr(0, 5), {"broken gzip", "truncated"});
  std::string flipped = packed;
  flipped[packed.size() / 2] ^= 0x40;
  refused("flipped.gz", flipped, {"broken gzip", "at byte"});
  flipped = packed;
  flipped[packed.size() - 6] ^= 1;  // in the checksum
  refused("checksum.gz", flipped, {"broken gzip", "incorrect data check"});
  refused("garbage.gz", packed + "garbage", {"broken gzip", "something else follows"});
  refused("text.gz", text, {"not gzip", "name"});
  refused("empty.gz", "", {"not gzip"});
  refused("cut.zst", other.substr(0, other.size() / 2), {"broken zstd", "truncated"});
  flipped = other;
  flipped[10] ^= 0x7f;
  refused("flipped.zst", flipped, {"broken zstd"});
  refused("garbage.zst", other + "garbage", {"broken zstd"});
  refused("text.zst", text, {"not zstd"});
  require_error(ExitCode::input, {"missing.txt", "No such file"},
                [&] { open_bytes(folder / "missing.txt"); });
  require_error(ExitCode::input, {"is a directory"}, [&] { open_bytes(folder.path()); });
}

TEST_CASE("blocks end at line ends and know their places", "[data_tools][input]") {
  TemporaryFolder folder;
  const std::string text = varied_text(50'000) + "\nlast line without an end";
  write_file_atomically(folder / "a.txt", text);
  for (size_t block_bytes : {1, 7, 100, 4096, 1 << 20}) {
    std::string joined;
    uint64_t line = 1;
    for (const TextBlock& block : blocks_of(folder / "a.txt", DocumentEnd::line, block_bytes)) {
      REQUIRE(block.byte_offset == joined.size());
      REQUIRE(block.first_line == line);
      joined += block.text;
      line += static_cast<uint64_t>(std::count(block.text.begin(), block.text.end(), '\n'));
      if (joined.size() < text.size()) REQUIRE(block.text.ends_with('\n'));
    }
    CHECK(joined == text);
  }
}

TEST_CASE("blocks of paragraphs end after blank lines", "[data_tools][input]") {
  TemporaryFolder folder;
  const std::string text = "a\nb\n\nc\n \t\r\nd\n\n\ne\nf";
  write_file_atomically(folder / "a.txt", text);
  std::vector<std::string> texts;
  for (const TextBlock& block : blocks_of(folder / "a.txt", DocumentEnd::blank_line, 1))
    texts.push_back(block.text);
  std::string joined;
  for (size_t i = 0; i < texts.size(); ++i) {
    joined += texts[i];
    if (i + 1 < texts.size())
      CHECK(is_blank(texts[i].substr(texts[i].rfind('\n', texts[i].size() - 2))));
  }
  CHECK(joined == text);
  CHECK(texts.size() >= 3);
}

TEST_CASE("a byte order mark is left out", "[data_tools][input]") {
  TemporaryFolder folder;
  write_file_atomically(folder / "a.txt", "\xef\xbb\xbfone\ntwo\n");
  const auto blocks = blocks_of(folder / "a.txt", DocumentEnd::line, 1 << 20);
  REQUIRE(blocks.size() == 1);
  CHECK(blocks[0].text == "one\ntwo\n");
  CHECK(blocks[0].byte_offset == 3);
  write_file_atomically(folder / "b.txt", "\xef\xbb\xbf");
  CHECK(blocks_of(folder / "b.txt", DocumentEnd::line, 1 << 20).empty());
}
