// SPDX-License-Identifier: Apache-2.0
// A recipe: everything that decides the result of a run. A section that a room owns is declared in
// that room. Reading a recipe touches no file that it names; those are checked where they are used.
#pragma once

#include <string>
#include <vector>

#include "lib/config/config.h"
#include "lib/data/data_config.h"
#include "lib/model/model_config.h"
#include "lib/moe/moe_layer.h"
#include "lib/optim/optimizer.h"
#include "lib/optim/schedule.h"
#include "lib/recipe/cuda_config.h"
#include "lib/recipe/parallel_config.h"
#include "lib/recipe/train_config.h"

namespace stmoe {

struct Recipe {
  ModelConfig model;
  MoeConfig moe;
  VocabularyConfig vocabulary;
  DataConfig data;
  TrainConfig train;
  Choice<Optimizer> optimizer{"adafactor"};
  Choice<Schedule> schedule{"rsqrt"};
  PrecisionConfig precision;
  ParallelConfig parallel;
  CudaConfig cuda;
  CheckpointConfig checkpoint;

  void visit(auto& v) {
    v("model", model, "Shape and behaviour of the encoder-decoder.");
    v("moe", moe, "Sparse layers: experts, router, capacity.");
    v("vocabulary", vocabulary, "The vocabulary of the corpora.");
    v("data", data, "Corpora, span corruption and batches.");
    v("train", train, "Length of the run, loss, logging and evaluation.");
    v("optimizer", optimizer, "How gradients change the weights");
    v("schedule", schedule, "The learning rate by step");
    v("precision", precision, "Number formats.");
    v("parallel", parallel, "Processes; data parallelism is what is left.");
    v("cuda", cuda, "How a GPU computes.");
    v("checkpoint", checkpoint, "When checkpoints are saved and which are kept.");
  }
  void resolve() { resolve_sparse_layers(model, moe); }
  void validate(Problems& problems) const;
};

// Reads a recipe file with what it inherits and the --set `overrides`.
Recipe load_recipe(const Path& file, const std::vector<std::string>& overrides = {});

}  // namespace stmoe
