// SPDX-License-Identifier: Apache-2.0
#include "attnmux/problem_flags.h"

#include <CLI/CLI.hpp>
#include <limits>

#include "attnmux/errors.h"
#include "attnmux/numbers.h"

namespace attnmux::cli {
namespace {

constexpr const char* kProblem = "The problem";
constexpr const char* kMasks = "Masks and scores";
constexpr const char* kWhere = "Where it runs";
constexpr int64_t kMaxThreads = 4096;

// Distinguishes `--causal` from `--causal=VALUE`: CLI11 hands this over where a flag has no value.
constexpr std::string_view kBareFlag = "true";

Align causal_align(const std::string& text) { return text == kBareFlag ? Align::kNone : parse_align("--causal", text); }

}  // namespace

bool ProblemFlags::describe_a_problem() const {
  return batch || seqlen_q || seqlen_kv || heads_q || heads_kv || head_dim || head_dim_v || dtype || causal || window ||
         softcap || scale || dropout || key_lengths || lse;
}

Dtype parse_dtype(std::string_view flag, std::string_view text) {
  if (text == "fp32") return Dtype::kFp32;
  if (text == "fp16") return Dtype::kFp16;
  if (text == "bf16") return Dtype::kBf16;
  if (text == "fp64") return Dtype::kFp64;
  throw UsageError(std::string(flag) + ": \"" + std::string(text) +
                   "\" is not accepted; it takes fp32, fp16, bf16 or fp64");
}

Device parse_device(std::string_view flag, std::string_view text) {
  if (text == "cpu") return Device::cpu();
  if (text == "cuda") return Device::cuda();
  if (text.starts_with("cuda:")) {
    const std::string_view id = text.substr(5);
    const bool is_number =
        !id.empty() && id.size() <= 4 && id.find_first_not_of("0123456789") == std::string_view::npos;
    if (is_number) return Device::cuda(static_cast<int32_t>(parse_integer(flag, id, 0)));
  }
  throw UsageError(std::string(flag) + ": \"" + std::string(text) + "\" is not accepted; it takes cpu, cuda or cuda:N");
}

Align parse_align(std::string_view flag, std::string_view text) {
  if (text == "top_left") return Align::kTopLeft;
  if (text == "bottom_right") return Align::kBottomRight;
  throw UsageError(
      std::string(flag) + ": \"" + std::string(text) +
      "\" is not accepted; the diagonal starts at top_left (PyTorch) or ends at bottom_right (FlashAttention)");
}

WindowFlag parse_window(std::string_view flag, std::string_view text) {
  const auto parts = split(text);
  if (parts.size() < 2 || parts.size() > 3) {
    throw UsageError(
        std::string(flag) + ": \"" + std::string(text) +
        "\" is not accepted; it takes LEFT,RIGHT or LEFT,RIGHT,top_left|bottom_right, with -1 for unlimited");
  }
  WindowFlag window;
  window.left = parse_integer(flag, parts[0], -1);
  window.right = parse_integer(flag, parts[1], -1);
  if (parts.size() == 3) window.align = parse_align(flag, parts[2]);
  return window;
}

std::vector<int32_t> parse_lengths(std::string_view flag, std::string_view text) {
  std::vector<int32_t> lengths;
  if (text.empty()) return lengths;
  for (const std::string_view part : split(text)) {
    lengths.push_back(static_cast<int32_t>(parse_integer(flag, part, 0, std::numeric_limits<int32_t>::max())));
  }
  return lengths;
}

CLI::Option* add_text_option(CLI::App& app, const std::string& name, const std::string& label, const std::string& help,
                             const std::function<void(const std::string&)>& set) {
  return app.add_option_function<std::string>(name, set, help)->option_text(label);
}

CLI::Option* add_switch(CLI::App& app, const std::string& name, bool& value, const std::string& help) {
  return app.add_flag(name, value, help)->disable_flag_override();
}

void add_problem_flags(CLI::App& app, ProblemFlags& f, BackendFlag backend) {
  std::string group;
  const auto text = [&](const std::string& name, const std::string& label, const std::string& help, auto set) {
    return add_text_option(app, name, label, help, std::move(set))->group(group);
  };
  const auto extent = [&](const std::string& name, std::optional<int64_t>& value, const std::string& help) {
    text(name, "N", help, [&value, name](const std::string& t) { value = parse_integer(name, t, 0); });
  };
  const auto real = [&](const std::string& name, std::optional<double>& value, const std::string& help, auto accepts,
                        const std::string& accepted) {
    text(name, "X", help, [&value, name, accepts, accepted](const std::string& t) {
      const double x = parse_real(name, t);
      if (!accepts(x)) throw UsageError(name + ": \"" + t + "\" is not accepted; it takes " + accepted);
      value = x;
    });
  };

  group = kProblem;
  extent("--batch", f.batch, "sequences (default 1)");
  extent("--seqlen-q", f.seqlen_q, "queries per sequence (default 1024)");
  extent("--seqlen-kv", f.seqlen_kv, "keys per sequence (default: seqlen-q)");
  extent("--heads-q", f.heads_q, "query heads (default 16)");
  extent("--heads-kv", f.heads_kv, "key heads, of which heads-q is a multiple (default: heads-q)");
  extent("--head-dim", f.head_dim, "elements of a query and a key (default 128)");
  extent("--head-dim-v", f.head_dim_v, "elements of a value (default: head-dim)");
  text("--dtype", "TYPE", "fp32, fp16, bf16 or fp64 (default bf16)",
       [&f](const std::string& t) { f.dtype = parse_dtype("--dtype", t); });

  group = kMasks;
  app.add_flag("--causal", f.causal_text,
               "query i sees the keys up to i; top_left or bottom_right where there are more keys than queries")
      ->each([&f](const std::string& t) {
        const Align align = causal_align(t);
        if (f.causal && *f.causal != align) throw UsageError("--causal is given twice, with different alignments");
        f.causal = align;
      })
      ->option_text("[=ALIGN]")
      ->group(group);
  text("--window", "L,R[,ALIGN]", "keys kept left and right of the diagonal; -1 is unlimited",
       [&f](const std::string& t) { f.window = parse_window("--window", t); });
  text("--key-lengths", "A,B,…", "keys of each sequence that are not padding",
       [&f](const std::string& t) { f.key_lengths = t; });
  real(
      "--softcap", f.softcap, "scores become X·tanh(score / X); 0 is off", [](double x) { return x >= 0; },
      "a number of at least 0");
  real("--scale", f.scale, "factor of q·k (default head-dim^-1/2)", [](double) { return true; }, "a number");
  real(
      "--dropout", f.dropout, "probability of dropping a weight; needs --seed",
      [](double x) { return x >= 0 && x < 1; }, "a probability from 0 to below 1");
  text("--seed", "N", "of the dropout and of random inputs",
       [&f](const std::string& t) { f.seed = parse_unsigned("--seed", t); });
  add_switch(app, "--lse", f.lse, "also return the log-sum-exp of each row")->group(group);

  group = kWhere;
  const bool many = backend == BackendFlag::kMany;
  app.add_option(
         "--backend", f.backends,
         many ? "only this backend; may be given several times" : "the backend (default: ATTNMUX_BACKEND, else native)")
      ->option_text("NAME")
      ->allow_extra_args(false)
      ->group(group);
  text("--kernel", "NAME", "only this kernel of the backend", [&f](const std::string& t) { f.kernel = t; });
  add_switch(app, "--allow-lossy", f.allow_lossy, "native may go below the 16-bit accuracy class")->group(group);
  text("--device", "DEVICE", "cpu, cuda or cuda:N (default: cpu)",
       [&f](const std::string& t) { f.device = parse_device("--device", t); });
  text("--threads", "N", "threads of the library's pool (default: ATTNMUX_NUM_THREADS, else one per core)",
       [&f](const std::string& t) { f.threads = static_cast<int>(parse_integer("--threads", t, 1, kMaxThreads)); });
}

}  // namespace attnmux::cli
