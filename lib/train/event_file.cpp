// SPDX-License-Identifier: Apache-2.0
#include "lib/train/event_file.h"

#include <bit>
#include <cerrno>
#include <chrono>

#include <unistd.h>

#include "lib/base/checksum.h"
#include "lib/base/error.h"

namespace stmoe {
namespace {

// Field numbers of event.proto and summary.proto.
namespace event {
constexpr int kWallTime = 1, kStep = 2, kFileVersion = 3, kSummary = 5, kSessionLog = 7;
}
namespace summary {
constexpr int kValue = 1, kTag = 1, kSimpleValue = 2;
}
constexpr uint64_t kSessionStart = 1;

template <class T>
void append_fixed(std::string& out, T value) {
  const auto bytes = std::bit_cast<std::array<char, sizeof(T)>>(value);
  out.append(bytes.data(), bytes.size());
}

void append_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void append_key(std::string& out, int field, int wire_type) {
  append_varint(out, static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire_type));
}

void append_double(std::string& out, int field, double value) {
  append_key(out, field, 1);
  append_fixed(out, value);
}

void append_float(std::string& out, int field, float value) {
  append_key(out, field, 5);
  append_fixed(out, value);
}

void append_integer(std::string& out, int field, uint64_t value) {
  append_key(out, field, 0);
  append_varint(out, value);
}

void append_bytes(std::string& out, int field, std::string_view bytes) {
  append_key(out, field, 2);
  append_varint(out, bytes.size());
  out.append(bytes);
}

// An Event with its time and step; the caller appends what happened.
std::string begin_event(int64_t step) {
  using namespace std::chrono;
  std::string out;
  append_double(out, event::kWallTime,
                duration<double>(system_clock::now().time_since_epoch()).count());
  append_integer(out, event::kStep, static_cast<uint64_t>(step));
  return out;
}

uint32_t masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

Path new_path(const Path& directory) {
  using namespace std::chrono;
  char host[256] = "localhost";
  ::gethostname(host, sizeof host - 1);
  const auto now = duration_cast<microseconds>(system_clock::now().time_since_epoch()).count();
  return directory / format("events.out.tfevents.{}.{}.{}.{:06}", now / 1000000, host, ::getpid(),
                            now % 1000000);
}

}  // namespace

EventFile::EventFile(const Path& directory, int64_t first_step) {
  make_directories(directory);
  path_ = new_path(directory);
  file_.open(path_, std::ios::binary);
  std::string version = begin_event(0);
  append_bytes(version, event::kFileVersion, "brain.Event:2");
  write_event(version);
  std::string start = begin_event(first_step);
  std::string session;
  append_integer(session, 1, kSessionStart);
  append_bytes(start, event::kSessionLog, session);
  write_event(start);
}

void EventFile::write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars) {
  std::string values;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    append_bytes(value, summary::kTag, tag);
    append_float(value, summary::kSimpleValue, static_cast<float>(number));
    append_bytes(values, summary::kValue, value);
  }
  std::string whole = begin_event(step);
  append_bytes(whole, event::kSummary, values);
  write_event(whole);
}

void EventFile::write_event(std::string_view event) {
  std::string length, frame;
  append_fixed(length, static_cast<uint64_t>(event.size()));
  frame = length;
  append_fixed(frame, masked_crc(length));
  frame.append(event);
  append_fixed(frame, masked_crc(event));
  file_.write(frame.data(), static_cast<std::streamsize>(frame.size()));
  file_.flush();
  if (!file_)
    throw StorageError(format("{}: cannot be written ({}); check permissions and free space",
                              path_.string(), errno_text(errno)));
}

}  // namespace stmoe
