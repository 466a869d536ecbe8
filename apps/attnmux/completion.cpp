// SPDX-License-Identifier: Apache-2.0
// attnmux completion: scripts for bash, zsh and fish, made from the subcommands and flags themselves.
#include <attnmux/backend.h>

#include <CLI/CLI.hpp>
#include <memory>

#include "attnmux/commands.h"
#include "attnmux/errors.h"

namespace attnmux::cli {
namespace {

struct Flag {
  std::string name, help;
  bool takes_value = false;
  std::vector<std::string> choices;  // empty: files
};
struct Subcommand {
  std::string name, help;
  std::vector<Flag> flags;
};

std::vector<std::string> choices_of(const std::string& flag) {
  if (flag == "--dtype") return {"fp32", "fp16", "bf16", "fp64"};
  if (flag == "--device") return {"cpu", "cuda"};
  if (flag == "--backend") return {kBackendNames.begin(), kBackendNames.end()};
  return {};
}

void add_flags(const CLI::App& app, Subcommand& sub) {
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      sub.flags.push_back(
          {"--" + name, option->get_description(), option->get_items_expected_max() > 0, choices_of("--" + name)});
      if (name == "causal") {
        for (const char* align : {"top_left", "bottom_right"}) {
          sub.flags.push_back({std::string("--causal=") + align, option->get_description(), false, {}});
        }
      }
    }
  }
}

std::vector<Subcommand> subcommands_of(const CLI::App& app) {
  std::vector<Subcommand> list;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    Subcommand entry{sub->get_name(), sub->get_description(), {}};
    add_flags(*sub, entry);
    entry.flags.push_back({"--plugin", app.get_option("--plugin")->get_description(), true, {}});
    list.push_back(std::move(entry));
  }
  return list;
}

std::string joined(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  return text;
}

// A text between single quotes, which bash, zsh and fish read alike but for the quote itself.
std::string quoted(const std::string& text, std::string_view escaped_quote) {
  std::string result = "'";
  for (const char c : text) {
    if (c == '\'') {
      result += escaped_quote;
    } else {
      result += c;
    }
  }
  return result + "'";
}

std::string bash(const std::vector<Subcommand>& subs) {
  std::string names, pattern, cases, values;
  for (const Subcommand& sub : subs) {
    names += (names.empty() ? "" : " ") + sub.name;
    pattern += (pattern.empty() ? "" : "|") + sub.name;
    std::vector<std::string> flags;
    for (const Flag& flag : sub.flags) flags.push_back(flag.name);
    cases += "    " + sub.name + ") words='" + joined(flags) + "' ;;\n";
  }
  for (const char* flag : {"--backend", "--dtype", "--device"}) {
    values += std::string("    ") + flag + ") COMPREPLY=($(compgen -W '" + joined(choices_of(flag)) +
              "' -- \"$current\")); return ;;\n";
  }
  return "# bash completion for attnmux: source <(attnmux completion bash)\n"
         "_attnmux() {\n"
         "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]} sub= words= word\n"
         "  for word in \"${COMP_WORDS[@]:1:COMP_CWORD-1}\"; do\n"
         "    case $word in -*) ;; " +
         pattern +
         ") sub=$word; break ;; esac\n"
         "  done\n"
         "  case $previous in\n" +
         values +
         "  esac\n"
         "  case $sub in\n"
         "    '') words='" +
         names +
         " --help --version --plugin' ;;\n"
         "    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- \"$current\")); return ;;\n" +
         cases +
         "  esac\n"
         "  if [[ $current == -* || -z $sub ]]; then\n"
         "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  else\n"
         "    COMPREPLY=($(compgen -f -- \"$current\"))\n"
         "  fi\n"
         "}\n"
         "complete -o filenames -F _attnmux attnmux\n";
}

// zsh reads ':' and brackets in the specifications of _arguments.
std::string zsh_help(const std::string& help) {
  std::string text;
  for (const char c : help) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

std::string zsh(const std::vector<Subcommand>& subs) {
  std::string commands, cases;
  for (const Subcommand& sub : subs) {
    commands += "    " + quoted(sub.name + ":" + zsh_help(sub.help), "'\\''") + "\n";
    cases += "    " + sub.name + ")\n      _arguments";
    for (const Flag& flag : sub.flags) {
      if (flag.name.find('=') != std::string::npos) continue;
      const bool causal = flag.name == "--causal";  // its value follows in the same word, if at all
      std::string spec = "*" + flag.name + (causal ? "=-[" : "[") + zsh_help(flag.help) + "]";
      if (flag.takes_value) spec += flag.choices.empty() ? ":value:_files" : ":value:(" + joined(flag.choices) + ")";
      if (causal) spec += "::alignment:(top_left bottom_right)";
      cases += " \\\n        " + quoted(spec, "'\\''");
    }
    cases +=
        sub.name == "completion" ? " \\\n        '1:shell:(bash zsh fish)' ;;\n" : " \\\n        '*:file:_files' ;;\n";
  }
  return "#compdef attnmux\n"
         "# zsh completion for attnmux: source <(attnmux completion zsh)\n"
         "_attnmux() {\n"
         "  local -a commands=(\n" +
         commands +
         "  )\n"
         "  if (( CURRENT == 2 )); then\n"
         "    _describe 'subcommand' commands\n"
         "    return\n"
         "  fi\n"
         "  local sub=$words[2]\n"
         "  words=(attnmux \"${(@)words[3,-1]}\")\n"
         "  (( CURRENT -= 1 ))\n"
         "  case $sub in\n" +
         cases +
         "  esac\n"
         "}\n"
         "# From a folder of $fpath the file is the function; sourced, it registers one.\n"
         "if [[ $funcstack[1] == _attnmux ]]; then _attnmux \"$@\"; else compdef _attnmux attnmux; fi\n";
}

std::string fish(const std::vector<Subcommand>& subs) {
  std::string script = "# fish completion for attnmux: attnmux completion fish | source\n";
  for (const Subcommand& sub : subs) {
    script +=
        "complete -c attnmux -f -n __fish_use_subcommand -a " + sub.name + " -d " + quoted(sub.help, "\\'") + "\n";
  }
  for (const Subcommand& sub : subs) {
    const std::string when = "complete -c attnmux -n '__fish_seen_subcommand_from " + sub.name + "' ";
    for (const Flag& flag : sub.flags) {
      if (flag.name.find('=') != std::string::npos) continue;
      script += when + "-l " + flag.name.substr(2) + " -d " + quoted(flag.help, "\\'");
      if (!flag.choices.empty()) script += " -x -a " + quoted(joined(flag.choices), "\\'");
      if (flag.takes_value && flag.choices.empty()) script += " -r";
      script += "\n";
    }
    if (sub.name == "completion") script += when + "-f -a 'bash zsh fish'\n";
  }
  return script;
}

}  // namespace

void add_completion(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("completion", "a script that completes subcommands, flags and names in a shell");
  const auto shell = std::make_shared<std::string>();
  sub->add_option("SHELL", *shell, "bash, zsh or fish")->required();
  sub->footer(examples({"source <(attnmux completion bash)", "attnmux completion zsh > ~/.zfunc/_attnmux",
                        "attnmux completion fish | source"}));
  sub->callback([shell, &app, &program] {
    if (*shell != "bash" && *shell != "zsh" && *shell != "fish") {
      throw UsageError("SHELL: \"" + *shell + "\" is not accepted; it takes bash, zsh or fish");
    }
    // The script is made here, while the parser that describes the flags is alive.
    const auto subs = subcommands_of(app);
    const std::string script = *shell == "bash" ? bash(subs) : *shell == "zsh" ? zsh(subs) : fish(subs);
    program.action = [script] {
      std::fwrite(script.data(), 1, script.size(), stdout);
      return static_cast<int>(kExitOk);
    };
  });
}

}  // namespace attnmux::cli
