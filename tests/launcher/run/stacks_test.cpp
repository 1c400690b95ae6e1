#include "launcher/stacks.hpp"

#include <nlohmann/json.hpp>

#include "tests/catch.hpp"

using namespace mds::launcher;
using nlohmann::json;

namespace {

json rank(int number, const json& processes) { return {{"rank", number}, {"processes", processes}}; }
json process(const std::string& name, const json& threads) {
  return {{"pid", 1}, {"name", name}, {"threads", threads}};
}
json thread(const std::string& name, const json& frames) { return {{"tid", 1}, {"name", name}, {"frames", frames}}; }

// A list of one in braces would be that one.
json one(int number, const json& process) { return rank(number, json::array({process})); }

}  // namespace

TEST_CASE("equal stacks stand once, with their ranks, most ranks first", "[stacks]") {
  json ranks = json::array();
  for (int r = 0; r < 8; ++r) {
    const json waits = thread("mdstrain", {"poll (libc.so.6)", "main (mdstrain)"});
    const json works = thread("mdstrain", {"gemm (libtorch.so)", "main (mdstrain)"});
    const json pool = thread("pool", json::array({"futex (libc.so.6)"}));
    ranks.push_back(one(r, process("mdstrain", json::array({r == 3 ? works : waits, pool, pool}))));
  }
  CHECK(merged_stacks(ranks) ==
        "ranks 0-7: mdstrain / pool (16 threads)\n  #0 futex (libc.so.6)\n"
        "\nranks 0-2,4-7: mdstrain\n  #0 poll (libc.so.6)\n  #1 main (mdstrain)\n"
        "\nrank 3: mdstrain\n  #0 gemm (libtorch.so)\n  #1 main (mdstrain)\n");
}

TEST_CASE("what cannot be read says why; what is malformed does no harm", "[stacks]") {
  const json denied{{"pid", 7}, {"name", "sleep"}, {"error", "Operation not permitted"}};
  CHECK(merged_stacks(json::array({one(2, denied)})) == "rank 2: sleep\n  #0 not readable: Operation not permitted\n");
  CHECK(merged_stacks(json::array({one(0, process("a", json::array({thread("a", json::array())})))}))
            .find("not readable") != std::string::npos);
  for (const json& broken : {json(), json(3), json::array({1, "x"}), json::array({rank(0, 5)}),
                             json::array({{{"rank", "0"}}}), json::array({one(0, {{"threads", {1}}})})}) {
    INFO(broken.dump());
    CHECK_NOTHROW(merged_stacks(broken));
  }
}
