// SPDX-License-Identifier: Apache-2.0
// Numbers are printed and read the same in every locale.
#include <attnmux/attnmux.h>
#include <gtest/gtest.h>

#include <clocale>
#include <locale>
#include <sstream>
#include <string>

#include "support/subprocess.h"

namespace attnmux::test {
namespace {

// As in Germany: 1.234.567,5.
struct German : std::numpunct<char> {
  char do_decimal_point() const override { return ','; }
  char do_thousands_sep() const override { return '.'; }
  std::string do_grouping() const override { return "\3"; }
};

std::string everything_with_numbers() {
  const MutableTensorView big(nullptr, Dtype::kBf16, {12, 12345, 8, 64});
  std::string text = explain(big, big, big, big).text + explain(big, big, big, big, {}, {}, {.json = true}).text;
  for (const int32_t topic : {ATTNMUX_DESCRIBE_BACKENDS, ATTNMUX_DESCRIBE_ABI}) {
    attnmux_describe(
        topic, [](void* to, const char* part, size_t n) { static_cast<std::string*>(to)->append(part, n); }, &text,
        nullptr);
  }
  Plan made;
  text += try_plan(made, big, big, big, big, {.softcap = -1234567.5}).message();
  text += try_plan(made, big, big, big, big, {.dropout = {.p = 0.25, .seed = 1, .offset = 12345678901}}).message();
  return text;
}

ATTNMUX_PROBE(german_locale) {
  const std::string before = everything_with_numbers();
  std::string names;
  for (const char* name : {"de_DE.UTF-8", "de_DE.utf8", "de_DE"}) {
    if (std::setlocale(LC_ALL, name) != nullptr) names += name;
  }
  std::locale::global(std::locale(std::locale(), new German));
  std::ostringstream stream;
  stream << 1234567.5;
  if (stream.str() != "1.234.567,5" && stream.str().find(',') == std::string::npos)
    return "the locale did not take: " + stream.str();
  const std::string after = everything_with_numbers();
  if (before != after) return "differs:\n" + before + "\n---\n" + after;
  return before.find("-1234567.5") == std::string::npos ? "no number in " + before : "same";
}

TEST(Locale, ChangesNoOutput) {
  const Finished child = run_probe("german_locale");
  EXPECT_EQ(child.exit_code, 0) << child.output;
  EXPECT_EQ(child.returned, "same");
}

// Read in that locale, too: the environment is first looked at after the locale changed.
ATTNMUX_PROBE(german_locale_first) {
  std::locale::global(std::locale(std::locale(), new German));
  std::setlocale(LC_ALL, "de_DE.UTF-8");
  return std::to_string(num_threads());
}

TEST(Locale, ChangesNoInput) {
  EXPECT_EQ(run_probe("german_locale_first", {{"ATTNMUX_NUM_THREADS", "1024"}}).returned, "1024");
}

}  // namespace
}  // namespace attnmux::test
