#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes a folder that runs on another machine: the executables, the libraries they need, the recipes. Checks it before it
# is handed out: from a moved copy, with an empty environment.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: scripts/bundle.sh [--output DIR] [--build-dir DIR] [--reuse] [--cuda auto|on|off] [--no-archive] [--yes]

Builds the executables without MPI and with static libraries where there are any, and puts them with the other libraries
they need, the recipes and a README into DIR, and into DIR.tar.xz. The folder may be moved, and runs on a machine that has
glibc (its lowest version is printed) and, for a GPU, a driver and the CUDA runtime libraries: no packages, no MPI.

  --output DIR     the folder, made anew (default: stmoe-bundle)
  --build-dir DIR  where to build (default: build/bundle)
  --reuse          take what is built in --build-dir as it is, with MPI too if it has it
  --cuda WHICH     STMOE_CUDA of the build: auto (default), on or off
  --no-archive     no DIR.tar.xz
  --yes            install missing Debian packages without asking
TEXT
}

fail() { echo "error: $*" >&2; exit 1; }

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
output=stmoe-bundle build=$root/build/bundle reuse=0 cuda=AUTO archive=1 yes=0
while [ $# -gt 0 ]; do
  case $1 in
    --output) output=${2:?--output needs a folder}; shift ;;
    --build-dir) build=${2:?--build-dir needs a folder}; shift ;;
    --reuse) reuse=1 ;;
    --cuda) cuda=$(tr '[:lower:]' '[:upper:]' <<<"${2:?--cuda needs auto, on or off}"); shift ;;
    --no-archive) archive=0 ;;
    --yes) yes=1 ;;
    --help|-h) usage; exit 0 ;;
    *) echo "error: unknown argument '$1'" >&2; usage >&2; exit 2 ;;
  esac
  shift
done
output=$(realpath -m "$output") build=$(realpath -m "$build")
# What is not ours is not removed.
if [ -e "$output" ] && [ ! -e "$output/bin/stmoe-pretrain" ]; then
  echo "error: $output is there and is no bundle; give another folder" >&2
  exit 2
fi

if [ ! -e "$output" ] && ! { mkdir -p "$output" && rmdir "$output"; } 2>/dev/null; then
  echo "error: $output cannot be written; give another folder" >&2
  exit 6
fi

# shellcheck source=scripts/packages.sh
. "$root/scripts/packages.sh"
if [ "$reuse" -eq 0 ]; then
  install_packages "$yes" "${build_packages[@]}" "${bundle_packages[@]}"
  cmake -S "$root" --preset release -B "$build" -DSTMOE_MPI=OFF -DSTMOE_STATIC=ON "-DSTMOE_CUDA=$cuda" >/dev/null
  cmake --build "$build" --parallel "$(nproc)"
elif [ ! -x "$build/bin/stmoe-pretrain" ]; then
  echo "error: --reuse: $build/bin has no executables; build first, or leave --reuse out" >&2
  exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The C library and the GPU's are the machine's own; everything else travels.
of_glibc='^(linux-vdso|ld-linux[^/]*|libc|libm|libdl|librt|libpthread|libresolv|libutil|libanl)\.so'
of_gpu='^lib(cuda|cudart|cublas|cublasLt|nccl|nvrtc|nvidia-[a-z]*|nvJitLink|cupti)\.so'

# name and path (or "not found") of every library a program loads, one a line
libraries_of() { ldd "$1" | sed -nE 's/ \(0x[0-9a-f]+\)$//; s/^\s+(\S+) => (.*)$/\1 \2/p; s/^\s+(\/\S+)$/\1 \1/p'; }

stage=$work/stage
cmake --install "$build" --prefix "$stage" --strip >/dev/null
mv "$stage/share/stmoe/recipes" "$stage/recipes"
rm -rf "$stage/share"
mkdir -p "$stage/lib"
for program in "$stage"/bin/*; do
  while read -r name path; do
    name=$(basename "$name")
    [[ $name =~ $of_glibc || $name =~ $of_gpu ]] && continue
    [ "$path" != "not found" ] || fail "$(basename "$program") needs $name, which is not here"
    [ -e "$stage/lib/$name" ] || { cp -L "$path" "$stage/lib/$name"; strip --strip-unneeded "$stage/lib/$name"; }
  done < <(LD_LIBRARY_PATH="$stage/lib:${LD_LIBRARY_PATH:-}" libraries_of "$program")
done
# A library with a search path of its own would not use the executables' one for what it needs itself.
echo 'file(RPATH_REMOVE FILE "${FILE}")' >"$work/rpath.cmake"
for library in "$stage"/lib/*; do
  cmake -D "FILE=$library" -P "$work/rpath.cmake"
done
cp "$root/LICENSE" "$stage/LICENSE"

floor=$(objdump -T "$stage"/bin/* "$stage"/lib/* 2>/dev/null | grep -oE 'GLIBC_[0-9]+\.[0-9.]+' | sort -uV | tail -1)
version=$("$stage/bin/stmoe-pretrain" --version)
cat >"$stage/README.txt" <<TEXT
stmoe: sparse mixture-of-experts language models, ready to run.

$version

Needs: Linux on $(uname -m), glibc ${floor#GLIBC_} or newer. For a GPU: a driver, and the CUDA runtime libraries (libcublasLt)
where the loader looks: if they are elsewhere, say so with LD_LIBRARY_PATH. Nothing is installed, and the folder may be
moved as a whole.

  bin/stmoe-data corpus --vocabulary recipes/vocabularies/t5/spiece.model --output train.h5 TEXT.jsonl.gz ...
  bin/stmoe-pretrain recipes/pretrain/quickstart.yaml --output runs/first \\
      --set vocabulary.model=recipes/vocabularies/t5/spiece.model --set data.train=train.h5
  bin/stmoe-pretrain recipes/pretrain/switch-base-8.yaml --plan
  bin/stmoe-eval --checkpoint runs/first --perplexity heldout.h5
  bin/stmoe-convert inspect runs/first

--device cuda asks for the GPU, --device cpu for the processor; --help of each says the rest.
TEXT

# The checks, on a copy elsewhere whose name has a blank in it, from a third folder, without an environment.
moved="$work/moved elsewhere/bundle"
mkdir -p "$(dirname "$moved")" "$work/from"
cp -a "$stage" "$moved"
cd "$work/from"
alone() { env -i "$@"; }
for file in "$moved"/bin/* "$moved"/lib/*; do
  while read -r name path; do
    name=$(basename "$name")
    [[ $name =~ $of_glibc || $name =~ $of_gpu ]] && continue
    # A library on its own does not know its neighbours: the executables' search path does that for it.
    [[ $file == "$moved"/lib/* && -e $moved/lib/$name ]] && continue
    [[ $(realpath -m "$path") == "$(realpath "$moved")"/lib/* ]] || fail "$(basename "$file") takes $name from $path, not from the bundle"
  done < <(libraries_of "$file")
done
for program in "$moved"/bin/*; do
  alone "$program" --version >version.txt || fail "$(basename "$program") --version: exit $? with an empty environment"
done
smoke() { alone "$moved/bin/$1" "${@:2}" >smoke.txt 2>&1 || { cat smoke.txt >&2; fail "$1 $2: failed in the bundle"; }; }
spiece=$moved/recipes/vocabularies/t5/spiece.model
head -200 <(gzip -dc "$root"/recipes/data/english/english-validation.*.json.gz) >text.jsonl
smoke stmoe-data corpus --vocabulary "$spiece" --output train.h5 text.jsonl
smoke stmoe-pretrain "$moved/recipes/smoke/switch-tiny.yaml" --output run --device cpu --threads 1 \
  --set "vocabulary.model=$spiece" --set data.train=train.h5 --set data.validation=train.h5
smoke stmoe-convert verify run
smoke stmoe-eval --checkpoint run --perplexity train.h5 --device cpu --threads 1
cd "$root"

rm -rf "$output"
mkdir -p "$(dirname "$output")"
mv "$stage" "$output"
if [ "$archive" -eq 1 ]; then
  tar -C "$(dirname "$output")" -cf - "$(basename "$output")" | xz -T0 -6 >"$output.tar.xz"
  echo "$output.tar.xz: $(du -h "$output.tar.xz" | cut -f1)"
fi
echo "$output: $(du -sh "$output" | cut -f1), $(find "$output/bin" -type f | wc -l) executables, libraries: $(ls "$output/lib" | tr '\n' ' ')"
echo "needs glibc ${floor#GLIBC_} or newer; checked from a moved copy with an empty environment"
