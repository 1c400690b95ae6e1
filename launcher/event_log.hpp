// The event log, <run>/events.jsonl: append-only; its first line is the supervisor's configuration, each further line
// one event. Where the run was resumed, another line of configuration follows, and the events after it. Replaying all
// gives the supervisor's state exactly.
//
// Whoever writes the log holds a lock (flock) on it: a run has one head, and others can see whether it lives.
//
// What is durable when: append() has handed the line to the kernel when it returns, so it survives the end of this
// process, and every effect is carried out after that. sync() brings it to the disk. The supervisor asks for that where
// a loss of the machine would cost something: before the ranks of a second or later attempt start (the budget of
// restarts is charged) and at the end. It does not for the first start: agents end with the head's machine or with
// their connection to it, so a lost line can never lead to ranks being started twice.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "launcher/supervisor.hpp"
#include "topology/result.hpp"

namespace mds::launcher {

/// Not thread-safe.
class EventLog {
 public:
  /// Creates the file (mode 0600; never opens an existing one) and writes the configuration, and where on this host's
  /// monotonic clock the events' times begin to count: by it they compare with what others say. Errors: unavailable.
  static Result<std::unique_ptr<EventLog>> create(const std::string& path, const SupervisorConfig& config,
                                                  TimePoint begin = TimePoint{0});
  /// Opens the log of a run that is resumed and writes the configuration that counts from here on. Errors: bad_input
  /// (the run is in progress, or there is no such file), unavailable.
  static Result<std::unique_ptr<EventLog>> append_to(const std::string& path, const SupervisorConfig& config,
                                                     TimePoint begin = TimePoint{0});
  EventLog(const EventLog&) = delete;
  EventLog& operator=(const EventLog&) = delete;
  ~EventLog();

  /// One line in one write. What followed is there for people: the state after the event, and where an attempt failed
  /// its first cause. Errors: unavailable.
  Status append(const Event& event, TimePoint at, const Effects& effects, const SupervisorState& after);
  /// Errors: unavailable.
  Status sync();

 private:
  EventLog(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  Status begin(const SupervisorConfig& config, TimePoint begin);
  Status write_line(const std::string& line);

  int fd_;
  std::string path_;
};

struct LoggedEvent {
  Event event;
  TimePoint at{0};
};

/// Before the event of this index the run was resumed.
struct Resumption {
  size_t event = 0;
  SupervisorConfig config;
};

struct LoggedRun {
  SupervisorConfig config;
  std::vector<LoggedEvent> events;
  std::vector<Resumption> resumptions{};

  TimePoint last_at() const { return events.empty() ? TimePoint{0} : events.back().at; }
};

/// Is some process writing this log, and so its run in progress? False where that cannot be told.
bool is_being_written(const std::string& path);

/// Reads a log; a last line without its end (a crash in the middle of a write) is left out. Errors: bad_input (no such
/// file), corrupt (line and reason).
Result<LoggedRun> read_event_log(const std::string& path);

/// The supervisor as it was after the last of `events`.
Supervisor replay(const LoggedRun& run);

nlohmann::json to_json(const Event& event);
/// Errors: corrupt.
Result<Event> event_from_json(const nlohmann::json& json);
nlohmann::json to_json(const SupervisorConfig& config);
/// Errors: corrupt.
Result<SupervisorConfig> supervisor_config_from_json(const nlohmann::json& json);
nlohmann::json to_json(const Cause& cause);

}  // namespace mds::launcher
