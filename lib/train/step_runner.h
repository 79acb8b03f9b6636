// SPDX-License-Identifier: Apache-2.0
// A model with its optimizer on one device, and what one update does to them: gradients, their
// norm, the update. Training, benchmarks and checks of a device all go through here.
#pragma once

#include <memory>
#include <optional>

#include "lib/model/encoder_decoder.h"
#include "lib/optim/optimizer.h"
#include "lib/tensor/arena.h"
#include "lib/tensor/step_graph.h"
#include "lib/train/memory_plan.h"
#include "lib/train/train_step.h"

namespace stmoe {

class StepRunner {
 public:
  // The recipe needs model.vocabulary_size.
  StepRunner(const Recipe& recipe, Device device, ParameterStore::Mode mode);

  struct Gradients {
    StepLosses losses;
    double norm = 0;  // over all gradients
  };
  // Opens a step and fills the gradients of the batch's loss; waits for the device once. `step`
  // counts updates from 0.
  Gradients compute(const Batch& batch, int64_t step);
  // The update, with the gradients clipped at train.gradient_clip.
  void update(double learning_rate, int64_t step, double norm);
  // Closes the step; gradients are gone.
  void finish();

  // The losses of a batch in evaluation.
  StepLosses held_out(const Batch& batch);

  const EncoderDecoder& model() const { return *model_; }
  Optimizer& optimizer() const { return *optimizer_; }
  const ParameterList& parameters() const { return store_.parameters(); }
  const StepArena& arena() const { return arena_; }
  Device device() const { return device_; }
  // Whether the last step was started as graphs.
  bool is_recorded() const { return is_recorded_; }
  // After at least one step; on a GPU of its memory.
  MemoryPlan memory_plan() const;
  // Of the process, its largest resident set; on a GPU what of its memory is taken now: nothing of
  // a step's block is given back before the end.
  int64_t peak_bytes() const;

 private:
  void open_step();
  template <class Body>
  void run(StepGraph& graph, Body&& body);
  std::unique_ptr<StepReadings> gradients(const Batch& batch, int64_t step);

  Recipe recipe_;
  Device device_;
  ParameterStore store_;
  std::unique_ptr<EncoderDecoder> model_;
  std::unique_ptr<Optimizer> optimizer_;
  StepArena arena_;
  std::optional<ArenaStep> open_;
  std::unique_ptr<StepGraph> gradients_graph_, update_graph_;
  bool can_record_, is_recorded_ = false;  // as graphs: at all, in this step
  int64_t num_steps_ = 0;                  // done by this runner
  int64_t program_bytes_ = 0;
};

}  // namespace stmoe
