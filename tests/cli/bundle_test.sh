#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/bundle.sh on the executables of a build folder: what it refuses, what it makes, that what it makes is enough.
# usage: bundle_test.sh BUILD_DIR
set -euo pipefail

bundle=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/scripts/bundle.sh
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "failed: $*" >&2; exit 1; }
# exits with the code and says the text
expect() {
  local code=$1 text=$2 status=0
  shift 2
  "$@" >"$work/said" 2>&1 || status=$?
  [ "$status" -eq "$code" ] || { cat "$work/said" >&2; fail "exit $status instead of $code: $*"; }
  grep -qF -- "$text" "$work/said" || { cat "$work/said" >&2; fail "does not say '$text': $*"; }
}

expect 2 "unknown argument '--fast'" "$bundle" --fast
mkdir "$work/mine"
echo keep >"$work/mine/file"
expect 2 "is there and is no bundle" "$bundle" --reuse --build-dir "$build" --output "$work/mine"
[ "$(cat "$work/mine/file")" = keep ] || fail "a folder that is no bundle was touched"
expect 2 "has no executables" "$bundle" --reuse --build-dir "$work/mine" --output "$work/bundle"

expect 0 "checked from a moved copy with an empty environment" \
  "$bundle" --reuse --build-dir "$build" --output "$work/bundle" --no-archive
for part in bin/stmoe-pretrain bin/stmoe-eval bin/stmoe-convert bin/stmoe-data recipes/pretrain/quickstart.yaml README.txt LICENSE; do
  [ -e "$work/bundle/$part" ] || fail "$part is not in the bundle"
done
[ ! -e "$work/bundle.tar.xz" ] || fail "--no-archive made an archive"
grep -qE 'glibc 2\.[0-9]+ or newer' "$work/bundle/README.txt" || fail "the README does not name the oldest glibc"
for library in "$work/bundle"/lib/lib{fmt,spdlog,sentencepiece}.so*; do
  [ -e "$library" ] || fail "libfmt, libspdlog or libsentencepiece is not in the bundle"
done
echo passed
