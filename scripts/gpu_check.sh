#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One command for a machine with a GPU and without package registries: tests, memory and race checkers, measurements.
set -uo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/gpu_check.sh --prepare DIR [--build-dir BUILD] [--reuse] [--arch LIST] [--yes]
       scripts/gpu_check.sh --run DIR --output OUT [--seconds N] [--only ITEM,...] [--device cuda|emu]
       scripts/gpu_check.sh [--output OUT]

  --prepare DIR   on a machine with packages and nvcc: builds everything and puts what a GPU machine needs into DIR (less
                  than 60 MiB; carry it there, whole)
  --run DIR       on the GPU machine: needs its driver, CUDA's libraries and, for the rival, a Python with PyTorch, transformers,
                  h5py and PyYAML. Writes OUT/results.jsonl, table.txt, gpu.md, log.txt, algorithms.txt. An item that fails or takes
                  too long is noted, and the next one begins
  (neither)       both, one after the other, with DIR in build/gpu-check

  --build-dir B   where to build (default: build/gpu)
  --reuse         take what is built in --build-dir as it is, tests that are missing left out
  --arch LIST     GPU architectures to compile for (default: 90)
  --seconds N     what is not begun in this time is left out, and all ends in it (default: 570)
  --only ITEMS    only these, separated by commas, added to the results that are in OUT; --run without them lists what there is in
                  log.txt
  --device D      cuda (default), or emu: the emulated device with tiny shapes, to try the script itself
  --yes           install missing Debian packages without asking

Exit status: 0 when everything ran and passed, 1 when an item failed (the table says which), 2 for wrong arguments, 6
when a folder cannot be written.
TEXT
}

die() { echo "error: $*" >&2; exit 2; }
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
prepare='' run='' output='' build='' arch=90 seconds=570 only='' device=cuda yes=0 reuse=0
while [ $# -gt 0 ]; do
  case $1 in
    --prepare) prepare=${2:?--prepare needs a folder}; shift ;;
    --run) run=${2:?--run needs a folder}; shift ;;
    --output) output=${2:?--output needs a folder}; shift ;;
    --build-dir) build=${2:?--build-dir needs a folder}; shift ;;
    --arch) arch=${2:?--arch needs a list}; shift ;;
    --seconds) seconds=${2:?--seconds needs a number}; shift ;;
    --only) only=,${2:?--only needs a list},; shift ;;
    --device) device=${2:?--device needs cuda or emu}; shift ;;
    --reuse) reuse=1 ;;
    --yes) yes=1 ;;
    --help|-h) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
[[ $device == cuda || $device == emu ]] || die "--device: '$device', expected cuda or emu"
[[ $seconds =~ ^[0-9]+$ ]] || die "--seconds: '$seconds' is no number"
# Before minutes of work.
for folder in "$prepare" "$output"; do
  [ -z "$folder" ] || { mkdir -p "$folder" 2>/dev/null && [ -w "$folder" ]; } ||
    { echo "error: $folder cannot be written; give another folder" >&2; exit 6; }
done
if [ -n "$run" ]; then
  [ -z "$prepare" ] || die "--prepare and --run: give one of them, or neither"
  [ -n "$output" ] || die "--run: --output is missing: give the folder for the results"
  [ -s "$run/payload.tar.xz" ] || die "--run: $run has no payload.tar.xz; make it with --prepare"
fi

# ---- on the machine with packages

prepare_folder() (
  set -e
  folder=$(realpath -m "$1") build=$(realpath -m "${build:-$root/build/gpu}")
  tests=(ops optim nn moe model eval train plan cuda)
  if [ "$reuse" -eq 0 ]; then
    # shellcheck source=scripts/packages.sh
    . "$root/scripts/packages.sh"
    install_packages "$yes" "${build_packages[@]}" "${bundle_packages[@]}" "${test_packages[@]}"
    # Tests look for their files below the folder that they are run in.
    cmake -S "$root" --preset release -B "$build" -DSTMOE_MPI=OFF -DSTMOE_STATIC=ON -DSTMOE_CUDA=ON -DSTMOE_TESTS=ON \
      -DSTMOE_GPU_TESTS=ON "-DSTMOE_CUDA_ARCHITECTURES=$arch" -DSTMOE_TEST_SOURCE_DIR=source -DSTMOE_TEST_BINARY_DIR=scratch >/dev/null
    cmake --build "$build" --parallel "$(nproc)" --target stmoe-pretrain stmoe-eval stmoe-convert stmoe-data stmoe-gpu-check "${tests[@]/#/test_}"
  fi
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  payload=$work/payload
  mkdir -p "$payload/tests" "$payload/source/tests" "$payload/data" "$payload/scripts" "$payload/scratch"
  "$root/scripts/bundle.sh" --reuse --build-dir "$build" --output "$payload/bundle" --no-archive
  cp "$build/gpu_check/stmoe-gpu-check" "$payload/tests/"
  for test in "${tests[@]/#/test_}"; do
    program=$(find "$build/tests" -name "$test" -type f -perm -u+x | head -1)
    if [ -n "$program" ]; then cp "$program" "$payload/tests/"; else echo "$test was not built: left out" >&2; fi
  done
  strip "$payload"/tests/*
  cp -r "$root/tests/golden" "$payload/source/tests/golden"
  mkdir -p "$payload/source/tests/data" "$payload/source/lib/moe" "$payload/source/docs"
  cp -r "$root/tests/data/files" "$payload/source/tests/data/files"
  cp -r "$root/lib/moe/routers" "$payload/source/lib/moe/routers"   # one test reads their names
  ln -s ../bundle/recipes "$payload/source/recipes"
  cp -r "$root/docs/reference" "$payload/source/docs/reference"
  cp -r "$root/scripts/bench" "$payload/scripts/bench"
  cp "$root/scripts/gpu_check.sh" "$root/scripts/gpu_report" "$payload/scripts/"
  text=$root/recipes/data/english
  "$build/bin/stmoe-data" vocabulary --size 8000 --sample-bytes 3e6 --input "$text"/english-train.*.json.gz --output "$payload/data/vocabulary.model" >/dev/null
  for split in train validation; do
    "$build/bin/stmoe-data" corpus --vocabulary "$payload/data/vocabulary.model" --output "$payload/data/$split.h5" \
      "$text"/english-$split.*.json.gz >/dev/null
  done
  mkdir -p "$folder"
  # The programs have most of their code in common: a dictionary as large as all of them finds it.
  tar -C "$payload" -cf - . | xz -T1 --lzma2=preset=6,dict=192MiB >"$folder/payload.tar.xz"
  cp "$root/scripts/gpu_check.sh" "$folder/"
  size=$(du -sm "$folder" | cut -f1)
  echo "$folder: $size MiB ($(du -sm "$payload" | cut -f1) unpacked); there: $(basename "$folder")/gpu_check.sh --run $(basename "$folder") --output OUT"
  [ "$size" -lt 60 ] || { echo "error: $size MiB, more than the 60 that can be carried" >&2; exit 1; }
)

# ---- on the machine with a GPU

begin=$SECONDS
failures=0
time_left() { echo $((seconds - (SECONDS - begin))); }
json_text() { python3 -c 'import json, sys; print(json.dumps(sys.argv[1]))' "$1" 2>/dev/null || printf '"%s"' "$(tr -dc '[:alnum:] .,:/_-' <<<"$1")"; }
note() { # item name rc seconds why
  printf '{"item": "gpu_check", "name": "%s", "values": {"rc": %s, "seconds": %s, "what": %s}, "time": "%s"}\n' \
    "$1" "$2" "$3" "$(json_text "$4")" "$(date -u +%FT%TZ)" >>"$results"
}

# item NAME MOST_SECONDS COMMAND...: JSON lines of its standard output become results; everything is logged.
item() {
  local name=$1 most=$2 left status=0 start=$SECONDS
  shift 2
  [ -z "$only" ] || [[ $only == *",$name,"* || $only == *",${name%%-*},"* ]] || return 0
  left=$(time_left)
  if [ "$left" -lt 5 ]; then
    note "$name" 124 0 "no time was left"
    failures=$((failures + 1))
    return 0
  fi
  [ "$most" -le "$left" ] || most=$left
  printf '\n==== %s (%s s left, at most %s): %s\n' "$name" "$left" "$most" "$*" >>"$log"
  timeout --kill-after=5 "$most" "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
  grep '^{' "$work/out" >>"$results"
  grep -v '^{' "$work/out" >>"$log"
  tail -c 200000 "$work/err" >>"$log"
  local why=passed
  if [ "$status" -ne 0 ]; then
    failures=$((failures + 1))
    why=$(grep -v '^$' "$work/err" "$work/out" -h | grep -iE 'error|fail|exception|assert' | tail -1 | cut -c1-300)
    [ "$status" -ne 124 ] || why="took longer than $most s"
    echo "  $name: exit $status${why:+: $why}" >&2
  else
    echo "  $name: $((SECONDS - start)) s" >&2
  fi
  note "$name" "$status" "$((SECONDS - start))" "${why:-}"
}

# Every test binary at once, each from a folder of its own that looks like the repository, and on cores of its own.
run_tests() {
  local status=0 binary name folder first=0 cores
  cores=$(nproc)
  export STMOE_TEST_DEVICE=$device
  for binary in "$work"/tests/test_*; do
    [ -x "$binary" ] || continue
    name=$(basename "$binary") folder=$work/run-$name
    mkdir -p "$folder/scratch"
    ln -sfn "$work/source" "$folder/source"
    ( cd "$folder" && taskset -c "$((first % cores)),$(((first + 1) % cores))" "$binary" >"$folder/output" 2>&1; echo $? >"$folder/rc" ) &
    first=$((first + 2))
  done
  wait
  for binary in "$work"/tests/test_*; do
    [ -x "$binary" ] || continue
    name=$(basename "$binary") folder=$work/run-$name
    local rc summary
    rc=$(cat "$folder/rc" 2>/dev/null || echo 124)
    summary=$(grep -E '^(All tests passed|test cases:|assertions:)' "$folder/output" | tr '\n' ' ')
    [ "$rc" -eq 0 ] || { status=1; echo "---- $name: exit $rc"; tail -60 "$folder/output"; }
    printf '{"item": "tests", "name": "%s", "values": {"rc": %s, "summary": %s, "skipped": %s}}\n' \
      "$name" "$rc" "$(json_text "$summary")" "$(grep -c '^skipped: ' "$folder/output")"
  done
  [ "$status" -eq 0 ] || echo "error: tests failed" >&2
  return $status
}

# memcheck or racecheck over all kernels at tiny shapes
run_sanitizer() {
  local tool=$1 checker
  checker=$(command -v compute-sanitizer || ls /usr/local/cuda/bin/compute-sanitizer 2>/dev/null)
  if [ -z "$checker" ]; then
    echo "skipped: there is no compute-sanitizer here"
    return 0
  fi
  local status=0
  for part in kernels model; do
    "$checker" --tool "$tool" --error-exitcode 9 "$work/tests/stmoe-gpu-check" $part --device "$device" --tiny --recipes "$recipes" \
      --scratch "$work/scratch" --seconds 40 | grep -v '^{' || status=1
  done
  return $status
}

find_cublaslt() { # where the loader does not look by itself
  ldconfig -p 2>/dev/null | grep -q 'libcublasLt\.so\.13' && return 0
  local found
  found=$(ls -d /usr/local/cuda/lib64 /usr/local/cuda*/targets/*/lib 2>/dev/null; python3 -c '
import glob, site, sys
for folder in [*site.getsitepackages(), *sys.path]:
    print("\n".join(glob.glob(folder + "/nvidia/*/lib")))' 2>/dev/null)
  while read -r folder; do
    [ -e "$folder/libcublasLt.so.13" ] && { export LD_LIBRARY_PATH="$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"; return 0; }
  done <<<"$found"
  echo "  libcublasLt.so.13 was not found: products will fail" >&2
}

run_folder() {
  mkdir -p "$output"
  output=$(realpath "$output")
  results=$output/results.jsonl log=$output/log.txt
  # Some items of many are added to what was measured before.
  [ -n "$only" ] || rm -f "$results" "$log"
  touch "$results" "$log"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  tar -C "$work" -xJf "$1/payload.tar.xz" || die "$1/payload.tar.xz cannot be unpacked"
  cd "$work" || exit 1
  recipes=$work/bundle/recipes
  export LD_LIBRARY_PATH="$work/bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export STMOE_ALGORITHMS=$output/algorithms.txt PYTHONUNBUFFERED=1
  find_cublaslt
  { nvidia-smi || echo "no nvidia-smi"; "$work/bundle/bin/stmoe-pretrain" --version; } >>"$log" 2>&1
  local check=("$work/tests/stmoe-gpu-check") tiny=() pretrain=$work/bundle/bin/stmoe-pretrain
  [ "$device" = cuda ] || tiny=(--tiny)
  local common=(--device "$device" "${tiny[@]}" --recipes "$recipes" --scratch "$work/scratch")
  echo "Items, in order of what hangs on them (log: $log):" >&2
  item environment 40 "${check[@]}" environment "${common[@]}"
  export -f run_tests run_sanitizer json_text
  export work device recipes
  item tests 100 bash -c run_tests
  item model 40 "${check[@]}" model "${common[@]}"
  item determinism 50 "${check[@]}" determinism "${common[@]}"
  item memcheck 40 bash -c 'run_sanitizer memcheck'
  item racecheck 40 bash -c 'run_sanitizer racecheck'
  if [ "$device" = cuda ]; then
    for recipe in bench/bench-switch-base-8 models/switch-base-128 models/st-moe-l bench/bench-st-moe-32b-layer; do
      item "autotune-$(basename $recipe)" 20 "$pretrain" "$recipes/$recipe.yaml" --autotune --device cuda \
        --set precision.compute=bf16 --set data.input_length=512 --set data.target_length=114 --set data.batch_size="$(batch_of $recipe)"
    done
  fi
  item products 55 "${check[@]}" products "${common[@]}" --seconds 48
  item kernels 35 "${check[@]}" kernels "${common[@]}" --seconds 30
  if [ "$device" = cuda ]; then
    if python3 -c 'import torch, transformers, h5py, yaml' 2>>"$log"; then
      item rival 180 python3 "$work/scripts/bench/gpu_rival.py" --stmoe "$pretrain" --device cuda --batches 64,128 --seconds 175 \
        --recipe "$recipes/bench/bench-switch-base-8.yaml"
    else
      note rival 127 0 "python3 has no torch, transformers, h5py and yaml"
    fi
  fi
  item steps 120 "${check[@]}" steps "${common[@]}" --seconds 90
  item losses 50 "${check[@]}" losses "${common[@]}" --train "$work/data/train.h5" --held-out "$work/data/validation.h5" \
    --vocabulary "$work/data/vocabulary.model"
  item memory 40 "${check[@]}" memory "${common[@]}" --seconds 30
  python3 "$work/scripts/gpu_report" "$results" --page "$output/gpu.md" --table "$output/table.txt" >>"$log" 2>&1 ||
    echo "  no report: see $log" >&2
  [ ! -s "$output/table.txt" ] || cat "$output/table.txt"
  echo "$failures items failed; $((SECONDS - begin)) s; $output"
  [ "$failures" -eq 0 ]
}

batch_of() {
  case $1 in
    *switch-base-8) echo 64 ;;
    *switch-base-128) echo 256 ;;
    *st-moe-l) echo 96 ;;
    *) echo 32 ;;
  esac
}

if [ -n "$prepare" ]; then
  prepare_folder "$prepare"
elif [ -n "$run" ]; then
  run_folder "$(realpath "$run")"
else
  prepare_folder "$root/build/gpu-check" || exit 1
  if ! nvidia-smi >/dev/null 2>&1; then
    echo "prepared; there is no NVIDIA driver here: carry build/gpu-check to a machine with a GPU"
    exit 0
  fi
  begin=$SECONDS output=${output:-$root/build/gpu-results}
  run_folder "$root/build/gpu-check"
fi
