#include "topology/fabric/natural_order.hpp"

#include <cstddef>

namespace mds::topology {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// The number that begins at `text[i]`, without leading zeros; moves i behind it.
std::string_view number_at(std::string_view text, size_t& i) {
  while (i < text.size() && text[i] == '0') ++i;
  const size_t begin = i;
  while (i < text.size() && is_digit(text[i])) ++i;
  return text.substr(begin, i - begin);
}

}  // namespace

bool natural_less(std::string_view a, std::string_view b) {
  size_t i = 0, j = 0;
  while (i < a.size() && j < b.size()) {
    if (is_digit(a[i]) && is_digit(b[j])) {
      const std::string_view left = number_at(a, i), right = number_at(b, j);
      if (left.size() != right.size()) return left.size() < right.size();
      if (left != right) return left < right;
    } else {
      if (a[i] != b[j]) return static_cast<unsigned char>(a[i]) < static_cast<unsigned char>(b[j]);
      ++i, ++j;
    }
  }
  if (i < a.size() || j < b.size()) return j < b.size();
  return a < b;
}

}  // namespace mds::topology
