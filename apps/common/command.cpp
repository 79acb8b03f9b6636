// SPDX-License-Identifier: Apache-2.0
// The only file that includes the command-line parser library.
#include <algorithm>

#include <CLI/CLI.hpp>

#include "apps/common/command_parser.h"
#include "lib/base/error.h"
#include "lib/base/registry.h"
#include "lib/config/scalar.h"

namespace stmoe {

class Command::Parser {
 public:
  Parser(const std::string& name, const std::string& summary)
      : owned_(summary, name), app_(owned_) {}
  explicit Parser(CLI::App& app) : app_(app) {}

  // Only the parser of the program uses `owned_`; a subcommand's belongs to its parent's.
  CLI::App owned_;
  CLI::App& app_;
  std::vector<std::string> examples_;
  std::vector<std::unique_ptr<Command>> subcommands_;
  std::function<void(const ProgramContext&)> body_;

  static Parser& of(Command& command) { return *command.parser_; }

  // Shown under the help of a command: its own examples and those of its subcommands.
  void show_examples() {
    std::vector<std::string> lines = examples_;
    for (const auto& subcommand : subcommands_) {
      subcommand->parser_->show_examples();
      const auto& more = subcommand->parser_->examples_;
      lines.insert(lines.end(), more.begin(), more.end());
    }
    if (!lines.empty()) app_.footer(format("Example:\n  {}", fmt::join(lines, "\n  ")));
  }

  // The innermost command that was chosen.
  Parser& chosen() {
    for (const auto& subcommand : subcommands_)
      if (subcommand->parser_->app_.parsed()) return subcommand->parser_->chosen();
    return *this;
  }
};

namespace {

template <class T>
void read_value(const std::string& text, const std::string& name, const ArgumentRules& rules,
                T& value) {
  ConfigNode node;
  node.kind = ConfigNode::Kind::scalar;
  node.scalar = text;
  T parsed{};
  std::string wrong = read_scalar(node, parsed);
  std::vector<Rule> limits;
  if (rules.at_least) limits.push_back(at_least(*rules.at_least));
  if (rules.at_most) limits.push_back(at_most(*rules.at_most));
  if (!rules.one_of.empty() && std::ranges::find(rules.hidden, text) == rules.hidden.end())
    limits.push_back({Rule::Kind::one_of, 0, 0, rules.one_of});
  if (wrong.empty()) wrong = check_rules(limits, parsed);
  if (!wrong.empty()) throw UsageError(name + ": " + wrong);
  value = parsed;
}

void read_value(const std::string& text, const std::string& name, const ArgumentRules&,
                Path& value) {
  if (text.empty()) throw UsageError(name + ": is empty, expected a path");
  value = text;
}

template <class T>
void store(const std::vector<std::string>& texts, const std::string& name,
           const ArgumentRules& rules, T* value) {
  read_value(texts.back(), name, rules, *value);
}
template <class T>
void store(const std::vector<std::string>& texts, const std::string& name,
           const ArgumentRules& rules, std::optional<T>* value) {
  read_value(texts.back(), name, rules, value->emplace());
}
template <class T>
void store(const std::vector<std::string>& texts, const std::string& name,
           const ArgumentRules& rules, std::vector<T>* value) {
  value->clear();
  for (const std::string& text : texts) read_value(text, name, rules, value->emplace_back());
}

const char* value_name(const ArgumentValue& value) {
  struct Names {
    const char* operator()(const int64_t*) const { return "N"; }
    const char* operator()(const std::optional<int64_t>*) const { return "N"; }
    const char* operator()(const double*) const { return "X"; }
    const char* operator()(const std::optional<double>*) const { return "X"; }
    const char* operator()(const Path*) const { return "PATH"; }
    const char* operator()(const std::optional<Path>*) const { return "PATH"; }
    const char* operator()(const std::vector<Path>*) const { return "PATH"; }
    const char* operator()(const void*) const { return "TEXT"; }
  };
  return std::visit(Names{}, value);
}

bool is_list(const ArgumentValue& value) {
  return std::holds_alternative<std::vector<std::string>*>(value) ||
         std::holds_alternative<std::vector<Path>*>(value);
}

// What is wrong when arguments are left over: an option that does not exist is named before a
// value.
std::string describe_extras(const CLI::App& program, const CLI::App& app) {
  const std::vector<std::string> extras = program.remaining(true);
  auto option = std::find_if(extras.begin(), extras.end(),
                             [](const std::string& text) { return text.starts_with('-'); });
  std::vector<std::string> known;
  if (option == extras.end()) {
    const std::string text = extras.empty() ? "" : extras.front();
    for (const CLI::App* each : program.get_subcommands({})) known.push_back(each->get_name());
    const std::string nearest = nearest_name(text, known);
    return format("unexpected argument '{}'{}", text,
                  nearest.empty() ? "" : format("; did you mean {}?", nearest));
  }
  for (const CLI::App* part : {&program, &app})
    for (const CLI::Option* each : part->get_options()) known.push_back(each->get_name());
  const std::string name = option->substr(0, option->find('='));
  const std::string nearest = nearest_name(name, known);
  return format("unknown option '{}'{}", name,
                nearest.empty() ? "" : format("; did you mean {}?", nearest));
}

}  // namespace

Command::Command(std::unique_ptr<Parser> parser) : parser_(std::move(parser)) {}
Command::~Command() = default;

void Command::add(const std::string& name, ArgumentValue value, const std::string& help,
                  const ArgumentRules& rules) {
  CLI::App& app = parser_->app_;
  if (bool** flag = std::get_if<bool*>(&value)) {
    app.add_flag(name, **flag, help);
    return;
  }
  CLI::callback_t callback = [=](CLI::results_t texts) {
    // The parser's word for a flag without a value.
    if (rules.implied && texts.back() == "true") texts.back() = *rules.implied;
    std::visit([&](auto target) { store(texts, name, rules, target); }, value);
    return true;
  };
  CLI::Option* option = app.add_option(name, callback, help);
  option->type_name(rules.one_of.empty() ? value_name(value)
                                         : format("{}", fmt::join(rules.one_of, "|")));
  option->required(rules.required);
  // An option takes one value each time; only a positional list takes all that follow.
  const bool takes_many = is_list(value);
  if (takes_many) option->expected(1, CLI::detail::expected_max_vector_size);
  if (rules.implied) option->expected(0);
  option->allow_extra_args(takes_many && !name.starts_with('-'));
  option->multi_option_policy(takes_many ? CLI::MultiOptionPolicy::TakeAll
                                         : CLI::MultiOptionPolicy::TakeLast);
}

void Command::example(const std::string& line) { parser_->examples_.push_back(line); }

Command& Command::subcommand(const std::string& name, const std::string& help) {
  CLI::App* app = parser_->app_.add_subcommand(name, help);
  app->fallthrough();
  parser_->app_.require_subcommand(1);
  parser_->subcommands_.push_back(std::make_unique<Command>(std::make_unique<Parser>(*app)));
  return *parser_->subcommands_.back();
}

void Command::run(std::function<void(const ProgramContext&)> body) {
  parser_->body_ = std::move(body);
}

std::unique_ptr<Command> make_command(const std::string& name, const std::string& summary,
                                      const std::string& version_text) {
  auto parser = std::make_unique<Command::Parser>(name, summary);
  parser->app_.set_help_flag("--help", "Print this help and exit");
  parser->app_.set_version_flag("--version", version_text, "Print the version and exit");
  return std::make_unique<Command>(std::move(parser));
}

ParsedCommand parse_arguments(Command& command, int argc, const char* const* argv) {
  Command::Parser& parser = Command::Parser::of(command);
  // A program that does something by itself needs no subcommand.
  if (parser.body_) parser.app_.require_subcommand(0, 1);
  parser.show_examples();
  auto fail = [&](const std::string& text) {
    throw UsageError(format("{}\nsee {} --help", text, parser.app_.get_name()));
  };
  try {
    parser.app_.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return {{}, parser.chosen().app_.help()};
  } catch (const CLI::CallForAllHelp&) {
    return {{}, parser.app_.help("", CLI::AppFormatMode::All)};
  } catch (const CLI::CallForVersion& version) {
    return {{}, std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& error) {
    // A subcommand that does not exist is also reported as a missing one.
    const bool is_unknown_command = dynamic_cast<const CLI::RequiredError*>(&error) &&
                                    !parser.subcommands_.empty() && &parser.chosen() == &parser &&
                                    !parser.app_.remaining(true).empty();
    if (is_unknown_command || dynamic_cast<const CLI::ExtrasError*>(&error))
      fail(describe_extras(parser.app_, parser.chosen().app_));
    fail(error.what());
  }
  return {parser.chosen().body_, ""};
}

}  // namespace stmoe
