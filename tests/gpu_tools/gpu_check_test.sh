#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/gpu_check.sh --run with programs that pass, fail, hang and break off: what it notes, and that it goes on.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
script=$root/scripts/gpu_check.sh
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "failed: $*" >&2; cat "$work/said" "$work"/out*/results.jsonl >&2 2>/dev/null || true; exit 1; }
run() { # expected exit status, arguments
  local code=$1 status=0
  shift
  "$script" "$@" >"$work/said" 2>&1 || status=$?
  [ "$status" -eq "$code" ] || fail "exit $status instead of $code: $*"
}
says() { grep -qF -- "$1" "$work/said" || fail "does not say '$1'"; }
has() { grep -qE -- "$2" "$work/$1/results.jsonl" || fail "$1 has no line $2"; }

run 2 --fast
says "unknown argument '--fast'"
run 2 --run "$work"
says "--output is missing"
run 2 --run "$work" --output "$work/none"
says "has no payload.tar.xz"
run 2 --run "$work" --output "$work/none" --device tpu

# A payload of stand-ins.
payload=$work/payload
mkdir -p "$payload"/{tests,bundle/bin,bundle/recipes,scripts,source,data}
cat >"$payload/tests/stmoe-gpu-check" <<'TEXT'
#!/usr/bin/env bash
line() { echo "{\"item\": \"$1\", \"name\": \"$2\", \"values\": {$3}, \"device\": \"emu\"}"; }
case $1 in
  environment) line environment copy '"bytes_per_second": 1' ;;
  model) line model f32 '"passed": false'; echo "error: the losses differ" >&2; exit 1 ;;
  determinism) line determinism "f32, twice" '"equal_bytes": true'; sleep 60 ;;
esac
TEXT
printf '#!/bin/sh\necho "All tests passed (3 assertions in 1 test case)"\n' >"$payload/tests/test_good"
printf '#!/bin/sh\necho "test cases: 2 | 1 failed"; [ -d source ] || echo "no source"; exit 4\n' >"$payload/tests/test_bad"
printf '#!/bin/sh\necho stmoe-pretrain 0\n' >"$payload/bundle/bin/stmoe-pretrain"
chmod +x "$payload"/tests/* "$payload"/bundle/bin/*
cp "$root/scripts/gpu_report" "$payload/scripts/"
pack() { tar -C "$payload" -cJf "$work/payload.tar.xz" .; }
pack

# One that hangs takes its time, not everything; what failed is noted and the rest is done.
run 1 --run "$work" --output "$work/out" --device emu --seconds 10
has out '"item": "environment", "name": "copy"'
has out '"name": "environment", "values": \{"rc": 0,'
has out '"item": "tests", "name": "test_good", "values": \{"rc": 0, "summary": "All tests passed'
has out '"item": "tests", "name": "test_bad", "values": \{"rc": 4,'
has out '"name": "tests", "values": \{"rc": 1,'
has out '"item": "model", "name": "f32"'
has out '"name": "model", "values": \{"rc": 1, .*the losses differ'
has out '"item": "determinism", "name": "f32, twice"'
has out '"name": "determinism", "values": \{"rc": 124, .*took longer than'
has out '"name": "kernels", "values": \{"rc": 124, "seconds": 0, "what": "no time was left"'
grep -q "no source" "$work/out/log.txt" && fail "tests do not see the repository's files"
[ -s "$work/out/gpu.md" ] && [ -s "$work/out/table.txt" ] || fail "no report"
says "items: environment exit 0"
python3 -c 'import json, sys; [json.loads(line) for line in open(sys.argv[1])]' "$work/out/results.jsonl" || fail "a line is no JSON"
[ "$(find "$work/out" -type f | wc -l)" -le 8 ] || fail "more files than can be brought back"

# Only what passes: exit 0, and without the report's script the results are still there.
rm "$payload/tests/test_bad" "$payload/scripts/gpu_report"
pack
run 0 --run "$work" --output "$work/out2" --device emu --only environment,tests
says "no report"
has out2 '"name": "tests", "values": \{"rc": 0,'
grep -q determinism "$work/out2/results.jsonl" && fail "--only ran something else"
echo passed
