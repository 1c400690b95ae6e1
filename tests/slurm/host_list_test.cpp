// Host lists: what Slurm writes, what nobody should, and that folding and expanding undo each other.
#include "slurm/host_list.hpp"

#include <random>

#include "tests/catch.hpp"

using mds::slurm::expand_hosts;
using mds::slurm::fold_hosts;
using Hosts = std::vector<std::string>;

namespace {

Hosts expanded(const std::string& text) {
  INFO(text);
  const auto hosts = expand_hosts(text);
  REQUIRE(hosts.ok());
  return *hosts;
}

std::string refused(const std::string& text) {
  INFO(text);
  const auto hosts = expand_hosts(text);
  REQUIRE(!hosts.ok());
  CHECK(hosts.error().code == mds::ErrorCode::bad_input);
  return hosts.error().message;
}

// A cluster's names in any order, with gaps, widths, suffixes and repetitions.
Hosts random_hosts(std::mt19937& random) {
  const Hosts prefixes{"n", "gpu-", "rack1-node", "a", "x10y", "cn-0-"};
  const Hosts suffixes{"", "", "-ib", ".local"};
  Hosts out;
  const size_t runs = 1 + random() % 5;
  for (size_t run = 0; run < runs; ++run) {
    const std::string prefix = prefixes[random() % prefixes.size()], suffix = suffixes[random() % suffixes.size()];
    const unsigned first = random() % 1200, count = 1 + random() % 12, step = 1 + random() % 2;
    const int width = static_cast<int>(random() % 5);
    for (unsigned n = 0; n < count; ++n) {
      char digits[16];
      std::snprintf(digits, sizeof digits, "%0*u", width, first + n * step);
      out.push_back(prefix + digits + suffix);
    }
    if (random() % 3 == 0) out.push_back("login");
  }
  return out;
}

}  // namespace

TEST_CASE("host lists as Slurm writes them") {
  CHECK(expanded("").empty());
  CHECK(expanded("gpu1") == Hosts{"gpu1"});
  CHECK(expanded("n[1-3]") == Hosts{"n1", "n2", "n3"});
  CHECK(expanded("n[08-11]") == Hosts{"n08", "n09", "n10", "n11"});
  CHECK(expanded("login,gpu[001,003-004],x") == Hosts{"login", "gpu001", "gpu003", "gpu004", "x"});
  CHECK(expanded("r[1-2]n[0-1]-ib") == Hosts{"r1n0-ib", "r1n1-ib", "r2n0-ib", "r2n1-ib"});
  CHECK(expanded("n[9-11]") == Hosts{"n9", "n10", "n11"});
  CHECK(expanded("a,a") == Hosts{"a", "a"});
}

TEST_CASE("host lists that are none") {
  for (const char* text : {"n[1-",
                           "n[",
                           "n]",
                           "n1]",
                           "n[]",
                           "n[a]",
                           "n[3-1]",
                           "n[1-2",
                           "n[1,,2]",
                           "n[-1]",
                           "n[1-2-3]",
                           ",",
                           "a,",
                           ",a",
                           "a,,b",
                           "n[[1]]",
                           "n[1-2]]",
                           "-oProxyCommand=x",
                           "a b",
                           "a;b",
                           "$(x)",
                           "a\nb",
                           "n[0-99999999]",
                           "n[0-999999999999]",
                           "a[0-999]b[0-999]c[0-9]"}) {
    CHECK_FALSE(refused(text).empty());
  }
  CHECK(refused("n[3-1]").find("backwards") != std::string::npos);
}

TEST_CASE("folding is short and expanding undoes it") {
  CHECK(fold_hosts({}).empty());
  CHECK(fold_hosts({"n1", "n2", "n4"}) == "n[1-2,4]");
  CHECK(fold_hosts({"n08", "n09", "n10"}) == "n[08-10]");
  CHECK(fold_hosts({"n1", "m1", "n2"}) == "n1,m1,n2");
  CHECK(fold_hosts({"n1"}) == "n1");
  CHECK(fold_hosts({"login", "login"}) == "login,login");
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  for (int n = 0; n < 2000; ++n) {
    const Hosts hosts = random_hosts(random);
    const std::string text = fold_hosts(hosts);
    INFO(text);
    const auto again = expand_hosts(text);
    REQUIRE(again.ok());
    REQUIRE(*again == hosts);
  }
}

TEST_CASE("any text is answered") {
  const unsigned seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::string letters = "an0129[]-,,-[]. ";
  for (int n = 0; n < 20'000; ++n) {
    std::string text;
    for (size_t size = random() % 24; size > 0; --size) text += letters[random() % letters.size()];
    INFO("'" << text << "'");
    const auto hosts = expand_hosts(text);
    if (!hosts) continue;
    const auto again = expand_hosts(fold_hosts(*hosts));
    REQUIRE(again.ok());
    REQUIRE(*again == *hosts);
  }
}
