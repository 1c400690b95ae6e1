#include "topology/sysfs.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cctype>
#include <charconv>

namespace mds::topology::sysfs {
namespace {

/// dddd:bb:dd.f, where the domain may have more than four digits.
bool is_bus_id(const std::string& name) {
  const size_t colon = name.find(':');
  if (colon == std::string::npos || colon < 4 || name.size() != colon + 8) return false;
  for (size_t i = 0; i < name.size(); ++i) {
    const char expected = i == colon || i == colon + 3 ? ':' : i == colon + 6 ? '.' : 'h';
    if (expected == 'h' ? !std::isxdigit(static_cast<unsigned char>(name[i])) : name[i] != expected) return false;
  }
  return true;
}

}  // namespace

std::optional<std::string> read(const std::filesystem::path& file) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  char buffer[4096];  // sysfs never gives more than a page
  const ssize_t size = ::read(fd, buffer, sizeof buffer);
  ::close(fd);
  if (size < 0) return std::nullopt;
  std::string text(buffer, static_cast<size_t>(size));
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

std::optional<int64_t> read_number(const std::filesystem::path& file) {
  const auto text = read(file);
  int64_t number = 0;
  if (!text || std::from_chars(text->data(), text->data() + text->size(), number).ec != std::errc()) {
    return std::nullopt;
  }
  return number;
}

PciPlace pci_place(const std::filesystem::path& device) {
  std::error_code failed;
  for (auto folder = std::filesystem::canonical(device, failed); !failed && folder.has_relative_path();
       folder = folder.parent_path()) {
    const std::string name = folder.filename().string();
    if (is_bus_id(name)) return {name, static_cast<int>(read_number(folder / "numa_node").value_or(-1))};
  }
  return {};
}

std::string kernel_bus_id(const std::string& bus_id) {
  std::string id;
  for (const char c : bus_id) id.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
  const size_t colon = id.find(':');
  if (colon == 8 && id.compare(0, 4, "0000") == 0) id.erase(0, 4);
  return id;
}

}  // namespace mds::topology::sysfs
