// SPDX-License-Identifier: Apache-2.0
// Copies of tensors for the host that travel while their device works on: what a checkpoint is
// made of while training goes on.
//
//   auto copies = start_host_copies(weights);     // their bytes of now
//   ... gradients of the next step ...
//   copies->wait_until_read();                    // before weights are written again
//   ... the next update ...
//   for (size_t i = 0; i < weights.size(); ++i) write(copies->wait(i));   // on any thread
//
// On the host itself, and on the emulated device, the copies are made at once.
#pragma once

#include <memory>
#include <vector>

#include "lib/tensor/tensor.h"

namespace stmoe {

class HostCopies {
 public:
  virtual ~HostCopies() = default;
  // The copy of tensor i, on the host's heap; waits until it has come. Copies come in order. Throws
  // what made copying fail. Any thread.
  virtual const Tensor& wait(size_t i) = 0;
  // Until the device's tensors may be written and released again; by the thread that started it.
  virtual void wait_until_read() = 0;
};

struct HostCopiesKernels {
  static constexpr const char* kOp = "host copies";
  std::unique_ptr<HostCopies> (*start)(const std::vector<Tensor>& tensors);
};

// Contiguous tensors of one device. Not while a step is recorded.
std::unique_ptr<HostCopies> start_host_copies(const std::vector<Tensor>& tensors);

}  // namespace stmoe
