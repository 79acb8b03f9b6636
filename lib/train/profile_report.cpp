// SPDX-License-Identifier: Apache-2.0
#include "lib/train/profile_report.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "lib/base/format.h"
#include "lib/ops/memory_peak.h"
#include "lib/ops/product_peak.h"

namespace stmoe {
namespace {

constexpr double kPeakSeconds = 0.2;

struct Row {
  std::string op;
  const char* pass;
  const PassTime* time;
};

std::vector<Row> rows_of(const Profile& profile) {
  std::vector<Row> rows;
  for (const OpTime& op : profile.ops) {
    if (op.forward.calls > 0) rows.push_back({op.op, "forward", &op.forward});
    if (op.backward.calls > 0) rows.push_back({op.op, "backward", &op.backward});
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row& a, const Row& b) { return a.time->seconds > b.time->seconds; });
  return rows;
}

std::string number(double value, int digits) {
  return value > 0 ? format("{:.{}f}", value, digits) : "-";
}

std::string text_of(const Reached& reached) {
  return *reached.of ? format("{:5.1f} % of {}", 100 * reached.share, reached.of) : "";
}

std::string ops_table(const Profile& profile, const MachinePeaks& peaks, double steps) {
  std::string text =
      format("{:22} {:9} {:>10} {:>8} {:>7} {:>9} {:>8} {:>8} {:>7}  {}\n", "op", "pass",
             "ms a step", "share", "calls", "GFLOP", "GB", "GFLOP/s", "GB/s", "reached");
  for (const Row& row : rows_of(profile)) {
    const PassTime& time = *row.time;
    const double seconds = std::max(1e-12, time.seconds);
    text += format("{:22} {:9} {:10.3f} {:6.2f} % {:7.0f} {:>9} {:>8} {:>8} {:>7}  {}\n", row.op,
                   row.pass, 1e3 * time.seconds / steps, 100 * time.seconds / profile.step_seconds,
                   static_cast<double>(time.calls) / steps,
                   number(1e-9 * time.work.all_flops() / steps, 3),
                   number(1e-9 * time.work.bytes / steps, 4),
                   number(1e-9 * time.work.all_flops() / seconds, 1),
                   number(1e-9 * time.work.bytes / seconds, 1), text_of(reached(time, peaks)));
  }
  text +=
      format("{:32} {:10.3f} {:6.2f} %\n", "outside ops", 1e3 * profile.outside_ops_seconds / steps,
             100 * profile.outside_ops_seconds / profile.step_seconds);
  return text;
}

std::string products_table(const Profile& profile, const MachinePeaks& peaks, double steps) {
  std::string text = format("{:22} {:9} {:42} {:>10} {:>8} {:>6} {:>8} {:>7} {:>7}\n",
                            "products of op", "pass", "batch x rows, sum, columns", "ms a step",
                            "share", "calls", "GFLOP/s", "peak", "GB/s");
  for (const ProductTime& product : profile.products) {
    const PassTime& time = product.time;
    const double seconds = std::max(1e-12, time.seconds);
    const double rate = time.work.all_flops() / seconds;
    const double peak = peaks.product_flops_per_second[static_cast<size_t>(product.shape.type)];
    text += format(
        "{:22} {:9} {:42} {:10.3f} {:6.2f} % {:6.0f} {:8.1f} {:>7} {:7.1f}\n", product.op,
        product.pass == OpScope::Pass::forward ? "forward" : "backward", product.shape.text(),
        1e3 * time.seconds / steps, 100 * time.seconds / profile.step_seconds,
        static_cast<double>(time.calls) / steps, 1e-9 * rate,
        peak > 0 ? format("{:.1f} %", 100 * rate / peak) : "-", 1e-9 * time.work.bytes / seconds);
  }
  return text;
}

}  // namespace

MachinePeaks measure_machine_peaks(Device device) {
  MachinePeaks peaks;
  peaks.product_flops_per_second[0] = measure_product_peak(DType::f32, kPeakSeconds, device);
  peaks.product_flops_per_second[1] = measure_product_peak(DType::bf16, kPeakSeconds, device);
  peaks.memory_bytes_per_second = measure_memory_bandwidth(kPeakSeconds, device);
  return peaks;
}

Reached reached(const PassTime& time, const MachinePeaks& peaks) {
  if (time.seconds <= 0) return {};
  double product_seconds = 0;
  for (size_t type = 0; type < kProductTypes; ++type)
    if (peaks.product_flops_per_second[type] > 0)
      product_seconds += time.work.flops[type] / peaks.product_flops_per_second[type];
  const double memory_seconds =
      peaks.memory_bytes_per_second > 0 ? time.work.bytes / peaks.memory_bytes_per_second : 0;
  if (product_seconds == 0 && memory_seconds == 0) return {};
  if (product_seconds >= memory_seconds) return {product_seconds / time.seconds, "product peak"};
  return {memory_seconds / time.seconds, "memory"};
}

std::string profile_table(const Profile& profile, const MachinePeaks& peaks) {
  if (profile.steps == 0) return "profile: no step was run\n";
  const double steps = static_cast<double>(profile.steps);
  std::string text = format(
      "profile of {} steps, {:.4f} s each; peaks: f32 {:.1f}, bf16 {:.1f} GFLOP/s, memory {:.1f} "
      "GB/s\n\n",
      profile.steps, profile.step_seconds / steps, 1e-9 * peaks.product_flops_per_second[0],
      1e-9 * peaks.product_flops_per_second[1], 1e-9 * peaks.memory_bytes_per_second);
  text += ops_table(profile, peaks, steps);
  if (!profile.products.empty()) text += format("\n{}", products_table(profile, peaks, steps));
  return text;
}

std::string chrome_trace(const Profile& profile) {
  using Json = nlohmann::ordered_json;
  Json events = Json::array();
  for (const auto& [track, name] : {std::pair{1, "steps"}, std::pair{2, "data pipeline"}})
    events.push_back({{"name", "thread_name"},
                      {"ph", "M"},
                      {"pid", 1},
                      {"tid", track},
                      {"args", {{"name", name}}}});
  for (const ProfileEvent& event : profile.events) {
    const bool is_background = std::string_view(event.kind) == "background";
    Json args = Json::object();
    if (!event.detail.empty()) args["shapes"] = event.detail;
    if (event.work.all_flops() > 0) args["gflop"] = 1e-9 * event.work.all_flops();
    if (event.work.bytes > 0) args["megabytes"] = 1e-6 * event.work.bytes;
    events.push_back({{"name", event.name},
                      {"cat", event.kind},
                      {"ph", "X"},
                      {"ts", 1e6 * event.start},
                      {"dur", 1e6 * event.seconds},
                      {"pid", 1},
                      {"tid", is_background ? 2 : 1},
                      {"args", std::move(args)}});
  }
  Json trace = {{"displayTimeUnit", "ms"}, {"traceEvents", std::move(events)}};
  if (profile.events_left_out > 0) trace["eventsLeftOut"] = profile.events_left_out;
  return trace.dump() + "\n";
}

void write_trace(const Profile& profile, const Path& file) {
  write_file_atomically(file, chrome_trace(profile));
}

}  // namespace stmoe
