// SPDX-License-Identifier: Apache-2.0
#include "lib/train/benchmark_file.h"

#include "lib/hdf5/file.h"

namespace stmoe {

void write_benchmark_file(const Path& folder, const Recipe& recipe, const ParameterList& parameters,
                          const Batch& batch) {
  make_directories(folder);
  Hdf5File file = Hdf5File::create(folder / "benchmark.h5");
  auto write = [&](const std::string& name, const Tensor& tensor) {
    file.create_dataset(name, parse_element_type(name_of(tensor.dtype())), tensor.shape().dims())
        .write(tensor.on(Device::cpu));
  };
  file.write_text("recipe", print_config(recipe));
  for (const Parameter& parameter : parameters)
    write("weights/" + parameter.name, parameter.value.weight().on_host());
  write("batch/encoder_tokens", batch.encoder_tokens_BL);
  write("batch/decoder_inputs", batch.decoder_inputs_BT);
  write("batch/targets", batch.targets_BT);
  file.close();
}

}  // namespace stmoe
