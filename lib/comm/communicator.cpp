// SPDX-License-Identifier: Apache-2.0
#include "lib/comm/communicator.h"

#include <cstdlib>

namespace stmoe {
namespace {

class SingleProcess final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }
  void barrier() override {}
  void all_reduce_sum(const Tensor&) override {}
  void broadcast(const Tensor&, int root) override { STMOE_CHECK(root == 0); }
};

}  // namespace

std::unique_ptr<Communicator> make_communicator() {
  for (const char* variable : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* value = std::getenv(variable);
    if (value && std::atoi(value) > 1)
      throw UsageError(
          format("{}={}: this version runs as one process; start it without a launcher or with -n "
                 "1 (it uses "
                 "all cores of the machine)",
                 variable, value));
  }
  return std::make_unique<SingleProcess>();
}

}  // namespace stmoe
