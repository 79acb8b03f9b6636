// SPDX-License-Identifier: Apache-2.0
// Text in, text out: one line of output for each line of input, decoded greedily. In the input
// <extra_id_0> to <extra_id_99> stand for blanks, as in pretraining; the output repeats them before
// what fills them.
#pragma once

#include <iosfwd>

#include "lib/eval/loaded_model.h"

namespace stmoe {

struct GenerationOptions {
  int64_t max_length = 0;    // tokens of an output; 0: the recipe's target length
  int64_t batch_lines = 16;  // lines decoded together
};

// Reads `input` to its end. `name` names it in errors. Lines longer than the recipe's input length
// are cut, with a warning. Throws InputError for a line that is not UTF-8.
void generate(const LoadedModel& loaded, std::istream& input, const std::string& name,
              std::ostream& output, const GenerationOptions& options);

// The same for lines at hand.
std::vector<std::string> generate(const LoadedModel& loaded, const std::vector<std::string>& lines,
                                  int64_t max_length);

}  // namespace stmoe
