// SPDX-License-Identifier: Apache-2.0
// Attributes are read whatever string kind (fixed or variable length) or number width another
// program wrote.
#include "lib/hdf5/object.h"

#include <algorithm>

#include "lib/hdf5/library.h"

namespace stmoe {

using detail::Hdf5Handle;
using detail::lock_hdf5;

namespace {

std::string attribute_place(const std::string& object, std::string_view attribute) {
  return object.empty() ? format("attribute {}", attribute)
                        : format("{}: attribute {}", object, attribute);
}

// An open attribute with one element of class `expected`; errors say what was expected instead.
Hdf5Handle open_scalar_attribute(const detail::Hdf5OpenFile& file, hid_t object,
                                 const std::string& object_name, std::string_view attribute) {
  std::string place = attribute_place(object_name, attribute);
  std::string name(attribute);
  if (H5Aexists(object, name.c_str()) <= 0)
    throw InputError(format("{}: missing", file.where(place)));
  Hdf5Handle handle(H5Aopen(object, name.c_str(), H5P_DEFAULT), H5Aclose);
  if (handle.id() < 0) file.fail_reading(place);
  Hdf5Handle space(H5Aget_space(handle.id()), H5Sclose);
  if (H5Sget_simple_extent_npoints(space.id()) != 1)
    throw InputError(format("{}: is an array, expected one value", file.where(place)));
  return handle;
}

void write_attribute(const detail::Hdf5OpenFile& file, hid_t object, const std::string& object_name,
                     std::string_view attribute, hid_t type, const void* value) {
  std::string place = attribute_place(object_name, attribute);
  std::string name(attribute);
  file.check_writing(place);
  if (H5Aexists(object, name.c_str()) > 0 && H5Adelete(object, name.c_str()) < 0)
    file.fail_writing(place);
  Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  Hdf5Handle handle(H5Acreate2(object, name.c_str(), type, space.id(), H5P_DEFAULT, H5P_DEFAULT),
                    H5Aclose);
  if (handle.id() < 0 || H5Awrite(handle.id(), type, value) < 0) file.fail_writing(place);
  file.check_written(place);
}

}  // namespace

Hdf5Object::Hdf5Object(std::shared_ptr<detail::Hdf5OpenFile> file,
                       std::shared_ptr<Hdf5Handle> handle, std::string name)
    : file_(std::move(file)), handle_(std::move(handle)), name_(std::move(name)) {}

int64_t Hdf5Object::id() const {
  file_->check_open(name_);
  return handle_->id();
}

std::string Hdf5Object::where() const { return file_->where(name_); }

bool Hdf5Object::has_attribute(std::string_view name) const {
  auto lock = lock_hdf5();
  return H5Aexists(id(), std::string(name).c_str()) > 0;
}

std::vector<std::string> Hdf5Object::attribute_names() const {
  auto lock = lock_hdf5();
  std::vector<std::string> names;
  auto add = [](hid_t, const char* name, const H5A_info_t*, void* into) -> herr_t {
    static_cast<std::vector<std::string>*>(into)->emplace_back(name);
    return 0;
  };
  hsize_t position = 0;
  if (H5Aiterate2(id(), H5_INDEX_NAME, H5_ITER_NATIVE, &position, add, &names) < 0)
    file_->fail_reading(name_, "be listed");
  std::sort(names.begin(), names.end());
  return names;
}

std::string Hdf5Object::string_attribute(std::string_view name) const {
  auto lock = lock_hdf5();
  Hdf5Handle attribute = open_scalar_attribute(*file_, id(), name_, name);
  return detail::read_string(attribute.id(), true, *file_, attribute_place(name_, name));
}

int64_t Hdf5Object::integer_attribute(std::string_view name) const {
  auto lock = lock_hdf5();
  Hdf5Handle attribute = open_scalar_attribute(*file_, id(), name_, name);
  std::string place = attribute_place(name_, name);
  Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
  if (H5Tget_class(type.id()) != H5T_INTEGER)
    throw InputError(format("{}: expected an integer", file_->where(place)));
  int64_t value = 0;
  if (H5Aread(attribute.id(), H5T_NATIVE_INT64, &value) < 0) file_->fail_reading(place);
  return value;
}

double Hdf5Object::number_attribute(std::string_view name) const {
  auto lock = lock_hdf5();
  Hdf5Handle attribute = open_scalar_attribute(*file_, id(), name_, name);
  std::string place = attribute_place(name_, name);
  Hdf5Handle type(H5Aget_type(attribute.id()), H5Tclose);
  H5T_class_t kind = H5Tget_class(type.id());
  if (kind != H5T_INTEGER && kind != H5T_FLOAT)
    throw InputError(format("{}: expected a number", file_->where(place)));
  double value = 0;
  if (H5Aread(attribute.id(), H5T_NATIVE_DOUBLE, &value) < 0) file_->fail_reading(place);
  return value;
}

void Hdf5Object::set_attribute(std::string_view name, std::string_view text) {
  auto lock = lock_hdf5();
  Hdf5Handle type = detail::text_type(text.size());
  std::string padded(text);
  if (padded.empty()) padded.push_back('\0');
  write_attribute(*file_, id(), name_, name, type.id(), padded.data());
}

void Hdf5Object::set_integer_attribute(std::string_view name, int64_t value) {
  auto lock = lock_hdf5();
  write_attribute(*file_, id(), name_, name, H5T_NATIVE_INT64, &value);
}

void Hdf5Object::set_number_attribute(std::string_view name, double value) {
  auto lock = lock_hdf5();
  write_attribute(*file_, id(), name_, name, H5T_NATIVE_DOUBLE, &value);
}

}  // namespace stmoe
