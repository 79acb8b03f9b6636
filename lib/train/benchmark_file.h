// SPDX-License-Identifier: Apache-2.0
// What a benchmark's first step starts from, so that another program can time the same: an HDF5
// file with `recipe` (the resolved recipe, YAML), `weights/NAME` as in checkpoints (kernels [in,
// out]) and `batch/encoder_tokens` [rows, length], `batch/decoder_inputs` and `batch/targets`
// [rows, target length], i32. scripts/bench/rival.py reads it.
#pragma once

#include "lib/autograd/parameter.h"
#include "lib/base/files.h"
#include "lib/data/batch_source.h"
#include "lib/recipe/recipe.h"

namespace stmoe {

// Writes FOLDER/benchmark.h5; the folder is made when it is not there, an older file is replaced.
void write_benchmark_file(const Path& folder, const Recipe& recipe, const ParameterList& parameters,
                          const Batch& batch);

}  // namespace stmoe
