#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <system_error>
#include <utility>

#include "trainer/checkpoint/digest.hpp"
#include "trainer/checkpoint/safetensors.hpp"

namespace mds::trainer {

struct SafetensorsWriter::State {
  std::string path;
  int fd = -1;
  uint64_t size = 0;  // of the whole file
  uint64_t written = 0;
  Sha256 digest;

  ~State() {
    if (fd >= 0) ::close(fd);
  }

  Error failure(const std::string& what, int errnum) const {
    const std::string message = "cannot " + what + " " + path + " (" + std::to_string(size) + " bytes, of which " +
                                std::to_string(written) + " are written): " + std::generic_category().message(errnum);
    const bool full = errnum == ENOSPC || errnum == EDQUOT || errnum == EFBIG;
    return full ? unavailable(message + "; free space there or choose another folder") : internal(message);
  }

  Status write(std::span<const std::byte> bytes) {
    digest.add(bytes);
    while (!bytes.empty()) {
      const ssize_t count = ::write(fd, bytes.data(), bytes.size());
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) return failure("write", count < 0 ? errno : EIO);
      bytes = bytes.subspan(static_cast<size_t>(count));
      written += static_cast<uint64_t>(count);
    }
    return {};
  }
};

SafetensorsWriter::SafetensorsWriter(std::unique_ptr<State> state) : state_(std::move(state)) {}
SafetensorsWriter::SafetensorsWriter(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter& SafetensorsWriter::operator=(SafetensorsWriter&&) noexcept = default;
SafetensorsWriter::~SafetensorsWriter() = default;

Result<SafetensorsWriter> SafetensorsWriter::create(const std::string& path, std::vector<SafetensorsEntry> entries,
                                                    const std::map<std::string, std::string>& metadata) {
  nlohmann::json header = nlohmann::json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t data_bytes = 0;
  for (SafetensorsEntry& entry : entries) {
    entry.begin = data_bytes;
    int64_t bytes = element_size(entry.type);
    for (const int64_t extent : entry.shape) {
      if (extent < 0 || __builtin_mul_overflow(bytes, extent, &bytes)) {
        return internal("tensor " + entry.name + " has no valid shape");
      }
    }
    data_bytes += static_cast<uint64_t>(bytes);
    entry.end = data_bytes;
    if (header.contains(entry.name)) return internal("tensor " + entry.name + " would be written twice to " + path);
    header[entry.name] = {
        {"dtype", to_string(entry.type)}, {"shape", entry.shape}, {"data_offsets", {entry.begin, entry.end}}};
  }
  std::string text = header.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // the data begins aligned, as other readers expect
  const uint64_t header_bytes = text.size();

  auto state = std::make_unique<State>();
  state->path = path;
  state->size = sizeof header_bytes + header_bytes + data_bytes;
  state->fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (state->fd < 0) return state->failure("create", errno);
  // A full disk shows here, before time is spent on writing. File systems that cannot reserve find out later.
  if (::fallocate(state->fd, 0, 0, static_cast<off_t>(state->size)) != 0 && errno != EOPNOTSUPP && errno != ENOSYS) {
    return state->failure("reserve space for", errno);
  }
  for (const auto part : {std::as_bytes(std::span(&header_bytes, 1)), std::as_bytes(std::span(text))}) {
    if (Status status = state->write(part); !status) return status.error();
  }
  return SafetensorsWriter(std::move(state));
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  if (bytes.size() > state_->size - state_->written) return internal("more bytes than announced for " + state_->path);
  return state_->write(bytes);
}

Result<SafetensorsWriter::Written> SafetensorsWriter::finish() {
  if (state_->written != state_->size) return internal("fewer bytes than announced for " + state_->path);
  if (::fsync(state_->fd) != 0) return state_->failure("flush", errno);
  const int fd = std::exchange(state_->fd, -1);
  if (::close(fd) != 0) return state_->failure("close", errno);
  return Written{state_->size, state_->digest.hex()};
}

}  // namespace mds::trainer
