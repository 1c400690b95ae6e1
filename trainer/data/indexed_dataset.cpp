#include "trainer/data/indexed_dataset.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <fstream>
#include <limits>
#include <utility>

namespace mds::trainer {
namespace {

constexpr std::array<char, 9> kMagic{'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kVersion = 1;
// The header's size makes everything behind it unaligned: fields are copied out, never cast.
constexpr size_t kVersionAt = kMagic.size(), kTypeAt = kVersionAt + 8, kCountAt = kTypeAt + 1;
constexpr size_t kBoundaryCountAt = kCountAt + 8, kLengthsAt = kBoundaryCountAt + 8;

template <typename T>
T load(const MappedFile& file, size_t at) {
  T value;
  std::memcpy(&value, file.bytes().data() + at, sizeof value);
  return value;
}

/// Calls `body` with a value of the C++ type of `type`.
template <typename Body>
auto with_type(TokenType type, Body&& body) {
  switch (type) {
    case TokenType::u8:
      return body(uint8_t{});
    case TokenType::i8:
      return body(int8_t{});
    case TokenType::i16:
      return body(int16_t{});
    case TokenType::i32:
      return body(int32_t{});
    case TokenType::i64:
      return body(int64_t{});
    case TokenType::u16:
      return body(uint16_t{});
  }
  return body(uint8_t{});
}

int64_t token_size(TokenType type) {
  return with_type(type, [](auto token) { return static_cast<int64_t>(sizeof token); });
}

}  // namespace

Result<std::unique_ptr<IndexedDataset>> IndexedDataset::open(std::string prefix) {
  if (prefix.ends_with(".bin") || prefix.ends_with(".idx")) prefix.resize(prefix.size() - 4);
  Result<MappedFile> index = MappedFile::open(prefix + ".idx");
  if (!index) return index.error();
  Result<MappedFile> data = MappedFile::open(prefix + ".bin");
  if (!data) return data.error();
  std::unique_ptr<IndexedDataset> set(new IndexedDataset(prefix, *std::move(index), *std::move(data)));
  if (Status status = set->read_header(); !status) return status.error().within(set->index_.path());
  if (Status status = set->check_documents(); !status) return status.error().within(set->index_.path());
  return set;
}

Status IndexedDataset::read_header() {
  if (index_.size() < kLengthsAt || std::memcmp(index_.bytes().data(), kMagic.data(), kMagic.size()) != 0) {
    return corrupt(
        "this is not a Megatron index (it does not begin with MMIDIDX); make it with Megatron's "
        "tools/preprocess_data.py and --dataset-impl mmap");
  }
  if (const auto version = load<uint64_t>(index_, kVersionAt); version != kVersion) {
    return corrupt("version " + std::to_string(version) + " of the index is not known; version 1 is");
  }
  const auto code = load<uint8_t>(index_, kTypeAt);
  if (code == 6 || code == 7) return corrupt("it holds floating point numbers, not tokens");
  if (code < 1 || code > 8) return corrupt("type code " + std::to_string(code) + " is not known");
  type_ = static_cast<TokenType>(code);

  const auto count = load<uint64_t>(index_, kCountAt);
  const auto boundaries = load<uint64_t>(index_, kBoundaryCountAt);
  const uint64_t room = index_.size() - kLengthsAt;
  // Each division guards the product that follows it.
  if (count > room / 12 || boundaries > room / 8 || count * 12 + boundaries * 8 != room) {
    return corrupt("the file has " + std::to_string(index_.size()) + " bytes, which do not fit " +
                   std::to_string(count) + " documents and " + std::to_string(boundaries) +
                   " boundaries; it is truncated or damaged");
  }
  count_ = static_cast<int64_t>(count);
  boundary_count_ = static_cast<int64_t>(boundaries);
  return {};
}

Status IndexedDataset::check_documents() const {
  const auto data_bytes = static_cast<int64_t>(data_.size());
  const int64_t size = token_size(type_);
  for (int64_t i = 0; i < count_; ++i) {
    const int64_t tokens = length(i), begin = byte_offset(i);
    if (tokens < 0 || begin < 0 || begin > data_bytes || tokens > (data_bytes - begin) / size) {
      return corrupt("document " + std::to_string(i) + " has " + std::to_string(tokens) + " tokens at byte " +
                     std::to_string(begin) + ", outside of " + data_.path() + " with " + std::to_string(data_bytes) +
                     " bytes");
    }
  }
  const size_t boundaries_at = kLengthsAt + static_cast<size_t>(count_) * 12;
  int64_t before = 0;
  for (int64_t i = 0; i < boundary_count_; ++i) {
    const auto boundary = load<int64_t>(index_, boundaries_at + static_cast<size_t>(i) * 8);
    if (boundary < before || boundary > count_) {
      return corrupt("document boundary " + std::to_string(i) + " is " + std::to_string(boundary) + ", out of order");
    }
    before = boundary;
  }
  return {};
}

int64_t IndexedDataset::length(int64_t document) const {
  return load<int32_t>(index_, kLengthsAt + static_cast<size_t>(document) * 4);
}

int64_t IndexedDataset::byte_offset(int64_t document) const {
  return load<int64_t>(index_, kLengthsAt + static_cast<size_t>(count_) * 4 + static_cast<size_t>(document) * 8);
}

void IndexedDataset::copy(int64_t document, int64_t offset, int64_t count, int64_t* tokens) const {
  with_type(type_, [&](auto token) {
    const std::byte* from = data_.bytes().data() + byte_offset(document) + offset * static_cast<int64_t>(sizeof token);
    for (int64_t i = 0; i < count; ++i, from += sizeof token) {
      std::memcpy(&token, from, sizeof token);
      tokens[i] = static_cast<int64_t>(token);
    }
  });
}

struct IndexedDatasetWriter::State {
  std::string prefix;
  TokenType type;
  std::ofstream data;
  std::vector<int32_t> lengths;
  std::vector<int64_t> offsets, boundaries{0};
  int64_t bytes = 0;
};

IndexedDatasetWriter::IndexedDatasetWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
IndexedDatasetWriter::IndexedDatasetWriter(IndexedDatasetWriter&&) noexcept = default;
IndexedDatasetWriter::~IndexedDatasetWriter() = default;

Result<IndexedDatasetWriter> IndexedDatasetWriter::create(const std::string& prefix, TokenType type) {
  auto state = std::make_unique<State>();
  state->prefix = prefix;
  state->type = type;
  state->data.open(prefix + ".bin", std::ios::binary | std::ios::trunc);
  if (!state->data) return internal("cannot create " + prefix + ".bin");
  return IndexedDatasetWriter(std::move(state));
}

Status IndexedDatasetWriter::add(std::span<const int64_t> document) {
  if (document.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return bad_input("a document of " + std::to_string(document.size()) + " tokens is too long for the format");
  }
  return with_type(state_->type, [&](auto token) -> Status {
    using Token = decltype(token);
    std::vector<Token> narrow;
    narrow.reserve(document.size());
    for (const int64_t wide : document) {
      if (!std::in_range<Token>(wide)) {
        return bad_input("token " + std::to_string(wide) + " does not fit the type of " + state_->prefix + ".bin");
      }
      narrow.push_back(static_cast<Token>(wide));
    }
    const auto bytes = std::as_bytes(std::span(narrow));
    state_->data.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    if (!state_->data) return internal("cannot write " + state_->prefix + ".bin");
    state_->lengths.push_back(static_cast<int32_t>(document.size()));
    state_->offsets.push_back(state_->bytes);
    state_->boundaries.push_back(static_cast<int64_t>(state_->lengths.size()));
    state_->bytes += static_cast<int64_t>(bytes.size());
    return {};
  });
}

Status IndexedDatasetWriter::finish() {
  state_->data.close();
  std::ofstream index(state_->prefix + ".idx", std::ios::binary | std::ios::trunc);
  const auto put = [&](const auto& values) {
    const auto bytes = std::as_bytes(std::span(values));
    index.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  };
  put(kMagic);
  put(std::array{kVersion});
  put(std::array{static_cast<uint8_t>(state_->type)});
  put(std::array<uint64_t, 2>{state_->lengths.size(), state_->boundaries.size()});
  put(state_->lengths);
  put(state_->offsets);
  put(state_->boundaries);
  index.close();
  if (!state_->data || !index) return internal("cannot write " + state_->prefix + ".idx and .bin");
  return {};
}

}  // namespace mds::trainer
