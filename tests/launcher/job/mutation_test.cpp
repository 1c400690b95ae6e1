// Random damage to valid files: never a crash, and a Job exactly when there is no problem.
#include <random>

#include "launcher/job_schema.hpp"
#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;

namespace {

using Random = std::mt19937_64;

size_t below(Random& random, size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); }

std::string random_token(Random& random) {
  static const std::vector<std::string> tokens{"\"auto\"",
                                               "nan",
                                               "-1",
                                               "0",
                                               "1e308",
                                               "9223372036854775807",
                                               "-9223372036854775808",
                                               "true",
                                               "\"\"",
                                               "[]",
                                               "{}",
                                               "[[job]]",
                                               "[job]",
                                               "\n",
                                               "=",
                                               "\"\"\"",
                                               "'",
                                               "\\u0000",
                                               "\xff\xfe",
                                               "\"80GiB\"",
                                               "\"1e99s\"",
                                               "#",
                                               "{a.b.c=1}",
                                               "1979-05-27T07:32:00Z",
                                               "0x7fffffffffffffff",
                                               "\"gpt3\"",
                                               "\"llama-405b\"",
                                               "\"bf16\"",
                                               "[1e400]"};
  if (below(random, 4) == 0) return job_schema()[below(random, job_schema().size())].name + " = 3\n";
  return tokens[below(random, tokens.size())];
}

void damage(std::string& text, Random& random) {
  const size_t at = below(random, text.size() + 1);
  switch (below(random, 5)) {
    case 0:
      if (at < text.size()) text[at] = static_cast<char>(below(random, 256));
      break;
    case 1:
      text.erase(at, below(random, 20));
      break;
    case 2:
      text.insert(at, text.substr(below(random, text.size() + 1), below(random, 60)));
      break;
    case 3:
      text.insert(at, random_token(random));
      break;
    default: {  // another value for some key
      const size_t equals = text.find(" = ", at);
      if (equals == std::string::npos) break;
      const size_t end = std::min(text.find('\n', equals), text.size());
      text.replace(equals + 3, end - equals - 3, random_token(random));
    }
  }
}

}  // namespace

TEST_CASE("damaged job files never crash the parser") {
  const uint64_t seed = std::random_device{}();
  Random random(seed);
  const auto files = examples();
  int broken = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = read_file(files[below(random, files.size())]);
    const std::vector<std::string> data = local_data(text);
    for (size_t i = 0, n = 1 + below(random, 6); i < n; ++i) damage(text, random);
    const JobFileResult result = parse_job(text, "job.toml", data);
    INFO("seed " << seed << ", round " << round << "\n" << text << "\n" << all_problems(result));
    REQUIRE(result.job.has_value() == result.problems.empty());
    const int lines = 1 + static_cast<int>(std::count(text.begin(), text.end(), '\n'));
    for (const JobProblem& problem : result.problems) {
      REQUIRE_FALSE(problem.message.empty());
      REQUIRE(problem.line <= lines);
      REQUIRE(problem.message.size() < 1000);
    }
    broken += result.problems.empty() ? 0 : 1;
    if (!result.job) continue;
    const JobFileResult again = parse_job(result.job->resolved_toml, "resolved.toml", {});
    INFO("resolved:\n" << result.job->resolved_toml << all_problems(again));
    REQUIRE(again.job.has_value());
    REQUIRE(again.job->resolved_toml == result.job->resolved_toml);
  }
  CHECK(broken > 500);
}

TEST_CASE("random overrides never crash the parser") {
  const uint64_t seed = std::random_device{}();
  Random random(seed);
  for (int round = 0; round < 1000; ++round) {
    std::string text = job_schema()[below(random, job_schema().size())].path() + "=" + random_token(random);
    if (below(random, 3) == 0) damage(text, random);
    const JobFileResult result = parse_job(valid_text(), "job.toml", {text});
    INFO("seed " << seed << ", round " << round << ", --set " << text << "\n" << all_problems(result));
    REQUIRE(result.job.has_value() == result.problems.empty());
    for (const JobProblem& problem : result.problems) REQUIRE(problem.line <= 30);
  }
}
