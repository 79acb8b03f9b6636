// SPDX-License-Identifier: Apache-2.0
// The handler sets atomics and, at the second SIGINT, calls _exit: both are allowed in a signal
// handler.
#include "apps/common/signals.h"

#include <csignal>

#include <unistd.h>

#include "lib/base/error.h"

namespace stmoe {
namespace {

std::atomic<StopRequest*> target{nullptr};
std::atomic<int> num_interrupts{0};

void handle(int signal) {
  if (signal == SIGINT && num_interrupts.fetch_add(1) > 0) ::_exit(128 + SIGINT);
  if (StopRequest* request = target.load()) request->request();
}

}  // namespace

void stop_on_signals(StopRequest& request) {
  target.store(&request);
  struct sigaction action {};
  action.sa_handler = handle;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (int signal : {SIGTERM, SIGUSR1, SIGINT})
    STMOE_CHECK(::sigaction(signal, &action, nullptr) == 0, "signal {}: {}", signal,
                errno_text(errno));
}

void report_file_size_limit_as_error() { std::signal(SIGXFSZ, SIG_IGN); }

}  // namespace stmoe
