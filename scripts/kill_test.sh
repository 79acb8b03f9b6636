#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Kills a pretraining run with SIGKILL at random moments, resumes it each time, and compares it at the end with a run that
# nobody disturbed: the same metrics (times aside), the same weights, and no complete checkpoint lost or damaged.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/kill_test.sh [--bin DIR] [--kills N] [--seed N] [--keep]

  --bin DIR  folder of the executables (default: build/release/bin, else build/ci/bin)
  --kills N  how often to kill (default: 20)
  --seed N   of the random moments (default: the time)
  --keep     leave the files in place at the end

Exit status 0 when the killed run equals the undisturbed one.
TEXT
}

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
bin='' kills=20 seed=$(date +%s) keep=0
while [ $# -gt 0 ]; do
  case $1 in
    --bin) bin=${2:?--bin needs a folder}; shift ;;
    --kills) kills=${2:?--kills needs a number}; shift ;;
    --seed) seed=${2:?--seed needs a number}; shift ;;
    --keep) keep=1 ;;
    --help|-h) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
for candidate in "$root/build/release/bin" "$root/build/ci/bin"; do
  [ -n "$bin" ] || [ ! -x "$candidate/stmoe-pretrain" ] || bin=$candidate
done
[ -x "$bin/stmoe-pretrain" ] || { echo "error: '$bin' has no stmoe-pretrain; build first or give --bin" >&2; exit 2; }

work=$(mktemp -d)
child=
clean_up() {
  [ -z "$child" ] || kill -9 "$child" 2>/dev/null || true
  if [ "$keep" -eq 1 ]; then echo "files are in $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT
fail() { echo "error: $*" >&2; [ ! -s "$work/run.err" ] || tail -5 "$work/run.err" >&2; keep=1; exit 1; }

RANDOM=$((seed % 32768))
echo "seed $seed"
text=$root/recipes/data/english/english-validation.00000-of-00001.json.gz
"$bin/stmoe-data" --log-level error vocabulary --size 1000 --sample-bytes 5e5 --input "$text" \
  --output "$work/small.model" >/dev/null
"$bin/stmoe-data" --log-level error corpus --vocabulary "$work/small.model" --output "$work/text.h5" "$text" >/dev/null

steps=$((kills * 10))
pretrain() {  # RUN
  exec "$bin/stmoe-pretrain" "$root/recipes/smoke/switch-tiny.yaml" --output "$1" --threads 1 \
    --set "vocabulary.model=$work/small.model" --set "data.train=$work/text.h5" --set "data.validation=$work/text.h5" \
    --set "train.steps=$steps" --set train.log_every=3 --set train.evaluate_every=20 \
    --set checkpoint.save_every=2 --set checkpoint.keep_last=3 2>>"$work/run.err"
}

start=$(date +%s%N)
(pretrain "$work/whole") || fail "the undisturbed run failed"
milliseconds=$((($(date +%s%N) - start) / 1000000))
echo "undisturbed: $steps steps in $milliseconds ms"

# Steps of the complete checkpoints of a run, ascending.
complete_steps() { { find "$1/checkpoints" -maxdepth 1 -name 'step-*' -printf '%f\n' 2>/dev/null || true; } | sort; }

# What a kill in the middle of a save leaves; the next save removes it.
half_written() { { find "$1/checkpoints" -maxdepth 1 -name '.*-*' -printf '%f\n' 2>/dev/null || true; } | sort; }

# A moment early or late in a start, a step or a save: up to three times the mean share of the whole run.
most=$((3 * milliseconds / kills + 100)) killed=0 in_save=0 finished=0 newest=
run=$work/run
while [ "$killed" -lt "$kills" ]; do
  half_written "$run" >"$work/before"
  (pretrain "$run") &
  child=$!
  moment=$(((RANDOM * 32768 + RANDOM) % most + 1))
  sleep "$(printf '%d.%03d' $((moment / 1000)) $((moment % 1000)))"
  kill -9 "$child" 2>/dev/null || true
  status=0
  wait "$child" 2>/dev/null || status=$?
  child=
  if [ "$status" -eq 0 ]; then
    finished=$((finished + 1))
    cmp -s "$work/whole/checkpoints/latest" "$run/checkpoints/latest" || fail "the run ended at another step"
    rm -rf "$run"
    newest=
    continue
  fi
  [ "$status" -eq 137 ] || fail "the run ended by itself with status $status"
  killed=$((killed + 1))
  half_written "$run" | cmp -s - "$work/before" || in_save=$((in_save + 1))
  last=
  for name in $(complete_steps "$run"); do
    "$bin/stmoe-convert" verify "$run/checkpoints/$name" >/dev/null || fail "$name is damaged after kill $killed"
    last=$name
  done
  [[ ! $last < $newest ]] || fail "checkpoint $newest was lost: the newest is '$last' after kill $killed"
  newest=$last
done
(pretrain "$run") || fail "the run could not be resumed after the last kill"

without_times() { sed -E 's/,"(seconds|tokens_per_second|model_flops_utilization)":[^,}]*//g' "$1"; }
cmp <(without_times "$work/whole/metrics.jsonl") <(without_times "$run/metrics.jsonl") || fail "the metrics differ"
[ "$(complete_steps "$work/whole")" = "$(complete_steps "$run")" ] || fail "other checkpoints are left"
for name in $(complete_steps "$run"); do
  cmp "$work/whole/checkpoints/$name/shard-00000-of-00001.h5" "$run/checkpoints/$name/shard-00000-of-00001.h5" ||
    fail "the weights differ at $name"
done
echo "killed $killed times ($in_save while a checkpoint was written), ended by itself before that $finished times:" \
  "same metrics, same weights, no checkpoint lost"
