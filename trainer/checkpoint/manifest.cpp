#include "trainer/checkpoint/manifest.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "trainer/checkpoint/digest.hpp"
#include "trainer/checkpoint/strict_json.hpp"

namespace mds::trainer {
namespace {

using Json = nlohmann::json;

constexpr int kDepthMax = 64;  // config and extra are the trainer's own
constexpr const char* kFormat = "mds-checkpoint";
constexpr int64_t kVersion = 1;
constexpr size_t kDimensionsMax = 16;

std::string text_of(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json to_json(const StoredSlice& slice) {
  return {{"file", slice.file},
          {"key", slice.key},
          {"offset", slice.region.offset},
          {"extent", slice.region.extent},
          {"flat", {slice.region.flat_begin, slice.region.flat_end}}};
}

Json to_json(const StoredTensor& tensor) {
  Json slices = Json::array();
  for (const StoredSlice& slice : tensor.slices) slices.push_back(to_json(slice));
  return {{"type", to_string(tensor.type)}, {"shape", tensor.shape}, {"slices", std::move(slices)}};
}

// Readers of single fields: nothing where the document has something else there.

const Json* field(const Json& object, const char* name) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(name);
  return found == object.end() ? nullptr : &*found;
}

std::optional<int64_t> count_of(const Json* json) {
  if (!json || !json->is_number_unsigned()) return std::nullopt;
  const auto value = json->get<uint64_t>();
  if (value > uint64_t{std::numeric_limits<int64_t>::max()}) return std::nullopt;
  return static_cast<int64_t>(value);
}

std::optional<std::string> string_of(const Json* json) {
  if (!json || !json->is_string()) return std::nullopt;
  return json->get<std::string>();
}

std::optional<std::vector<int64_t>> counts_of(const Json* json) {
  if (!json || !json->is_array() || json->size() > kDimensionsMax) return std::nullopt;
  std::vector<int64_t> counts;
  for (const Json& element : *json) {
    const std::optional<int64_t> count = count_of(&element);
    if (!count) return std::nullopt;
    counts.push_back(*count);
  }
  return counts;
}

std::optional<TensorType> type_of(const Json* json) {
  for (const TensorType type : {TensorType::f64, TensorType::f32, TensorType::f16, TensorType::bf16, TensorType::i64,
                                TensorType::i32, TensorType::u8}) {
    if (json && *json == to_string(type)) return type;
  }
  return std::nullopt;
}

std::optional<StoredFile> file_of(const Json& json) {
  const auto name = string_of(field(json, "name")), sha256 = string_of(field(json, "sha256"));
  const auto bytes = count_of(field(json, "bytes"));
  if (!name || !bytes || !sha256 || sha256->size() != 64) return std::nullopt;
  // A file of this folder: a name with a slash could point anywhere.
  if (name->empty() || *name == "." || *name == ".." || name->find('/') != std::string::npos) return std::nullopt;
  return StoredFile{*name, static_cast<uint64_t>(*bytes), *sha256};
}

std::optional<StoredSlice> slice_of(const Json& json, size_t files, const std::vector<int64_t>& shape) {
  const auto file = count_of(field(json, "file"));
  const auto key = string_of(field(json, "key"));
  const auto offset = counts_of(field(json, "offset")), extent = counts_of(field(json, "extent"));
  const auto flat = counts_of(field(json, "flat"));
  if (!file || static_cast<size_t>(*file) >= files || !key || !offset || !extent || !flat || flat->size() != 2) {
    return std::nullopt;
  }
  StoredSlice slice{static_cast<size_t>(*file), *key, {*offset, *extent, (*flat)[0], (*flat)[1]}};
  if (!fits(slice.region, shape)) return std::nullopt;
  return slice;
}

std::optional<StoredTensor> tensor_of(const Json& json, size_t files) {
  const auto type = type_of(field(json, "type"));
  const auto shape = counts_of(field(json, "shape"));
  const Json* slices = field(json, "slices");
  if (!type || !shape || product(*shape) < 0 || !slices || !slices->is_array()) return std::nullopt;
  StoredTensor tensor{*type, *shape, {}};
  for (const Json& element : *slices) {
    std::optional<StoredSlice> slice = slice_of(element, files, tensor.shape);
    if (!slice) return std::nullopt;
    tensor.slices.push_back(*std::move(slice));
  }
  return tensor;
}

Result<Manifest> read_body(const std::string& path, const Json& body) {
  const auto wrong = [&](const std::string& what) { return corrupt(path + ": " + what); };
  if (string_of(field(body, "format")) != kFormat) return wrong("this is not the manifest of a checkpoint");
  if (const auto version = count_of(field(body, "version")); version != kVersion) {
    return wrong("the checkpoint's version is not known; version 1 is");
  }
  Manifest manifest;
  const auto step = count_of(field(body, "step")), samples = count_of(field(body, "consumed_samples"));
  const Json *config = field(body, "config"), *extra = field(body, "extra");
  const Json *files = field(body, "files"), *tensors = field(body, "tensors");
  if (!step || !samples || !config || !extra || !files || !files->is_array() || !tensors || !tensors->is_object()) {
    return wrong("step, consumed_samples, config, extra, files or tensors is missing or of the wrong kind");
  }
  manifest.step = *step;
  manifest.consumed_samples = *samples;
  manifest.config = *config;
  manifest.extra = *extra;
  for (const Json& json : *files) {
    std::optional<StoredFile> file = file_of(json);
    if (!file) return wrong("file " + std::to_string(manifest.files.size()) + " is not described correctly");
    manifest.files.push_back(*std::move(file));
  }
  for (const auto& [name, json] : tensors->items()) {
    std::optional<StoredTensor> tensor = tensor_of(json, manifest.files.size());
    if (!tensor) return wrong("tensor " + quoted(name) + " is not described correctly");
    manifest.tensors[name] = *std::move(tensor);
  }
  return manifest;
}

}  // namespace

Status Manifest::add(Manifest part) {
  const size_t first_file = files.size();
  std::ranges::move(part.files, std::back_inserter(files));
  for (auto& [name, added] : part.tensors) {
    const auto [found, is_new] = tensors.try_emplace(name, StoredTensor{added.type, added.shape, {}});
    StoredTensor& tensor = found->second;
    if (tensor.type != added.type || tensor.shape != added.shape) {
      return internal("ranks disagree about the type or shape of tensor " + name);
    }
    for (StoredSlice& slice : added.slices) {
      slice.file += first_file;
      if (slice.region.size() > 0) tensor.slices.push_back(std::move(slice));
    }
  }
  return {};
}

Status Manifest::finish() {
  for (auto& [name, tensor] : tensors) {
    std::ranges::stable_sort(tensor.slices, {}, &StoredSlice::region);
    const auto alike = [](const StoredSlice& a, const StoredSlice& b) { return a.region == b.region; };
    tensor.slices.erase(std::unique(tensor.slices.begin(), tensor.slices.end(), alike), tensor.slices.end());
    int64_t elements = 0;
    for (const StoredSlice& slice : tensor.slices) elements += slice.region.size();
    if (elements == product(tensor.shape)) continue;
    return internal("the ranks gave " + std::to_string(elements) + " of the " + std::to_string(product(tensor.shape)) +
                    " elements of tensor " + name);
  }
  return {};
}

std::string to_text(const Manifest& manifest) {
  Json files = Json::array();
  for (const StoredFile& file : manifest.files) {
    files.push_back({{"name", file.name}, {"bytes", file.bytes}, {"sha256", file.sha256}});
  }
  Json tensors = Json::object();
  for (const auto& [name, tensor] : manifest.tensors) tensors[name] = to_json(tensor);
  const Json body{{"format", kFormat},         {"version", kVersion},
                  {"step", manifest.step},     {"consumed_samples", manifest.consumed_samples},
                  {"config", manifest.config}, {"extra", manifest.extra},
                  {"files", std::move(files)}, {"tensors", std::move(tensors)}};
  const std::string text = text_of(body);
  return "{\"body\": " + text + ",\n \"sha256\": \"" + sha256_hex(std::as_bytes(std::span(text))) + "\"}\n";
}

Result<Manifest> parse_manifest(const std::string& path, std::span<const std::byte> text) {
  const Result<Json> json = parse_strictly(path, text, kDepthMax);
  if (!json) return json.error();
  const Json *body = field(*json, "body"), *sha256 = field(*json, "sha256");
  if (!body || !sha256) return corrupt(path + ": this is not the manifest of a checkpoint");
  const std::string body_text = text_of(*body);  // keys are sorted and numbers round-trip: the same text as was written
  if (*sha256 != sha256_hex(std::as_bytes(std::span(body_text)))) {
    return corrupt(path + ": the checksum is wrong; the file is damaged");
  }
  return read_body(path, *body);
}

Result<Manifest> read_manifest(const std::string& checkpoint) {
  const std::string path = checkpoint + "/manifest.json";
  const Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.error();
  return parse_manifest(path, file->bytes());
}

}  // namespace mds::trainer
