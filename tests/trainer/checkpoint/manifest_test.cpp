#include "trainer/checkpoint/manifest.hpp"

#include <random>

#include "tests/catch.hpp"
#include "tests/trainer/scratch_folder.hpp"
#include "trainer/checkpoint/digest.hpp"

using namespace mds::trainer;

namespace {

Manifest sample_manifest() {
  Manifest manifest;
  manifest.step = 100;
  manifest.consumed_samples = 1600;
  manifest.config = {{"model", {{"norm_eps", 1e-5}, {"name", "\u00fc"}}}, {"third", 1.0 / 3}};
  manifest.extra = nullptr;
  manifest.files = {{"rank-00000.safetensors", 123, std::string(64, 'a')}, {"b", 4, std::string(64, 'b')}};
  manifest.tensors["w"] = {
      TensorType::bf16,
      {4, 2},
      {{0, "w", {{0, 0}, {2, 2}, 0, 4}}, {1, "w", {{2, 0}, {2, 2}, 0, 3}}, {1, "w#1", {{2, 0}, {2, 2}, 3, 4}}}};
  return manifest;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// The manifest with a changed body and a right checksum: what a hostile writer would send.
std::string forged(const std::string& pointer, const nlohmann::json& value) {
  nlohmann::json json = nlohmann::json::parse(to_text(sample_manifest()));
  json["body"][nlohmann::json::json_pointer(pointer)] = value;
  json["sha256"] = sha256_hex(bytes_of(json["body"].dump()));
  return json.dump();
}

}  // namespace

TEST_CASE("a checksum is SHA-256") {
  const std::string text = "abc";  // FIPS 180-2, appendix B.1
  CHECK(sha256_hex(bytes_of(text)) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("a manifest comes back as it was") {
  const std::string text = to_text(sample_manifest());
  const auto manifest = parse_manifest("m", bytes_of(text));
  REQUIRE(manifest);
  CHECK(to_text(*manifest) == text);
  CHECK(manifest->config["third"] == 1.0 / 3);
  CHECK(manifest->tensors.at("w").slices[1].region.extent == std::vector<int64_t>{2, 2});
}

TEST_CASE("slices must make up their tensor, and copies count once") {
  Manifest manifest = sample_manifest();
  REQUIRE(manifest.finish());
  manifest.tensors["w"].slices.push_back(manifest.tensors["w"].slices[0]);
  REQUIRE(manifest.finish());
  CHECK(manifest.tensors["w"].slices.size() == 3);
  manifest.tensors["w"].slices.pop_back();
  const auto incomplete = manifest.finish();
  REQUIRE(!incomplete);
  CHECK(incomplete.error().message.find("tensor w") != std::string::npos);

  Manifest whole = sample_manifest(), other = sample_manifest();
  other.tensors["w"].type = TensorType::f32;
  REQUIRE(whole.add(sample_manifest()));
  CHECK(whole.files.size() == 4);
  CHECK(whole.tensors["w"].slices.back().file == 3);
  CHECK(!whole.add(other));
}

TEST_CASE("a manifest with any bit changed is refused") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::string good = to_text(sample_manifest());
  for (int round = 0; round < 2000; ++round) {
    const std::string bad = mds::testing::mutated(good, random);
    const auto manifest = parse_manifest("m", bytes_of(bad));
    // Changes of white space between tokens are no damage.
    if (manifest) CHECK(to_text(*manifest) == good);
    if (!manifest) CHECK(manifest.error().message.find("m") == 0);
  }
}

TEST_CASE("a forged manifest with a right checksum is checked all the same") {
  REQUIRE(parse_manifest("m", bytes_of(forged("/step", 7))));
  const std::pair<const char*, nlohmann::json> cases[] = {
      {"/format", "other"},
      {"/version", 2},
      {"/step", -1},
      {"/step", "1"},
      {"/files", 3},
      {"/files/0/name", "../../etc/passwd"},
      {"/files/0/name", ".."},
      {"/files/0/name", ""},
      {"/files/0/bytes", -1},
      {"/files/0/sha256", "aa"},
      {"/tensors", nlohmann::json::array()},
      {"/tensors/w", 1},
      {"/tensors/w/type", "F7"},
      {"/tensors/w/shape", nlohmann::json::array({4, -2})},
      {"/tensors/w/shape", nlohmann::json::array({int64_t{1} << 40, int64_t{1} << 40})},
      {"/tensors/w/shape", nlohmann::json::array({4, 1})},
      {"/tensors/w/shape", std::vector<int>(20, 1)},
      {"/tensors/w/slices", 1},
      {"/tensors/w/slices/0/file", 2},
      {"/tensors/w/slices/0/key", 2},
      {"/tensors/w/slices/0/offset", nlohmann::json::array({3, 0})},
      {"/tensors/w/slices/0/offset", nlohmann::json::array({0})},
      {"/tensors/w/slices/0/extent", nlohmann::json::array({std::numeric_limits<int64_t>::max(), 2})},
      {"/tensors/w/slices/0/flat", nlohmann::json::array({0, 5})},
      {"/tensors/w/slices/0/flat", nlohmann::json::array({3, 2})},
      {"/tensors/w/slices/0/flat", nlohmann::json::array({0})},
  };
  for (const auto& [pointer, value] : cases) {
    INFO(pointer << " = " << value);
    const auto manifest = parse_manifest("m", bytes_of(forged(pointer, value)));
    REQUIRE(!manifest);
    CHECK(manifest.error().code == mds::ErrorCode::corrupt);
    CHECK(manifest.error().message.find("checksum") == std::string::npos);
  }
  for (const std::string text : {"", "{}", "[]", "3", "{\"body\": {}, \"sha256\": 1}"}) {
    CHECK(!parse_manifest("m", bytes_of(text)));
  }
}
