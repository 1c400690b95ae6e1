// Sizes, durations and numbers as text.
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "launcher/job_values.hpp"

namespace mds::launcher {
namespace {

using std::chrono::milliseconds;

struct Unit {
  const char* name;
  double factor;
};

constexpr std::array kSizeUnits{Unit{"", 1},
                                Unit{"B", 1},
                                Unit{"KiB", 1024.0},
                                Unit{"MiB", 1048576.0},
                                Unit{"GiB", 1073741824.0},
                                Unit{"TiB", 1099511627776.0},
                                Unit{"KB", 1e3},
                                Unit{"MB", 1e6},
                                Unit{"GB", 1e9},
                                Unit{"TB", 1e12}};
constexpr std::array kTimeUnits{Unit{"ms", 1},    Unit{"s", 1e3},   Unit{"m", 6e4},
                                Unit{"min", 6e4}, Unit{"h", 3.6e6}, Unit{"d", 8.64e7}};

// "1.5 GiB" in terms of units[].factor.
template <size_t N>
std::optional<double> parse_with_unit(const std::string& text, const std::array<Unit, N>& units) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || !std::isfinite(number) || number < 0) return std::nullopt;
  std::string unit(end, text.data() + text.size());
  if (!unit.empty() && unit.front() == ' ') unit.erase(0, 1);
  for (const Unit& known : units) {
    if (unit == known.name) return number * known.factor;
  }
  return std::nullopt;
}

constexpr double kWholeMax = 9.2e18;  // below 2^63

}  // namespace

std::optional<int64_t> parse_size(const std::string& text) {
  const std::optional<double> bytes = parse_with_unit(text, kSizeUnits);
  if (!bytes || *bytes > kWholeMax) return std::nullopt;
  return static_cast<int64_t>(std::llround(*bytes));
}

std::optional<milliseconds> parse_duration(const std::string& text) {
  const std::optional<double> time = parse_with_unit(text, kTimeUnits);
  if (!time || *time > 1e13) return std::nullopt;
  return milliseconds(std::llround(*time));
}

std::string format_size(int64_t bytes) {
  constexpr std::array<std::pair<const char*, int64_t>, 4> kUnits{
      {{"TiB", int64_t{1} << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}};
  for (const auto& [name, factor] : kUnits) {
    if (bytes != 0 && bytes % factor == 0) return std::to_string(bytes / factor) + name;
  }
  return std::to_string(bytes) + "B";
}

std::string format_duration(milliseconds duration) {
  constexpr std::array<std::pair<const char*, int64_t>, 3> kUnits{{{"h", 3600000}, {"m", 60000}, {"s", 1000}}};
  for (const auto& [name, factor] : kUnits) {
    if (duration.count() != 0 && duration.count() % factor == 0)
      return std::to_string(duration.count() / factor) + name;
  }
  return duration.count() == 0 ? "0s" : std::to_string(duration.count()) + "ms";
}

std::string format_number(double number) {
  std::array<char, 40> buffer{};
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), number);
  std::string text(buffer.data(), result.ptr);
  if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
  return text;
}

}  // namespace mds::launcher
