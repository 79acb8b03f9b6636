#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Builds and runs the tests under sanitizers: `scripts/ci/sanitize.sh asan` (address and undefined behaviour) or `tsan`
# (threads). A second argument is a ctest name filter.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
preset=${1:?usage: scripts/ci/sanitize.sh asan|tsan [REGEX]}
cd "$root"
cmake --preset "$preset"
cmake --build --preset "$preset" --parallel "$(nproc)"
# Libraries of the distribution are not instrumented: what they allocate at load time is not a leak of ours.
export ASAN_OPTIONS=${ASAN_OPTIONS:-detect_leaks=1:strict_string_checks=1}
export LSAN_OPTIONS=${LSAN_OPTIONS:-suppressions=$root/scripts/ci/lsan.supp:print_suppressions=0}
export UBSAN_OPTIONS=${UBSAN_OPTIONS:-print_stacktrace=1}
export TSAN_OPTIONS=${TSAN_OPTIONS:-halt_on_error=1}
ctest --preset "$preset" --parallel "$(nproc)" ${2:+-R "$2"}
