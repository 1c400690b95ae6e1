#include "topology/picture/svg_canvas.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string_view>

namespace mds::topology {
namespace {

/// Advance of a character as a share of the font size, rounded up from DejaVu Sans.
double advance(unsigned char c) {
  if ((c & 0xc0) == 0x80) return 0;  // a further byte of a UTF-8 character
  if (c >= 0x80) return 1;
  if (c >= '0' && c <= '9') return 0.64;
  if (std::string_view("ijl|.,:;'! ").find(static_cast<char>(c)) != std::string_view::npos) return 0.35;
  if (std::string_view("mwMW@%").find(static_cast<char>(c)) != std::string_view::npos) return 1;
  return c >= 'A' && c <= 'Z' ? 0.76 : 0.64;
}

/// Short and without a locale: "12", "12.5".
std::string number(double value) {
  const auto tenths = static_cast<long long>(std::llround(value * 10));
  std::string text = tenths < 0 ? "-" : "";
  text += std::to_string(std::llabs(tenths) / 10);
  if (tenths % 10 != 0) text.append(".").append(std::to_string(std::llabs(tenths) % 10));
  return text;
}

std::string escaped(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

}  // namespace

double text_width(const std::string& text, double size, bool bold) {
  double width = 0;
  for (const char c : text) width += advance(static_cast<unsigned char>(c));
  return width * size * (bold ? 1.12 : 1);
}

std::string fitted(const std::string& text, double width, double size, bool bold) {
  if (text_width(text, size, bold) <= width) return text;
  std::string cut = text;
  while (!cut.empty() && text_width(cut + "…", size, bold) > width) {
    while (!cut.empty() && (static_cast<unsigned char>(cut.back()) & 0xc0) == 0x80) cut.pop_back();
    if (!cut.empty()) cut.pop_back();
  }
  return cut.empty() ? "" : cut + "…";
}

std::string hsl(double hue, double saturation, double lightness) {
  const double chroma = saturation * std::min(lightness, 1 - lightness);
  std::array<int, 3> rgb{};
  for (size_t i = 0; i < 3; ++i) {
    const double k = std::fmod(std::array{0., 8., 4.}[i] + hue / 30, 12);
    rgb[i] = static_cast<int>(std::lround(255 * (lightness - chroma * std::clamp(std::min(k - 3, 9 - k), -1., 1.))));
  }
  char text[8];
  std::snprintf(text, sizeof text, "#%02x%02x%02x", rgb[0] & 0xff, rgb[1] & 0xff, rgb[2] & 0xff);
  return text;
}

void SvgCanvas::attribute(const char* name, std::string_view value) {
  body_.append(" ").append(name).append("=\"").append(escaped(value)).append("\"");
}

void SvgCanvas::attribute(const char* name, double value) { attribute(name, std::string_view(number(value))); }

void SvgCanvas::rect(const Box& box, const RectStyle& style) {
  body_ += "<rect";
  if (!style.kind.empty()) attribute("class", style.kind);
  attribute("x", box.x);
  attribute("y", box.y);
  attribute("width", box.width);
  attribute("height", box.height);
  attribute("fill", style.fill);
  if (style.radius > 0) attribute("rx", style.radius);
  if (style.stroke != "none") {
    attribute("stroke", style.stroke);
    attribute("stroke-width", style.stroke_width);
  }
  body_ += "/>\n";
}

void SvgCanvas::text(double x, double y, double width, const std::string& text, const TextStyle& style) {
  const std::string shown = fitted(text, width, style.size, style.bold);
  if (shown.empty()) return;
  body_ += "<text";
  attribute("x", x);
  attribute("y", y);
  attribute("font-size", style.size);
  attribute("fill", style.fill);
  if (style.bold) attribute("font-weight", "700");
  if (style.anchor == Anchor::middle) attribute("text-anchor", "middle");
  if (style.anchor == Anchor::end) attribute("text-anchor", "end");
  body_.append(">").append(escaped(shown)).append("</text>\n");
}

void SvgCanvas::line(double x1, double y1, double x2, double y2, const std::string& stroke, double stroke_width) {
  body_ += "<line";
  attribute("x1", x1);
  attribute("y1", y1);
  attribute("x2", x2);
  attribute("y2", y2);
  attribute("stroke", stroke);
  attribute("stroke-width", stroke_width);
  body_ += " stroke-linecap=\"round\"/>\n";
}

void SvgCanvas::arrow(double x1, double y1, double x2, double y2, const std::string& stroke) {
  line(x1, y1, x2, y2, stroke, 1.6);
  const double length = std::hypot(x2 - x1, y2 - y1);
  if (length == 0) return;
  const double dx = (x2 - x1) / length * 5, dy = (y2 - y1) / length * 5;
  line(x2, y2, x2 - dx - dy * 0.7, y2 - dy + dx * 0.7, stroke, 1.6);
  line(x2, y2, x2 - dx + dy * 0.7, y2 - dy - dx * 0.7, stroke, 1.6);
}

void SvgCanvas::hanging_curve(double x1, double x2, double y, double depth, const std::string& stroke,
                              double stroke_width) {
  const std::string low = number(y + depth * 4 / 3);  // a cubic reaches three quarters of the way to its handles
  body_.append("<path d=\"M").append(number(x1)).append(" ").append(number(y)).append("C").append(number(x1));
  body_.append(" ").append(low).append(" ").append(number(x2)).append(" ").append(low).append(" ");
  body_.append(number(x2)).append(" ").append(number(y)).append("\" fill=\"none\"");
  attribute("stroke", stroke);
  attribute("stroke-width", stroke_width);
  body_ += "/>\n";
}

void SvgCanvas::bracket(double x1, double x2, double y, const std::string& stroke) {
  body_.append("<path d=\"M").append(number(x1)).append(" ").append(number(y - 4));
  body_.append("v4H").append(number(x2)).append("v-4\" fill=\"none\"");
  attribute("stroke", stroke);
  body_ += " stroke-width=\"1.6\" stroke-linejoin=\"round\"/>\n";
}

std::string SvgCanvas::document(double width, double height, const std::string& title) const {
  const std::string w = number(width), h = number(height);
  std::string text = "<svg xmlns=\"http://www.w3.org/2000/svg\"";
  text.append(" width=\"").append(w).append("\" height=\"").append(h);
  text.append("\" viewBox=\"0 0 ").append(w).append(" ").append(h);
  text += "\" font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\" role=\"img\">\n";
  text.append("<title>").append(escaped(title)).append("</title>\n");
  // The white ground keeps the picture readable in a viewer with dark pages.
  text += "<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n";
  return text.append(body_).append("</svg>\n");
}

}  // namespace mds::topology
