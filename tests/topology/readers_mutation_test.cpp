// Random damage to recordings: readers never crash or hang, and what they still read survives all that is done to it.
#include <sys/resource.h>

#include <chrono>
#include <ctime>
#include <random>

#include "tests/topology/fuzz_input.hpp"
#include "tests/topology/recordings.hpp"
#include "tests/catch.hpp"

using namespace mds::topology::tests;

namespace {

using Random = std::mt19937_64;

constexpr double kSecondsEach = 3;
constexpr long kGrowthKbMax = 1 << 20;  // 1 GiB

size_t below(Random& random, size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random); }

/// A piece between blanks, brackets or quotes, so that damage hits what means something.
std::pair<size_t, size_t> piece(const std::string& text, Random& random) {
  const size_t at = below(random, text.size());
  const char* const ends = " \t\n\"<>=,:[]{}";
  const size_t begin = text.find_last_of(ends, at);
  const size_t end = text.find_first_of(ends, at);
  const size_t from = begin == std::string::npos ? 0 : begin + 1;
  return {from, std::max(from, std::min(end, text.size())) - from};
}

std::string token(Random& random) {
  static const std::vector<std::string> tokens{"0",
                                               "-1",
                                               "1",
                                               "4294967295",
                                               "9223372036854775807",
                                               "1e308",
                                               "nan",
                                               "0x",
                                               "ffffffff,ffffffff",
                                               "0000:00:00.0",
                                               "fffffff:ff:ff.0",
                                               "",
                                               "0x030200",
                                               "0x020700",
                                               "0x060400",
                                               "0x120000",
                                               "\"",
                                               "<",
                                               "/>",
                                               "]",
                                               "{}",
                                               "null",
                                               "NV18",
                                               "PIX",
                                               "X",
                                               "0-8191",
                                               "\xff\xfe",
                                               "&#0;",
                                               "<!--"};
  return tokens[below(random, tokens.size())];
}

void damage(std::string& text, Random& random) {
  if (text.empty()) return;
  const size_t at = below(random, text.size());
  const auto [from, size] = piece(text, random);
  switch (below(random, 9)) {
    case 0:
      text[at] = static_cast<char>(below(random, 256));
      break;
    case 1:
      text.erase(at, 1 + below(random, 40));
      break;
    case 2:
      text.resize(at);
      break;
    case 3:
      text.insert(at, text.substr(below(random, text.size()), 1 + below(random, 400)));
      break;
    case 4:
      text.replace(from, size, token(random));
      break;
    case 5:
      text.replace(from, size, std::to_string(random() >> below(random, 64)));
      break;
    case 6: {  // the same piece somewhere else: devices that point to each other
      const auto [other, length] = piece(text, random);
      text.replace(from, size, std::string(text.substr(other, length)));
      break;
    }
    case 7: {  // whole lines twice, or away
      const size_t line = text.rfind('\n', at) + 1;
      const size_t end = std::min(text.find('\n', at), text.size() - 1) + 1;
      if (below(random, 2))
        text.erase(line, end - line);
      else
        text.insert(line, std::string(text.substr(line, end - line)));
      break;
    }
    default: {  // deep nesting
      static const char* const openings[] = {"[",  "{\"a\":", "<pci busid=\"0000:00:00.0\">", "<object type=\"Group\">",
                                             "- ", "  "};
      const std::string opening = openings[below(random, std::size(openings))];
      std::string nest;
      for (size_t i = 0, depth = below(random, 3000); i < depth; ++i) nest += opening;
      text.insert(at, nest);
    }
  }
}

long peak_kb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss;
}

std::vector<std::pair<FuzzReader, std::string>> seeds() {
  std::vector<std::pair<FuzzReader, std::string>> texts;
  const std::filesystem::path corpus = std::filesystem::path(__FILE__).parent_path() / "fuzz_corpus";
  for (const auto& entry : std::filesystem::directory_iterator(corpus)) {
    const std::string text = read_text(entry.path());
    if (!text.empty()) texts.emplace_back(static_cast<FuzzReader>(text[0] % kFuzzReaders), text.substr(1));
  }
  const std::pair<const char*, FuzzReader> folders[] = {
      {"nccl", FuzzReader::nccl_xml}, {"hwloc", FuzzReader::hwloc_xml}, {"fabric", FuzzReader::fabric}};
  for (const auto& [folder, reader] : folders) {
    for (const auto& file : recordings(folder)) texts.emplace_back(reader, read_text(file));
  }
  return texts;
}

}  // namespace

TEST_CASE("damaged recordings never crash, hang or blow up a reader") {
  const char* const repeated = std::getenv("MDS_TEST_SEED");
  const unsigned seed = repeated ? static_cast<unsigned>(std::strtoul(repeated, nullptr, 10)) : std::random_device{}();
  Random random(seed);
  const auto texts = seeds();
  REQUIRE(texts.size() >= 10);
  for (const auto& [reader, text] : texts) {
    INFO(static_cast<int>(reader) << "\n" << text.substr(0, 300));
    if (reader != FuzzReader::guess) CHECK(try_input(reader, text));
  }
  const long before_kb = peak_kb();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(15);
  size_t inputs = 0, accepted = 0;
  double longest = 0;
  while (std::chrono::steady_clock::now() < end) {
    const auto& [reader, original] = texts[below(random, texts.size())];
    std::string text = original;
    for (size_t i = 0, n = 1 + below(random, 6); i < n; ++i) damage(text, random);
    // The message is made before the call: an abort leaves no time for it.
    INFO("seed " << seed << ", input " << inputs << ", reader " << static_cast<int>(reader));
    const std::clock_t start = std::clock();  // processor time: a busy machine is nobody's fault
    accepted += try_input(reader, text);
    const double took = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    longest = std::max(longest, took);
    if (took > kSecondsEach) FAIL("one input took " << took << " s; seed " << seed << ", input " << inputs);
    ++inputs;
  }
  CHECK(accepted > inputs / 20);  // the damage leaves something to work on
  CHECK(accepted < inputs);       // and is damage
  CHECK(peak_kb() - before_kb < kGrowthKbMax);
  WARN(inputs << " damaged recordings, " << accepted << " still read, longest " << longest << " s");
}
