// Broken job files and what is said of them: every *.toml in broken/ has its *.expected beside it. Dropping in a file
// adds a test; MDS_REWRITE=1 writes what is said now, to be read and committed.
#include <cstdlib>

#include "tests/catch.hpp"
#include "tests/launcher/job/job_texts.hpp"

using namespace mds::launcher;
using namespace mds::launcher::tests;

namespace {

// Overrides stand in the file itself: "# --set a.b=value".
std::vector<std::string> overrides_of(const std::string& text) {
  std::vector<std::string> out;
  const std::string mark = "# --set ";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    const size_t begin = at + mark.size();
    out.push_back(text.substr(begin, text.find('\n', begin) - begin));
  }
  return out;
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// The TOML parser's own words differ between its versions.
std::string without_parser_words(std::string text) {
  const std::string mark = "not valid TOML: ";
  for (size_t at = text.find(mark); at != std::string::npos; at = text.find(mark, at + 1)) {
    text.erase(at + mark.size(), text.find('\n', at) - at - mark.size());
  }
  return text;
}

}  // namespace

TEST_CASE("broken job files are reported as expected") {
  const std::string folder = kSource + "/tests/launcher/job/broken";
  const bool rewrite = std::getenv("MDS_REWRITE") != nullptr;
  const auto files = files_in(folder, ".toml");
  REQUIRE(files.size() > 20);
  for (const auto& file : files) {
    const JobFileResult result = load_job(file.string(), overrides_of(read_file(file)));
    const std::string said = without_parser_words(replace_all(all_problems(result), folder + "/", ""));
    const auto expected = std::filesystem::path(file).replace_extension(".expected");
    if (rewrite) {
      std::ofstream(expected) << said;
      continue;
    }
    INFO(file.filename().string() << " (MDS_REWRITE=1 launcher_tests writes the expected texts anew)");
    CHECK_FALSE(result.job.has_value());
    CHECK_FALSE(result.problems.empty());
    CHECK(said == read_file(expected));
  }
}

TEST_CASE("a job file that cannot be read is one problem") {
  CHECK(load_job("/nonexistent/job.toml", {}).problems.size() == 1);
  CHECK(load_job("/tmp", {}).problems.size() == 1);
  CHECK(load_job("/dev/zero", {}).problems.size() == 1);
}

TEST_CASE("what would overflow the parser's stack or memory is refused") {
  std::string deep = "a";
  for (int i = 0; i < 400000; ++i) deep += ".a";
  for (const std::string& text : {"[" + deep + "]\n", deep + " = 1\n", "x = {" + deep + " = 1}\n",
                                  "x = " + std::string(300000, '[') + "\n", std::string(2 << 20, '#')}) {
    const JobFileResult result = parse_job(text, "job.toml", {});
    CHECK_FALSE(result.job.has_value());
    CHECK(result.problems.size() == 1);
  }
  CHECK_FALSE(parse_job("", "job.toml", {deep + "=1"}).job.has_value());
  CHECK_FALSE(parse_job("", "job.toml", {"job.name={" + deep + "=1}"}).job.has_value());
  CHECK(parse_job("", "job.toml", {"job.name=" + deep}).problems.size() >= 1);
  std::string nearly = "[a";
  for (int i = 0; i < 4990; ++i) nearly += ".a";
  CHECK(parse_job(nearly + "]\n", "job.toml", {}).problems.size() >= 1);
}

TEST_CASE("characters that are not ASCII are for strings and comments") {
  const std::string accented = "\xC3\xA9";
  const std::string odd = "\xEF\xAF\xAF";
  for (const std::string& c : {accented, odd}) {
    for (const std::string& text : {"x = " + c, c + " = 1", "a = [1, " + c + "]", "a." + c + " = 1", "[job] " + c,
                                    "a = \"\"\"\\\n " + c + "\"\"\"", "a = \"\"\"\\" + c + "\"\"\"", "a = 1" + c}) {
      const JobFileResult result = parse_job("# " + c + "\n" + text + "\n", "job.toml", {});
      INFO(text << all_problems(result));
      REQUIRE(result.problems.size() == 1);
      CHECK(result.problems[0].line >= 2);
      CHECK(result.problems[0].message.find("not ASCII") != std::string::npos);
    }
    const std::string fine = valid_text() + "[job.env] # " + c + "\nA = \"" + c + "\"\nB = '" + c + "'\nC = \"\"\"\n" +
                             c + " \\\n  x\\\" " + c + "\"\"\"\"\nD = '''\\" + c + "'''\n\"E" + c + "\" = \"\"\n";
    const JobFileResult result = parse_job("\xEF\xBB\xBF" + fine, "job.toml", {"job.env.Z=" + c});
    INFO(fine << all_problems(result));
    REQUIRE(result.job.has_value());
    CHECK(result.job->env.at("A") == c);
    CHECK(result.job->env.at("C") == c + " x\" " + c + "\"");
    CHECK(result.job->env.at("D") == "\\" + c);
    CHECK(result.job->env.at("E" + c).empty());
    CHECK(result.job->env.at("Z") == c);
  }
}
