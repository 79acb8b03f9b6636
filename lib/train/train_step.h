// SPDX-License-Identifier: Apache-2.0
// One batch's gradient: forward and backward over its micro-batches. Losses are normalised over the
// whole batch and random numbers are drawn at global row indices, so the number of micro-batches
// changes only what the router's groups see, and over which queries a z-loss on attention is a
// mean.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "lib/data/batch_source.h"
#include "lib/model/encoder_decoder.h"
#include "lib/recipe/recipe.h"
#include "lib/tensor/readout.h"

namespace stmoe {

// Numbers of one step, summed or averaged over micro-batches.
struct StepLosses {
  double cross_entropy = 0;  // summed over target tokens, nats
  double total_loss = 0;     // what was minimised
  double load_balance_loss = 0,
         router_z_loss = 0;     // means over sparse layers, without coefficients
  double attention_z_loss = 0;  // mean over attention layers, without coefficient; 0 when off
  double dropped_fraction = 0, router_entropy = 0;  // means over sparse layers
  int64_t target_tokens = 0, correct_tokens = 0, input_tokens = 0;
  std::vector<LayerRouting> layers;  // means over micro-batches
};

// The losses of a step whose work may not be done yet.
struct StepReadings {
  StepLosses losses;  // what the host knows without reading
  Readout readout;
  // Waits for the device.
  StepLosses read() {
    readout.read();
    return std::move(losses);
  }
};

// With several micro-batches, or on a GPU, weights keep their bf16 copies. Otherwise these would
// only lie beside the gradients: they are made in the forward pass and gone when the gradients are
// there.
void keep_rounded_weights(const Recipe& recipe, const ParameterList& parameters);

// Adds the gradient of the batch's loss to the parameters, without waiting for the device. `step`
// counts updates from 0.
std::unique_ptr<StepReadings> record_gradients(const EncoderDecoder& model, const Recipe& recipe,
                                               const Batch& batch, int64_t step);
// The same, waiting for the losses.
StepLosses accumulate_gradients(const EncoderDecoder& model, const Recipe& recipe,
                                const Batch& batch, int64_t step);

// The losses alone, without dropout and with the evaluation capacity; in micro-batches of as many
// rows as those of training, so that an evaluation needs no more memory than a step.
StepLosses held_out_losses(const EncoderDecoder& model, const Recipe& recipe, const Batch& batch);

}  // namespace stmoe
