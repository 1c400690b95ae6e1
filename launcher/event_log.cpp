#include "launcher/event_log.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include <nlohmann/json.hpp>

#include "agent/unique_fd.hpp"

namespace mds::launcher {

using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr int kVersion = 1;

std::string one_line(const json& object) {
  return object.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

/// A head that died while it wrote has left half a line, which nothing may follow.
Status cut_unfinished_line(int fd, const std::string& path) {
  off_t end = lseek(fd, 0, SEEK_END);
  const off_t all = end;
  for (char last = 0; end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n';) --end;
  if (end == all || ftruncate(fd, end) == 0) return {};
  return unavailable("cannot write " + path + ": " + std::strerror(errno));
}

}  // namespace

// --- the file -------------------------------------------------------------------------------------------------------

Result<std::unique_ptr<EventLog>> EventLog::create(const std::string& path, const SupervisorConfig& config,
                                                   TimePoint begin) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
  if (fd < 0) return unavailable("cannot create " + path + ": " + std::strerror(errno));
  std::unique_ptr<EventLog> log(new EventLog(fd, path));
  if (Status s = log->begin(config, begin); !s) return s.error();
  return log;
}

Result<std::unique_ptr<EventLog>> EventLog::append_to(const std::string& path, const SupervisorConfig& config,
                                                      TimePoint begin) {
  const int fd = open(path.c_str(), O_RDWR | O_APPEND | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return bad_input("cannot open " + path + ": " + std::strerror(errno));
  std::unique_ptr<EventLog> log(new EventLog(fd, path));
  if (Status s = log->begin(config, begin); !s) return s.error();
  return log;
}

Status EventLog::begin(const SupervisorConfig& config, TimePoint begin) {
  if (flock(fd_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {  // a file system without locks is no obstacle
    return bad_input("the run of " + path_ + " is in progress: another mdslaunch writes it");
  }
  if (Status s = cut_unfinished_line(fd_, path_); !s) return s;
  return write_line(one_line({{"version", kVersion}, {"config", to_json(config)}, {"begin_us", begin.count()}}));
}

EventLog::~EventLog() { close(fd_); }

Status EventLog::append(const Event& event, TimePoint at, const Effects& effects, const SupervisorState& after) {
  json line = to_json(event);
  line["t_us"] = at.count();
  line["state"] = to_string(after.state);
  for (const Effect& effect : effects) {
    if (effect.kind == EffectKind::report_cause) line["first_cause"] = to_json(*after.cause);
    if (effect.kind == EffectKind::note) line["note"] = effect.text;
  }
  return write_line(one_line(line));
}

Status EventLog::write_line(const std::string& line) {
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t n = write(fd_, line.data() + done, line.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return unavailable("cannot write " + path_ + ": " + std::strerror(errno));
    done += static_cast<size_t>(n);
  }
  return {};
}

Status EventLog::sync() {
  if (fdatasync(fd_) != 0) return unavailable("cannot sync " + path_ + ": " + std::strerror(errno));
  return {};
}

Result<LoggedRun> read_event_log(const std::string& path) {
  std::ifstream file(path);
  if (!file) return bad_input("cannot open " + path + ": is it the events.jsonl of a run folder?");
  LoggedRun run;
  std::string line;
  for (int number = 1; std::getline(file, line) && !file.eof(); ++number) {
    const auto broken = [&](const std::string& why) {
      return corrupt(path + ":" + std::to_string(number) + ": " + why);
    };
    const json object = json::parse(line, nullptr, false);
    if (!object.is_object()) return broken("not a JSON object");
    if (number == 1) {
      if (object.value("version", json()) != kVersion) return broken("version 1 expected");
      if (!object.contains("config")) return broken("config is missing");
    }
    if (object.contains("config")) {
      Result<SupervisorConfig> config = supervisor_config_from_json(object["config"]);
      if (!config) return broken(config.error().message);
      if (number == 1) run.config = *config;
      else run.resumptions.push_back({run.events.size(), *config});
      continue;
    }
    Result<Event> event = event_from_json(object);
    if (!event) return broken(event.error().message);
    if (!object.contains("t_us") || !object["t_us"].is_number_integer()) return broken("t_us is missing");
    run.events.push_back({*event, TimePoint{object["t_us"].get<int64_t>()}});
  }
  return run;
}

Supervisor replay(const LoggedRun& run) {
  Supervisor supervisor(run.config);
  auto resumption = run.resumptions.begin();
  for (size_t i = 0; i <= run.events.size(); ++i) {
    for (; resumption != run.resumptions.end() && resumption->event == i; ++resumption) {
      supervisor = Supervisor(resumption->config, supervisor.state());
    }
    if (i < run.events.size()) supervisor.step(run.events[i].event, run.events[i].at);
  }
  return supervisor;
}

bool is_being_written(const std::string& path) {
  const agent::UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  return fd && flock(fd.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

// --- values as JSON -------------------------------------------------------------------------------------------------

json to_json(const Event& event) {
  json object{{"event", to_string(event.kind)}};
  if (event.attempt > 0) object["attempt"] = event.attempt;
  if (event.node >= 0) object["node"] = event.node;
  if (event.rank >= 0) object["rank"] = event.rank;
  if (event.step >= 0) object["step"] = event.step;
  if (event.exit_code) object["exit_code"] = *event.exit_code;
  if (event.signal) object["signal"] = event.signal;
  if (event.core_dumped) object["core_dumped"] = true;
  if (event.detected_us >= 0) object["detected_us"] = event.detected_us;
  if (!event.host.empty()) object["host"] = event.host;
  if (!event.text.empty()) object["text"] = event.text;
  if (!event.tail.empty()) object["tail"] = event.tail;
  return object;
}

Result<Event> event_from_json(const json& object) {
  Event event;
  const bool named = object.contains("event") && object["event"].is_string();
  const std::string name = named ? object["event"].get<std::string>() : "";
  int kind = 0;
  while (kind < kEventKinds && name != to_string(static_cast<EventKind>(kind))) ++kind;
  if (kind == kEventKinds) return corrupt("unknown event '" + name + "'");
  event.kind = static_cast<EventKind>(kind);
  try {
    event.attempt = object.value("attempt", event.attempt);
    event.node = object.value("node", event.node);
    event.rank = object.value("rank", event.rank);
    event.step = object.value("step", event.step);
    if (object.contains("exit_code")) event.exit_code = object["exit_code"].get<int>();
    event.signal = object.value("signal", event.signal);
    event.core_dumped = object.value("core_dumped", event.core_dumped);
    event.detected_us = object.value("detected_us", event.detected_us);
    event.host = object.value("host", event.host);
    event.text = object.value("text", event.text);
    event.tail = object.value("tail", event.tail);
  } catch (const json::exception& e) {  // nlohmann's typed access has no form without exceptions
    return corrupt(name + ": " + e.what());
  }
  return event;
}

json to_json(const SupervisorConfig& config) {
  json object{{"nodes", config.nodes},
              {"node_of_rank", config.node_of_rank},
              {"max_restarts", config.restart.max_restarts},
              {"backoff_ms", config.restart.backoff.count()},
              {"no_progress_limit", config.restart.no_progress_limit},
              {"lost_node", static_cast<int>(config.restart.lost_node)},
              {"hang_timeout_ms", config.hang_timeout.count()},
              {"runs_trainer", config.runs_trainer},
              {"agents_deadline_ms", config.agents_deadline.count()},
              {"start_deadline_ms", config.start_deadline.count()},
              {"failure_grace_ms", config.failure_grace.count()},
              {"user_drain_ms", config.user_drain.count()},
              {"user_grace_ms", config.user_grace.count()},
              {"preempt_drain_ms", config.preempt_drain.count()},
              {"preempt_grace_ms", config.preempt_grace.count()},
              {"agent_slack_ms", config.agent_slack.count()}};
  if (config.kill_rank) object["kill_rank"] = {{"rank", config.kill_rank->rank}, {"step", config.kill_rank->step}};
  return object;
}

Result<SupervisorConfig> supervisor_config_from_json(const json& object) {
  SupervisorConfig config;
  try {
    const auto time = [&](const char* name) { return milliseconds(object.at(name).get<int64_t>()); };
    config.nodes = object.at("nodes");
    config.node_of_rank = object.at("node_of_rank").get<std::vector<int>>();
    config.restart.max_restarts = object.at("max_restarts");
    config.restart.backoff = time("backoff_ms");
    config.restart.no_progress_limit = object.at("no_progress_limit");
    const int lost_node = object.value("lost_node", static_cast<int>(LostNode::wait));
    const bool known = lost_node >= 0 && lost_node <= static_cast<int>(LostNode::wait);
    if (!known) return corrupt("config: lost_node is out of range");
    config.restart.lost_node = static_cast<LostNode>(lost_node);
    config.hang_timeout = time("hang_timeout_ms");
    config.runs_trainer = object.at("runs_trainer");
    config.agents_deadline = time("agents_deadline_ms");
    config.start_deadline = time("start_deadline_ms");
    config.failure_grace = time("failure_grace_ms");
    config.user_drain = time("user_drain_ms");
    config.user_grace = time("user_grace_ms");
    config.preempt_drain = time("preempt_drain_ms");
    config.preempt_grace = time("preempt_grace_ms");
    config.agent_slack = time("agent_slack_ms");
    if (object.contains("kill_rank")) {
      config.kill_rank = KillRank{object["kill_rank"].at("rank"), object["kill_rank"].at("step")};
    }
  } catch (const json::exception& e) {
    return corrupt(std::string("configuration: ") + e.what());
  }
  for (const int node : config.node_of_rank) {
    if (node < 0 || node >= config.nodes) return corrupt("configuration: no node " + std::to_string(node));
  }
  return config;
}

json to_json(const Cause& cause) {
  json object{{"kind", to_string(cause.kind)},
              {"attempt", cause.attempt},
              {"t_us", cause.at.count()},
              {"message", describe(cause)},
              {"tail", cause.tail},
              {"follow_ups", cause.follow_ups}};
  if (cause.rank >= 0) object["rank"] = cause.rank;
  if (cause.node >= 0) object["node"] = cause.node;
  if (!cause.host.empty()) object["host"] = cause.host;
  if (cause.step >= 0) object["step"] = cause.step;
  if (cause.exit_code) object["exit_code"] = *cause.exit_code;
  if (cause.signal) {
    object["signal"] = cause.signal;
    object["signal_name"] = signal_name(cause.signal);
    object["core_dumped"] = cause.core_dumped;
  }
  return object;
}

}  // namespace mds::launcher
