#include "launcher/metrics_tensorboard.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <bit>
#include <cerrno>
#include <cstdio>
#include <cstring>

namespace mds::launcher {

namespace {

std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0);
    table[i] = crc;
  }
  return table;
}

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

// Protobuf wire types: 0 varint, 1 eight bytes, 2 length and bytes, 5 four bytes.
std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>(value | 0x80);
  return bytes + static_cast<char>(value);
}

std::string key(int field, int wire_type) { return varint(static_cast<uint64_t>(field) << 3 | wire_type); }
std::string varint_field(int field, int64_t value) { return key(field, 0) + varint(static_cast<uint64_t>(value)); }
std::string double_field(int field, double value) {
  return key(field, 1) + little_endian(std::bit_cast<uint64_t>(value));
}
std::string bytes_field(int field, const std::string& value) { return key(field, 2) + varint(value.size()) + value; }
std::string float_field(int field, float value) {
  return key(field, 5) + little_endian(std::bit_cast<uint32_t>(value));
}

// Event: wall_time = 1, step = 2, file_version = 3, summary = 5, session_log = 7.
std::string event(double wall_time, int64_t step) { return double_field(1, wall_time) + varint_field(2, step); }

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static const std::array<uint32_t, 256> table = make_crc_table();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = (crc >> 8) ^ table[(crc ^ static_cast<uint8_t>(c)) & 0xff];
  return ~crc;
}

uint32_t masked_crc32c(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string tfrecord(std::string_view data) {
  const std::string length = little_endian<uint64_t>(data.size());
  return length + little_endian(masked_crc32c(length)) + std::string(data) + little_endian(masked_crc32c(data));
}

Result<std::unique_ptr<TensorboardFile>> TensorboardFile::create(const std::string& folder, const std::string& host,
                                                                 uint32_t attempt, int64_t step, double wall_time) {
  char name[64];
  std::snprintf(name, sizeof name, "/events.out.tfevents.%010lld.", static_cast<long long>(wall_time));
  char suffix[32];
  std::snprintf(suffix, sizeof suffix, ".%05u", attempt);
  const std::string path = folder + name + host + suffix;
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return unavailable("cannot create " + path + ": " + std::strerror(errno));
  std::unique_ptr<TensorboardFile> file(new TensorboardFile(fd, path));
  std::string records = tfrecord(event(wall_time, 0) + bytes_field(3, "brain.Event:2"));
  const std::string session_start = varint_field(1, 1);  // SessionLog: status = 1, START = 1
  records += tfrecord(event(wall_time, step) + bytes_field(7, session_start));
  if (Status s = file->append(records); !s) return s.error();
  return file;
}

TensorboardFile::~TensorboardFile() { close(fd_); }

Status TensorboardFile::add(int64_t step, double wall_time, const Scalars& scalars) {
  std::string summary;  // Summary: repeated value = 1; Value: tag = 1, simple_value = 2
  for (const auto& [tag, value] : scalars) {
    summary += bytes_field(1, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
  }
  return append(tfrecord(event(wall_time, step) + bytes_field(5, summary)));
}

Status TensorboardFile::append(const std::string& records) {
  const ssize_t n = write(fd_, records.data(), records.size());
  if (n == static_cast<ssize_t>(records.size())) return {};
  return unavailable("cannot write " + path_ + ": " + (n < 0 ? std::strerror(errno) : "the disk is full"));
}

}  // namespace mds::launcher
