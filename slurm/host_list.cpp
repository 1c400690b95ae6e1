#include "slurm/host_list.hpp"

#include <algorithm>
#include <cctype>

namespace mds::slurm {
namespace {

constexpr size_t kDigitsMax = 9;  // a number fits into 32 bits
constexpr char kNoHostName[] = " \t\r\n\"'\\$`;&|<>()*?!#";

bool is_number(const std::string& text) {
  return !text.empty() && text.size() <= kDigitsMax &&
         std::all_of(text.begin(), text.end(), [](unsigned char c) { return std::isdigit(c); });
}

std::string padded(unsigned long number, size_t width) {
  std::string digits = std::to_string(number);
  return digits.size() < width ? std::string(width - digits.size(), '0') + digits : digits;
}

/// "1-3,07" as the texts that it stands for.
Result<std::vector<std::string>> expand_ranges(const std::string& ranges) {
  std::vector<std::string> out;
  for (size_t begin = 0; begin <= ranges.size();) {
    const size_t comma = std::min(ranges.find(',', begin), ranges.size());
    const std::string range = ranges.substr(begin, comma - begin);
    const size_t dash = std::min(range.find('-'), range.size());
    const std::string first = range.substr(0, dash);
    const std::string last = dash == range.size() ? first : range.substr(dash + 1);
    if (!is_number(first) || !is_number(last))
      return bad_input("'" + range + "' is not a number or a range of numbers");
    const unsigned long from = std::stoul(first), to = std::stoul(last);
    if (to < from) return bad_input("the range " + range + " runs backwards");
    if (to - from >= kHostsMax || out.size() + (to - from) >= kHostsMax)
      return bad_input("[" + range + "] is too long");
    for (unsigned long number = from; number <= to; ++number) out.push_back(padded(number, first.size()));
    begin = comma + 1;
  }
  return out;
}

/// One word, brackets and all.
Result<std::vector<std::string>> expand_word(const std::string& word) {
  std::vector<std::string> out{""};
  for (size_t at = 0; at < word.size();) {
    const size_t open = std::min(word.find('[', at), word.size());
    for (std::string& host : out) host += word.substr(at, open - at);
    if (open == word.size()) break;
    const size_t close = word.find(']', open);
    if (close == std::string::npos) return bad_input("'[' without ']'");
    const auto parts = expand_ranges(word.substr(open + 1, close - open - 1));
    if (!parts) return parts.error();
    if (out.size() * parts->size() > kHostsMax) return bad_input("more than " + std::to_string(kHostsMax) + " hosts");
    std::vector<std::string> longer;
    for (const std::string& host : out) {
      for (const std::string& part : *parts) longer.push_back(host + part);
    }
    out = std::move(longer);
    at = close + 1;
  }
  if (out.front().find(']') != std::string::npos) return bad_input("']' without '['");
  return out;
}

/// The end of the word that begins at `begin`: its comma outside brackets, or the end of the text.
size_t end_of_word(const std::string& text, size_t begin) {
  int depth = 0;
  size_t at = begin;
  for (; at < text.size() && (text[at] != ',' || depth > 0); ++at) {
    if (text[at] == '[') ++depth;
    if (text[at] == ']') --depth;
  }
  return at;
}

/// A host as what stands before and after its last number.
struct Split {
  std::string prefix, digits, suffix;
};

Split split(const std::string& host) {
  const auto is_digit = [](unsigned char c) { return std::isdigit(c); };
  const auto end = std::find_if(host.rbegin(), host.rend(), is_digit).base();
  auto begin = end;
  while (begin != host.begin() && end - begin < static_cast<std::ptrdiff_t>(kDigitsMax) && is_digit(begin[-1])) --begin;
  return {{host.begin(), begin}, {begin, end}, {end, host.end()}};
}

/// Hosts that share prefix and suffix, as "1-3,7".
class Fold {
 public:
  explicit Fold(const Split& first) : prefix_(first.prefix), suffix_(first.suffix) { add_range(first.digits); }

  bool takes(const Split& host) const {
    return !host.digits.empty() && !first_.empty() && host.prefix == prefix_ && host.suffix == suffix_;
  }
  void add(const Split& host) {
    const bool next = host.digits == padded(std::stoul(last_) + 1, first_.size());
    if (!next) return close_range(), add_range(host.digits);
    last_ = host.digits;
    ++hosts_;
  }
  std::string text() {
    close_range();
    return prefix_ + (hosts_ > 1 ? "[" + ranges_ + "]" : ranges_) + suffix_;
  }

 private:
  void add_range(const std::string& digits) {
    first_ = last_ = digits;
    ++hosts_;
  }
  void close_range() { ranges_ += (ranges_.empty() ? "" : ",") + first_ + (first_ == last_ ? "" : "-" + last_); }

  std::string prefix_, suffix_, ranges_, first_, last_;
  size_t hosts_ = 0;
};

}  // namespace

Result<std::vector<std::string>> expand_hosts(const std::string& text) {
  std::vector<std::string> out;
  const auto wrong = [&](const std::string& why) {
    return bad_input("host list '" + text.substr(0, 200) + "': " + why);
  };
  if (const size_t at = text.find_first_of(kNoHostName); at != std::string::npos) {
    return wrong("a host name has no '" + text.substr(at, 1) + "'");
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = end_of_word(text, begin);
    const std::string word = text.substr(begin, end - begin);
    if (word.empty() || end + 1 == text.size()) return wrong("a name is missing beside a comma");
    if (word[0] == '-') return wrong("a host name does not begin with '-'");
    const auto hosts = expand_word(word);
    if (!hosts) return wrong(hosts.error().message);
    if (out.size() + hosts->size() > kHostsMax) return wrong("more than " + std::to_string(kHostsMax) + " hosts");
    out.insert(out.end(), hosts->begin(), hosts->end());
    begin = end + 1;
  }
  return out;
}

std::string fold_hosts(const std::vector<std::string>& hosts) {
  std::string out;
  for (size_t at = 0; at < hosts.size();) {
    Fold fold(split(hosts[at]));
    for (++at; at < hosts.size() && fold.takes(split(hosts[at])); ++at) fold.add(split(hosts[at]));
    out += (out.empty() ? "" : ",") + fold.text();
  }
  return out;
}

}  // namespace mds::slurm
