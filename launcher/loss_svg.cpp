#include "launcher/loss_svg.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>


namespace mds::launcher {

namespace {

struct Point {
  double step;
  double loss;
};
using Curve = std::vector<Point>;

// Pixels. The plot is the rectangle that the axes span.
constexpr double kWidth = 960, kHeight = 520;
constexpr double kLeft = 76, kRight = 28, kTop = 64, kBottom = 60;
constexpr double kPlotWidth = kWidth - kLeft - kRight, kPlotHeight = kHeight - kTop - kBottom;
constexpr size_t kPointsMax = 1200;             // more are not visible and only make the file large

constexpr const char* kTrainColor = "#1f5fa8";
constexpr const char* kValidationColor = "#d1601f";
constexpr const char* kRestartColor = "#8a1c3b";

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[512];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    switch (c) {
      case '&': safe += "&amp;"; break;
      case '<': safe += "&lt;"; break;
      case '>': safe += "&gt;"; break;
      default: safe += static_cast<unsigned char>(c) < 0x20 ? '?' : c;
    }
  }
  return safe;
}

/// 1, 2 or 5 times a power of ten, so that about `ticks` of them span `range`.
double nice_step(double range, int ticks) {
  const double rough = range / ticks;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (rough <= factor * power * (1 + 1e-9)) return factor * power;
  }
  return 10 * power;
}

struct Axis {
  double low, high, tick;
};

Axis loss_axis(double low, double high) {
  if (high - low < 1e-9) {
    low -= 0.5;
    high += 0.5;
  }
  const double tick = nice_step(high - low, 6);
  return {std::floor(low / tick) * tick, std::ceil(high / tick) * tick, tick};
}

/// Runs of points become their mean: shape kept, file small.
Curve thinned(const Curve& curve) {
  if (curve.size() <= kPointsMax) return curve;
  const size_t run = (curve.size() + kPointsMax - 1) / kPointsMax;
  Curve thin;
  for (size_t begin = 0; begin < curve.size(); begin += run) {
    const size_t end = std::min(begin + run, curve.size());
    Point mean{0, 0};
    for (size_t i = begin; i < end; ++i) {
      mean.step += curve[i].step / static_cast<double>(end - begin);
      mean.loss += curve[i].loss / static_cast<double>(end - begin);
    }
    thin.push_back(mean);
  }
  return thin;
}

/// Centred moving average; at the ends the window shrinks, so that the curve begins and ends where the data does.
Curve smoothed(const Curve& curve) {
  const size_t half_max = std::max<size_t>(1, curve.size() / 40);
  Curve smooth = curve;
  for (size_t i = 0; i < curve.size(); ++i) {
    const size_t half = std::min({half_max, i, curve.size() - 1 - i});
    double sum = 0;
    for (size_t j = i - half; j <= i + half; ++j) sum += curve[j].loss;
    smooth[i].loss = sum / static_cast<double>(2 * half + 1);
  }
  return smooth;
}

class Plot {
 public:
  Plot(Axis x, Axis y) : x_(x), y_(y) {}
  double px(double step) const { return kLeft + (step - x_.low) / (x_.high - x_.low) * kPlotWidth; }
  double py(double loss) const { return kTop + (y_.high - loss) / (y_.high - y_.low) * kPlotHeight; }

  std::string grid(const std::string& unit) const {
    std::string svg;
    const int digits = std::max(0, static_cast<int>(-std::floor(std::log10(y_.tick) + 1e-9)));
    for (int i = 0; y_.low + i * y_.tick <= y_.high + y_.tick / 2; ++i) {
      const double value = y_.low + i * y_.tick, y = py(value);
      svg += format("<line class=\"grid\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", kLeft, y,
                    kWidth - kRight, y);
      svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\">%.*f</text>\n", kLeft - 9, y + 4.5, digits, value);
    }
    for (double value = std::ceil(x_.low / x_.tick) * x_.tick; value <= x_.high + 1e-9; value += x_.tick) {
      const double x = px(value), base = kTop + kPlotHeight;
      svg += format("<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>\n", x, base, x, base + 6);
      svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">%.0f</text>\n", x, base + 22, value);
    }
    svg += format("<path class=\"axis\" d=\"M%.1f %.1fV%.1fH%.1f\"/>\n", kLeft, kTop, kTop + kPlotHeight,
                  kWidth - kRight);
    svg += format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"middle\">step</text>\n", kLeft + kPlotWidth / 2,
                  kHeight - 14);
    svg += format("<text transform=\"translate(20 %.1f) rotate(-90)\" text-anchor=\"middle\">", kTop + kPlotHeight / 2);
    svg += "loss (" + escaped(unit) + ")</text>\n";
    return svg;
  }

  std::string line(const Curve& curve, const char* attributes) const {
    std::string points;
    for (const Point& p : curve) points += format("%s%.1f,%.1f", points.empty() ? "" : " ", px(p.step), py(p.loss));
    return std::string("<polyline fill=\"none\" stroke-linejoin=\"round\" ") + attributes + " points=\"" + points +
           "\"/>\n";
  }

 private:
  Axis x_, y_;
};

std::string legend_entry(double x, const std::string& mark, const std::string& text) {
  return format("<g transform=\"translate(%.1f %.1f)\">", x, kTop - 14) + mark + "<text x=\"32\" y=\"4.5\">" +
         escaped(text) + "</text></g>\n";
}

constexpr double kLegendColumn = 158;

}  // namespace

std::string loss_svg(const MetricsHistory& history, const std::string& title, const std::string& unit) {
  Curve train, validation;
  for (const auto& [step, m] : history.steps()) {
    const double x = static_cast<double>(step);
    if (m.loss && std::isfinite(*m.loss)) train.push_back({x, *m.loss});
    if (m.validation_loss && std::isfinite(*m.validation_loss)) validation.push_back({x, *m.validation_loss});
  }
  if (train.size() + validation.size() < 2) return "";

  double low = INFINITY, high = -INFINITY, last_step = 1;
  for (const Curve* curve : {&train, &validation}) {
    for (const Point& p : *curve) {
      low = std::min(low, p.loss);
      high = std::max(high, p.loss);
      last_step = std::max(last_step, p.step);
    }
  }
  const Plot plot({0, last_step, std::max(1.0, nice_step(last_step, 8))}, loss_axis(low, high));

  std::string svg = format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" height=\"%.0f\" viewBox=\"0 0 %.0f %.0f\" "
      "font-family=\"Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif\" font-size=\"13\" "
      "fill=\"#475569\">\n"
      "<style>.grid{stroke:#e2e8f0}.axis{stroke:#94a3b8;fill:none}</style>\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n", kWidth, kHeight, kWidth, kHeight);
  svg += format("<text x=\"%.1f\" y=\"28\" font-size=\"17\" font-weight=\"bold\" fill=\"#0f172a\">", kLeft) +
         escaped(title) + "</text>\n" + plot.grid(unit);

  double x = kLeft + 2;
  for (const int64_t step : history.resumed_at()) {
    svg += format("<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"1.3\" "
                  "stroke-dasharray=\"5 4\"/>\n", plot.px(static_cast<double>(step)), kTop,
                  plot.px(static_cast<double>(step)), kTop + kPlotHeight, kRestartColor);
  }
  if (!train.empty()) {
    const Curve thin = thinned(train);
    svg += plot.line(thin, format("stroke=\"%s\" stroke-opacity=\"0.32\" stroke-width=\"1\"", kTrainColor).c_str());
    svg += plot.line(smoothed(thin), format("stroke=\"%s\" stroke-width=\"2\"", kTrainColor).c_str());
    svg += legend_entry(x, format("<line x2=\"25\" stroke=\"%s\" stroke-width=\"2\"/>", kTrainColor),
                        format("training %.4f", train.back().loss));
    x += kLegendColumn;
  }
  if (!validation.empty()) {
    const std::string mark = format("r=\"3.6\" fill=\"%s\" stroke=\"white\"", kValidationColor);
    svg += plot.line(validation, format("stroke=\"%s\" stroke-width=\"1.6\"", kValidationColor).c_str());
    for (const Point& p : thinned(validation)) {
      svg += format("<circle cx=\"%.1f\" cy=\"%.1f\" ", plot.px(p.step), plot.py(p.loss)) + mark + "/>\n";
    }
    svg += legend_entry(x, format("<line x2=\"25\" stroke=\"%s\" stroke-width=\"1.6\"/><circle cx=\"12.5\" ",
                                  kValidationColor) + mark + "/>",
                        format("validation %.4f", validation.back().loss));
    x += kLegendColumn + 12;
  }
  if (!history.resumed_at().empty()) {
    svg += legend_entry(x, format("<line x2=\"25\" stroke=\"%s\" stroke-width=\"1.3\" stroke-dasharray=\"5 4\"/>",
                                  kRestartColor), "restart: resumed here");
  }
  return svg + "</svg>\n";
}

}  // namespace mds::launcher
