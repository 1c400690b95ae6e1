#include "topology/fabric/host_ranges.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <optional>

#include "topology/fabric/natural_order.hpp"

namespace mds::topology {
namespace {

constexpr size_t kNameBytesMax = 256;  // DNS stops at 253
constexpr int kBracketDepthMax = 8;
constexpr size_t kDigitsMax = 18;  // of a number, so that it fits int64_t

bool is_number(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

std::string_view trimmed(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t");
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(" \t") - begin + 1);
}

/// Where the part that begins at 0 ends: at a comma outside of brackets, or at the end. npos: brackets do not match.
size_t part_end(std::string_view text) {
  int depth = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '[') ++depth;
    if (text[i] == ']' && --depth < 0) return std::string_view::npos;
    if (text[i] == ',' && depth == 0) return i;
  }
  return depth == 0 ? text.size() : std::string_view::npos;
}

class Expander {
 public:
  explicit Expander(size_t hosts_max) : hosts_max_(hosts_max) {}

  /// Appends what `list` stands for.
  Status list(std::string_view list, int depth, bool inside, std::vector<std::string>& out) {
    const std::string_view whole = list;
    while (true) {
      const size_t end = part_end(list);
      if (end == std::string_view::npos) return bad_input(quoted(whole) + ": brackets do not match");
      const std::string_view item = trimmed(list.substr(0, end));
      if (item.empty() && !(whole == list && end == list.size() && !inside)) {
        return bad_input(quoted(whole) + ": a name is missing beside a comma or in brackets");
      }
      const Status done = inside ? range(item, depth, out) : name(item, depth, out);
      if (!done) return done;
      if (end == list.size()) return {};
      list.remove_prefix(end + 1);
    }
  }

 private:
  /// "a[1-3]b[0-1]"
  Status name(std::string_view text, int depth, std::vector<std::string>& out) {
    if (text.empty()) return {};
    std::vector<std::string> heads{""};
    while (!text.empty()) {
      const size_t open = std::min(text.find('['), text.size());
      for (std::string& head : heads) head += text.substr(0, open);
      if (heads.front().size() > kNameBytesMax) return bad_input("a name longer than 256 characters");
      text.remove_prefix(open);
      if (text.empty()) break;
      if (depth == kBracketDepthMax) return bad_input("brackets nested more than 8 deep");
      int level = 0;
      size_t close = 0;
      while (level += text[close] == '[', level -= text[close] == ']', level > 0) ++close;
      std::vector<std::string> tails;
      if (const Status done = list(text.substr(1, close - 1), depth + 1, true, tails); !done) return done;
      if (const Status done = multiply(heads, tails); !done) return done;
      text.remove_prefix(close + 1);
    }
    if (out.size() + heads.size() > hosts_max_) return too_many();
    std::move(heads.begin(), heads.end(), std::back_inserter(out));
    return {};
  }

  /// What stands between two commas inside of brackets: "7", "08-10" or a name with brackets of its own.
  Status range(std::string_view text, int depth, std::vector<std::string>& out) {
    const size_t dash = text.find('-');
    if (dash == std::string_view::npos || !is_number(text.substr(0, dash)) || !is_number(text.substr(dash + 1))) {
      return name(text, depth, out);
    }
    const std::string_view low = text.substr(0, dash), high = text.substr(dash + 1);
    if (low.size() > kDigitsMax || high.size() > kDigitsMax) return bad_input("[" + std::string(text) + "]: too large");
    int64_t first = 0, last = 0;
    std::from_chars(low.data(), low.data() + low.size(), first);
    std::from_chars(high.data(), high.data() + high.size(), last);
    if (last < first) return bad_input("[" + std::string(text) + "]: ends before it begins");
    if (static_cast<uint64_t>(last - first) >= hosts_max_ - std::min(hosts_max_, out.size())) return too_many();
    for (int64_t number = first; number <= last; ++number) {
      std::string digits = std::to_string(number);
      if (digits.size() < low.size()) digits.insert(0, low.size() - digits.size(), '0');
      out.push_back(std::move(digits));
    }
    return {};
  }

  Status multiply(std::vector<std::string>& heads, const std::vector<std::string>& tails) const {
    if (tails.size() > hosts_max_ / heads.size()) return too_many();
    std::vector<std::string> product;
    product.reserve(heads.size() * tails.size());
    for (const std::string& head : heads) {
      for (const std::string& tail : tails) product.push_back(head + tail);
    }
    heads = std::move(product);
    return {};
  }

  Error too_many() const { return bad_input("more than " + std::to_string(hosts_max_) + " names"); }
  static std::string quoted(std::string_view text) {
    return "\"" + std::string(text.substr(0, 80)) + (text.size() > 80 ? "..." : "") + "\"";
  }

  const size_t hosts_max_;
};

/// A name cut at its last number.
struct Parts {
  std::string_view head, digits, tail;
};

Parts parts_of(std::string_view name) {
  const auto digit = [&](size_t i) { return name[i] >= '0' && name[i] <= '9'; };
  size_t end = name.size();
  while (end > 0 && !digit(end - 1)) --end;
  size_t begin = end;
  while (begin > 0 && digit(begin - 1) && end - begin < kDigitsMax) --begin;
  return {name.substr(0, begin), name.substr(begin, end - begin), name.substr(end)};
}

/// Whether b is what a range that holds a writes next.
bool follows(const Parts& a, const Parts& b) {
  int64_t first = 0, second = 0;
  std::from_chars(a.digits.data(), a.digits.data() + a.digits.size(), first);
  std::from_chars(b.digits.data(), b.digits.data() + b.digits.size(), second);
  const bool same_width = a.digits.size() == b.digits.size();
  return second == first + 1 && (same_width || (a.digits.size() < b.digits.size() && b.digits[0] != '0'));
}

}  // namespace

Result<std::vector<std::string>> expand_hosts(std::string_view list, size_t hosts_max) {
  std::vector<std::string> hosts;
  const Status done = Expander(hosts_max).list(list, 0, false, hosts);
  if (!done) return done.error();
  return hosts;
}

Result<std::vector<std::string>> expand_hosts_within(std::string_view list, size_t& names_left) {
  auto hosts = expand_hosts(list, std::min(names_left, kHostsMax));
  if (hosts) names_left -= hosts->size();
  return hosts;
}

std::string fold_hosts(std::vector<std::string> hosts) {
  std::sort(hosts.begin(), hosts.end(), natural_less);
  hosts.erase(std::unique(hosts.begin(), hosts.end()), hosts.end());
  std::string text;
  for (size_t i = 0; i < hosts.size();) {
    const Parts first = parts_of(hosts[i]);
    const auto same_name = [&](const Parts& p) { return p.head == first.head && p.tail == first.tail; };
    size_t end = i + 1;
    while (!first.digits.empty() && end < hosts.size() && same_name(parts_of(hosts[end]))) ++end;
    if (!text.empty()) text += ',';
    if (end == i + 1) {
      text += hosts[i++];
      continue;
    }
    text += std::string(first.head) + '[';
    while (i < end) {
      const Parts low = parts_of(hosts[i]);
      Parts high = low;
      while (i + 1 < end && follows(high, parts_of(hosts[i + 1]))) high = parts_of(hosts[++i]);
      ++i;
      text += std::string(low.digits);
      if (high.digits != low.digits) text += '-' + std::string(high.digits);
      if (i < end) text += ',';
    }
    text += ']' + std::string(first.tail);
  }
  return text;
}

}  // namespace mds::topology
