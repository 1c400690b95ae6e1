#include "launcher/loss_svg.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "tests/agent/random_seed.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;

namespace {

/// Every tag closed in order, every attribute quoted, no stray '&' or '<'. Empty: well-formed.
std::string fault(const std::string& svg) {
  std::vector<std::string> open;
  for (size_t i = 0; i < svg.size(); ++i) {
    if (svg[i] == '&' && svg.find(';', i) - i > 5) return "bare & at " + std::to_string(i);
    if (svg[i] != '<') continue;
    const size_t end = svg.find('>', i);
    if (end == std::string::npos) return "tag without end";
    const std::string tag = svg.substr(i + 1, end - i - 1);
    if (tag.find('<') != std::string::npos) return "< in a tag";
    if (std::count(tag.begin(), tag.end(), '"') % 2) return "odd quotes in " + tag;
    const std::string name = tag.substr(0, tag.find_first_of(" /"));
    if (tag[0] == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return "unexpected <" + tag + ">";
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
    i = end;
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

size_t count(const std::string& text, const std::string& part) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; ++at) ++n;
  return n;
}

}  // namespace

TEST_CASE("loss picture: well-formed for any history, without a number that is none") {
  const uint64_t seed = fresh_seed();
  std::mt19937_64 random(seed);
  for (int run = 0; run < 200; ++run) {
    INFO("MDS_TEST_SEED=" << seed << ", run " << run);
    MetricsHistory history;
    const int steps = static_cast<int>(random() % (run % 10 == 0 ? 5000 : 60));
    const double scale = std::pow(10.0, static_cast<double>(random() % 12) - 6);
    for (int i = 1; i <= steps; ++i) {
      StepMetrics m{.step = i, .attempt = 1, .loss = scale * std::uniform_real_distribution<>(-1, 5)(random)};
      if (random() % 50 == 0) m.loss = std::numeric_limits<double>::quiet_NaN();
      if (random() % 50 == 0) m.loss = std::numeric_limits<double>::infinity();
      if (random() % 10 == 0) m.validation_loss = scale;
      history.add(m);
    }
    if (random() % 2) history.resume(2, steps / 2);
    const std::string svg = loss_svg(history, "a <job> & \"more\"");
    if (svg.empty()) continue;
    REQUIRE(fault(svg) == "");
    REQUIRE(svg.find("nan") == std::string::npos);
    REQUIRE(svg.find("inf") == std::string::npos);
    REQUIRE(svg.size() < 200'000);
  }
}

TEST_CASE("loss picture: curves, restart marks and legend are there") {
  MetricsHistory history;
  for (int i = 1; i <= 100; ++i) history.add({.step = i, .attempt = 1, .loss = 5 - 0.03 * i});
  history.add({.step = 100, .attempt = 1, .validation_loss = 2.25});
  history.resume(2, 60);
  for (int i = 61; i <= 100; ++i) history.add({.step = i, .attempt = 2, .loss = 5 - 0.03 * i});
  history.add({.step = 100, .attempt = 2, .validation_loss = 2.125});
  const std::string svg = loss_svg(history, "demo");
  CHECK(svg.find(">training 2.0000<") != std::string::npos);
  CHECK(svg.find(">validation 2.1250<") != std::string::npos);
  CHECK(count(svg, "restart: resumed here") == 1);
  CHECK(count(svg, "<polyline") == 3);  // raw and smooth training, validation
  CHECK(svg.find(">demo<") != std::string::npos);
  CHECK(loss_svg(MetricsHistory(), "none").empty());
  CHECK(loss_svg(history, "demo") == svg);
}
