#include "topology/fabric/host_ranges.hpp"

#include <algorithm>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "topology/fabric/natural_order.hpp"

using namespace mds;
using namespace mds::topology;
using Names = std::vector<std::string>;

TEST_CASE("host lists expand", "[fabric][host_ranges]") {
  const std::vector<std::pair<const char*, Names>> cases{
      {"", {}},
      {"a", {"a"}},
      {" a , b ", {"a", "b"}},
      {"a[1-3]", {"a1", "a2", "a3"}},
      {"a[1-2,07]b[0-1]", {"a1b0", "a1b1", "a2b0", "a2b1", "a07b0", "a07b1"}},
      {"n[08-11].x", {"n08.x", "n09.x", "n10.x", "n11.x"}},
      {"[1101-1102]", {"1101", "1102"}},
      {"n[9-10],login", {"n9", "n10", "login"}},
      {"r[1-2,x[3-4]]", {"r1", "r2", "rx3", "rx4"}},
      {"n[5]", {"n5"}},
      {"n[a,b]", {"na", "nb"}},
  };
  for (const auto& [list, names] : cases) {
    INFO(list);
    const auto expanded = expand_hosts(list);
    REQUIRE(expanded);
    CHECK(*expanded == names);
  }
}

TEST_CASE("broken host lists are refused", "[fabric][host_ranges]") {
  for (const char* wrong :
       {"a[", "a]", "a[1-3", "a[3-1]", "a,,b", ",a", "a,", "a[]", "a[1,]", "a[1-9999999999999999999]", "a[1-2000000]",
        "a[1-1000]b[1-1000]c[1-10]", "a[[[[[[[[[[1]]]]]]]]]]"}) {
    INFO(wrong);
    const auto expanded = expand_hosts(wrong);
    REQUIRE_FALSE(expanded);
    CHECK(expanded.error().code == ErrorCode::bad_input);
  }
  CHECK_FALSE(expand_hosts("a[1-5]", 4));
  CHECK(expand_hosts("a[1-4]", 4));
  CHECK_FALSE(expand_hosts(std::string(100'000, '[')));
  CHECK(expand_hosts("a[1-65536]")->size() == kHostsMax);
}

TEST_CASE("folding is undone by expanding", "[fabric][host_ranges]") {
  CHECK(fold_hosts({"a1", "a2", "a3"}) == "a[1-3]");
  CHECK(fold_hosts({"b", "a10", "a9", "a7"}) == "a[7,9-10],b");
  CHECK(fold_hosts({"n08", "n09", "n10"}) == "n[08-10]");
  CHECK(fold_hosts({"n9", "n10", "n010"}) == "n[9,010,10]");
  CHECK(fold_hosts({"x", "x"}) == "x");
  CHECK(fold_hosts({}).empty());
  CHECK(fold_hosts({"r1-n1.a", "r1-n2.a", "r2-n1.a"}) == "r1-n[1-2].a,r2-n1.a");
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  for (int round = 0; round < 300; ++round) {
    std::set<std::string> names;
    for (size_t i = 0, count = random() % 30; i < count; ++i) {
      std::string number = std::to_string(random() % 12);
      if (random() % 3 == 0) number.insert(0, random() % 3, '0');
      names.insert(std::string(1, "ab"[random() % 2]) + number +
                   (random() % 4 == 0 ? "-ib" + std::to_string(random() % 3) : ""));
    }
    const std::string folded = fold_hosts({names.begin(), names.end()});
    const auto expanded = expand_hosts(folded);
    INFO(folded);
    REQUIRE(expanded);
    CHECK(std::set<std::string>(expanded->begin(), expanded->end()) == names);
    CHECK(expanded->size() == names.size());
  }
}

TEST_CASE("no text breaks the expander", "[fabric][host_ranges]") {
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  size_t good = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text;
    for (size_t i = 0, size = random() % 24; i < size; ++i) text += "a0129[]-, ["[random() % 11];
    const auto expanded = expand_hosts(text, 1000);
    good += expanded.ok();
    if (expanded) CHECK(expanded->size() <= 1000);
  }
  CHECK(good > 0);
}

TEST_CASE("natural order is a strict total order", "[fabric][host_ranges]") {
  CHECK(natural_less("n9", "n10"));
  CHECK(natural_less("n2a", "n2b"));
  CHECK(natural_less("a", "a1"));
  CHECK(natural_less("n1", "n01") != natural_less("n01", "n1"));
  CHECK_FALSE(natural_less("n1", "n1"));
  const auto seed = std::random_device{}();
  std::mt19937 random(seed);
  INFO("seed " << seed);
  const auto name = [&] {
    std::string text;
    for (size_t i = 0, size = random() % 6; i < size; ++i) text += "ab019-"[random() % 6];
    return text;
  };
  for (int round = 0; round < 20000; ++round) {
    const std::string a = name(), b = name(), c = name();
    INFO(a << " " << b << " " << c);
    REQUIRE((a == b) == (!natural_less(a, b) && !natural_less(b, a)));
    if (natural_less(a, b) && natural_less(b, c)) REQUIRE(natural_less(a, c));
  }
}
