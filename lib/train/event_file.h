// SPDX-License-Identifier: Apache-2.0
// Scalars for TensorBoard. An event file is a sequence of TFRecord frames (length, masked CRC-32C
// of the length, bytes, masked CRC-32C of the bytes), each an `Event` message of TensorFlow's
// event.proto, written here in protocol-buffer wire format.
#pragma once

#include <fstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/files.h"

namespace stmoe {

class EventFile {
 public:
  // A new file in `directory` (made if missing). Whatever earlier files there hold for steps from
  // `first_step` on is superseded: a run that resumes writes those steps again.
  EventFile(const Path& directory, int64_t first_step);

  // All values of one step. Throws StorageError.
  void write(int64_t step, const std::vector<std::pair<std::string, double>>& scalars);
  const Path& path() const { return path_; }

 private:
  void write_event(std::string_view event);
  Path path_;
  std::ofstream file_;
};

}  // namespace stmoe
