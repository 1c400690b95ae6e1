#include "trainer/data/byte_corpus.hpp"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string_view>
#include <system_error>

namespace mds::trainer {
namespace {

namespace fs = std::filesystem;

/// The regular files at `path`, links resolved, sorted and each once.
Result<std::vector<std::string>> list_files(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return bad_input("data path " + path + " does not exist; correct data.path");
  if (!fs::is_directory(status)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  fs::directory_iterator entries(path, error);
  if (error) return bad_input("cannot list " + path + ": " + error.message());
  for (const fs::directory_entry& entry : entries) {
    std::error_code ignored;  // a dangling link, for example, is no regular file
    if (!entry.is_regular_file(ignored)) continue;
    const fs::path resolved = fs::canonical(entry.path(), ignored);
    if (!ignored) files.push_back(resolved.string());
  }
  std::ranges::sort(files);
  files.erase(std::unique(files.begin(), files.end()), files.end());
  if (files.empty()) return bad_input("data path " + path + " holds no regular files; correct data.path");
  return files;
}

}  // namespace

Result<std::unique_ptr<ByteCorpus>> ByteCorpus::open_text(const std::string& path, const std::vector<double>& shares,
                                                          Split split) {
  Result<std::vector<std::string>> paths = list_files(path);
  if (!paths) return paths.error();
  std::unique_ptr<ByteCorpus> corpus(new ByteCorpus(path));
  for (const std::string& name : *paths) {
    Result<MappedFile> file = MappedFile::open(name);
    if (!file) return file.error();
    const auto bounds = split_boundaries(shares, static_cast<int64_t>(file->size()));
    const auto part = static_cast<size_t>(split);
    const auto begin = static_cast<size_t>(bounds[part]), end = static_cast<size_t>(bounds[part + 1]);
    if (begin < end) corpus->documents_.push_back(file->bytes().subspan(begin, end - begin));
    corpus->files_.push_back(*std::move(file));
  }
  return corpus;
}

Result<std::unique_ptr<ByteCorpus>> ByteCorpus::open_jsonl(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return file.error();
  file->expect_sequential();
  std::unique_ptr<ByteCorpus> corpus(new ByteCorpus(path));
  std::string_view rest(reinterpret_cast<const char*>(file->bytes().data()), file->size());
  std::vector<size_t> ends;
  for (int64_t number = 1; !rest.empty(); ++number) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    const nlohmann::json json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    const auto text = json.is_object() ? json.find("text") : json.end();
    if (text == json.end() || !text->is_string()) {
      return bad_input(path + ":" + std::to_string(number) + ": this line is not an object with a \"text\" string");
    }
    const auto bytes = std::as_bytes(std::span(text->get_ref<const std::string&>()));
    corpus->decoded_.insert(corpus->decoded_.end(), bytes.begin(), bytes.end());
    corpus->decoded_.push_back(std::byte{0});
    ends.push_back(corpus->decoded_.size());
  }
  size_t begin = 0;
  for (const size_t end : ends) {
    corpus->documents_.emplace_back(corpus->decoded_.data() + begin, end - begin);
    begin = end;
  }
  return corpus;
}

void ByteCorpus::copy(int64_t document, int64_t offset, int64_t count, int64_t* tokens) const {
  const std::byte* from = documents_[static_cast<size_t>(document)].data() + offset;
  std::transform(from, from + count, tokens, [](std::byte b) { return std::to_integer<int64_t>(b); });
}

}  // namespace mds::trainer
