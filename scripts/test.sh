#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds with warnings as errors, runs every test, and ends with "N passed, N failed".
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/test.sh [--yes] [--build-dir DIR] [--filter REGEX]

  --yes            install missing Debian packages without asking
  --build-dir DIR  where to build (default: build/ci)
  --filter REGEX   run only the tests whose name matches

Ends with the line "N passed, N failed"; exit status 0 when none failed.
TEXT
}

yes=0 filter= root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$root/build/ci
while [ $# -gt 0 ]; do
  case $1 in
    --yes) yes=1 ;;
    --build-dir) build=$2; shift ;;
    --filter) filter=$2; shift ;;
    --help|-h) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

# shellcheck source=scripts/packages.sh
. "$root/scripts/packages.sh"
install_packages "$yes" "${build_packages[@]}" "${test_packages[@]}"

cd "$root"
cmake --preset ci -B "$build"
cmake --build "$build" --parallel "$(nproc)"

report=$build/test-report.xml
rm -f "$report"
status=0
# Several tests share the cores: a thread that waits for another must not spin.
ctest --test-dir "$build" --output-on-failure --parallel "$(nproc)" --no-tests=error \
  --output-junit "$report" ${filter:+-R "$filter"} || status=$?

count() { sed -n "s/.*<testsuite[^>]*[[:space:]]$1=\"\([0-9]*\)\".*/\1/p" <(tr '\n' ' ' <"$report") | head -1; }
[ -s "$report" ] || { echo "error: the tests wrote no report" >&2; exit 1; }
total=$(count tests) failed=$(count failures) skipped=$(count skipped) disabled=$(count disabled)
skipped=$((skipped + disabled))
passed=$((total - failed - skipped))
[ "$status" -eq 0 ] || [ "$failed" -gt 0 ] || failed=1
[ "$skipped" -eq 0 ] || echo "$skipped skipped: they need what this machine has not, such as a GPU"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
