#include "agent/node_agent.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <optional>
#include <utility>

#include <boost/asio/steady_timer.hpp>
#include <spdlog/spdlog.h>

#include "agent/child_relay.hpp"
#include "agent/node_stage.hpp"
#include "agent/parent_link.hpp"
#include "agent/program_folder.hpp"
#include "agent/rank_group.hpp"
#include "agent/rank_stacks.hpp"
#include "topology/read/discover.hpp"
#include "topology/cluster.hpp"

namespace mds::agent {

namespace asio = boost::asio;
using nlohmann::json;
using std::chrono::milliseconds;

namespace {

constexpr size_t kOutputQueueBytesMax = 8u << 20;   // beyond, output waits for the head and is dropped in the end
constexpr size_t kExchangeNameBytesMax = 256;
constexpr size_t kExchangeValueBytesMax = 1u << 20;
constexpr milliseconds kTerminateGrace{5'000};
constexpr milliseconds kLastChildrenLimit{3'000};
constexpr milliseconds kStopTimeMax{24 * 3600 * 1000};

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

/// An integer field of a message from the head; nullopt when it is missing or out of range.
std::optional<int64_t> integer(const json& body, const char* name, int64_t least, int64_t most) {
  const auto at = body.find(name);
  if (at == body.end() || !at->is_number_integer()) return std::nullopt;
  if (at->is_number_unsigned() && at->get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  const auto value = at->get<int64_t>();
  return value >= least && value <= most ? std::optional(value) : std::nullopt;
}

bool is_exchange(const json& body) {
  const auto name = body.find("name"), value = body.find("value");
  return name != body.end() && name->is_string() &&
         name->get_ref<const std::string&>().size() <= kExchangeNameBytesMax && value != body.end() &&
         value->is_binary() && value->get_binary().size() <= kExchangeValueBytesMax &&
         integer(body, "count", 1, 1 << 24) && integer(body, "index", 0, *integer(body, "count", 1, 1 << 24) - 1);
}

}  // namespace

struct NodeAgent::Impl : std::enable_shared_from_this<NodeAgent::Impl> {
  Impl(asio::io_context& i, const Bootstrap& b, ProcessMark& mark, spdlog::logger& l, std::function<void(int)> leave)
      : io(i), node(b.node), discover(b.discover), discover_gpus(b.discover_gpus),
        sees_files(sees_run_folder(b)), log(l), on_leave(std::move(leave)), heartbeat(i),
        last_children(i), link(i, b, link_events()),
        relay(i, b.node, b.credentials, relay_events()), stage(i, mark, stage_events()),
        ranks(i, mark, rank_events()) {}

  ParentLink::Events link_events();
  ChildRelay::Events relay_events();
  RankGroup::Events rank_events();
  NodeStage::Events stage_events();
  void send(MessageType type, const json& body = json::object());
  json hello() const;
  void beat();

  void on_message(const Message& message);
  void on_start(const Message& message);
  void start_ranks(const NodeStart& start);
  void on_stop_ranks(const Message& message);
  void on_exchange_result(const Message& message);
  void on_kill_rank(const Message& message);
  void on_stacks_ask(const Message& message);
  void on_rank_exchange(int rank, const json& body);
  void on_stopped();

  void break_off(const std::string& what);
  void leave(int exit_code, const StopTimes& times);
  void leave_after_children();
  void close_link();
  void report_leave();
  void lose_head(const Error& error);

  asio::io_context& io;
  const int node;
  const bool discover, discover_gpus, sees_files;
  spdlog::logger& log;
  std::function<void(int)> on_leave;
  asio::steady_timer heartbeat;
  milliseconds heartbeat_interval{1'000};
  uint32_t attempt = 0;                 // of the ranks that run or ran last
  bool any_started = false;
  uint64_t stale_count = 0;
  bool stop_asked = false;              // by the head: it gets ranks_stopped
  std::optional<int> exit_code;         // set: leaving
  bool was_connected = false;
  bool is_closing = false;
  asio::steady_timer last_children;     // until they count as gone
  ParentLink link;
  ChildRelay relay;
  NodeStage stage;
  RankGroup ranks;
};

// ------------------------------------------------------------------------------------------------------- to the head

ParentLink::Events NodeAgent::Impl::link_events() {
  ParentLink::Events events;
  events.on_first_connection = [this] {
    was_connected = true;
    log.info("node {}: connected", node);
    beat();
  };
  events.unwrap = [this](const Message& message) { return relay.pass_down(message); };
  events.on_message = [this](const Message& message) { on_message(message); };
  events.on_again = [this] {
    relay.rejoin();
    stage.ask_again();
  };
  events.on_pulse = [this] { relay.pulse(); };
  events.on_lost = [this](const Error& error) { lose_head(error); };
  events.on_note = [this](const std::string& text) { log.warn("{}", text); };
  return events;
}

ChildRelay::Events NodeAgent::Impl::relay_events() {
  ChildRelay::Events events;
  events.send_up = [this](MessageType type, const json& body) { send(type, body); };
  events.queued_up = [this] { return link.queued_bytes(); };
  events.silence = [this] { return link.silence(); };
  events.on_stage_ask = [this](const json& ask, NodeStage::Reply reply) { stage.on_ask(ask, std::move(reply)); };
  events.on_childless = [this] {
    if (exit_code && !ranks.is_busy()) close_link();
  };
  events.on_note = [this](const std::string& text) { log.warn("{}", text); };
  return events;
}

NodeStage::Events NodeAgent::Impl::stage_events() {
  NodeStage::Events events;
  events.ask = [this](const json& body) { send(MessageType::stage_ask, body); };
  events.on_note = [this](const std::string& text) { log.warn("{}", text); };
  return events;
}

void NodeAgent::Impl::send(MessageType type, const json& body) {
  // Nobody knows that a node lives when its heartbeats wait behind megabytes of output.
  link.send(type, attempt, body, type == MessageType::heartbeat ? Priority::urgent : Priority::normal);
}

json NodeAgent::Impl::hello() const {
  json body = {{"node", node}, {"host", host_name()}, {"pid", getpid()}, {"protocol", kProtocolVersion}};
  if (!sees_files) body["sees_run_folder"] = false;
  if (discover) {
    const auto machine = topology::discover_machine({.gpus = discover_gpus});
    if (machine) {
      body["topology"] = topology::to_json(*machine);
    } else {
      log.error("topology not discovered: {}", machine.error().message);
    }
  }
  return body;
}

void NodeAgent::Impl::beat() {
  heartbeat.expires_after(heartbeat_interval);
  heartbeat.async_wait([self = shared_from_this()](boost::system::error_code error) {
    if (error || self->exit_code) return;
    json list = json::array();
    for (const RankBeat& beat : self->ranks.beats()) {
      list.push_back({{"rank", beat.rank}, {"beats", beat.beats}, {"beat_age_ms", beat.age.count()}});
      if (beat.beats > 0) list.back()["step"] = beat.step;
    }
    json body = {{"ranks", std::move(list)}};
    self->relay.add_heartbeats(body);
    self->send(MessageType::heartbeat, body);
    self->beat();
  });
}

RankGroup::Events NodeAgent::Impl::rank_events() {
  RankGroup::Events events;
  events.on_started = [this](int rank, pid_t pid, const std::vector<std::string>& notes) {
    json body = {{"rank", rank}, {"pid", pid}};
    if (!notes.empty()) body["notes"] = notes;
    send(MessageType::rank_started, body);
    log.info("rank {} started, pid {}", rank, pid);
  };
  events.on_start_failed = [this](int rank, const std::string& message) {
    send(MessageType::start_failed, {{"rank", rank}, {"message", message}});
    log.error("rank {} not started: {}", rank, message);
  };
  events.on_exited = [this](int rank, pid_t pid, const ExitStatus& status, std::vector<std::string> tail) {
    const std::chrono::nanoseconds seen = status.seen.time_since_epoch();
    json body = {{"rank", rank}, {"pid", pid}, {"core_dumped", status.core_dumped}, {"tail", std::move(tail)},
                 {"ns", seen.count()}};
    if (status.exit_code) body["exit_code"] = *status.exit_code;
    if (status.signal) body["signal"] = *status.signal;
    send(MessageType::rank_exited, body);
    log.info("rank {} ended, {} {}", rank, status.signal ? "signal" : "exit code",
             status.signal.value_or(status.exit_code.value_or(0)));
  };
  events.on_output = [this](int rank, RankOutput::Batch batch) {
    json body = {{"rank", rank}, {"lines", std::move(batch.lines)}};
    if (batch.dropped > 0) body["dropped"] = batch.dropped;
    send(MessageType::output, body);
  };
  events.may_output = [this] { return link.queued_bytes() < kOutputQueueBytesMax; };
  events.on_progress = [this](int rank, json body) {
    body["rank"] = rank;
    send(MessageType::progress, body);
  };
  events.on_exchange = [this](int rank, const json& body) { on_rank_exchange(rank, body); };
  events.on_stopped = [this] { on_stopped(); };
  events.on_note = [this](const std::string& text) { log.warn("{}", text); };
  return events;
}

void NodeAgent::Impl::on_rank_exchange(int rank, const json& body) {
  if (!is_exchange(body)) return log.error("rank {}: malformed exchange dropped", rank);
  json put = body;
  put["rank"] = rank;
  send(MessageType::exchange_put, put);
}

// ----------------------------------------------------------------------------------------------------- from the head

void NodeAgent::Impl::on_message(const Message& message) {
  if (exit_code) return;  // nothing counts any more
  if (message.type == MessageType::stage_part) return stage.on_part(message.body);  // of no attempt
  const bool stale = message.attempt < attempt && message.type != MessageType::goodbye;
  if (stale) {
    ++stale_count;
    return log.warn("{} of attempt {} dropped, attempt {} runs ({} such so far)", to_string(message.type),
                    message.attempt, attempt, stale_count);
  }
  switch (message.type) {
    case MessageType::start: return on_start(message);
    case MessageType::stop_ranks: return on_stop_ranks(message);
    case MessageType::exchange_result: return on_exchange_result(message);
    case MessageType::checkpoint_now: return ranks.ask_for_checkpoint();
    case MessageType::kill_rank: return on_kill_rank(message);
    case MessageType::stacks_ask: return on_stacks_ask(message);
    case MessageType::serve: return relay.serve(link.local_address());
    case MessageType::goodbye:
      log.info("goodbye");
      return leave(kExitGoodbye, {});
    default: return break_off(std::string("unexpected message ") + to_string(message.type));
  }
}

void NodeAgent::Impl::on_start(const Message& message) {
  const auto start = node_start_from_json(message.body);
  if (!start) return break_off(start.error().message);
  if (start->attempt != message.attempt) return break_off("start: attempts of header and body differ");
  if (any_started && start->attempt <= attempt) return break_off("start: an attempt that was started before");
  if (ranks.is_busy()) return break_off("start: ranks of attempt " + std::to_string(attempt) + " still run");
  attempt = start->attempt;
  any_started = true;
  heartbeat_interval = milliseconds(start->heartbeat_ms);
  log.info("attempt {}: {} ranks", attempt, start->ranks.size());
  beat();
  if (start->stage.folder.empty()) return ranks.start(*start);
  const auto begin = std::chrono::steady_clock::now();
  stage.start(start->stage, [this, begin, start = *start](const Status& staged) {
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    if (staged) log.info("staged in {:.3f} s, {} bytes received", seconds.count(), stage.received_bytes());
    if (staged) return start_ranks(start);
    log.error("not staged: {}", staged.error().message);
    for (const RankSpec& rank : start.ranks) {
      send(MessageType::start_failed, {{"rank", rank.rank}, {"message", host_name() + ": " + staged.error().message}});
    }
  });
}

void NodeAgent::Impl::start_ranks(const NodeStart& start) {
  set_program_folder(start.stage.programs);
  ranks.start(start);
}

void NodeAgent::Impl::on_stop_ranks(const Message& message) {
  const auto most = kStopTimeMax.count();
  const auto grace = integer(message.body, "grace_ms", 0, most);
  const bool has_drain = message.body.contains("drain_ms");
  const auto drain = has_drain ? integer(message.body, "drain_ms", 0, most) : std::optional<int64_t>(0);
  if (!grace || !drain) return break_off("stop_ranks: grace_ms and drain_ms are times in ms");
  attempt = message.attempt;  // a later one whose start never came is over, too
  stop_asked = true;
  stage.cancel();
  log.info("stop, drain {} ms, grace {} ms", *drain, *grace);
  ranks.stop({milliseconds(*drain), milliseconds(*grace)});
}

void NodeAgent::Impl::on_exchange_result(const Message& message) {
  const json& body = message.body;
  const auto name = body.find("name"), to = body.find("ranks"), values = body.find("values");
  const auto is_rank = [](const json& rank) { return rank.is_number_integer(); };
  if (name == body.end() || to == body.end() || values == body.end() || !to->is_array() ||
      !std::all_of(to->begin(), to->end(), is_rank)) {
    return break_off("exchange_result: name, ranks and values are expected");
  }
  ranks.give_exchange_result(to->get<std::vector<int>>(), {{"name", *name}, {"values", *values}});
}

void NodeAgent::Impl::on_kill_rank(const Message& message) {
  const auto rank = integer(message.body, "rank", 0, INT32_MAX);
  const auto signal = integer(message.body, "signal", 1, SIGRTMAX);
  if (!rank || !signal) return break_off("kill_rank: rank and signal are expected");
  const bool sent = ranks.signal(static_cast<int>(*rank), static_cast<int>(*signal));
  log.info("signal {} to rank {}{}", *signal, *rank, sent ? "" : ": it does not run");
}

/// A rank is often a shell or a Python that has started others: all that descends from it is read.
void NodeAgent::Impl::on_stacks_ask(const Message& message) {
  std::vector<pid_t> pids;
  std::vector<std::pair<int, std::vector<pid_t>>> of_rank;
  for (const auto& [rank, pid] : ranks.pids()) {
    std::vector<pid_t> family{pid};
    for (const ProcessEntry& entry : descendants(pid)) family.push_back(entry.pid);
    pids.insert(pids.end(), family.begin(), family.end());
    of_rank.emplace_back(rank, std::move(family));
  }
  const json id = message.body.value("id", json(0));
  if (pids.empty()) return send(MessageType::stacks, {{"id", id}, {"ranks", json::array()}});
  read_stacks(io, pids, [self = shared_from_this(), id, of_rank = std::move(of_rank)](Result<json> result) {
    json list = json::array();
    if (!result) {
      return self->send(MessageType::stacks, {{"id", id}, {"ranks", list}, {"error", result.error().message}});
    }
    for (const auto& [rank, family] : of_rank) {
      json processes = json::array();
      for (const json& process : *result) {
        const pid_t pid = process.value("pid", 0);
        if (std::find(family.begin(), family.end(), pid) != family.end()) processes.push_back(process);
      }
      list.push_back({{"rank", rank}, {"processes", std::move(processes)}});
    }
    self->send(MessageType::stacks, {{"id", id}, {"ranks", std::move(list)}});
  });
}

// ------------------------------------------------------------------------------------------------------------ leaving

void NodeAgent::Impl::on_stopped() {
  log.info("nothing is left of attempt {}", attempt);
  if (std::exchange(stop_asked, false)) send(MessageType::ranks_stopped);
  if (exit_code) leave_after_children();
}

/// Children have been told to leave, too, and by way of this agent: it stays until they have gone.
void NodeAgent::Impl::leave_after_children() {
  if (*exit_code != kExitGoodbye || !relay.has_children()) return close_link();
  last_children.expires_after(kLastChildrenLimit);
  last_children.async_wait([self = shared_from_this()](boost::system::error_code error) {
    if (!error) self->close_link();
  });
}

void NodeAgent::Impl::close_link() {
  if (std::exchange(is_closing, true)) return;
  last_children.cancel();
  if (!link.is_open()) return report_leave();
  link.close([this] { report_leave(); });
}

void NodeAgent::Impl::lose_head(const Error& error) {
  log.error("head lost: {}", error.message);
  if (!was_connected) std::fprintf(stderr, "mdsagent: %s\n", error.message.c_str());
  if (exit_code && !ranks.is_busy()) return report_leave();
  leave(was_connected ? kExitHeadLost : kExitNoHead, {});
}

void NodeAgent::Impl::report_leave() {
  if (const auto handler = std::exchange(on_leave, nullptr)) handler(*exit_code);
}

void NodeAgent::Impl::break_off(const std::string& what) {
  log.error("the head broke the protocol: {}", what);
  leave(kExitHeadLost, {});
}

void NodeAgent::Impl::leave(int code, const StopTimes& times) {
  if (!exit_code) exit_code = code;
  stage.cancel();
  ranks.stop(times);
}

NodeAgent::NodeAgent(asio::io_context& io, const Bootstrap& bootstrap, ProcessMark& mark, spdlog::logger& logger,
                     std::function<void(int exit_code)> on_leave)
    : impl_(std::make_shared<Impl>(io, bootstrap, mark, logger, std::move(on_leave))) {}

NodeAgent::~NodeAgent() = default;

void NodeAgent::start() {
  impl_->link.start([impl = impl_.get()] { return impl->hello(); });
}

void NodeAgent::terminate() {
  impl_->log.info("terminated by signal");
  impl_->leave(kExitTerminated, {milliseconds(0), kTerminateGrace});
}

void NodeAgent::notice(int signal) {
  impl_->log.info("signal {}, left to the head", signal);
  impl_->send(MessageType::notice, {{"signal", signal}});
}

void NodeAgent::lose_guard() {
  impl_->log.error("the guard has died");
  impl_->leave(kExitHeadLost, {});
}

}  // namespace mds::agent
