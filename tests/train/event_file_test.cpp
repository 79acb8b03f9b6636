// SPDX-License-Identifier: Apache-2.0
// Event files are read back here by a parser of their own: frames as in TensorFlow's
// record_writer.cc, messages as in event.proto and summary.proto.
#include "lib/train/event_file.h"

#include <bit>
#include <cmath>
#include <cstring>

#include <catch2/catch.hpp>

#include "tests/support/temporary_folder.h"

namespace stmoe::test {
namespace {

// CRC-32C bit by bit (Castagnoli, reflected).
uint32_t slow_crc32c(std::string_view bytes) {
  uint32_t crc = ~0u;
  for (unsigned char byte : bytes) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0x82F63B78u : 0u);
  }
  return ~crc;
}

uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

template <class T>
T take(std::string_view& bytes) {
  T value;
  REQUIRE(bytes.size() >= sizeof value);
  std::memcpy(&value, bytes.data(), sizeof value);
  bytes.remove_prefix(sizeof value);
  return value;
}

std::string_view take_bytes(std::string_view& bytes, uint64_t count) {
  REQUIRE(bytes.size() >= count);
  const std::string_view result = bytes.substr(0, count);
  bytes.remove_prefix(count);
  return result;
}

std::vector<std::string_view> frames_of(std::string_view file) {
  std::vector<std::string_view> frames;
  while (!file.empty()) {
    const std::string_view length_bytes = file.substr(0, 8);
    const auto length = take<uint64_t>(file);
    REQUIRE(take<uint32_t>(file) == masked(slow_crc32c(length_bytes)));
    frames.push_back(take_bytes(file, length));
    REQUIRE(take<uint32_t>(file) == masked(slow_crc32c(frames.back())));
  }
  return frames;
}

uint64_t take_varint(std::string_view& bytes) {
  uint64_t value = 0;
  for (int shift = 0;; shift += 7) {
    const auto byte = take<uint8_t>(bytes);
    value |= uint64_t{byte & 0x7fu} << shift;
    if (byte < 0x80) return value;
  }
}

// One field of a message: the number, or the bytes.
struct Field {
  uint64_t number = 0;
  uint64_t varint = 0;
  double real = NAN;
  std::string_view bytes;
};

std::vector<Field> fields_of(std::string_view message) {
  std::vector<Field> fields;
  while (!message.empty()) {
    const uint64_t key = take_varint(message);
    Field& field = fields.emplace_back();
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.varint = take_varint(message);
        break;
      case 1:
        field.real = std::bit_cast<double>(take<uint64_t>(message));
        break;
      case 2:
        field.bytes = take_bytes(message, take_varint(message));
        break;
      case 5:
        field.real = std::bit_cast<float>(take<uint32_t>(message));
        break;
      default:
        FAIL("wire type " << (key & 7));
    }
  }
  return fields;
}

const Field* find(const std::vector<Field>& fields, uint64_t number) {
  for (const Field& field : fields)
    if (field.number == number) return &field;
  return nullptr;
}

struct Scalar {
  std::string tag;
  double value;
  bool operator==(const Scalar&) const = default;
};

struct Event {
  double wall_time = 0;
  int64_t step = 0;
  std::string version;
  uint64_t session_status = 0;
  std::vector<Scalar> scalars;
};

Event parse_event(std::string_view message) {
  const std::vector<Field> fields = fields_of(message);
  Event event;
  REQUIRE(find(fields, 1));
  event.wall_time = find(fields, 1)->real;
  if (const Field* step = find(fields, 2)) event.step = static_cast<int64_t>(step->varint);
  if (const Field* version = find(fields, 3)) event.version = version->bytes;
  if (const Field* session = find(fields, 7))
    event.session_status = find(fields_of(session->bytes), 1)->varint;
  if (const Field* summary = find(fields, 5)) {
    for (const Field& value : fields_of(summary->bytes)) {
      REQUIRE(value.number == 1);
      const auto parts = fields_of(value.bytes);
      REQUIRE((find(parts, 1) && find(parts, 2)));
      event.scalars.push_back({std::string(find(parts, 1)->bytes), find(parts, 2)->real});
    }
  }
  return event;
}

std::vector<Event> events_of(const Path& file) {
  const std::string bytes = read_file(file);
  std::vector<Event> events;
  for (std::string_view frame : frames_of(bytes)) events.push_back(parse_event(frame));
  return events;
}

}  // namespace

TEST_CASE("an event file begins with its version and the start of a session", "[train][events]") {
  REQUIRE(slow_crc32c("123456789") == 0xE3069283u);
  const TemporaryFolder folder;
  const EventFile file(folder / "tensorboard", 41);
  CHECK(file.path().filename().string().starts_with("events.out.tfevents."));
  const auto events = events_of(file.path());
  REQUIRE(events.size() == 2);
  CHECK(events[0].version == "brain.Event:2");
  CHECK(events[0].step == 0);
  // TensorBoard drops what earlier files hold from the step of a session start on.
  CHECK(events[1].session_status == 1);
  CHECK(events[1].step == 41);
}

TEST_CASE("scalars are in the file as soon as they are written", "[train][events]") {
  const TemporaryFolder folder;
  EventFile file(folder.path(), 0);
  const std::string long_tag(300, 'x');
  file.write(1, {{"train/loss", 2.5}, {"train/rate", 0.1}});
  file.write(int64_t{1} << 40, {{long_tag, -1e30}, {"nan", NAN}});
  file.write(3, {});
  const auto events = events_of(file.path());
  REQUIRE(events.size() == 5);
  CHECK(events[2].step == 1);
  CHECK(events[2].scalars ==
        std::vector<Scalar>{{"train/loss", 2.5}, {"train/rate", static_cast<double>(0.1f)}});
  CHECK(events[2].wall_time > 1.7e9);
  CHECK(events[3].wall_time >= events[2].wall_time);
  CHECK(events[3].step == int64_t{1} << 40);
  CHECK(events[3].scalars[0] == Scalar{long_tag, static_cast<double>(-1e30f)});
  CHECK(std::isnan(events[3].scalars[1].value));
  CHECK(events[4].scalars.empty());
}

TEST_CASE("every event file has a name of its own", "[train][events]") {
  const TemporaryFolder folder;
  const EventFile first(folder.path(), 0), second(folder.path(), 0);
  CHECK(first.path() != second.path());
  // TensorBoard reads files in the order of their names.
  CHECK(first.path() < second.path());
}

TEST_CASE("a file that cannot be written is a storage error with its path", "[train][events]") {
  const TemporaryFolder folder;
  write_file_atomically(folder / "file", "");
  CHECK_THROWS_AS(EventFile(folder / "file", 0), StorageError);
}

}  // namespace stmoe::test
