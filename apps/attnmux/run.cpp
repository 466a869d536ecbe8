// SPDX-License-Identifier: Apache-2.0
// attnmux run: tensors from files through one backend or all of them, compared with the truth.
#include <CLI/CLI.hpp>
#include <memory>

#include "attnmux/commands.h"
#include "attnmux/errors.h"
#include "attnmux/numbers.h"
#include "attnmux/problem_flags.h"
#include "attnmux/run_report.h"

namespace attnmux::cli {

void add_run(CLI::App& app, Program& program) {
  CLI::App* sub = app.add_subcommand("run", "real tensors from files through a backend, or through all of them");
  const auto flags = std::make_shared<RunFlags>();
  TensorNames& names = flags->names;
  sub->add_option("FILE", names.file, "a .safetensors file; without one, tensors are named as .npy files");
  const auto name = [&](const std::string& option, std::string& value, const std::string& help) {
    sub->add_option(option, value, help)->option_text("NAME")->group("Tensors");
  };
  name("--q", names.q, "queries (batch, seqlen-q, heads-q, head-dim); default: q");
  name("--k", names.k, "keys (batch, seqlen-kv, heads-kv, head-dim); default: k");
  name("--v", names.v, "values (batch, seqlen-kv, heads-kv, head-dim-v); default: v");
  name("--key-padding", names.key_padding, "bool (batch, seqlen-kv), true is attended");
  name("--mask", names.mask, "bool, broadcastable to (batch, heads-q, seqlen-q, seqlen-kv), true is attended");
  name("--bias", names.bias, "added to the scores, broadcastable to (batch, heads-q, seqlen-q, seqlen-kv)");
  name("--expect", names.expect, "what the output should be; default: the oracle in fp64");
  add_problem_flags(*sub, flags->problem, BackendFlag::kOne);
  sub->get_option("--key-lengths")->option_text("NAME|A,B,…");
  sub->get_option("--dtype")->description("converts q, k and v first: fp32, fp16, bf16 or fp64 (default: as stored)");
  for (const char* shape :
       {"--batch", "--seqlen-q", "--seqlen-kv", "--heads-q", "--heads-kv", "--head-dim", "--head-dim-v"}) {
    sub->get_option(shape)->description("checked against the tensors, if given");
  }
  add_switch(*sub, "--all", flags->all, "every backend; those that do not run are listed with the reason")
      ->group("Output");
  sub->add_option("--out", flags->out, "writes out (out.BACKEND with --all), and lse with --lse; .safetensors or .npy")
      ->option_text("FILE")
      ->group("Output");
  sub->add_option("--title", flags->title, "what the input is, for the headline (default: the file's name)")
      ->option_text("TEXT")
      ->group("Output");
  add_text_option(*sub, "--seconds", "X", "time for each backend (default 0.5)", [flags](const std::string& t) {
    flags->seconds = parse_seconds("--seconds", t);
  })->group("Output");
  add_switch(*sub, "--json", flags->json, "one JSON document")->group("Output");
  sub->footer(examples(
      {"attnmux run data/minilm_attention.safetensors --q page.2.q --k page.2.k --v page.2.v --expect page.2.out --all",
       "attnmux run data/minilm_attention.safetensors --q sentences.0.q --k sentences.0.k --v sentences.0.v \\",
       "    --key-lengths sentences.key_lengths --backend flash --out result.safetensors",
       "attnmux run --q q.npy --k k.npy --v v.npy --causal --out out.npy"}));
  sub->callback([flags, &program] { program.action = [flags] { return run_files(*flags); }; });
}

}  // namespace attnmux::cli
