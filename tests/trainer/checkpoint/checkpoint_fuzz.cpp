// libFuzzer harness for the files of a checkpoint: the same bytes as a safetensors file, as a manifest, and as the body
// of a manifest whose checksum is right.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "trainer/checkpoint/digest.hpp"
#include "trainer/checkpoint/manifest.hpp"
#include "trainer/checkpoint/region.hpp"
#include "trainer/checkpoint/safetensors.hpp"
#include "trainer/checkpoint/strict_json.hpp"

using namespace mds::trainer;

namespace {

void read_as_safetensors(const uint8_t* bytes, size_t size) {
  static const int fd = ::memfd_create("safetensors", 0);
  static const std::string path = "/proc/self/fd/" + std::to_string(fd);
  if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, bytes, size, 0) != static_cast<ssize_t>(size)) return;
  const auto file = SafetensorsFile::open(path);
  if (!file) return;
  for (const SafetensorsEntry& entry : file->entries()) {
    const auto tensor = file->bytes(entry);
    if (element_count(entry) * element_size(entry.type) != static_cast<int64_t>(tensor.size())) std::abort();
    sha256_hex(tensor);  // reads it all
  }
}

void use(const Manifest& manifest) {
  const std::string text = to_text(manifest);
  const auto again = parse_manifest("again", std::as_bytes(std::span(text)));
  if (!again || to_text(*again) != text) std::abort();
  constexpr int64_t kElementsMax = 1 << 12;
  for (const auto& [name, tensor] : manifest.tensors) {
    for (const StoredSlice& slice : tensor.slices) {
      if (product(tensor.shape) > kElementsMax) continue;
      for (const Run& run : common_runs(tensor.shape, tensor.slices.front().region, slice.region)) {
        if (run.b < 0 || run.count < 1 || run.b + run.count > slice.region.size()) std::abort();
      }
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  read_as_safetensors(bytes, size);
  const auto input = std::as_bytes(std::span(bytes, size));
  if (const auto manifest = parse_manifest("manifest", input)) use(*manifest);
  const auto body = parse_strictly("body", input, 64);
  if (!body) return 0;
  const std::string text = body->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  const std::string forged =
      "{\"body\": " + text + ", \"sha256\": \"" + sha256_hex(std::as_bytes(std::span(text))) + "\"}";
  if (const auto manifest = parse_manifest("forged", std::as_bytes(std::span(forged)))) use(*manifest);
  return 0;
}
