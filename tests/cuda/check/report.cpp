// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <ctime>
#include <memory>

#include "apps/common/version.h"
#include "lib/base/checksum.h"
#include "lib/base/format.h"
#include "lib/tensor/device_info.h"
#include "tests/cuda/check/check.h"

namespace stmoe::check {
namespace {

// Clocks (MHz), power (W) and temperature as the driver's tool tells them; null without it.
Json read_clocks() {
  const std::unique_ptr<FILE, int (*)(FILE*)> pipe(
      ::popen("nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu "
              "--format=csv,noheader,nounits 2>/dev/null",
              "r"),
      ::pclose);
  double sm = 0, memory = 0, power = 0, temperature = 0;
  if (!pipe ||
      std::fscanf(pipe.get(), "%lf, %lf, %lf, %lf", &sm, &memory, &power, &temperature) != 4)
    return nullptr;
  return {{"sm_mhz", sm},
          {"memory_mhz", memory},
          {"power_watt", power},
          {"temperature_celsius", temperature}};
}

std::string now_text() {
  char text[32];
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", ::gmtime_r(&now, &parts));
  return text;
}

}  // namespace

Report::Report(std::string item, const Settings& settings)
    : item_(std::move(item)),
      device_(settings.device == Device::cuda ? device_description(settings.device)
                                              : std::string(name_of(settings.device))),
      seed_(settings.seed),
      has_clocks_(settings.device == Device::cuda) {}

void Report::line(const std::string& name, Json values, const std::string& unit) {
  const Json line = {{"item", item_},
                     {"name", name},
                     {"values", std::move(values)},
                     {"unit", unit},
                     {"commit", version_text()},
                     {"device", device_},
                     {"clocks", has_clocks_ ? read_clocks() : Json(nullptr)},
                     {"seed", seed_},
                     {"time", now_text()}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

void Report::failed(const std::string& name, const std::string& why) {
  line(name, {{"failed", why}});
}

std::string hash_of(const std::vector<NamedTensor>& tensors) {
  std::string all;
  for (const NamedTensor& named : tensors) {
    const Tensor host = named.tensor.contiguous().on(Device::cpu);
    const std::string_view bytes(reinterpret_cast<const char*>(host.raw()), host.bytes());
    all += named.name + hash128(bytes).text();
  }
  return hash128(all).text();
}

}  // namespace stmoe::check
