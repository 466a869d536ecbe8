// SPDX-License-Identifier: Apache-2.0
#include "golden.h"

#include <io/safetensors.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace sentence_encoder {

namespace {

using Batch = std::vector<std::vector<int32_t>>;

constexpr double kSmallestCosine = 0.99999;
constexpr attnmux::Backend kExactBackends[] = {"native", "_native_math", "_native_flash", "_native_efficient",
                                               "flash",  "xformers"};

/// The smallest cosine between rows of two matrices; NaN if one is.
double smallest_cosine(const Matrix& a, const Matrix& b) {
  double smallest = 1;
  for (Eigen::Index row = 0; row < a.rows(); ++row) {
    const Eigen::RowVectorXd x = a.row(row).cast<double>(), y = b.row(row).cast<double>();
    const double cosine = x.dot(y) / (x.norm() * y.norm());
    smallest = cosine < smallest || cosine != cosine ? cosine : smallest;
  }
  return smallest;
}

Matrix encode_in_batches(const Encoder& encoder, const Batch& texts, size_t batch_size, int32_t pad) {
  Matrix all;
  for (size_t begin = 0; begin < texts.size(); begin += batch_size) {
    const size_t end = std::min(begin + batch_size, texts.size());
    const Batch batch(texts.begin() + static_cast<ptrdiff_t>(begin), texts.begin() + static_cast<ptrdiff_t>(end));
    const Matrix embeddings = encoder.encode(batch, pad);
    if (begin == 0) all.resize(static_cast<Eigen::Index>(texts.size()), embeddings.cols());
    all.middleRows(static_cast<Eigen::Index>(begin), embeddings.rows()) = embeddings;
  }
  return all;
}

}  // namespace

bool check_golden(Encoder& encoder, const Tokenizer& tokenizer, const std::string& path) {
  const attnmux::io::TensorFile file = attnmux::io::load_safetensors(path);
  const auto& ids = file.at("ids");
  const auto& embeddings = file.at("embeddings");
  const auto texts = nlohmann::json::parse(file.metadata().at("texts")).get<std::vector<std::string>>();
  const auto count = static_cast<int64_t>(texts.size());
  if (ids.shape.size() != 2 || embeddings.shape.size() != 2 || ids.shape[0] != count || embeddings.shape[0] != count) {
    throw attnmux::io::FileError(path, "ids, embeddings and texts differ in number");
  }
  const Matrix expected = Eigen::Map<const Matrix>(embeddings.values<float>().data(), count, embeddings.shape[1]);

  bool good = true;
  Batch tokens;
  for (int64_t i = 0; i < count; ++i) {
    tokens.push_back(tokenizer.encode(texts[static_cast<size_t>(i)]));
    const auto row =
        ids.values<int32_t>().subspan(static_cast<size_t>(i * ids.shape[1]), static_cast<size_t>(ids.shape[1]));
    const std::vector<int32_t> wanted(row.begin(), std::find(row.begin(), row.end(), -1));
    if (tokens.back() != wanted) {
      std::printf("other tokens than the reference: %s\n",
                  attnmux::io::in_quotes(texts[static_cast<size_t>(i)]).c_str());
      good = false;
    }
  }
  if (!good) return false;
  std::printf("%lld texts, tokens equal\n%-18s  %-15s  smallest cosine  largest difference\n",
              static_cast<long long>(count), "backend", "texts");

  const auto compare = [&](attnmux::Backend backend, const char* how, size_t batch_size) {
    encoder.set_attention_backend(backend);
    const Matrix found = encode_in_batches(encoder, tokens, batch_size, tokenizer.pad());
    if (found.cols() != expected.cols()) throw attnmux::io::FileError(path, "holds embeddings of another model");
    const double cosine = smallest_cosine(found, expected);
    const bool equal = cosine >= kSmallestCosine;
    std::printf("%-18s  %-15s  %.9f      %.1e%s\n", std::string(backend.name()).c_str(), how, cosine,
                static_cast<double>((found - expected).cwiseAbs().maxCoeff()), equal ? "" : "  below 0.99999");
    good = good && equal;
  };
  compare("native", "one by one", 1);
  for (const attnmux::Backend backend : kExactBackends) compare(backend, "padded batches", 4);
  encoder.reset_attention_backend();
  return good;
}

}  // namespace sentence_encoder
