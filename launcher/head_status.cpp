#include "launcher/head_status.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "launcher/metrics.hpp"

namespace mds::launcher {

using nlohmann::json;

namespace {

constexpr size_t kMarksMax = 50;
constexpr size_t kHappeningsMax = 50;

const char* word(NodeState state) {
  switch (state) {
    case NodeState::gone:
      return "gone";
    case NodeState::coming:
      return "coming";
    case NodeState::joined:
      return "joined";
    case NodeState::lost:
      return "lost";
  }
  return "?";
}

double seconds(TimePoint time) { return std::chrono::duration<double>(time).count(); }

}  // namespace

HeadStatus::HeadStatus(const SupervisorConfig& config)
    : node_of_rank_(config.node_of_rank), nodes_(config.nodes), ranks_(config.node_of_rank.size()) {}

void HeadStatus::on_event(const Event& event, const SupervisorState& after, TimePoint now) {
  remember(event, after, now);
  for (size_t n = 0; n < nodes_.size(); ++n) {
    if (nodes_[n].state == after.nodes[n].state) continue;
    nodes_[n] = NodeLife{.state = after.nodes[n].state, .since = now};
    if (nodes_[n].state == NodeState::joined) nodes_[n].heard = now;
  }
  if (event.kind == EventKind::progress) {
    if (!marks_.empty() && event.step <= marks_.back().step) marks_.clear();  // a new attempt
    marks_.push_back({now, event.step});
    if (marks_.size() > kMarksMax) marks_.pop_front();
  }
  const bool one = event.rank >= 0 && event.rank < static_cast<int>(ranks_.size());
  if (event.kind == EventKind::progress || event.kind == EventKind::checkpoint) return;  // ranks stay what they are
  if (one) {
    RankLife& rank = ranks_[event.rank];
    if (rank.state != after.ranks[event.rank]) {
      rank.state = after.ranks[event.rank];
      rank.since = now;
      if (event.signal)
        rank.end = "killed by " + signal_name(event.signal);
      else if (event.exit_code)
        rank.end = "exited with code " + std::to_string(*event.exit_code);
    }
    return;
  }
  for (size_t r = 0; r < ranks_.size(); ++r) {
    if (ranks_[r].state != after.ranks[r]) ranks_[r] = RankLife{.state = after.ranks[r], .since = now};
  }
}

void HeadStatus::remember(const Event& event, const SupervisorState& after, TimePoint now) {
  const auto say = [&](std::string text) {
    if (!happenings_.empty() && happenings_.back().text == text) return;  // a debugger that goes on holding
    happenings_.push_back({now, std::move(text)});
    if (happenings_.size() > kHappeningsMax) happenings_.pop_front();
  };
  const State before = std::exchange(state_, after.state);
  if (after.cause && cause_at_ != after.cause->at) {
    cause_at_ = after.cause->at;
    say(describe(*after.cause));
  }
  if (event.kind == EventKind::checkpoint) say("checkpoint " + event.text);
  if (event.kind == EventKind::user_stop || event.kind == EventKind::preempt) {
    say("asked to stop by " + signal_name(event.signal));
  }
  if (event.kind == EventKind::hold) say("a debugger is attached to rank " + std::to_string(event.rank));
  if (before == after.state) return;
  if (after.state == State::starting) say("attempt " + std::to_string(after.attempt) + " starts");
  if (after.state == State::running) say("all ranks run");
  if (after.state == State::ended) say("ended with exit code " + std::to_string(after.exit_code));
}

void HeadStatus::on_heartbeat(const json& body, TimePoint now) {
  const auto list = body.find("ranks");
  if (list == body.end() || !list->is_array()) return;
  for (const json& beat : *list) {
    const auto field = [&](const char* name) -> std::optional<int64_t> {
      const auto at = beat.is_object() ? beat.find(name) : beat.end();
      return at != beat.end() && at->is_number_integer() ? std::optional(at->get<int64_t>()) : std::nullopt;
    };
    const auto number = field("rank"), age = field("beat_age_ms");
    if (!number || *number < 0 || *number >= static_cast<int64_t>(ranks_.size()) || !age) continue;
    RankLife& rank = ranks_[*number];
    rank.beats = static_cast<uint64_t>(field("beats").value_or(0));
    rank.step = field("step").value_or(-1);
    rank.beat_at = now - std::chrono::milliseconds(std::clamp<int64_t>(*age, 0, INT32_MAX));
  }
}

void HeadStatus::on_progress(const json& body) {
  const auto metrics = body.is_object() ? step_metrics_from_json(body, 0) : std::nullopt;
  if (!metrics || !metrics->loss) return;
  loss_ = metrics->loss;
  tokens_per_second_ = metrics->tokens_per_second();
}

json HeadStatus::to_json(const SupervisorState& s, TimePoint now) const {
  json nodes = json::array(), ranks = json::array();
  for (size_t n = 0; n < nodes_.size(); ++n) {
    const NodeLife& node = nodes_[n];
    nodes.push_back({{"node", n}, {"state", word(node.state)}, {"since_s", seconds(now - node.since)}});
    if (!s.nodes[n].host.empty()) nodes.back()["host"] = s.nodes[n].host;
    if (node.heard) nodes.back()["heard_s"] = seconds(now - *node.heard);
  }
  for (size_t r = 0; r < ranks_.size(); ++r) {
    const RankLife& rank = ranks_[r];
    const bool starting = rank.state == RankState::idle && s.nodes[node_of_rank_[r]].has_ranks;
    const std::string state = rank.state == RankState::started  ? "running"
                              : rank.state == RankState::exited ? rank.end
                              : starting                        ? "starting"
                                                                : "waiting";
    ranks.push_back(
        {{"rank", r}, {"node", node_of_rank_[r]}, {"state", state}, {"since_s", seconds(now - rank.since)}});
    if (rank.pid > 0) ranks.back()["pid"] = rank.pid;
    if (rank.beats == 0) continue;  // a program that knows nothing of us
    ranks.back()["step"] = rank.step;
    ranks.back()["beat_s"] = seconds(now - rank.beat_at);
  }
  json out{
      {"version", 1},         {"type", "status"},       {"state", to_string(s.state)}, {"seconds", seconds(now)},
      {"attempt", s.attempt}, {"restarts", s.restarts}, {"nodes", std::move(nodes)},   {"ranks", std::move(ranks)}};
  json& happenings = out["events"] = json::array();
  for (const Happening& one : happenings_) happenings.push_back({{"at_s", seconds(one.at)}, {"text", one.text}});
  if (s.step_best >= 0) out["step"] = s.step >= 0 ? s.step : s.step_best;
  if (!s.checkpoint.empty()) out["checkpoint"] = s.checkpoint;
  if (s.cause) out["cause"] = describe(*s.cause);
  if (marks_.size() > 2 && marks_.back().at > marks_.front().at) {
    out["steps_per_second"] =
        static_cast<double>(marks_.back().step - marks_.front().step) / seconds(marks_.back().at - marks_.front().at);
  }
  if (loss_) out["loss"] = *loss_;
  if (tokens_per_second_) out["tokens_per_second"] = *tokens_per_second_;
  return out;
}

json status_of(const LoggedRun& run) {
  Supervisor supervisor(run.config);
  HeadStatus status(run.config);
  auto resumption = run.resumptions.begin();
  for (size_t i = 0; i < run.events.size(); ++i) {
    for (; resumption != run.resumptions.end() && resumption->event == i; ++resumption) {
      supervisor = Supervisor(resumption->config, supervisor.state());
      status = HeadStatus(resumption->config);
    }
    supervisor.step(run.events[i].event, run.events[i].at);
    status.on_event(run.events[i].event, supervisor.state(), run.events[i].at);
  }
  return status.to_json(supervisor.state(), run.last_at());
}

}  // namespace mds::launcher
