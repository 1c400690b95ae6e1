#include "trainer/checkpoint/safetensors.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "trainer/checkpoint/strict_json.hpp"

namespace mds::trainer {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kHeaderBytesMax = 100'000'000;  // the reference implementation's limit
constexpr uint64_t kIndexBytesMax = 100'000'000;
constexpr size_t kDimensionsMax = 16;
constexpr int kDepthMax = 4;  // {tensor: {shape: [n]}} and one to spare

struct TypeName {
  const char* name;
  int64_t size;
};
constexpr TypeName kTypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"U8", 1}};

/// Product of sizes, each of which must be >= 0; false if it, in bytes, overflows 63 bits.
bool byte_count(const std::vector<int64_t>& shape, int64_t size_of_element, int64_t& bytes) {
  bytes = size_of_element;
  for (const int64_t extent : shape) {
    if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) return false;
  }
  return true;
}

bool read_size(const Json& json, int64_t& value) {
  if (!json.is_number_unsigned() || json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) return false;
  value = static_cast<int64_t>(json.get<uint64_t>());
  return true;
}

bool read_type(const Json& json, TensorType& type) {
  if (!json.is_string()) return false;
  for (size_t i = 0; i < std::size(kTypes); ++i) {
    if (json.get_ref<const std::string&>() != kTypes[i].name) continue;
    type = static_cast<TensorType>(i);
    return true;
  }
  return false;
}

/// One tensor of the header. On failure, what is wrong with it.
Result<SafetensorsEntry> read_entry(const std::string& name, const Json& json, uint64_t data_bytes) {
  const auto wrong = [&](const std::string& what) { return corrupt("tensor " + quoted(name) + " " + what); };
  if (!json.is_object() || json.size() != 3 || !json.contains("dtype") || !json.contains("shape") ||
      !json.contains("data_offsets")) {
    return wrong("must have dtype, shape and data_offsets, and nothing else");
  }
  SafetensorsEntry entry;
  entry.name = name;
  if (!read_type(json["dtype"], entry.type)) {
    return wrong("has dtype " + quoted(json["dtype"].dump(-1, ' ', true, Json::error_handler_t::replace)) +
                 "; F64, F32, F16, BF16, I64, I32 and U8 can be read");
  }
  const Json& shape = json["shape"];
  if (!shape.is_array() || shape.size() > kDimensionsMax) return wrong("has no valid shape");
  for (const Json& extent : shape) {
    if (!read_size(extent, entry.shape.emplace_back())) return wrong("has no valid shape");
  }
  int64_t begin = 0, end = 0, expected = 0;
  const Json& offsets = json["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2 || !read_size(offsets[0], begin) || !read_size(offsets[1], end) ||
      begin > end || static_cast<uint64_t>(end) > data_bytes) {
    return wrong("has data_offsets outside of the file");
  }
  if (!byte_count(entry.shape, element_size(entry.type), expected) || end - begin != expected) {
    return wrong("has data_offsets that do not match its dtype and shape");
  }
  entry.begin = static_cast<uint64_t>(begin);
  entry.end = static_cast<uint64_t>(end);
  return entry;
}

}  // namespace

const char* to_string(TensorType type) { return kTypes[static_cast<int>(type)].name; }
int64_t element_size(TensorType type) { return kTypes[static_cast<int>(type)].size; }

int64_t element_count(const SafetensorsEntry& entry) {
  return static_cast<int64_t>(entry.end - entry.begin) / element_size(entry.type);
}

Result<SafetensorsFile> SafetensorsFile::open(const std::string& path) {
  Result<MappedFile> mapped = MappedFile::open(path);
  if (!mapped) return mapped.error();
  SafetensorsFile file(*std::move(mapped));
  const std::span<const std::byte> bytes = file.file_.bytes();

  uint64_t header_bytes = 0;
  if (bytes.size() < sizeof header_bytes) {
    return corrupt(path + ": " + std::to_string(bytes.size()) + " bytes are too few for a safetensors file");
  }
  std::memcpy(&header_bytes, bytes.data(), sizeof header_bytes);  // little endian, as is every machine that we run on
  if (header_bytes > kHeaderBytesMax || header_bytes > bytes.size() - sizeof header_bytes) {
    return corrupt(path + ": the header claims " + std::to_string(header_bytes) +
                   " bytes; the file is truncated or not " + "a safetensors file");
  }
  file.data_begin_ = sizeof header_bytes + header_bytes;
  Result<Json> header =
      parse_strictly(path + ": the header", bytes.subspan(sizeof header_bytes, header_bytes), kDepthMax);
  if (!header) return header.error();
  if (!header->is_object()) return corrupt(path + ": the header is not a JSON object");

  const uint64_t data_bytes = bytes.size() - file.data_begin_;
  for (const auto& [name, json] : header->items()) {
    if (name == "__metadata__") {
      if (!json.is_object()) return corrupt(path + ": __metadata__ is not an object of strings");
      for (const auto& [key, value] : json.items()) {
        if (!value.is_string()) return corrupt(path + ": __metadata__ is not an object of strings");
        file.metadata_[key] = value.get<std::string>();
      }
      continue;
    }
    Result<SafetensorsEntry> entry = read_entry(name, json, data_bytes);
    if (!entry) return entry.error().within(path);
    file.entries_.push_back(*std::move(entry));
  }
  std::ranges::sort(file.entries_, {}, [](const SafetensorsEntry& e) { return std::pair(e.begin, e.end); });
  uint64_t expected = 0;
  for (size_t i = 0; i < file.entries_.size(); ++i) {
    const SafetensorsEntry& entry = file.entries_[i];
    if (entry.begin != expected)
      return corrupt(path + ": there is an overlap or a hole before tensor " + quoted(entry.name));
    expected = entry.end;
    file.by_name_[entry.name] = i;
  }
  if (expected != data_bytes) {
    return corrupt(path + ": " + std::to_string(data_bytes - expected) + " bytes at the end belong to no tensor");
  }
  return file;
}

const SafetensorsEntry* SafetensorsFile::find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &entries_[found->second];
}

std::span<const std::byte> SafetensorsFile::bytes(const SafetensorsEntry& entry) const {
  return file_.bytes().subspan(data_begin_ + entry.begin, entry.end - entry.begin);
}

namespace {

/// tensor -> shard name, from model.safetensors.index.json.
Result<std::map<std::string, std::string>> read_index(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.error();
  if (file->size() > kIndexBytesMax)
    return corrupt(path + " is larger than " + std::to_string(kIndexBytesMax) + " bytes");
  Result<Json> json = parse_strictly(path, file->bytes(), kDepthMax);
  if (!json) return json.error();
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object()) {
    return corrupt(path + ": there is no weight_map");
  }
  std::map<std::string, std::string> shards;
  for (const auto& [name, shard] : (*json)["weight_map"].items()) {
    // A shard is a file of this folder: a name with a slash could point anywhere.
    if (!shard.is_string() || shard.get<std::string>().empty() ||
        shard.get<std::string>().find('/') != std::string::npos) {
      return corrupt(path + ": the shard of tensor " + quoted(name) + " is not a file name");
    }
    shards[name] = shard.get<std::string>();
  }
  return shards;
}

bool exists(const std::string& path) { return ::access(path.c_str(), F_OK) == 0; }

}  // namespace

Result<SafetensorsFolder> SafetensorsFolder::open(const std::string& folder) {
  SafetensorsFolder result;
  result.path_ = folder;
  const std::string single = folder + "/model.safetensors";
  const std::string index = folder + "/model.safetensors.index.json";
  if (exists(single)) {
    Result<SafetensorsFile> file = SafetensorsFile::open(single);
    if (!file) return file.error();
    for (const SafetensorsEntry& entry : file->entries()) result.file_of_[entry.name] = 0;
    result.files_.push_back(*std::move(file));
    return result;
  }
  if (!exists(index)) {
    return bad_input(folder + " holds neither model.safetensors nor model.safetensors.index.json");
  }
  Result<std::map<std::string, std::string>> shards = read_index(index);
  if (!shards) return shards.error();
  std::map<std::string, size_t> opened;
  for (const auto& [name, shard] : *shards) {
    const auto [found, is_new] = opened.try_emplace(shard, result.files_.size());
    if (is_new) {
      Result<SafetensorsFile> file = SafetensorsFile::open(folder + "/" + shard);
      if (!file) return file.error();
      result.files_.push_back(*std::move(file));
    }
    const SafetensorsFile& file = result.files_[found->second];
    if (!file.find(name)) return corrupt(file.path() + " lacks tensor " + quoted(name) + ", which the index lists");
    result.file_of_[name] = found->second;
  }
  return result;
}

std::vector<std::string> SafetensorsFolder::names() const {
  std::vector<std::string> names;
  for (const auto& [name, file] : file_of_) names.push_back(name);
  return names;
}

Result<SafetensorsFolder::Tensor> SafetensorsFolder::find(const std::string& name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) return bad_input(path_ + " has no tensor " + quoted(name));
  const SafetensorsFile& file = files_[found->second];
  const SafetensorsEntry* entry = file.find(name);
  return Tensor{entry, file.bytes(*entry)};
}

}  // namespace mds::trainer
