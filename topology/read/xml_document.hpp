// An XML text with lines: what readers of XML recordings share.
#pragma once

#include <pugixml.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "topology/result.hpp"

namespace mds::topology {

/// A parsed text. Owns the tree; the text itself must stay where it is.
class XmlDocument {
 public:
  /// Errors: bad_input "line 12: what is wrong", also for texts above `bytes_max` and trees above `levels_max`.
  static Result<XmlDocument> parse(std::string_view text, size_t bytes_max, int levels_max);

  pugi::xml_node root() const { return document_.document_element(); }
  int line(pugi::xml_node node) const;

  /// bad_input "line 12: <message>".
  Error error(pugi::xml_node node, const std::string& message) const;

 private:
  pugi::xml_document document_;
  std::vector<size_t> line_starts_;
};

}  // namespace mds::topology
