#include "trainer/checkpoint/safetensors.hpp"

#include <cstring>
#include <random>

#include "tests/catch.hpp"
#include "tests/trainer/scratch_folder.hpp"

using namespace mds::trainer;
using mds::testing::read_file;
using mds::testing::ScratchFolder;
using mds::testing::write_file;

namespace {

/// A file with this header text and so many bytes of data.
std::string file_bytes(const std::string& header, size_t data_bytes) {
  uint64_t size = header.size();
  std::string bytes(sizeof size, '\0');
  std::memcpy(bytes.data(), &size, sizeof size);
  return bytes + header + std::string(data_bytes, 'x');
}

std::string text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

/// Reads every tensor; the error's message, or "".
std::string read_all(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  if (!file) return file.error().message;
  int64_t sum = 0;
  for (const SafetensorsEntry& entry : file->entries()) {
    for (const std::byte b : file->bytes(entry)) sum += std::to_integer<int>(b);
    REQUIRE(element_count(entry) * element_size(entry.type) == static_cast<int64_t>(file->bytes(entry).size()));
  }
  return sum < 0 ? "impossible" : "";
}

const char* const kGood = R"({"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
  "b": {"dtype": "U8", "shape": [3], "data_offsets": [8, 11]}, "__metadata__": {"format": "pt"}})";

}  // namespace

// Written by the reference implementation: safetensors.torch.save({"a": [[1., 2.], [3., 4.]] (float32), "b.bf16": [1.5]
// (bfloat16), "s": 7 (int64)}, {"format": "pt"}).
TEST_CASE("a file of the reference implementation is read") {
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"s":{"dtype":"I64","shape":[],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},"b.bf16":{"dtype":"BF16","shape":[1],)"
      R"("data_offsets":[24,26]}}       )";
  REQUIRE(header.size() == 0xd0);
  std::string bytes = file_bytes(header, 0);
  bytes += std::string("\x07\0\0\0\0\0\0\0\0\0\x80?\0\0\0@\0\0@@\0\0\x80@\xc0?", 26);
  ScratchFolder folder;
  write_file(folder / "file", bytes);
  const auto file = SafetensorsFile::open(folder / "file");
  REQUIRE(file);
  CHECK(file->metadata().at("format") == "pt");
  REQUIRE(file->entries().size() == 3);
  const SafetensorsEntry* a = file->find("a");
  REQUIRE(a);
  CHECK(a->type == TensorType::f32);
  CHECK(a->shape == std::vector<int64_t>{2, 2});
  float values[4];
  std::memcpy(values, file->bytes(*a).data(), sizeof values);
  CHECK(values[3] == 4.0f);
  CHECK(file->find("b.bf16")->type == TensorType::bf16);
  CHECK(file->find("s")->shape.empty());
  CHECK(element_count(*file->find("s")) == 1);
  CHECK(file->find("none") == nullptr);
}

TEST_CASE("a written file has the format's bytes and its own checksum") {
  ScratchFolder folder;
  auto writer = SafetensorsWriter::create(folder / "file", {{"b", TensorType::u8, {3}, 0, 0},
                                                            {"a", TensorType::f16, {2, 2}, 0, 0},
                                                            {"none", TensorType::f32, {0, 5}, 0, 0}});
  REQUIRE(writer);
  const std::string data = "xyz12345678";
  REQUIRE(writer->append(std::as_bytes(std::span(data).first(5))));  // cuts a tensor in two
  CHECK(!writer->append(std::as_bytes(std::span(data))));            // more than announced
  REQUIRE(writer->append(std::as_bytes(std::span(data).subspan(5))));
  const auto written = writer->finish();
  REQUIRE(written);
  const std::string bytes = read_file(folder / "file");
  CHECK(written->bytes == bytes.size());
  CHECK(bytes.ends_with(data));
  CHECK((bytes.size() - data.size()) % 8 == 0);
  const auto file = SafetensorsFile::open(folder / "file");
  REQUIRE(file);
  CHECK(text_of(file->bytes(*file->find("b"))) == "xyz");
  CHECK(text_of(file->bytes(*file->find("a"))) == "12345678");
  CHECK(file->bytes(*file->find("none")).empty());

  auto half = SafetensorsWriter::create(folder / "half", {{"a", TensorType::u8, {3}, 0, 0}});
  REQUIRE(half);
  CHECK(!half->finish());
  CHECK(!SafetensorsWriter::create(folder / "no/folder", {}));
  CHECK(!SafetensorsWriter::create(folder / "x", {{"a", TensorType::u8, {}, 0, 0}, {"a", TensorType::u8, {}, 0, 0}}));
}

TEST_CASE("hostile files are refused with the reason") {
  ScratchFolder folder;
  write_file(folder / "file", file_bytes(kGood, 11));
  REQUIRE(read_all(folder / "file") == "");
  const auto one = [](const std::string& entry) { return "{\"a\": " + entry + "}"; };
  const std::string huge(8, '\xff');
  const std::pair<std::string, const char*> cases[] = {
      {"", "too few"},
      {"1234567", "too few"},
      {huge + "{}", "header claims"},
      {file_bytes("{}", 0).substr(0, 9), "header claims"},
      {file_bytes("", 0), "not valid JSON"},
      {file_bytes("{", 0), "not valid JSON"},
      {file_bytes("[]", 0), "not a JSON object"},
      {file_bytes("\xff\xfe", 0), "not valid JSON"},
      {file_bytes(std::string(100000, '['), 0), "nested too deeply"},
      {file_bytes("{}", 1), "belong to no tensor"},
      {file_bytes(kGood, 10), "tensor \"b\" has data_offsets outside"},
      {file_bytes(kGood, 12), "belong to no tensor"},
      {file_bytes(R"({"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1]}, "a": {}})", 1), "key \"a\" twice"},
      {file_bytes(R"({"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1], "dtype": "I8"}})", 1), "twice"},
      {file_bytes(one("3"), 0), "must have dtype, shape and data_offsets"},
      {file_bytes(one(R"({"dtype": "U8", "shape": []})"), 0), "must have dtype, shape and data_offsets"},
      {file_bytes(one(R"({"dtype": "X8", "shape": [], "data_offsets": [0, 1]})"), 1), "dtype"},
      {file_bytes(one(R"({"dtype": 8, "shape": [], "data_offsets": [0, 1]})"), 1), "dtype"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [-1], "data_offsets": [0, 1]})"), 1), "no valid shape"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [1.0], "data_offsets": [0, 1]})"), 1), "no valid shape"},
      {file_bytes(one(R"({"dtype": "U8", "shape": 1, "data_offsets": [0, 1]})"), 1), "no valid shape"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [2], "data_offsets": [0, 1]})"), 1), "do not match"},
      {file_bytes(one(R"({"dtype": "F64", "shape": [2305843009213693952, 8], "data_offsets": [0, 0]})"), 0),
       "do not match"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [1], "data_offsets": [1, 0]})"), 1), "outside"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [1], "data_offsets": [0, 1, 2]})"), 1), "outside"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [1], "data_offsets": [0, 18446744073709551615]})"), 1), "outside"},
      {file_bytes(one(R"({"dtype": "U8", "shape": [1], "data_offsets": [1, 2]})"), 2), "overlap or a hole"},
      {file_bytes(R"({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]},
                      "b": {"dtype": "U8", "shape": [2], "data_offsets": [1, 3]}})",
                  3),
       "overlap or a hole"},
      {file_bytes(R"({"__metadata__": {"a": 1}})", 0), "__metadata__"},
      {file_bytes(R"({"__metadata__": "a"})", 0), "__metadata__"},
  };
  for (const auto& [bytes, reason] : cases) {
    write_file(folder / "file", bytes);
    const std::string message = read_all(folder / "file");
    INFO(reason << "\n" << message);
    CHECK(message.find(folder / "file") == 0);
    CHECK(message.find(reason) != std::string::npos);
    CHECK(message.size() < 600);
  }
}

TEST_CASE("random damage to a file never gets past the checks") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  ScratchFolder folder;
  const std::string good = file_bytes(kGood, 11);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    write_file(folder / "file", mds::testing::mutated(good, random));
    refused += read_all(folder / "file") != "";
  }
  CHECK(refused > 1000);
}

TEST_CASE("a folder's tensors are found in its shards") {
  ScratchFolder folder;
  const auto entry = [](const std::string& name) {
    return "{\"" + name + "\": {\"dtype\": \"U8\", \"shape\": [2], \"data_offsets\": [0, 2]}}";
  };
  write_file(folder / "one.safetensors", file_bytes(entry("a"), 2));
  write_file(folder / "two.safetensors", file_bytes(entry("b"), 2));
  const auto index = [&](const std::string& map) {
    write_file(folder / "model.safetensors.index.json",
               "{\"metadata\": {\"total_size\": 4}, \"weight_map\": {" + map + "}}");
  };
  const auto message = [&] {
    const auto opened = SafetensorsFolder::open(folder.path());
    REQUIRE(!opened);
    return opened.error().message;
  };
  CHECK(message().find("neither model.safetensors nor") != std::string::npos);
  index(R"("a": "one.safetensors", "b": "two.safetensors")");
  const auto opened = SafetensorsFolder::open(folder.path());
  REQUIRE(opened);
  CHECK(opened->names() == std::vector<std::string>{"a", "b"});
  CHECK(opened->find("b")->bytes.size() == 2);
  CHECK(opened->find("b")->entry->name == "b");
  CHECK(!opened->find("c"));

  index(R"("a": "one.safetensors", "c": "two.safetensors")");
  CHECK(message().find("lacks tensor \"c\"") != std::string::npos);
  index(R"("a": "three.safetensors")");
  CHECK(message().find("three.safetensors") != std::string::npos);
  index(R"("a": "../one.safetensors")");
  CHECK(message().find("not a file name") != std::string::npos);
  index(R"("a": 1)");
  CHECK(message().find("not a file name") != std::string::npos);
  write_file(folder / "model.safetensors.index.json", "[]");
  CHECK(message().find("weight_map") != std::string::npos);

  write_file(folder / "model.safetensors", file_bytes(entry("z"), 2));
  const auto single = SafetensorsFolder::open(folder.path());
  REQUIRE(single);
  CHECK(single->names() == std::vector<std::string>{"z"});
}
