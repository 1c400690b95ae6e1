#include <algorithm>
#include <cstring>

#include "topology/fabric/read_fabric.hpp"
#include "topology/read/read_machine.hpp"
#include "topology/read/smi_matrix.hpp"

namespace mds::topology {
namespace {

constexpr size_t kLookAtMax = 64 << 10;

std::string_view skip_blanks(std::string_view text) {
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  const size_t begin = text.find_first_not_of(" \t\r\n\f\v");
  return begin == std::string_view::npos ? std::string_view() : text.substr(begin);
}

/// Steps over one declaration, comment or DOCTYPE at the beginning. False if there is none (or it never ends).
bool skip_markup(std::string_view& text) {
  for (const auto& [begin, end] : {std::pair{"<?", "?>"}, {"<!--", "-->"}, {"<!", ">"}}) {
    if (!text.starts_with(begin)) continue;
    const size_t at = text.find(end);
    if (at == std::string_view::npos) return false;
    text = skip_blanks(text.substr(at + std::strlen(end)));
    return true;
  }
  return false;
}

/// The name of the first element; empty if there is none.
std::string_view root_element(std::string_view text) {
  while (skip_markup(text)) {
  }
  if (!text.starts_with('<')) return {};
  const size_t end = text.find_first_of(" \t\r\n/>", 1);
  return text.substr(1, std::min(end, text.size()) - 1);
}

}  // namespace

RecordingFormat guess_format(std::string_view text) {
  text = skip_blanks(text.substr(0, kLookAtMax));
  if (text.starts_with('<')) {
    const std::string_view root = root_element(text);
    if (root == "topology") return RecordingFormat::hwloc_xml;
    // Graphs are no topologies, but the reader of topologies says so best.
    if (root == "system" || root == "graphs") return RecordingFormat::nccl_xml;
    return RecordingFormat::unknown;
  }
  if (text.starts_with('{')) return RecordingFormat::cluster_json;
  if (looks_like_smi(text)) return RecordingFormat::nvidia_smi;
  if (looks_like_fabric(text)) return RecordingFormat::fabric;
  return RecordingFormat::unknown;
}

}  // namespace mds::topology
