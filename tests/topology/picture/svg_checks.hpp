// What every picture must keep to, whatever it shows.
#pragma once

#include <cstdlib>
#include <cstring>
#include <pugixml.hpp>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "topology/picture/svg_canvas.hpp"

namespace mds::topology::tests {

inline size_t count(const std::string& text, const std::string& part) {
  size_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

inline bool inside(const Box& inner, const Box& outer) {
  constexpr double kSlack = 0.6;
  return inner.x >= outer.x - kSlack && inner.y >= outer.y - kSlack && inner.right() <= outer.right() + kSlack &&
         inner.bottom() <= outer.bottom() + kSlack;
}

inline std::string words(const Box& box) {
  return std::to_string(box.x) + "," + std::to_string(box.y) + " " + std::to_string(box.width) + "x" +
         std::to_string(box.height);
}

inline bool apart(const Box& a, const Box& b) {
  constexpr double kSlack = 0.6;
  return a.right() <= b.x + kSlack || b.right() <= a.x + kSlack || a.bottom() <= b.y + kSlack ||
         b.bottom() <= a.y + kSlack;
}

/// Well-formed XML; nothing outside of the page; boxes that stand for something (they have a class) are apart or one is
/// in the other, and those of one class are apart; texts do not run across the edge of such a box. Gives the page.
inline Box check_picture(const std::string& svg) {
  pugi::xml_document document;
  const pugi::xml_parse_result parsed = document.load_string(svg.c_str());
  REQUIRE(parsed);
  const pugi::xml_node root = document.child("svg");
  REQUIRE(root);
  REQUIRE(root.child("title"));
  const Box page{0, 0, root.attribute("width").as_double(), root.attribute("height").as_double()};
  REQUIRE(page.width > 0);
  struct Named {
    Box box;
    std::string kind;
  };
  std::vector<Named> boxes;
  for (const pugi::xml_node node : root.children("rect")) {
    const Box box{node.attribute("x").as_double(), node.attribute("y").as_double(), node.attribute("width").as_double(),
                  node.attribute("height").as_double()};
    if (std::strcmp(node.attribute("width").as_string(), "100%") == 0) continue;
    const std::string kind = node.attribute("class").as_string();
    INFO(kind << " at " << words(box));
    REQUIRE(inside(box, page));
    if (kind.empty() || kind == "core" || kind == "mark") continue;
    for (const Named& other : boxes) {
      if (apart(box, other.box)) continue;
      const bool nested = inside(box, other.box) || inside(other.box, box);
      const bool may_nest = kind != other.kind || kind == "spine" || kind == "switch";
      if (!nested || !may_nest) FAIL("overlaps " << other.kind << " at " << words(other.box));
    }
    boxes.push_back({box, kind});
  }
  for (const pugi::xml_node node : root.children("text")) {
    const double size = node.attribute("font-size").as_double();
    const double width = text_width(node.text().as_string(), size, !node.attribute("font-weight").empty());
    const std::string anchor = node.attribute("text-anchor").as_string();
    const double shift = anchor == "middle" ? 0.5 : anchor == "end" ? 1 : 0;
    // What is drawn: up to the height of capitals, down to the descenders.
    const Box text{node.attribute("x").as_double() - shift * width, node.attribute("y").as_double() - 0.73 * size,
                   width, 0.9 * size};
    INFO("text " << node.text().as_string());
    REQUIRE(inside(text, page));
    for (const Named& box : boxes) {
      if (!apart(text, box.box) && !inside(text, box.box)) FAIL("crosses " << box.kind << " at " << words(box.box));
    }
  }
  return page;
}

}  // namespace mds::topology::tests
