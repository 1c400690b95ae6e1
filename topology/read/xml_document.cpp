#include "topology/read/xml_document.hpp"

#include <algorithm>

namespace mds::topology {
namespace {

std::vector<size_t> find_line_starts(std::string_view text) {
  std::vector<size_t> starts{0};
  for (size_t at = text.find('\n'); at != std::string_view::npos; at = text.find('\n', at + 1))
    starts.push_back(at + 1);
  return starts;
}

int line_at(const std::vector<size_t>& starts, size_t offset) {
  return static_cast<int>(std::upper_bound(starts.begin(), starts.end(), offset) - starts.begin());
}

/// A node deeper than allowed, or none. No recursion: the text may nest as deep as it is long.
pugi::xml_node too_deep(pugi::xml_node root, int levels_max) {
  int level = 1;
  for (pugi::xml_node node = root; node;) {
    if (level > levels_max) return node;
    if (const auto child = node.first_child()) {
      node = child;
      ++level;
      continue;
    }
    while (node != root && !node.next_sibling()) {
      node = node.parent();
      --level;
    }
    if (node == root) break;
    node = node.next_sibling();
  }
  return {};
}

}  // namespace

Result<XmlDocument> XmlDocument::parse(std::string_view text, size_t bytes_max, int levels_max) {
  if (text.size() > bytes_max) {
    return bad_input("is larger than " + std::to_string(bytes_max >> 20) + " MiB, more than any topology");
  }
  XmlDocument xml;
  xml.line_starts_ = find_line_starts(text);
  const auto parsed = xml.document_.load_buffer(text.data(), text.size(), pugi::parse_default, pugi::encoding_utf8);
  if (!parsed) {
    const int line = line_at(xml.line_starts_, static_cast<size_t>(std::max<ptrdiff_t>(parsed.offset, 0)));
    return bad_input("line " + std::to_string(line) + ": " + parsed.description());
  }
  if (const auto node = too_deep(xml.root(), levels_max)) {
    return xml.error(node, "more than " + std::to_string(levels_max) + " levels of elements");
  }
  return xml;
}

int XmlDocument::line(pugi::xml_node node) const {
  return line_at(line_starts_, static_cast<size_t>(std::max<ptrdiff_t>(node.offset_debug(), 0)));
}

Error XmlDocument::error(pugi::xml_node node, const std::string& message) const {
  return bad_input("line " + std::to_string(line(node)) + ": " + message);
}

}  // namespace mds::topology
