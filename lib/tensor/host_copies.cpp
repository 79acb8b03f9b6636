// SPDX-License-Identifier: Apache-2.0
#include "lib/tensor/host_copies.h"

namespace stmoe {
namespace {

class MadeAtOnce final : public HostCopies {
 public:
  explicit MadeAtOnce(const std::vector<Tensor>& tensors) {
    for (const Tensor& tensor : tensors) {
      copies_.push_back(Tensor::empty_on_heap(tensor.shape(), tensor.dtype()));
      copies_.back().copy_from(tensor);
    }
  }
  const Tensor& wait(size_t i) override { return copies_.at(i); }
  void wait_until_read() override {}

 private:
  std::vector<Tensor> copies_;
};

}  // namespace

std::unique_ptr<HostCopies> start_host_copies(const std::vector<Tensor>& tensors) {
  for (const Tensor& tensor : tensors)
    STMOE_CHECK(tensor.is_contiguous() && tensor.device() == tensors[0].device(),
                "host copies: of {} on {}", tensor.shape().text(), name_of(tensor.device()));
  if (tensors.empty() || !has_kernels(kernel_table<HostCopiesKernels>, tensors[0].device()))
    return std::make_unique<MadeAtOnce>(tensors);
  return kernels<HostCopiesKernels>(tensors[0].device()).start(tensors);
}

}  // namespace stmoe
