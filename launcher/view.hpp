// View: what people see of a run. On a terminal one progress line that is redrawn, in a pipe plain lines; with --json
// machine-readable lines on standard output and nothing else there. Has no clock: the time comes with each call.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/metrics.hpp"
#include "launcher/supervisor.hpp"

namespace mds::launcher {

/// What the progress line is made of.
struct Progress {
  int64_t step = 0;
  int64_t steps = 0;                            ///< 0: unknown
  std::optional<double> loss{};
  std::optional<double> validation_loss{};
  std::optional<double> tokens_per_second{};
  std::optional<double> flops_utilization{};    ///< MFU, 0 to 1
  std::optional<double> seconds_left{};
  int restarts = 0;
  int max_restarts = 0;
};

/// One line of at most `width` columns; what does not fit is left out, the most important stays. Width 0: a plain line
/// for a pipe, of any length and without the bar.
std::string progress_line(const Progress& progress, int width);

/// "1 h 02 min", "3 min 20 s", "12.3 s", "45 ms".
std::string human_seconds(double seconds);
/// "950", "12.3 k", "1.25 M".
std::string human_count(double value);
/// As a shell reads it back: quoted where it must be.
std::string shell_word(const std::string& word);

struct ViewOptions {
  bool json = false;
  bool terminal = false;                        ///< standard output is one: redraw
  bool color = false;
  bool raw_output = false;                      ///< a payload's ranks: show what they print
  std::function<int()> width = [] { return 80; };   ///< columns now
  std::function<void(std::string_view)> out;    ///< standard output
  std::function<void(std::string_view)> err;    ///< standard error
};

/// What the view says at the begin.
struct RunTitle {
  std::string name;
  std::string folder;
  int ranks = 0;
  int nodes = 0;
  std::string layout;                           ///< "tensor 2 x data 2"; empty for payloads
  int64_t steps = 0;                            ///< 0: unknown
  int max_restarts = 0;
  std::string shown_folder{};                   ///< the folder as people read it; empty: as it is
  double utilization_per_token = 0;             ///< MFU at a token a second; 0: the devices' peak is not known
};

/// A command under "what to try next".
struct Suggestion {
  std::string command;
  std::string why;
};

/// What the view says at the end.
struct RunSummary {
  int exit_code = 0;
  std::string outcome;                          ///< "finished", "failed", ...: one sentence without a full stop
  std::vector<std::pair<std::string, std::string>> facts;   ///< name, value
  std::vector<Suggestion> next;
  std::string report_json;                      ///< the report, on one line, for --json
};

/// Not thread-safe.
class View {
 public:
  explicit View(ViewOptions options);

  void begin(const RunTitle& title);
  /// Lines for what people care about: joins, attempts, causes, checkpoints.
  void event(const Event& event, const Effects& effects, const SupervisorState& state, TimePoint now);
  void metrics(const StepMetrics& metrics, int64_t steps, TimePoint now);
  /// One line of news, such as "1.2 M parameters".
  void news(const std::string& text);
  /// A problem that does not end the run.
  void warning(const std::string& text);
  void output(int rank, const std::vector<std::string>& lines, uint64_t dropped);
  void end(const RunSummary& summary);
  /// The terminal has another size now.
  void resized();

 private:
  enum class Tint { none, bold, dim, red, green, yellow };
  std::string tinted(Tint tint, const std::string& text) const;
  void plain_progress(const StepMetrics& metrics, TimePoint now);
  void line(const std::string& text);
  void put_above(const std::string& text);
  void error_line(const std::string& text);
  void json_line(const std::string& text);
  void draw();
  void erase();
  std::string back_to_begin();
  std::string drawn();
  void cause(const Cause& cause);
  void next_attempt(const SupervisorState& state, TimePoint now);
  void estimate(const StepMetrics& metrics, TimePoint now);

  ViewOptions options_;
  Progress progress_;
  bool drawn_ = false;                          ///< the cursor stands behind the progress line
  int drawn_columns_ = 0;
  std::optional<TimePoint> last_draw_;
  int64_t last_tenth_ = -1;                     ///< tenth of the steps that was printed last in a pipe
  int64_t last_plain_step_ = -1;
  double utilization_per_token_ = 0;
  std::optional<TimePoint> last_step_at_;
  double seconds_per_step_ = 0;                 ///< wall time, smoothed
  std::deque<double> speeds_;                   ///< tokens a second of the last steps
};

}  // namespace mds::launcher
