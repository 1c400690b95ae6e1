#include "launcher/job_scan.hpp"

#include <algorithm>

namespace mds::launcher {
namespace {

constexpr int kDotsMax = 5000;

bool is_ascii(char c) { return static_cast<unsigned char>(c) < 0x80; }

class Scanner {
 public:
  explicit Scanner(const std::string& text) : text_(text) {
    if (text_.rfind("\xEF\xBB\xBF", 0) == 0) at_ = 3;  // a byte order mark
  }

  std::optional<ScanProblem> run() {
    while (!problem_ && !stopped_ && at_ < text_.size()) outside();
    return problem_;
  }

 private:
  bool starts(const char* token) const { return text_.compare(at_, std::char_traits<char>::length(token), token) == 0; }

  void outside() {
    const char c = text_[at_];
    if (c == '#') {
      at_ = std::min(text_.find('\n', at_), text_.size());
    } else if (starts("\"\"\"") || starts("'''")) {
      multi_line_string(c);
    } else if (c == '"' || c == '\'') {
      string(c);
    } else if (!is_ascii(c)) {
      report("a character that is not ASCII stands outside of quotes");
    } else {
      if (c == '.' && ++dots_ > kDotsMax) report("more than 5000 dots: not a job file");
      ++at_;
    }
  }

  void string(char quote) {
    for (++at_; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') break;  // not TOML
      if (c == '\\' && quote == '"') ++at_;
      if (c == quote) {
        ++at_;
        return;
      }
    }
    stopped_ = true;
  }

  void multi_line_string(char quote) {
    const std::string end(3, quote);
    for (at_ += 3; at_ < text_.size();) {
      if (starts(end.c_str())) {
        at_ += 3;
        for (int more = 0; more < 2 && at_ < text_.size() && text_[at_] == quote; ++more)
          ++at_;  // """""": the string's
        return;
      }
      if (text_[at_] == '\\' && quote == '"') {
        escape();
        if (problem_) return;
      } else {
        ++at_;
      }
    }
    stopped_ = true;
  }

  // Behind a backslash the parser asks whether the next character, and the first one of the next line, is a space.
  void escape() {
    ++at_;
    const bool continues = at_ < text_.size() && std::string(" \t\r\n").find(text_[at_]) != std::string::npos;
    if (continues) at_ = std::min(text_.find_first_not_of(" \t\r\n", at_), text_.size());
    if (at_ < text_.size() && !is_ascii(text_[at_])) {
      report("a character that is not ASCII stands where a line goes on behind '\\'");
    } else if (!continues) {
      ++at_;
    }
  }

  void report(const std::string& message) {
    ScanProblem problem{1, 1, message};
    for (size_t i = 0; i < at_; ++i) {
      const bool continuation = (static_cast<unsigned char>(text_[i]) & 0xC0) == 0x80;
      if (text_[i] == '\n') {
        ++problem.line;
        problem.column = 1;
      } else if (!continuation) {
        ++problem.column;
      }
    }
    problem_ = problem;
  }

  const std::string& text_;
  size_t at_ = 0;
  int dots_ = 0;
  bool stopped_ = false;
  std::optional<ScanProblem> problem_;
};

}  // namespace

std::optional<ScanProblem> scan_toml(const std::string& text) { return Scanner(text).run(); }

}  // namespace mds::launcher
