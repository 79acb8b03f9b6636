// SPDX-License-Identifier: Apache-2.0
#include "lib/hdf5/library.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <vector>

namespace stmoe::detail {
namespace {

static_assert(std::endian::native == std::endian::little);

hid_t make_bf16_type() {
  hid_t type = H5Tcopy(H5T_IEEE_F32LE);
  // Fields: sign bit 15, exponent bits 7-14, mantissa bits 0-6. The size shrinks last, once nothing
  // lies above it.
  if (type < 0 || H5Tset_fields(type, 15, 7, 8, 0, 7) < 0 || H5Tset_precision(type, 16) < 0 ||
      H5Tset_size(type, 2) < 0 || H5Tset_ebias(type, 127) < 0 || H5Tlock(type) < 0)
    throw BugError("hdf5: the bf16 type cannot be made");
  return type;
}

herr_t collect(unsigned, const H5E_error2_t* error, void* into) {
  static_cast<std::vector<std::string>*>(into)->emplace_back(error->desc ? error->desc : "");
  return 0;
}

int errno_in(std::string_view text) {
  size_t at = text.find("errno = ");
  if (at == std::string_view::npos) return 0;
  int code = 0;
  std::from_chars(text.data() + at + 8, text.data() + text.size(), code);
  return code;
}

// "truncated file: eof = 800, sblock->base_addr = 0, stored_eof = 2048"
std::string truncation_text(std::string_view text) {
  auto number_after = [&](std::string_view key) {
    unsigned long long value = 0;
    if (size_t at = text.find(key); at != std::string_view::npos)
      std::from_chars(text.data() + at + key.size(), text.data() + text.size(), value);
    return value;
  };
  return format("truncated: {} bytes, {} expected", number_after("eof = "),
                number_after("stored_eof = "));
}

}  // namespace

std::unique_lock<std::recursive_mutex> lock_hdf5() {
  static std::recursive_mutex mutex;
  std::unique_lock lock(mutex);
  // A thread-safe build of HDF5 has an error stack for each thread.
  thread_local const bool is_silent =
      H5open() >= 0 && H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr) >= 0;
  if (!is_silent) throw BugError("hdf5: the library cannot be started");
  return lock;
}

Hdf5Reason last_hdf5_reason() {
  std::vector<std::string> stack;
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, collect, &stack);  // the innermost error first
  for (const std::string& text : stack) {
    int code = errno_in(text);
    if (code == EWOULDBLOCK) return {"another process has the file open", code};
    if (code != 0) return {errno_text(code), code};
  }
  for (const std::string& text : stack) {
    auto has = [&](std::string_view part) { return text.find(part) != std::string::npos; };
    if (has("file signature not found")) return {"not an HDF5 file"};
    if (has("truncated file")) return {truncation_text(text)};
    if (has("Fletcher32")) return {"damaged: the checksum of a chunk does not match its data"};
    if (has("metadata checksum") || has("incorrect checksum") || has("bad checksum"))
      return {"damaged: the checksum of the file's metadata does not match"};
    if (has("filter is not available") || has("required filter"))
      return {"compressed with a filter that this HDF5 library lacks"};
  }
  if (stack.empty()) return {"unknown reason"};
  if (stack.front() == stack.back()) return {stack.front()};
  return {format("{}: {}", stack.back(), stack.front())};
}

std::string Hdf5OpenFile::where(std::string_view object) const {
  return object.empty() ? path.string() : format("{}: {}", path.string(), object);
}

void Hdf5OpenFile::fail_reading(std::string_view object, std::string_view action) const {
  throw InputError(format("{}: cannot {} ({})", where(object), action, last_hdf5_reason().text));
}

void Hdf5OpenFile::fail_writing(std::string_view object, std::string_view action) const {
  check_written(object);
  throw StorageError(format("{}: cannot {} ({}); check permissions and free space", where(object),
                            action, last_hdf5_reason().text));
}

void Hdf5OpenFile::check_written(std::string_view object) const {
  if (failure.system_error == 0) return;
  throw StorageError(
      format("{}: cannot be written at byte {} ({}); check permissions and free space",
             where(object), failure.file_offset, errno_text(failure.system_error)));
}

void Hdf5OpenFile::check_open(std::string_view object) const {
  STMOE_CHECK(id >= 0, "{}: the file is closed", where(object));
}

void close_objects(hid_t file) {
  constexpr unsigned kKinds = H5F_OBJ_DATASET | H5F_OBJ_GROUP | H5F_OBJ_ATTR | H5F_OBJ_LOCAL;
  ssize_t count = H5Fget_obj_count(file, kKinds);
  if (count <= 0) return;
  std::vector<hid_t> ids(static_cast<size_t>(count));
  count = H5Fget_obj_ids(file, kKinds, ids.size(), ids.data());
  for (ssize_t i = 0; i < count; ++i) {
    hid_t id = ids[static_cast<size_t>(i)];
    H5Iget_type(id) == H5I_ATTR ? H5Aclose(id) : H5Oclose(id);
  }
}

Hdf5Handle text_type(size_t bytes) {
  Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  if (type.id() < 0 || H5Tset_size(type.id(), bytes == 0 ? 1 : bytes) < 0 ||
      H5Tset_strpad(type.id(), H5T_STR_NULLPAD) < 0 || H5Tset_cset(type.id(), H5T_CSET_UTF8) < 0)
    throw BugError(format("hdf5: no string type of {} bytes", bytes));
  return type;
}

std::string read_string(hid_t id, bool is_attribute, const Hdf5OpenFile& file,
                        std::string_view place) {
  Hdf5Handle type(is_attribute ? H5Aget_type(id) : H5Dget_type(id), H5Tclose);
  if (type.id() < 0) file.fail_reading(place);
  if (H5Tget_class(type.id()) != H5T_STRING)
    throw InputError(format("{}: expected a text", file.where(place)));
  auto read = [&](hid_t memory_type, void* into) {
    herr_t done = is_attribute ? H5Aread(id, memory_type, into)
                               : H5Dread(id, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, into);
    if (done < 0) file.fail_reading(place);
  };
  if (H5Tis_variable_str(type.id()) > 0) {
    Hdf5Handle memory_type(H5Tcopy(type.id()), H5Tclose);
    char* text = nullptr;
    read(memory_type.id(), &text);
    std::string result = text ? text : "";
    H5free_memory(text);
    return result;
  }
  std::string result(H5Tget_size(type.id()), '\0');
  read(type.id(), result.data());
  if (H5Tget_strpad(type.id()) == H5T_STR_SPACEPAD) {
    result.resize(result.find_last_not_of(' ') + 1);
  } else if (H5Tget_strpad(type.id()) == H5T_STR_NULLTERM) {
    result.resize(std::min(result.find('\0'), result.size()));
  } else {
    result.resize(result.find_last_not_of('\0') + 1);
  }
  return result;
}

void Hdf5OpenFile::check_writing(std::string_view object) const {
  check_open(object);
  STMOE_CHECK(is_writing, "{}: the file was opened for reading", where(object));
}

hid_t native_type(ElementType type) {
  switch (type) {
    case ElementType::f64:
      return H5T_NATIVE_DOUBLE;
    case ElementType::f32:
      return H5T_NATIVE_FLOAT;
    case ElementType::bf16: {
      static const hid_t bf16_type = make_bf16_type();
      return bf16_type;
    }
    case ElementType::i64:
      return H5T_NATIVE_INT64;
    case ElementType::i32:
      return H5T_NATIVE_INT32;
    case ElementType::i16:
      return H5T_NATIVE_INT16;
    case ElementType::i8:
      return H5T_NATIVE_INT8;
    case ElementType::u64:
      return H5T_NATIVE_UINT64;
    case ElementType::u32:
      return H5T_NATIVE_UINT32;
    case ElementType::u16:
      return H5T_NATIVE_UINT16;
    case ElementType::u8:
      return H5T_NATIVE_UINT8;
  }
  throw BugError("hdf5: unknown element type");
}

}  // namespace stmoe::detail
