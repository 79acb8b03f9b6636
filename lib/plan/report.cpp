// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "lib/base/format.h"
#include "lib/base/threads.h"
#include "lib/plan/plan.h"

namespace stmoe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kWeightBytes = 4;  // weights are f32

double mib(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

// 142.0 G, 1.06 T.
std::string with_prefix(double value) {
  const char* prefixes[] = {"", " k", " M", " G", " T", " P", " E"};
  size_t i = 0;
  for (; value >= 1000 && i + 1 < std::size(prefixes); ++i) value /= 1000;
  return format("{:.{}f}{}", value, value < 10 ? 2 : 1, prefixes[i]);
}

std::string seconds_text(double seconds) {
  if (seconds >= 7200) return format("{:.1f} h", seconds / 3600);
  return format("{:.{}f} s", seconds, seconds < 10 ? 2 : seconds < 100 ? 1 : 0);
}

int64_t active_experts(const ModelSizes& sizes) {
  return sizes.active_per_token - (sizes.total - sizes.expert);
}

std::string parameter_table(const ModelSizes& sizes) {
  std::string text =
      format("{:12} {:>20} {:>18} {:>12}\n", "parameters", "total", "active per token", "MiB, f32");
  const auto row = [&](const char* name, int64_t total, int64_t active) {
    text += format("{:12} {:20} {:18} {:12.1f}\n", name, total, active, mib(total * kWeightBytes));
  };
  row("dense", sizes.dense, sizes.dense);
  row("expert", sizes.expert, active_experts(sizes));
  row("router", sizes.router, sizes.router);
  row("embedding", sizes.embedding, sizes.embedding);
  row("total", sizes.total, sizes.active_per_token);
  return text;
}

std::string flops_table(const Plan& plan) {
  const double tokens = static_cast<double>(plan.lengths.input + plan.lengths.target);
  return format(
      "{:24} {:>10} {:>10}\n{:24} {:>10} {:>10}\n{:24} {:>10} {:>10}\n", "FLOPs", "forward",
      "backward", format("sequence of {} + {}", plan.lengths.input, plan.lengths.target),
      with_prefix(plan.forward_flops), with_prefix(plan.backward_flops()), "token",
      with_prefix(plan.forward_flops / tokens), with_prefix(plan.backward_flops() / tokens));
}

std::string memory_table(const Plan& plan) {
  const PlannedStep& step = plan.step;
  std::string text = format("{:24} {:>12}\n", "memory of one rank", "MiB");
  const auto row = [&](const std::string& name, int64_t bytes, const std::string& note = "") {
    text += format("{:24} {:12.1f}{}{}\n", name, mib(bytes), note.empty() ? "" : "   ", note);
  };
  row("weights", step.weights);
  row("gradients", step.gradients);
  row("optimizer", step.optimizer);
  row("activations", step.activations(),
      format("{:.1f} with model.recompute: block", mib(plan.recomputed.activations())));
  const bool is_cpu = is_host_memory(plan.machine.device);
  if (is_cpu) row("scratch", step.scratch, format("{} threads", num_threads()));
  row(is_cpu ? "program" : "context", step.program, "about");
  const char* verdict = plan.fits() ? "fits" : "does not fit";
  row("total", plan.total(),
      plan.machine.memory_bytes > 0
          ? format("{} in {:.0f} MiB", verdict, mib(plan.machine.memory_bytes))
          : "");
  return text +
         "Routing does not change it: a step has room for every token that experts can keep.\n";
}

std::string step_text(const Plan& plan) {
  const Machine& machine = plan.machine;
  return format(
      "a step of {} sequences takes at least {} on {}, limited by {}\n({}FLOP/s in {}, {}B/s{}; {} "
      "bytes moved)\n",
      plan.sequences, seconds_text(plan.step_seconds), machine.name, plan.limited_by,
      with_prefix(machine.speed.product_flops_per_second), plan.compute,
      with_prefix(machine.speed.memory_bytes_per_second),
      is_host_memory(machine.device) ? format(" on {} threads", num_threads()) : "",
      with_prefix(plan.step.traffic));
}

std::string suggestions_table(const std::vector<Suggestion>& suggestions) {
  std::string text = format("{:>12}   {}\n", "MiB", "changes that lower it");
  for (const Suggestion& suggestion : suggestions) {
    std::string changes;
    for (const auto& [key, value] : suggestion.changes)
      changes += format("{}{}: {}", changes.empty() ? "" : ", ", key, value);
    text += format("{:12.1f}   {}{}\n{:15}{}\n", mib(suggestion.total), changes,
                   suggestion.fits ? "   (fits)" : "", "", suggestion.effect);
  }
  return text;
}

Json suggestion_json(const Suggestion& suggestion) {
  Json changes = Json::object();
  for (const auto& [key, value] : suggestion.changes) changes[key] = value;
  return {{"changes", changes},
          {"effect", suggestion.effect},
          {"total", suggestion.total},
          {"fits", suggestion.fits}};
}

Json memory_json(const Plan& plan) {
  const PlannedStep& step = plan.step;
  return {{"weights", step.weights},      {"gradients", step.gradients},
          {"optimizer", step.optimizer},  {"activations", step.activations()},
          {"total", plan.total()},        {"scratch", step.scratch},
          {"program", step.program},      {"step", step.step},
          {"step_alive", step.step_alive}};
}

}  // namespace

std::string plan_table(const Plan& plan) {
  std::string text = parameter_table(plan.sizes) + "\n" + flops_table(plan) + "\n" +
                     memory_table(plan) + "\n" + step_text(plan);
  if (!plan.suggestions.empty()) text += "\n" + suggestions_table(plan.suggestions);
  return text;
}

std::string explain_out_of_memory(const Recipe& recipe, Device device, const std::string& error) {
  const Plan plan = make_plan(recipe, this_machine(parse_dtype(recipe.precision.compute), device));
  const PlannedStep& step = plan.step;
  std::string text = format(
      "{}\nplanned {:.0f} MiB: weights {:.0f}, gradients {:.0f}, optimizer {:.0f}, activations "
      "{:.0f}, scratch and program {:.0f}; there are {:.0f} MiB{}",
      error, mib(plan.total()), mib(step.weights), mib(step.gradients), mib(step.optimizer),
      mib(step.activations()), mib(step.scratch + step.program), mib(plan.machine.memory_bytes),
      plan.fits() ? ", of which other programs have taken a part" : "");
  if (!plan.suggestions.empty()) text += "\n" + suggestions_table(plan.suggestions);
  return text;
}

std::string plan_json(const Plan& plan) {
  const ModelSizes& sizes = plan.sizes;
  const double tokens = static_cast<double>(plan.lengths.input + plan.lengths.target);
  Json json = {
      {"parameters",
       {{"total", sizes.total},
        {"active_per_token", sizes.active_per_token},
        {"dense", sizes.dense},
        {"expert", sizes.expert},
        {"router", sizes.router},
        {"embedding", sizes.embedding},
        {"active_expert", active_experts(sizes)}}},
      {"flops_per_sequence",
       {{"forward", plan.forward_flops}, {"backward", plan.backward_flops()}}},
      {"memory_per_rank_bytes", memory_json(plan)},
      {"step_seconds", plan.step_seconds},
      {"limited_by", plan.limited_by},
      {"flops_per_token",
       {{"forward", plan.forward_flops / tokens}, {"backward", plan.backward_flops() / tokens}}},
      {"activations_bytes",
       {{"balanced_routing", plan.step.activations()},
        {"worst_routing", plan.step.activations()},
        {"recompute_block", plan.recomputed.activations()}}},
      {"product_peak_flops_per_second", plan.machine.speed.product_flops_per_second},
      {"memory_bandwidth_bytes_per_second", plan.machine.speed.memory_bytes_per_second},
      {"bytes_moved_per_step", plan.step.traffic},
      {"ranks", 1},
      {"machine", plan.machine.name},
      {"device", name_of(plan.machine.device)},
      {"available_bytes", plan.machine.memory_bytes},
      {"fits", plan.fits()},
      {"suggestions", Json::array()}};
  for (const Suggestion& suggestion : plan.suggestions)
    json["suggestions"].push_back(suggestion_json(suggestion));
  return json.dump(2) + "\n";
}

}  // namespace stmoe
