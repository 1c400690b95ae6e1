// SvgCanvas: just enough SVG for pictures of boxes, lines and text that never runs out of its box.
//
// Units are pixels; y grows downwards. Texts are cut to a width measured with the widest of the usual sans-serif fonts
// (DejaVu Sans), as the reader's font is not known.
#pragma once

#include <string>
#include <string_view>

namespace mds::topology {

struct Box {
  double x = 0, y = 0, width = 0, height = 0;
  double right() const { return x + width; }
  double bottom() const { return y + height; }
};

struct RectStyle {
  std::string fill = "none";
  std::string stroke = "none";
  double radius = 0;
  double stroke_width = 1;
  std::string kind = "";  ///< becomes its class: what the box stands for ("gpu"), for scripts, styles and tests
};

enum class Anchor { start, middle, end };

struct TextStyle {
  double size = 12;
  std::string fill = "#0f172a";
  bool bold = false;
  Anchor anchor = Anchor::start;
};

/// An upper bound of the text's width.
double text_width(const std::string& text, double size, bool bold = false);

/// The text itself, or its beginning and "…" where it is wider than `width`.
std::string fitted(const std::string& text, double width, double size, bool bold = false);

/// "#rrggbb" of a hue in degrees, saturation and lightness from 0 to 1.
std::string hsl(double hue, double saturation, double lightness);

class SvgCanvas {
 public:
  void rect(const Box& box, const RectStyle& style);
  /// `x`, `y`: the anchor on the base line. The text takes at most `width`.
  void text(double x, double y, double width, const std::string& text, const TextStyle& style);
  void line(double x1, double y1, double x2, double y2, const std::string& stroke, double stroke_width);
  /// A line with a head at its end.
  void arrow(double x1, double y1, double x2, double y2, const std::string& stroke);
  /// A curve that hangs below its ends, `depth` deep.
  void hanging_curve(double x1, double x2, double y, double depth, const std::string& stroke, double stroke_width);
  /// A flat bracket that opens upwards, from x1 to x2.
  void bracket(double x1, double x2, double y, const std::string& stroke);

  /// The document. `title` is what screen readers and tool tips say.
  std::string document(double width, double height, const std::string& title) const;

 private:
  void attribute(const char* name, std::string_view value);
  void attribute(const char* name, double value);

  std::string body_;
};

}  // namespace mds::topology
