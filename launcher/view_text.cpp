// Text for people: numbers with units and the progress line.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "launcher/view.hpp"

namespace mds::launcher {

namespace {

template <typename... Args>
std::string format(const char* pattern, Args... args) {
  char text[160];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

std::string bar(double fraction, int columns) {
  const int inside = columns - 2;
  const int done = std::clamp(static_cast<int>(fraction * inside), 0, inside);
  return "[" + std::string(done, '=') + std::string(inside - done, ' ') + "]";
}

constexpr int kBarColumns = 22, kBarColumnsMin = 10;

}  // namespace

std::string human_seconds(double seconds) {
  if (!(seconds >= 0) || seconds > 1e9) return "?";
  if (seconds < 0.9995) return format("%.0f ms", seconds * 1e3);
  if (seconds < 59.95) return format("%.1f s", seconds);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return format("%d min %02d s", static_cast<int>(whole / 60), static_cast<int>(whole % 60));
  const int64_t minutes = (whole + 30) / 60;
  return format("%lld h %02d min", static_cast<long long>(minutes / 60), static_cast<int>(minutes % 60));
}

std::string shell_word(const std::string& word) {
  constexpr const char* kPlain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-./=:,@%+";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string::npos) return word;
  std::string out = "'";
  for (const char c : word) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string human_count(double value) {
  if (value < 999.5) return format("%.0f", value);
  for (const char* unit : {"k", "M", "G", "T"}) {
    value /= 1000;
    if (value < 999.5) return format(value < 9.995 ? "%.2f %s" : value < 99.95 ? "%.1f %s" : "%.0f %s", value, unit);
  }
  return format("%.3g P", value / 1000);
}

std::string progress_line(const Progress& p, int width) {
  struct Part {
    std::string text;
    int importance;  // the smaller, the longer it stays
  };
  std::vector<Part> parts;
  const bool total_known = p.steps > 0;
  parts.push_back({"step " + std::to_string(p.step) + (total_known ? "/" + std::to_string(p.steps) : ""), 0});
  if (total_known) {
    const double fraction = static_cast<double>(p.step) / static_cast<double>(p.steps);
    if (width > 0) parts.push_back({bar(fraction, kBarColumns), 6});
    parts.push_back({format("%.0f %%", std::floor(fraction * 100)), 5});
  }
  if (p.loss) parts.push_back({format("loss %.4f", *p.loss), 1});
  if (p.validation_loss) parts.push_back({format("validation %.4f", *p.validation_loss), 4});
  if (p.tokens_per_second) parts.push_back({human_count(*p.tokens_per_second) + " tokens/s", 3});
  if (p.flops_utilization) parts.push_back({format("MFU %.1f %%", *p.flops_utilization * 100), 4});
  if (p.seconds_left && *p.seconds_left > 0) parts.push_back({human_seconds(*p.seconds_left) + " left", 2});
  if (p.restarts > 0) parts.push_back({format("restart %d/%d", p.restarts, p.max_restarts), 2});

  const auto join = [&] {
    std::string text;
    for (const Part& part : parts) text += (text.empty() ? "" : "  ") + part.text;
    return text;
  };
  std::string text = join();
  const int excess = static_cast<int>(text.size()) - width;
  if (total_known && width > 0 && excess > 0 && excess <= kBarColumns - kBarColumnsMin) {  // first the bar shrinks
    parts[1].text = bar(static_cast<double>(p.step) / static_cast<double>(p.steps), kBarColumns - excess);
    text = join();
  }
  while (width > 0 && static_cast<int>(text.size()) > width && parts.size() > 1) {
    const auto least = std::max_element(parts.begin(), parts.end(),
                                        [](const Part& a, const Part& b) { return a.importance < b.importance; });
    parts.erase(least);
    text = join();
  }
  return width > 0 ? text.substr(0, width) : text;
}

}  // namespace mds::launcher
