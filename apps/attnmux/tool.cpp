// SPDX-License-Identifier: Apache-2.0
// The command line as a whole: subcommands, help, errors.
#include <attnmux/attnmux.h>
#include <io/tensor_file.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <new>

#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/help.h"
#include "attnmux/problem_flags.h"

namespace attnmux::cli {
namespace {

// The subcommand that was named, for the spelling of its flags.
const CLI::App& innermost(const CLI::App& app) {
  const auto used = app.get_subcommands();
  return used.empty() ? app : *used.front();
}

std::vector<std::string> option_names(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

std::string unexpected(const CLI::App& app) {
  const CLI::App& command = innermost(app);
  const std::vector<std::string> left = app.remaining(true);
  const std::string word = left.empty() ? "" : left.front();
  if (word == "top_left" || word == "bottom_right") return "\"" + word + "\" stands alone; write --causal=" + word;
  std::vector<std::string> names;
  std::string kind = "argument";
  if (word.starts_with("-")) {
    kind = "flag";
    names = option_names(command);
    for (std::string& name : option_names(app)) names.push_back(std::move(name));
  } else if (&command == &app) {
    kind = "subcommand";
    for (const CLI::App* sub : app.get_subcommands({})) names.push_back(sub->get_name());
  }
  std::string message = "unknown " + kind + " \"" + word + "\"";
  const std::string_view near = closest(word.substr(0, word.find('=')), names);
  if (!near.empty()) message += "; did you mean " + std::string(near) + "?";
  const std::string name = &command == &app ? "" : " " + command.get_name();
  return message + (near.empty() ? "; see attnmux" + name + " --help" : "");
}

// CLI11 words these after its own types; its exceptions tell the flag and the kind of mistake.
std::string wrong_number_of_values(const CLI::ParseError& error) {
  const std::string message = error.what();
  std::string flag = message.substr(0, message.find_first_of(": "));
  if (!flag.starts_with("-")) flag = "--" + flag;
  if (message.find("flag override") != std::string::npos) return flag + " takes no value";
  if (message.find("received") != std::string::npos) return flag + " is given more than once";
  return flag + " needs a value";
}

int act(Program& program) {
  for (const std::string& path : program.plugins) {
    if (const Status status = try_load_plugin(path); !status) {
      throw UsageError("--plugin " + path + ": " + std::string(without_prefix(status.message())));
    }
  }
  Status environment;
  attnmux_check_environment(environment.c_error());
  throw_if_failed(environment);
  const int code = program.action();
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    print_error("standard output cannot be written to");
    return kExitCheckFailed;
  }
  return code;
}

int parse_and_act(int argc, const char* const* argv) {
  Program program;
  CLI::App app("attnmux: one attention call, every kernel.", "attnmux");
  app.formatter(std::make_shared<HelpFormatter>());
  app.set_version_flag("--version", std::string("attnmux ") + attnmux_version());
  app.set_help_flag("-h,--help", "this page");
  app.get_option("--version")->description("the version of the library");
  app.add_option("--plugin", program.plugins,
                 "loads backends from a plugin; may be given several times, before or after the subcommand")
      ->option_text("FILE.so")
      ->allow_extra_args(false);
  add_list(app, program);
  add_explain(app, program);
  add_run(app, program);
  add_bench(app, program);
  add_verify(app, program);
  add_doctor(app, program);
  add_completion(app, program);
  for (CLI::App* sub : app.get_subcommands({})) sub->fallthrough();
  app.footer(examples({"attnmux list", "attnmux explain --seqlen-q 4352 --heads-q 24 --causal",
                       "attnmux bench --seqlen-q 2048 --backend flash --backend _native_math", "attnmux verify",
                       "attnmux doctor"}));
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    std::fputs(innermost(app).help("attnmux").c_str(), stdout);
    return kExitOk;
  } catch (const CLI::CallForVersion& version) {
    std::printf("%s\n", version.what());
    return kExitOk;
  } catch (const CLI::ExtrasError&) {
    throw UsageError(unexpected(app));
  } catch (const CLI::ArgumentMismatch& error) {
    throw UsageError(wrong_number_of_values(error));
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what());
  }
  if (!program.action) {
    std::fputs(app.help().c_str(), stderr);
    return kExitUsage;
  }
  return act(program);
}

}  // namespace

std::string examples(const std::vector<std::string>& lines) {
  std::string text = "Examples:";
  for (const std::string& line : lines) text += "\n  " + line;
  return text;
}

int run_tool(int argc, const char* const* argv) {
  try {
    return parse_and_act(argc, argv);
  } catch (const Error& error) {
    print_error(error.what());
    return exit_code(error.code());
  } catch (const UsageError& error) {
    print_error(error.what());
    return kExitUsage;
  } catch (const io::FileError& error) {
    print_error(error.what());
    return kExitUsage;
  } catch (const CannotRunError& error) {
    print_error(error.what());
    return kExitCannotRun;
  } catch (const std::bad_alloc&) {
    print_error("out of memory");
    return kExitCheckFailed;
  } catch (const std::exception& error) {
    print_error(error.what());
    return kExitCheckFailed;
  }
}

}  // namespace attnmux::cli
