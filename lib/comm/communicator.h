// SPDX-License-Identifier: Apache-2.0
// What ranks say to each other. There is always a communicator; alone, every collective is the
// identity.
#pragma once

#include <memory>

#include "lib/tensor/tensor.h"

namespace stmoe {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual void barrier() = 0;
  // In place: the sum over ranks, in the same order on every rank; contiguous f64, f32 or i64.
  virtual void all_reduce_sum(const Tensor& values) = 0;
  // In place: the values of `root`.
  virtual void broadcast(const Tensor& values, int root) = 0;
};

// The communicator of this process. Throws UsageError when a launcher (mpirun, srun) started
// several processes: this version trains in one.
std::unique_ptr<Communicator> make_communicator();

}  // namespace stmoe
