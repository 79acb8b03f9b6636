// SPDX-License-Identifier: Apache-2.0
// Errors carry the exit code of the command-line contract. Thrown anywhere, caught in apps/common
// (and where a retry is meant). User-facing text: what is wrong, where (file:line, key path,
// tensor, byte offset), what was expected, what to do; lower case, values quoted. STMOE_CHECK is
// for contracts between our own functions: it throws BugError.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

#include "lib/base/format.h"

namespace stmoe {

enum class ExitCode : int {
  done = 0,
  bug = 1,
  usage = 2,
  input = 3,
  diverged = 4,
  peer = 5,
  storage = 6,
  interrupted = 75
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& text) : std::runtime_error(text), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// An internal check failed: a defect of this program.
struct BugError : Error {
  explicit BugError(const std::string& text) : Error(ExitCode::bug, text) {}
};
// Wrong command line or recipe.
struct UsageError : Error {
  explicit UsageError(const std::string& text) : Error(ExitCode::usage, text) {}
};
// Data, vocabulary, checkpoint or predictions missing, malformed, truncated or of another version.
struct InputError : Error {
  explicit InputError(const std::string& text) : Error(ExitCode::input, text) {}
};
// Training diverged and could not recover.
struct DivergedError : Error {
  explicit DivergedError(const std::string& text) : Error(ExitCode::diverged, text) {}
};
// A peer rank, a device or the network was lost.
struct PeerError : Error {
  explicit PeerError(const std::string& text) : Error(ExitCode::peer, text) {}
};
// No room or no permission to write.
struct StorageError : Error {
  explicit StorageError(const std::string& text) : Error(ExitCode::storage, text) {}
};
// Not a failure: asked to stop, and the checkpoint was saved.
struct InterruptedError : Error {
  explicit InterruptedError(const std::string& text) : Error(ExitCode::interrupted, text) {}
};

// Throws BugError naming the source place; used by STMOE_CHECK.
[[noreturn]] void fail_check(const char* file, int line, const char* condition,
                             const std::string& detail);

// The text of errno value `code`, as in "No space left on device".
std::string errno_text(int code);

}  // namespace stmoe

#define STMOE_CHECK(condition, ...)                                                         \
  do {                                                                                      \
    if (!(condition)) [[unlikely]]                                                          \
      ::stmoe::fail_check(__FILE__, __LINE__, #condition, ::stmoe::format("" __VA_ARGS__)); \
  } while (false)

#ifdef NDEBUG
#define STMOE_DCHECK(...) static_cast<void>(0)
#else
#define STMOE_DCHECK(...) STMOE_CHECK(__VA_ARGS__)
#endif
