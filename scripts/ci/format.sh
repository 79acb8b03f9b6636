#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Fails when a source file is not formatted as .clang-format says; `--fix` formats in place.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mapfile -t files < <(git ls-files '*.h' '*.cpp' '*.cu')
if [ "${1:-}" = --fix ]; then clang-format -i "${files[@]}"; else clang-format --dry-run --Werror "${files[@]}"; fi
