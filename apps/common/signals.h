// SPDX-License-Identifier: Apache-2.0
// Signals of a long run: SIGTERM, SIGUSR1 and the first SIGINT ask it to stop; a second SIGINT
// exits at once.
#pragma once

#include "lib/base/stop_request.h"

namespace stmoe {

// From now on signals are noted in `request`, which must outlive the process's signals (it is one
// for the program).
void stop_on_signals(StopRequest& request);

// A file that may not grow further (`ulimit -f`) is then a failed write with its message, not the
// end of the process.
void report_file_size_limit_as_error();

}  // namespace stmoe
