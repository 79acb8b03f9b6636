#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh machine to a Switch Transformer that has learned from real English: installs, builds, packs the text that
# the repository ships, pretrains recipes/pretrain/quickstart.yaml and shows what came of it. Run again, it goes on.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/quickstart.sh [--yes] [--output DIR] [--steps N] [--dense]

Installs missing Debian packages, builds the executables (Release), trains a vocabulary of 8,000 pieces on the English
text in recipes/data/english, packs that text, pretrains a Switch Transformer on all cores, and shows its held-out loss
before and after, a plot of the loss and of the experts' load, and sentences whose blanks it fills in.
Takes at most 15 minutes on 2 cores. Run again after a stop, it goes on where it was.

  --yes         install missing packages without asking
  --output DIR  where the data and the run go (default: runs/quickstart)
  --steps N     train to step N instead of the recipe's end
  --dense       train the dense twin instead (recipes/pretrain/quickstart-dense.yaml)
TEXT
}

yes=0 output=runs/quickstart recipe=quickstart steps=()
cd "$(dirname "${BASH_SOURCE[0]}")/.."
while [ $# -gt 0 ]; do
  case $1 in
    --yes) yes=1 ;;
    --output) output=${2:?--output needs a directory}; shift ;;
    --steps) steps=(--steps "${2:?--steps needs a number}"); shift ;;
    --dense) recipe=quickstart-dense ;;
    --help|-h) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

say() { printf '\n== %s\n' "$*"; }

say "Packages"
# shellcheck source=scripts/packages.sh
. scripts/packages.sh
install_packages "$yes" "${build_packages[@]}"

say "Build"
cmake --preset release >/dev/null
cmake --build --preset release --parallel "$(nproc)"
bin=$PWD/build/release/bin

data=$output/data
mkdir -p "$data"
text=recipes/data/english
if [ ! -s "$data/english-8k.model" ]; then
  say "Vocabulary of 8,000 pieces from the shipped text"
  "$bin/stmoe-data" vocabulary --size 8000 --input $text/english-train.*.json.gz --output "$data/english-8k.model"
fi
for split in train validation; do
  if [ ! -s "$data/$split.h5" ]; then
    say "Packing the $split text"
    "$bin/stmoe-data" corpus --vocabulary "$data/english-8k.model" --output "$data/$split.h5" $text/english-$split.*.json.gz
  fi
done

run=$output/$recipe
say "Pretraining recipes/pretrain/$recipe.yaml (log: $run/log.txt)"
compute=f32
if grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo; then compute=bf16; fi  # twice as fast where the processor has it
status=0
"$bin/stmoe-pretrain" "recipes/pretrain/$recipe.yaml" --output "$run" "${steps[@]}" \
  --set "precision.compute=$compute" --set "vocabulary.model=$data/english-8k.model" \
  --set "data.train=$data/train.h5" --set "data.validation=$data/validation.h5" || status=$?
if [ "$status" -eq 75 ]; then
  echo "Stopped on request; the same command goes on from here."
  exit 75
fi
[ "$status" -eq 0 ] || exit "$status"

say "What it learned"
entropy=$("$bin/stmoe-data" inspect --json "$data/train.h5" | sed -n 's/.*"unigram_entropy": *\([0-9.]*\).*/\1/p')
awk -v unigram_entropy="${entropy:-0}" -f scripts/show_run.awk "$run/metrics.jsonl"

say "Blanks filled in by the model (greedy)"
blanks=recipes/data/english/blanks.txt
"$bin/stmoe-eval" generate --checkpoint "$run" --max-length 24 --input $blanks >"$output/filled.txt"
awk -f scripts/fill_blanks.awk $blanks "$output/filled.txt"
