#include "topology/read/smi_matrix.hpp"

#include <algorithm>
#include <charconv>
#include <map>

#include "topology/read/nccl_cpus.hpp"
#include "topology/read/read_machine.hpp"

namespace mds::topology {
namespace {

constexpr size_t kBytesMax = 4 << 20;
constexpr size_t kColumnsMax = 1024;

using Words = std::vector<std::string>;

/// The words of a line, without the escapes that underline the header ("\x1b[4m", in pasted texts "[4m").
Words words_of(std::string_view line) {
  Words words;
  bool inside = false;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (c == '\x1b') {
      while (i + 1 < line.size() && !((line[i] >= 'a' && line[i] <= 'z') || (line[i] >= 'A' && line[i] <= 'Z'))) ++i;
    } else if (c == ' ' || c == '\t' || c == '\r') {
      inside = false;
    } else {
      if (!inside) words.emplace_back();
      inside = true;
      words.back() += c;
    }
  }
  for (std::string& word : words) {
    if (word.starts_with("[4m")) word.erase(0, 3);
    if (word.ends_with("[0m")) word.erase(word.size() - 3);
  }
  std::erase(words, "");
  return words;
}

bool is_name(std::string_view word) {
  return word.size() <= 255 && std::all_of(word.begin(), word.end(), [](char c) { return c > 0x20 && c < 0x7f; });
}

/// The number behind `prefix` ("GPU12"); -1 if the word is none.
int numbered(std::string_view word, std::string_view prefix) {
  if (!word.starts_with(prefix)) return -1;
  word.remove_prefix(prefix.size());
  int number = -1;
  const auto read = std::from_chars(word.data(), word.data() + word.size(), number);
  return read.ec == std::errc() && read.ptr == word.data() + word.size() && number < 1 << 20 ? number : -1;
}

std::optional<SmiCell> cell_of(const std::string& word) {
  static const std::map<std::string, PathClass> kClasses{
      {"X", PathClass::loc},   {"PIX", PathClass::pix},  {"PXB", PathClass::pxb}, {"PSB", PathClass::pix},
      {"PHB", PathClass::phb}, {"NODE", PathClass::phb}, {"SYS", PathClass::sys}, {"SOC", PathClass::sys},
      {"N/A", PathClass::dis}, {"DIS", PathClass::dis}};
  if (const auto found = kClasses.find(word); found != kClasses.end()) return SmiCell{found->second, 0};
  const int links = numbered(word, "NV");
  if (links >= 0 && links <= 1024) return SmiCell{PathClass::nvl, links};
  return std::nullopt;
}

/// Rows begin with a name and a cell, the header with two names.
bool is_header(const Words& words) {
  return !words.empty() && numbered(words[0], "GPU") >= 0 && (words.size() == 1 || !cell_of(words[1]));
}

/// "0-31,64-95" -> its numbers, none for anything else ("N/A").
std::vector<int> numbers_of(std::string_view list) {
  std::vector<int> numbers;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    const std::string_view range = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    int first = 0, last = 0;
    auto read = std::from_chars(range.data(), range.data() + range.size(), first);
    last = first;
    if (read.ec == std::errc() && read.ptr != range.data() + range.size() && *read.ptr == '-') {
      read = std::from_chars(read.ptr + 1, range.data() + range.size(), last);
    }
    if (read.ec != std::errc() || read.ptr != range.data() + range.size() || first < 0 || last >= kCpusMax) return {};
    for (int number = first; number <= last; ++number) numbers.push_back(number);
    if (numbers.size() > 4 * kCpusMax) return {};
  }
  std::sort(numbers.begin(), numbers.end());
  numbers.erase(std::unique(numbers.begin(), numbers.end()), numbers.end());
  return numbers;
}

class MatrixReader {
 public:
  Result<SmiMatrix> read(std::string_view text) {
    if (text.size() > kBytesMax) return bad_input("is larger than 4 MiB, more than nvidia-smi prints");
    for (size_t at = 0; at < text.size(); ++line_) {
      const size_t end = std::min(text.find('\n', at), text.size());
      if (const Status read = read_line(words_of(text.substr(at, end - at))); !read) return read.error();
      at = end + 1;
    }
    if (columns_.empty()) return bad_input("no line with the column names GPU0, GPU1, ... of `nvidia-smi topo -m`");
    if (matrix_.devices.size() < columns_.size()) {
      return bad_input("the matrix ends before the row of " + columns_[matrix_.devices.size()]);
    }
    for (SmiDevice& device : matrix_.devices) {
      const auto found = legend_.find(device.name);
      if (found != legend_.end()) device.name = found->second;
    }
    return std::move(matrix_);
  }

 private:
  Error error(const std::string& problem) const { return bad_input("line " + std::to_string(line_) + ": " + problem); }

  Status read_line(const Words& words) {
    if (words.empty()) return {};
    if (columns_.empty()) return is_header(words) ? read_header(words) : Status();
    if (matrix_.devices.size() < columns_.size()) return read_row(words);
    // Behind the matrix: "NIC0: mlx5_0" in the legend.
    if (words.size() < 2 || !words[0].ends_with(':')) return {};
    const std::string_view key = std::string_view(words[0]).substr(0, words[0].size() - 1);
    if (numbered(key, "NIC") < 0) return {};
    if (!is_name(words[1])) return error("the name of " + std::string(key) + " is not printable ASCII");
    legend_.emplace(key, words[1]);
    return {};
  }

  Status read_header(const Words& words) {
    for (size_t i = 0; i < words.size(); ++i) {
      const bool titles = words[i] == "CPU" || words[i] == "NUMA" || (words[i] == "GPU" && i > 0);
      if (titles) {
        read_titles(words, i);
        break;
      }
      if (i >= kColumnsMax) return error("more columns than any machine has devices");
      if (!is_name(words[i])) return error("a column name is not printable ASCII");
      columns_.push_back(words[i]);
    }
    return {};
  }

  /// "CPU Affinity", "NUMA Affinity" and "GPU NUMA ID" in any order.
  void read_titles(const Words& words, size_t i) {
    while (i < words.size()) {
      const bool gpu_id = words[i] == "GPU";
      titles_.push_back(gpu_id ? 'g' : words[i] == "CPU" ? 'c' : words[i] == "NUMA" ? 'n' : '?');
      i += gpu_id ? 3 : 2;
    }
  }

  Status read_row(const Words& words) {
    const std::string& name = columns_[matrix_.devices.size()];
    if (words[0] != name) return error("\"" + words[0].substr(0, 40) + "\" where the row of " + name + " was expected");
    if (words.size() < columns_.size() + 1) {
      return error("the row of " + name + " has " + std::to_string(words.size() - 1) + " cells of " +
                   std::to_string(columns_.size()));
    }
    SmiDevice device;
    device.gpu = numbered(name, "GPU");
    if (device.gpu < 0) device.name = name;
    for (size_t i = 0; i < columns_.size(); ++i) {
      const auto cell = cell_of(words[i + 1]);
      if (!cell) {
        return error("\"" + words[i + 1].substr(0, 40) + "\" between " + name + " and " + columns_[i] +
                     "; expected X, NV#, PIX, PXB, PHB, NODE or SYS");
      }
      device.cells.push_back(*cell);
    }
    for (size_t i = 0; i < titles_.size() && columns_.size() + 1 + i < words.size(); ++i) {
      const std::string& value = words[columns_.size() + 1 + i];
      if (titles_[i] == 'c') device.cpus = numbers_of(value);
      if (titles_[i] == 'n') device.numa = numbers_of(value);
    }
    matrix_.devices.push_back(std::move(device));
    return {};
  }

  SmiMatrix matrix_;
  std::vector<std::string> columns_;
  std::vector<char> titles_;
  std::map<std::string, std::string, std::less<>> legend_;
  size_t line_ = 1;
};

}  // namespace

bool looks_like_smi(std::string_view text) {
  std::string first;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const Words words = words_of(text.substr(at, end - at));
    if (!first.empty() && words.size() > 1 && words[0] == first && cell_of(words[1])) return true;
    if (is_header(words)) first = words[0];
    at = end + 1;
  }
  return false;
}

Result<SmiMatrix> read_smi_matrix(std::string_view text) { return MatrixReader().read(text); }

}  // namespace mds::topology
