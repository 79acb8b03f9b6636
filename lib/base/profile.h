// SPDX-License-Identifier: Apache-2.0
// Time by op. Each op opens an OpScope in its forward function, the tape opens one around each
// backward closure; when profiling is off a scope costs one branch. A scope's own time excludes the
// scopes inside it.
#pragma once

#include <string>
#include <vector>

namespace stmoe {

class OpScope {
 public:
  enum class Pass { forward, backward };
  OpScope(const char* op, Pass pass);
  ~OpScope();
  OpScope(const OpScope&) = delete;
  OpScope& operator=(const OpScope&) = delete;

 private:
  const char* op_;
  Pass pass_;
  OpScope* parent_;
  double start_ = 0, inner_ = 0;
  bool active_;
};

struct OpTime {
  std::string op;
  double forward_seconds = 0, backward_seconds = 0;
  long calls = 0;
};

// Starts (and clears) or stops recording. Only the calling thread's scopes are recorded.
void start_profile();
void stop_profile();
// Recorded so far, largest total first.
std::vector<OpTime> profile_by_op();

}  // namespace stmoe
