#include "trainer/data/indexed_dataset.hpp"

#include <cstring>
#include <random>

#include "tests/catch.hpp"
#include "tests/trainer/scratch_folder.hpp"

using namespace mds::trainer;
using mds::testing::ScratchFolder;

namespace {

using Documents = std::vector<std::vector<int64_t>>;

void write(const std::string& prefix, TokenType type, const Documents& documents) {
  auto writer = IndexedDatasetWriter::create(prefix, type);
  REQUIRE(writer);
  for (const auto& document : documents) REQUIRE(writer->add(document));
  REQUIRE(writer->finish());
}

/// Reads everything; true if the data set opened.
bool read_all(const std::string& prefix, std::string* message = nullptr) {
  const auto set = IndexedDataset::open(prefix);
  if (!set) {
    if (message) *message = set.error().message;
    return false;
  }
  std::vector<int64_t> tokens;
  for (int64_t i = 0; i < (*set)->document_count(); ++i) {
    tokens.resize(static_cast<size_t>((*set)->length(i)));
    (*set)->copy(i, 0, (*set)->length(i), tokens.data());
  }
  return true;
}

template <typename T>
std::string bytes_of(T value) {
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

/// An .idx by hand, so that the writer is not its own judge.
std::string index_bytes(const std::vector<int32_t>& lengths, const std::vector<int64_t>& offsets,
                        const std::vector<int64_t>& boundaries, uint8_t code = 8, uint64_t version = 1) {
  std::string bytes("MMIDIDX\0\0", 9);
  bytes +=
      bytes_of(version) + bytes_of(code) + bytes_of<uint64_t>(lengths.size()) + bytes_of<uint64_t>(boundaries.size());
  for (const int32_t length : lengths) bytes += bytes_of(length);
  for (const int64_t offset : offsets) bytes += bytes_of(offset);
  for (const int64_t boundary : boundaries) bytes += bytes_of(boundary);
  return bytes;
}

}  // namespace

TEST_CASE("documents of every type come back as they were written") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  const std::pair<TokenType, int64_t> types[] = {{TokenType::u8, 255},         {TokenType::i8, 127},
                                                 {TokenType::i16, 32767},      {TokenType::u16, 65535},
                                                 {TokenType::i32, 2147483647}, {TokenType::i64, int64_t{1} << 62}};
  ScratchFolder folder;
  for (const auto& [type, max] : types) {
    Documents documents(20);
    for (auto& document : documents) {
      document.resize(random() % 50);
      for (int64_t& token : document) token = std::uniform_int_distribution<int64_t>(0, max)(random);
    }
    documents[3] = {max, 0};
    write(folder / "set", type, documents);
    const auto set = IndexedDataset::open(folder / "set.bin");
    REQUIRE(set);
    REQUIRE((*set)->document_count() == 20);
    CHECK((*set)->type() == type);
    for (int64_t i = 0; i < 20; ++i) {
      const auto& expected = documents[static_cast<size_t>(i)];
      REQUIRE((*set)->length(i) == static_cast<int64_t>(expected.size()));
      const int64_t offset = expected.empty() ? 0 : static_cast<int64_t>(random() % expected.size());
      std::vector<int64_t> tail(expected.size() - static_cast<size_t>(offset));
      (*set)->copy(i, offset, static_cast<int64_t>(tail.size()), tail.data());
      CHECK(std::equal(tail.begin(), tail.end(), expected.begin() + offset));
    }
  }
}

TEST_CASE("the files' bytes are Megatron's") {
  ScratchFolder folder;
  write(folder / "set", TokenType::u16, {{1, 2, 3}, {}, {65535}});
  CHECK(mds::testing::read_file(folder / "set.bin") == std::string("\1\0\2\0\3\0\xff\xff", 8));
  CHECK(mds::testing::read_file(folder / "set.idx") == index_bytes({3, 0, 1}, {0, 6, 6}, {0, 1, 2, 3}));
}

TEST_CASE("a token that does not fit is refused") {
  ScratchFolder folder;
  auto writer = IndexedDatasetWriter::create(folder / "set", TokenType::u8);
  REQUIRE(writer);
  CHECK(!writer->add(std::vector<int64_t>{256}));
  CHECK(!writer->add(std::vector<int64_t>{-1}));
  CHECK(!IndexedDatasetWriter::create(folder / "no/such/folder", TokenType::u8));
}

TEST_CASE("hostile indexes are refused with the reason") {
  ScratchFolder folder;
  mds::testing::write_file(folder / "set.bin", "12345678");
  const std::string good = index_bytes({2, 2}, {0, 4}, {0, 1, 2});
  mds::testing::write_file(folder / "set.idx", good);
  REQUIRE(read_all(folder / "set"));
  const int64_t far = std::numeric_limits<int64_t>::max();
  const std::pair<std::string, const char*> cases[] = {
      {"", "not a Megatron index"},
      {"MMIDIDX", "not a Megatron index"},
      {"TNTIDX" + good.substr(6), "not a Megatron index"},
      {index_bytes({2}, {0}, {0, 1}, 8, 2), "version 2"},
      {index_bytes({2}, {0}, {0, 1}, 7), "floating point"},
      {index_bytes({2}, {0}, {0, 1}, 0), "type code 0"},
      {index_bytes({2}, {0}, {0, 1}, 99), "type code 99"},
      {good.substr(0, good.size() - 1), "truncated"},
      {good + "x", "truncated or damaged"},
      {good.substr(0, 18) + bytes_of(~uint64_t{0}) + good.substr(26), "truncated or damaged"},
      {good.substr(0, 26) + bytes_of(~uint64_t{0}) + good.substr(34), "truncated or damaged"},
      {good.substr(0, 18) + bytes_of(uint64_t{1} << 61) + bytes_of(uint64_t{1} << 61) + good.substr(34), "truncated"},
      {index_bytes({-1, 2}, {0, 4}, {0}), "document 0"},
      {index_bytes({2, 3}, {0, 4}, {0}), "document 1"},
      {index_bytes({2, 2}, {0, 5}, {0}), "document 1"},
      {index_bytes({2, 2}, {0, -2}, {0}), "document 1"},
      {index_bytes({2, 2}, {0, far}, {0}), "document 1"},
      {index_bytes({2147483647, 2}, {0, 4}, {0}), "document 0"},
      {index_bytes({2, 2}, {0, 4}, {0, 3}), "boundary 1"},
      {index_bytes({2, 2}, {0, 4}, {1, 0}), "boundary 1"},
      {index_bytes({2, 2}, {0, 4}, {-1}), "boundary 0"},
  };
  for (const auto& [bytes, reason] : cases) {
    mds::testing::write_file(folder / "set.idx", bytes);
    std::string message;
    INFO(reason);
    REQUIRE(!read_all(folder / "set", &message));
    INFO(message);
    CHECK(message.find(reason) != std::string::npos);
    CHECK(message.find(folder / "set.idx") == 0);
  }
}

TEST_CASE("missing and irregular files are refused by name") {
  ScratchFolder folder;
  std::string message;
  CHECK(!read_all(folder / "none", &message));
  CHECK(message.find("none.idx") != std::string::npos);
  mds::testing::write_file(folder / "set.idx", index_bytes({}, {}, {0}));
  CHECK(!read_all(folder / "set", &message));
  CHECK(message.find("set.bin") != std::string::npos);
  std::filesystem::create_directory(folder / "set.bin");
  CHECK(!read_all(folder / "set", &message));
  std::filesystem::remove(folder / "set.bin");
  mds::testing::write_file(folder / "set.bin", "");
  CHECK(read_all(folder / "set"));  // empty is fine here; there are no samples in it, though
}

TEST_CASE("random damage to an index never gets past the checks") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  ScratchFolder folder;
  write(folder / "set", TokenType::u16, Documents(30, std::vector<int64_t>{1, 2, 3, 4, 5}));
  const std::string good = mds::testing::read_file(folder / "set.idx");
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    mds::testing::write_file(folder / "set.idx", mds::testing::mutated(good, random));
    refused += !read_all(folder / "set");
  }
  CHECK(refused > 1000);
}
