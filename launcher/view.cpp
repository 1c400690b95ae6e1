#include "launcher/view.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>

#include <nlohmann/json.hpp>

#include "launcher/event_log.hpp"

namespace mds::launcher {

using nlohmann::json;
using namespace std::chrono_literals;

namespace {

constexpr auto kRedraw = 100ms;                 // on a terminal, at most so often
constexpr auto kPlain = 5s;                     // in a pipe, a progress line at least so often (or each tenth)
constexpr double kSmoothing = 0.1;              // weight of the newest step in the time left
constexpr size_t kSpeeds = 15;                  // steps whose median is the speed: not the first's, nor a hiccup's

/// Of at least one value.
double median(const std::deque<double>& values) {
  std::vector<double> sorted(values.begin(), values.end());
  const auto middle = sorted.begin() + static_cast<ptrdiff_t>(sorted.size() / 2);
  std::nth_element(sorted.begin(), middle, sorted.end());
  return *middle;
}

double in_seconds(TimePoint t) { return std::chrono::duration<double>(t).count(); }

/// What a rank printed must not move the cursor or change the terminal: control characters become '?', except tabs.
std::string harmless(const std::string& text) {
  std::string safe = text;
  for (char& c : safe) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) c = '?';
  }
  return safe;
}

std::string compact(const json& object) { return object.dump(-1, ' ', false, json::error_handler_t::replace); }

}  // namespace

View::View(ViewOptions options) : options_(std::move(options)) {}

// --- the run --------------------------------------------------------------------------------------------------------

void View::begin(const RunTitle& title) {
  progress_.steps = title.steps;
  progress_.max_restarts = title.max_restarts;
  utilization_per_token_ = title.utilization_per_token;
  if (options_.json) {
    return json_line(compact({{"type", "begin"}, {"name", title.name}, {"folder", title.folder},
                              {"ranks", title.ranks}, {"nodes", title.nodes}, {"steps", title.steps}}));
  }
  std::string text = tinted(Tint::bold, title.name) + ": " + std::to_string(title.ranks) +
                     (title.ranks == 1 ? " rank on " : " ranks on ") + std::to_string(title.nodes) +
                     (title.nodes == 1 ? " node" : " nodes");
  if (!title.layout.empty()) text += " (" + title.layout + ")";
  line(text);
  line("run folder " + (title.shown_folder.empty() ? title.folder : title.shown_folder));
}

void View::event(const Event& event, const Effects& effects, const SupervisorState& state, TimePoint now) {
  progress_.restarts = state.restarts;
  const auto find = [&](EffectKind kind) {
    return std::find_if(effects.begin(), effects.end(), [&](const Effect& e) { return e.kind == kind; });
  };
  const auto has = [&](EffectKind kind) { return find(kind) != effects.end(); };
  if (options_.json) {
    if (event.kind == EventKind::progress) return;  // told by metrics()
    json object = to_json(event);
    object["type"] = "event";
    object["seconds"] = in_seconds(now);
    object["state"] = to_string(state.state);
    if (has(EffectKind::report_cause)) object["first_cause"] = to_json(*state.cause);
    return json_line(compact(object));
  }
  if (const auto kill = find(EffectKind::send_kill); kill != effects.end()) {
    line(tinted(Tint::yellow, "killing rank " + std::to_string(kill->rank) + " at step " + std::to_string(state.step) +
                                  ", as asked by --kill-rank"));
  }
  if (event.kind == EventKind::user_stop) {
    line(tinted(Tint::yellow, "stopping on " + signal_name(event.signal)) +
         (state.user_signals == 1 ? "; once more to hurry" : ""));
  }
  if (event.kind == EventKind::preempt && effects.size() > 1) {
    line(tinted(Tint::yellow, "stopping with a checkpoint on " + signal_name(event.signal)) +
         ", to be queued again");
  }
  if (event.kind == EventKind::checkpoint && options_.terminal) line("checkpoint " + event.text);
  if (has(EffectKind::report_cause)) cause(*state.cause);
  if (has(EffectKind::send_start) && state.attempt > state.first_attempt) next_attempt(state, now);
  if (state.state == State::backing_off && has(EffectKind::report_cause)) {
    line("next attempt in " + human_seconds(in_seconds(*state.deadline - now)));
  }
}

void View::cause(const Cause& cause) {
  error_line(tinted(Tint::red, "first cause: " + describe(cause)));
  for (const std::string& text : cause.tail) error_line(tinted(Tint::dim, "  | ") + harmless(text));
  for (const std::string& text : cause.follow_ups) error_line(tinted(Tint::dim, "  then " + text));
}

void View::next_attempt(const SupervisorState& state, TimePoint now) {
  const std::string from = !state.checkpoint.empty() ? " from checkpoint " + state.checkpoint
                           : progress_.steps > 0     ? " from where the run began"
                                                     : "";
  const std::string since = human_seconds(in_seconds(now - state.cause->at));
  line(tinted(Tint::yellow, "restart " + std::to_string(state.restarts)) + ": all ranks start again" + from + ", " +
       since + " after the failure");
  seconds_per_step_ = 0;
  speeds_.clear();
  progress_.seconds_left.reset();
  last_step_at_.reset();
}

// --- progress -------------------------------------------------------------------------------------------------------

void View::metrics(const StepMetrics& m, int64_t steps, TimePoint now) {
  if (steps > 0) progress_.steps = steps;
  estimate(m, now);
  progress_.step = m.step;
  if (m.loss) progress_.loss = m.loss;
  if (m.validation_loss) progress_.validation_loss = m.validation_loss;
  if (options_.json) {
    json object{{"type", "progress"}, {"seconds", in_seconds(now)}, {"attempt", m.attempt}, {"step", m.step}};
    if (m.loss) object["loss"] = *m.loss;
    if (m.validation_loss) object["validation_loss"] = *m.validation_loss;
    if (const auto speed = m.tokens_per_second(); speed && m.loss) object["tokens_per_second"] = *speed;
    return json_line(compact(object));
  }
  if (options_.terminal) {
    const bool last = m.step == progress_.steps;
    if (last || !drawn_ || !last_draw_ || now - *last_draw_ >= kRedraw) {
      draw();
      last_draw_ = now;
    }
    return;
  }
  plain_progress(m, now);
}

/// In a pipe: a line for each tenth of the steps, or every few seconds. A step's validation comes after the step, which
/// is not told twice.
void View::plain_progress(const StepMetrics& m, TimePoint now) {
  if (m.validation_loss && !m.loss && m.step == last_plain_step_) {
    char text[64];
    std::snprintf(text, sizeof text, "validation %.4f after step %lld", *m.validation_loss,
                  static_cast<long long>(m.step));
    return line(text);
  }
  const int64_t tenth = progress_.steps > 0 ? m.step * 10 / progress_.steps : 0;
  const bool due = !last_draw_ || now - *last_draw_ >= kPlain || tenth != last_tenth_;
  if (!due && !m.validation_loss) return;
  last_draw_ = now;
  last_tenth_ = tenth;
  last_plain_step_ = m.step;
  line(progress_line(progress_, 0));
}

void View::estimate(const StepMetrics& m, TimePoint now) {
  if (!m.loss) return;  // a validation report takes time of its own; the next step's wall time includes it
  if (const auto speed = m.tokens_per_second()) {
    speeds_.push_back(*speed);
    if (speeds_.size() > kSpeeds) speeds_.pop_front();
    const double usual = median(speeds_);
    progress_.tokens_per_second = usual;
    if (utilization_per_token_ > 0) progress_.flops_utilization = usual * utilization_per_token_;
  }
  if (last_step_at_ && m.step > progress_.step) {
    const double wall = in_seconds(now - *last_step_at_) / static_cast<double>(m.step - progress_.step);
    seconds_per_step_ = seconds_per_step_ == 0 ? wall : (1 - kSmoothing) * seconds_per_step_ + kSmoothing * wall;
    progress_.seconds_left = seconds_per_step_ * static_cast<double>(progress_.steps - m.step);
  }
  if (progress_.steps == 0) progress_.seconds_left.reset();
  last_step_at_ = now;
}

// --- lines ----------------------------------------------------------------------------------------------------------

void View::news(const std::string& text) {
  if (options_.json) return json_line(compact({{"type", "news"}, {"text", text}}));
  line(text);
}

void View::warning(const std::string& text) {
  if (options_.json) return json_line(compact({{"type", "warning"}, {"text", text}}));
  error_line(tinted(Tint::yellow, "warning: ") + text);
}

void View::output(int rank, const std::vector<std::string>& lines, uint64_t dropped) {
  if (!options_.raw_output) return;
  if (options_.json) {
    return json_line(compact({{"type", "output"}, {"rank", rank}, {"lines", lines}, {"dropped", dropped}}));
  }
  const std::string prefix = tinted(Tint::dim, "[" + std::to_string(rank) + "] ");
  std::string text;
  for (const std::string& one : lines) text += prefix + harmless(one) + "\n";
  if (dropped > 0) text += prefix + "(" + std::to_string(dropped) + " lines are in its log file only)\n";
  put_above(text);
}

void View::end(const RunSummary& summary) {
  if (options_.json) return json_line(summary.report_json);
  erase();
  last_draw_.reset();
  const bool good = summary.exit_code == 0;
  line(tinted(good ? Tint::green : Tint::red, summary.outcome));
  size_t name_width = 0;
  for (const auto& [name, value] : summary.facts) name_width = std::max(name_width, name.size());
  for (const auto& [name, value] : summary.facts) {
    line("  " + name + std::string(name_width - name.size() + 2, ' ') + value);
  }
  if (summary.next.empty()) return;
  line("what to try next");
  for (const Suggestion& s : summary.next) {  // two lines each: a command beside its reason does not fit 80 columns
    line("  " + s.why + ":");
    line("    " + tinted(Tint::bold, s.command));
  }
}

std::string View::tinted(Tint tint, const std::string& text) const {
  if (!options_.color || options_.json) return text;
  const char* code = "";
  switch (tint) {
    case Tint::none: return text;
    case Tint::bold: code = "1"; break;
    case Tint::dim: code = "2"; break;
    case Tint::red: code = "31"; break;
    case Tint::green: code = "32"; break;
    case Tint::yellow: code = "33"; break;
  }
  return std::string("\033[") + code + "m" + text + "\033[0m";
}

void View::line(const std::string& text) { put_above(text + "\n"); }

/// Lines above the progress line, which moves down. All goes out in one write, each line over what was there, so that
/// nothing is blank in between.
void View::put_above(const std::string& text) {
  if (!drawn_) return options_.out(text);
  std::string all = back_to_begin();
  for (const char c : text) all += c == '\n' ? std::string("\033[K\n") : std::string(1, c);
  options_.out(all + drawn());
}

void View::error_line(const std::string& text) {
  const bool redraw = drawn_;
  erase();
  options_.err(text + "\n");
  if (redraw) draw();
}

void View::json_line(const std::string& text) { options_.out(text + "\n"); }

void View::draw() {
  const std::string back = back_to_begin();
  options_.out(back + drawn());
}

void View::resized() {
  if (drawn_) draw();
}

void View::erase() {
  if (!drawn_) return;
  options_.out(back_to_begin() + "\033[K");
  drawn_ = false;
}

/// The progress line over what stands there. It never wraps, though the terminal may be narrower by now than it has
/// said; three columns stay free, for the last one and for the "^C" that a terminal shows behind the line.
std::string View::drawn() {
  const std::string text = progress_line(progress_, std::max(1, options_.width() - 3));
  drawn_ = true;
  drawn_columns_ = static_cast<int>(text.size());
  return "\033[?7l" + text + "\033[K\033[?7h";
}

/// From behind the progress line to its begin. A terminal that became narrower since has wrapped it: then its rows are
/// cleared.
std::string View::back_to_begin() {
  if (!drawn_) return "";
  const int rows = (drawn_columns_ - 1) / std::max(1, options_.width()) + 1;
  return rows > 1 ? "\033[" + std::to_string(rows - 1) + "A\r\033[J" : "\r";
}

}  // namespace mds::launcher
