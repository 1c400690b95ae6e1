#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "tests/catch.hpp"
#include "tests/trainer/scratch_folder.hpp"
#include "trainer/data/byte_corpus.hpp"
#include "trainer/data/dataset.hpp"
#include "trainer/data/indexed_dataset.hpp"
#include "trainer/data/token_source.hpp"

using namespace mds::trainer;
using mds::testing::ScratchFolder;
using mds::testing::write_file;

namespace {

DataConfig text_config(const std::string& path, std::vector<double> split = {0.9, 0.1}) {
  DataConfig data;
  data.format = DataFormat::text;
  data.sources = {{path, 1.0}};
  data.split = std::move(split);
  return data;
}

std::vector<int64_t> sample(const Dataset& set, int64_t index, int64_t seq_len) {
  std::vector<int64_t> tokens(static_cast<size_t>(seq_len) + 1, -1);
  REQUIRE(set.sample(index, tokens.data()));
  return tokens;
}

std::string text_of(const std::vector<int64_t>& tokens) { return {tokens.begin(), tokens.end()}; }

std::string random_text(std::mt19937& random, size_t size) {
  std::string text(size, ' ');
  for (char& c : text) c = static_cast<char>('a' + random() % 26);
  return text;
}

std::string message_of(const DataConfig& data, DatasetSizes sizes = {10, 10, 0}, int64_t vocab = 256) {
  const auto set = open_dataset(data, 8, vocab, Split::train, sizes);
  REQUIRE(!set);
  return set.error().message;
}

}  // namespace

TEST_CASE("splits are cut as Megatron cuts them") {
  // From get_train_valid_test_split_("...", n).
  CHECK(split_boundaries({969, 30, 1}, 1000) == std::array<int64_t, 4>{0, 969, 999, 1000});
  CHECK(split_boundaries({0.5, 0.5}, 3) == std::array<int64_t, 4>{0, 1, 3, 3});  // 1.5 rounds to 2, twice
  CHECK(split_boundaries({0.5, 0.5}, 1) == std::array<int64_t, 4>{0, 1, 1, 1});  // 0.5 rounds to 0, twice
  CHECK(split_boundaries({90, 5, 5}, 7) == std::array<int64_t, 4>{0, 7, 7, 7});
  CHECK(split_boundaries({1}, 5) == std::array<int64_t, 4>{0, 5, 5, 5});
  CHECK(split_boundaries({969, 30, 1}, 0) == std::array<int64_t, 4>{0, 0, 0, 0});
}

TEST_CASE("an epoch of text shows every training byte and no other") {
  const auto seed = std::random_device{}();
  INFO("seed " << seed);
  std::mt19937 random(seed);
  ScratchFolder folder;
  const std::string text = random_text(random, 5000);
  write_file(folder / "text", text);
  const int64_t seq_len = 16, samples = (4500 - 1) / seq_len;
  const auto train = open_dataset(text_config(folder / "text"), seq_len, 256, Split::train, {samples, 10, 0});
  REQUIRE(train);
  REQUIRE((*train)->size() == samples);
  std::set<std::string> seen;
  for (int64_t i = 0; i < samples; ++i) seen.insert(text_of(sample(**train, i, seq_len)));
  std::set<std::string> expected;
  for (int64_t i = 0; i < samples; ++i) expected.insert(text.substr(static_cast<size_t>(i * seq_len), 17));
  CHECK(seen == expected);

  const auto validation = open_dataset(text_config(folder / "text"), seq_len, 256, Split::validation, {samples, 31, 0});
  REQUIRE(validation);
  REQUIRE((*validation)->size() >= 31);
  for (int64_t i = 0; i < 31; ++i) {
    CHECK(text.substr(4500).find(text_of(sample(**validation, i, seq_len))) != std::string::npos);
  }
}

TEST_CASE("the order of samples depends on the seed and on nothing else") {
  ScratchFolder folder;
  std::mt19937 random(1);
  write_file(folder / "text", random_text(random, 5000));
  DataConfig data = text_config(folder / "text");
  const auto order = [&](uint64_t seed) {
    data.seed = seed;
    const auto set = open_dataset(data, 32, 256, Split::train, {1000, 0, 0});
    REQUIRE(set);
    CHECK((*set)->size() >= 1000);
    std::string all;
    for (int64_t i = 0; i < 1000; ++i) all += text_of(sample(**set, i, 32));
    return all;
  };
  CHECK(order(1) == order(1));
  CHECK(order(1) != order(2));
}

TEST_CASE("a folder is its regular files, each once") {
  ScratchFolder folder;
  namespace fs = std::filesystem;
  write_file(folder / "b", "bbbbbbbbbb");
  write_file(folder / "a", "aaaaaaaaaa");
  write_file(folder / "empty", "");
  fs::create_symlink("b", folder / "link");
  fs::create_symlink("nowhere", folder / "dangling");
  fs::create_directory(folder / "sub");
  write_file(folder / "sub/c", "cccccccccc");
  const auto corpus = ByteCorpus::open_text(folder.path(), {1.0}, Split::train);
  REQUIRE(corpus);
  REQUIRE((*corpus)->document_count() == 2);
  for (int64_t i = 0; i < 2; ++i) {
    int64_t token = 0;
    CHECK((*corpus)->length(i) == 10);
    (*corpus)->copy(i, 9, 1, &token);
    CHECK(token == 'a' + i);
  }
}

TEST_CASE("jsonl lines are documents with an end") {
  ScratchFolder folder;
  write_file(folder / "data.jsonl", "{\"text\": \"ab\\u00e9\"}\n\n{\"id\": 3, \"text\": \"\"}\r\n{\"text\": \"x\"}");
  const auto corpus = ByteCorpus::open_jsonl(folder / "data.jsonl");
  REQUIRE(corpus);
  REQUIRE((*corpus)->document_count() == 3);
  std::vector<int64_t> tokens(5);
  REQUIRE((*corpus)->length(0) == 5);
  (*corpus)->copy(0, 0, 5, tokens.data());
  CHECK(tokens == std::vector<int64_t>{'a', 'b', 0xc3, 0xa9, 0});
  CHECK((*corpus)->length(1) == 1);
  CHECK((*corpus)->length(2) == 2);

  for (const char* line : {"{\"text\": 3}", "{\"txt\": \"a\"}", "[]", "{\"text\": \"a\"", "{\"text\": \"\xff\"}"}) {
    write_file(folder / "data.jsonl", std::string("{\"text\": \"ab\"}\n") + line + "\n");
    DataConfig data = text_config(folder / "data.jsonl");
    data.format = DataFormat::jsonl;
    CHECK(message_of(data).find("data.jsonl:2: ") != std::string::npos);
  }
}

TEST_CASE("random tokens are uniform, repeatable and different in every split") {
  DataConfig data;
  data.format = DataFormat::random;
  const int64_t seq_len = 999, vocab = 10;
  std::map<int64_t, int> counts;
  const auto train = open_dataset(data, seq_len, vocab, Split::train, {100, 100, 0});
  const auto again = open_dataset(data, seq_len, vocab, Split::train, {200, 100, 0});
  const auto validation = open_dataset(data, seq_len, vocab, Split::validation, {100, 100, 0});
  REQUIRE(((train) && (again) && (validation)));
  for (int64_t i = 0; i < 100; ++i) {
    for (const int64_t token : sample(**train, i, seq_len)) ++counts[token];
    CHECK(sample(**train, i, seq_len) == sample(**again, i, seq_len));
    CHECK(sample(**train, i, seq_len) != sample(**validation, i, seq_len));
    if (i > 0) CHECK(sample(**train, i, seq_len) != sample(**train, i - 1, seq_len));
  }
  REQUIRE(counts.size() == 10);
  for (const auto& [token, count] : counts) CHECK(std::abs(count - 10000) < 600);  // 6 sigma
}

TEST_CASE("a blend draws from its parts by weight") {
  ScratchFolder folder;
  write_file(folder / "a", std::string(2000, 'a'));
  write_file(folder / "b", std::string(2000, 'b'));
  DataConfig data = text_config(folder / "a");
  data.sources = {{folder / "a", 3.0}, {folder / "b", 1.0}};
  const auto set = open_dataset(data, 16, 256, Split::train, {400, 0, 0});
  REQUIRE(set);
  REQUIRE((*set)->size() >= 400);
  int from_a = 0;
  for (int64_t i = 0; i < 400; ++i) {
    from_a += sample(**set, i, 16)[0] == 'a';
    if (i > 8) CHECK(std::abs(from_a - 0.75 * static_cast<double>(i)) < 2);  // evenly mixed all along
  }
}

TEST_CASE("what cannot be opened is named with a remedy") {
  ScratchFolder folder;
  const std::string missing = message_of(text_config(folder / "missing"));
  CHECK(missing.find(folder / "missing") != std::string::npos);
  CHECK(missing.find("data.path") != std::string::npos);
  std::filesystem::create_directory(folder / "empty");
  CHECK(message_of(text_config(folder / "empty")).find("no regular files") != std::string::npos);
  write_file(folder / "tiny", "x");
  CHECK(message_of(text_config(folder / "tiny")).find("too few") != std::string::npos);
  write_file(folder / "text", "some text that is long enough");
  CHECK(message_of(text_config(folder / "text", {0, 1})).find("data.split") != std::string::npos);
  CHECK(message_of(text_config(folder / "text"), {10, 0, 0}, 255).find("model.vocab_size") != std::string::npos);
  CHECK(message_of(text_config(folder / "text"), {int64_t{1} << 62, 0, 0}).find("samples") != std::string::npos);
  CHECK(message_of(text_config(folder / "text"), {int64_t{1} << 40, 0, 0}).find("more data") != std::string::npos);
  DataConfig data = text_config(folder / "text");
  data.seed = uint64_t{1} << 32;
  CHECK(message_of(data).find("data.seed") != std::string::npos);
  data.sources.clear();
  CHECK(!open_dataset(data, 8, 256, Split::train, {1, 0, 0}));
  // Nothing wanted of a split, nothing opened for it.
  const auto none = open_dataset(data, 8, 256, Split::test, {1, 1, 0});
  REQUIRE(none);
  CHECK((*none)->size() == 0);
}

TEST_CASE("a token outside of the vocabulary is an error of its sample") {
  ScratchFolder folder;
  auto writer = IndexedDatasetWriter::create(folder / "set", TokenType::i32);
  REQUIRE(writer);
  for (const int64_t bad : {0, -1, 300, 0}) {
    REQUIRE(writer->add(std::vector<int64_t>{1, 2, 3, bad, 5, 6, 7, 8, 9}));
  }
  REQUIRE(writer->finish());
  DataConfig data = text_config(folder / "set", {1.0});
  data.format = DataFormat::megatron;
  const auto set = open_dataset(data, 8, 300, Split::train, {4, 0, 0});
  REQUIRE(set);
  std::vector<int64_t> tokens(9);
  int wrong = 0;
  for (int64_t i = 0; i < (*set)->size(); ++i) {
    const mds::Status status = (*set)->sample(i, tokens.data());
    wrong += !status;
    if (!status) {
      CHECK(status.error().code == mds::ErrorCode::corrupt);
      CHECK(status.error().message.find("model.vocab_size") != std::string::npos);
    }
  }
  CHECK(wrong >= 2);
}
