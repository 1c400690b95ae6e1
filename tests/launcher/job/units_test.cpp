// Sizes, durations, numbers, and the nearest name.
#include <cmath>
#include <random>

#include "launcher/job_draft.hpp"
#include "launcher/job_nearest.hpp"
#include "launcher/job_values.hpp"
#include "tests/catch.hpp"

using namespace mds::launcher;
using std::chrono::milliseconds;

TEST_CASE("sizes are read with binary and decimal units") {
  CHECK(parse_size("80GiB") == int64_t{80} << 30);
  CHECK(parse_size("80 GiB") == int64_t{80} << 30);
  CHECK(parse_size("1.5KiB") == 1536);
  CHECK(parse_size("2GB") == 2000000000);
  CHECK(parse_size("17") == 17);
  CHECK(parse_size("0B") == 0);
  for (const char* wrong : {"", "GiB", "-1GiB", "1 giB", "1GiB ", "nan", "1e300TiB", "0x10", "1,5GiB", "80  GiB"}) {
    INFO(wrong);
    CHECK_FALSE(parse_size(wrong).has_value());
  }
}

TEST_CASE("durations are read with their units") {
  CHECK(parse_duration("30s") == milliseconds(30000));
  CHECK(parse_duration("500ms") == milliseconds(500));
  CHECK(parse_duration("1.5h") == milliseconds(5400000));
  CHECK(parse_duration("10m") == milliseconds(600000));
  CHECK(parse_duration("10min") == milliseconds(600000));
  CHECK(parse_duration("1d") == milliseconds(86400000));
  for (const char* wrong : {"", "30", "s", "-1s", "30sec", "1h30m", "inf s", "1e300d"}) {
    INFO(wrong);
    CHECK_FALSE(parse_duration(wrong).has_value());
  }
}

TEST_CASE("what is formatted reads back as the same value") {
  const uint64_t seed = std::random_device{}();
  std::mt19937_64 random(seed);
  for (int round = 0; round < 2000; ++round) {
    const int64_t bytes = static_cast<int64_t>(random() >> (11 + random() % 50));  // a size is exact up to 2^53
    const milliseconds duration(static_cast<int64_t>(random() >> (24 + random() % 40)));
    const double number =
        std::ldexp(static_cast<double>(static_cast<int64_t>(random())), static_cast<int>(random() % 200) - 150);
    INFO("seed " << seed << ": " << bytes << ", " << duration.count() << ", " << number);
    REQUIRE(parse_size(format_size(bytes)) == bytes);
    if (duration.count() < 10000000000000) REQUIRE(parse_duration(format_duration(duration)) == duration);
    REQUIRE(std::stod(format_number(number)) == number);
  }
}

TEST_CASE("the nearest name is found, or none") {
  const std::vector<std::string> names{"tensor", "pipeline", "data", "vocab_size", "seq_len"};
  CHECK(nearest_name("tenser", names) == "tensor");
  CHECK(nearest_name("piepline", names) == "pipeline");
  CHECK(nearest_name("seq-len", names) == "seq_len");
  CHECK(nearest_name("DATA", names) == "data");
  CHECK(nearest_name("vocab", names) == "vocab_size");
  CHECK(nearest_name("x", names).empty());
  CHECK(nearest_name("", names).empty());
  CHECK(nearest_name("wibble", names).empty());
  CHECK(nearest_name(std::string(1 << 20, 'a'), names).empty());
  CHECK(did_you_mean("dta", names) == "; did you mean 'data'?");
}

TEST_CASE("hostfiles of DeepSpeed are read") {
  const auto hosts = parse_hostfile("# nodes\nworker-1 slots=4\n\n  worker-2\tslots=4  # second\r\n");
  REQUIRE(hosts.ok());
  CHECK(hosts->hosts == std::vector<std::string>{"worker-1", "worker-2"});
  CHECK(hosts->slots == 4);
  REQUIRE(parse_hostfile("a\nb\n").ok());
  CHECK(parse_hostfile("a\nb\n")->slots == 0);
  for (const char* wrong : {"", "# none\n", "a slots=0\n", "a slots=x\n", "a slots=4 more\n", "a 4\n",
                            "a slots=99999999999\n", "a slots=2\nb slots=4\n"}) {
    INFO(wrong);
    CHECK_FALSE(parse_hostfile(wrong).ok());
  }
}
