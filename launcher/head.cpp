#include "launcher/head.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <utility>

#include <boost/asio/post.hpp>

#include "agent/core_limit.hpp"
#include "agent/node_agent.hpp"
#include "agent/unique_fd.hpp"

namespace mds::launcher {

using agent::Message;
using agent::MessageType;
using nlohmann::json;

namespace {

constexpr TimePoint kSilenceLook{1'000'000};

}  // namespace

// --- opening and running --------------------------------------------------------------------------------------------

Head::Head(HeadOptions options, HeadObserver observer)
    : options_(std::move(options)),
      observer_(std::move(observer)),
      started_(std::chrono::steady_clock::now() - (options_.earlier ? options_.earlier->last_at() : TimePoint{0})),
      supervisor_(options_.earlier ? Supervisor(options_.supervisor, replay(*options_.earlier).state())
                                   : Supervisor(options_.supervisor)),
      rendezvous_(supervisor_.world_size()),
      agents_(options_.supervisor.nodes),
      status_(options_.supervisor) {}

Head::~Head() {
  remove_control_address(options_.backend_options.run_folder);
}

Result<std::unique_ptr<Head>> Head::open(HeadOptions options, HeadObserver observer) {
  std::unique_ptr<Head> head(new Head(std::move(options), std::move(observer)));
  if (Status s = head->open_parts(); !s) return s.error();
  return head;
}

Status Head::open_parts() {
  boost::system::error_code ec;
  for (const int signal : {SIGINT, SIGTERM, SIGUSR1, SIGWINCH}) signals_.add(signal, ec);
  struct sigaction hangup {};  // under nohup the run is to outlive its terminal
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) signals_.add(SIGHUP, ec);
  if (ec) return internal("cannot catch signals: " + ec.message());
  auto backend = make_backend(options_.backend, io_, options_.backend_options,
                              [this](int node, const std::string& how) { on_process_ended(node, how); });
  if (!backend) return backend.error();
  backend_ = std::move(*backend);
  agent::forbid_core_dumps();
  Result<agent::Credentials> credentials = agent::make_credentials();
  if (!credentials) return credentials.error();
  credentials_ = *credentials;
  if (Status s = open_tree(); !s) return s;
  return options_.gather ? Status{} : open_log();
}

Status Head::open_tree() {
  HeadTree::Events events;
  events.may_join = [this](int, const Message& hello) -> Status {
    const Result<Hello> valid = hello_from_message(hello, options_.supervisor.nodes);
    return valid ? Status{} : Status(valid.error());
  };
  events.on_joined = [this](int node, const Message& hello) { on_joined(node, hello); };
  events.on_message = [this](int node, Message message) { on_message(node, std::move(message)); };
  events.on_lost = [this](int node, const std::string& why) { on_lost(node, why); };
  events.on_control = [this](const Message& message, const std::function<void(const json&)>& reply) {
    if (control_) control_->request(message.body, reply);  // `mdslaunch status` and its like, on another node
  };
  events.start_body = [this](int node, uint32_t attempt) { return start_body(node, attempt); };
  events.on_note = [this](const std::string& text) { note(text); };
  auto tree = HeadTree::open(io_, {options_.address, options_.supervisor.nodes, options_.fan_out}, credentials_,
                             std::move(events));
  if (!tree) return tree.error();
  tree_ = std::move(*tree);
  return {};
}

Status Head::open_log() {
  const auto begin = std::chrono::duration_cast<TimePoint>(started_.time_since_epoch());
  const std::string path = options_.backend_options.run_folder + "/events.jsonl";
  auto log = options_.earlier ? EventLog::append_to(path, options_.supervisor, begin)
                              : EventLog::create(path, options_.supervisor, begin);
  if (!log) return log.error();
  log_ = std::move(*log);
  if (options_.utilization_per_token) utilization_per_token_ = options_.utilization_per_token();
  open_control();
  web_ = std::make_unique<HeadWeb>(io_, options_.backend_options.run_folder, options_.web,
                                   [this] { return status(); });
  return {};
}

void Head::open_control() {
  const std::string& folder = options_.backend_options.run_folder;
  HeadControl::Hands hands;
  hands.status = [this] { return status(); };
  hands.handle = [this](Event event) { handle(std::move(event)); };
  hands.joined_nodes = [this] { return tree_->joined(); };
  hands.ask_for_stacks = [this](int node, const json& body) {
    send(node, MessageType::stacks_ask, supervisor_.state().attempt, body);
  };
  hands.note = [this](const std::string& text) { note(text); };
  control_ = std::make_unique<HeadControl>(io_, folder, std::move(hands));
  const bool is_private = options_.address.rfind("127.", 0) == 0 || options_.backend_options.networks;
  if (is_private) return;  // nobody elsewhere could reach it
  char host[256] = "";
  gethostname(host, sizeof host - 1);
  const Status told = write_control_address(folder, {host, options_.address, tree_->port(), credentials_});
  if (!told) note(told.error().message);
}

/// Beside what the run does, what it takes to get to a rank on another node.
json Head::status() const {
  json status = status_.to_json(supervisor_.state(), now());
  const BackendOptions& backend = options_.backend_options;
  status["folder"] = backend.run_folder;
  status["backend"] = to_string(options_.backend);
  status["pid"] = getpid();
  if (!backend.ssh_config.empty()) status["ssh_config"] = backend.ssh_config;
  if (const char* job = std::getenv("SLURM_JOB_ID"); job && options_.backend == Backend::slurm) {
    status["slurm_job"] = job;
  }
  if (options_.steps > 0) status["steps"] = options_.steps;
  if (const auto speed = status.find("tokens_per_second"); speed != status.end() && utilization_per_token_ > 0) {
    status["mfu"] = speed->get<double>() * utilization_per_token_;
  }
  if (web_ && !web_->page_address().empty()) status["web"] = web_->page_address();
  for (size_t n = 0; n < backend.hosts.size() && n < status["nodes"].size(); ++n) {
    status["nodes"][n]["name"] = backend.hosts[n];
  }
  return status;
}

int Head::run() {
  if (!options_.gather) await_signal();
  handle(Event{.kind = EventKind::begin});
  watch_silence();
  io_.run();
  return exit_code_;
}

TimePoint Head::now() const {
  return std::chrono::duration_cast<TimePoint>(std::chrono::steady_clock::now() - started_);
}

void Head::await_signal() {
  signals_.async_wait([this](boost::system::error_code ec, int signal) {
    if (ec) return;
    await_signal();
    if (signal == SIGWINCH) return observer_.on_resize ? observer_.on_resize() : void();
    if (gathering_) return gather_signal_ = signal, fail_gathering("stopped by " + signal_name(signal));
    const bool preempts = signal == SIGUSR1 || (signal == SIGTERM && options_.preempt_on_term);
    handle(Event{.kind = preempts ? EventKind::preempt : EventKind::user_stop, .signal = signal});
  });
}

// --- events and effects ---------------------------------------------------------------------------------------------

/// An effect may bring about an event at once (an agent that cannot be started): it waits until the earlier event's
/// effects are all carried out.
void Head::handle(Event event) {
  pending_.push_back(std::move(event));
  if (handling_) return;
  handling_ = true;
  while (!pending_.empty()) {
    const Event next = std::move(pending_.front());
    pending_.pop_front();
    const TimePoint at = now();
    const Effects effects = supervisor_.step(next, at);
    const Status logged = log_->append(next, at, effects, supervisor_.state());
    if (!logged && !std::exchange(log_failed_, true)) note("the event log is incomplete: " + logged.error().message);
    status_.on_event(next, supervisor_.state(), at);
    web_->on_event(next, effects);
    observer_.on_event(next, effects, supervisor_.state(), at);
    for (const Effect& effect : effects) execute(effect);
  }
  handling_ = false;
}

void Head::execute(const Effect& effect) {
  switch (effect.kind) {
    case EffectKind::log:  // done before all others, see handle()
    case EffectKind::report_cause:  // the observer's
      return;
    case EffectKind::sync:
      if (Status s = log_->sync(); !s) note(s.error().message);
      return;
    case EffectKind::start_agent: return start_agent(effect.node);
    case EffectKind::send_start: return send_start(effect.node, effect.attempt);
    case EffectKind::send_stop:
      return send(effect.node, MessageType::stop_ranks, effect.attempt,
                  {{"grace_ms", effect.grace.count()}, {"drain_ms", effect.drain.count()}});
    case EffectKind::send_kill:
      return send(effect.node, MessageType::kill_rank, effect.attempt,
                  {{"rank", effect.rank}, {"signal", effect.signal}});
    case EffectKind::send_goodbye:
      return send(effect.node, MessageType::goodbye, supervisor_.state().attempt, json::object());
    case EffectKind::kill_agent: return backend_->kill_agent(effect.node);
    case EffectKind::arm_timer: return arm_timer(effect.at);
    case EffectKind::note: return note(effect.text);
    case EffectKind::end:
      exit_code_ = effect.exit_code;
      tree_->close();
      io_.stop();
      return;
  }
}

void Head::arm_timer(TimePoint at) {
  timer_.expires_at(started_ + at);
  timer_.async_wait([this](boost::system::error_code ec) {
    if (!ec) handle(Event{.kind = EventKind::tick});
  });
}

void Head::start_agent(int node) {
  if (tree_->is_joined(node)) {  // gather() has brought it up
    return handle(Event{.kind = EventKind::agent_joined, .node = node, .host = agents_[node].host});
  }
  agents_[node] = AgentLife{.process_ended = false};
  agent::Bootstrap bootstrap;
  bootstrap.head_address = options_.address;
  bootstrap.head_port = tree_->port();
  bootstrap.credentials = credentials_;
  bootstrap.node = node;
  bootstrap.run_folder = options_.backend_options.run_folder;
  bootstrap.discover = gathering_;
  bootstrap.discover_gpus = gathering_ && options_.gpus;
  bootstrap.agent_sha256 = options_.backend_options.agent_copy.sha256;
  bootstrap.signals_to_head = options_.preempt_on_term && options_.backend == Backend::slurm;
  if (Status s = backend_->start_agent(bootstrap); !s) on_process_ended(node, s.error().message);
}

void Head::send_start(int node, uint32_t attempt) {
  if (started_attempt_ != attempt) {
    started_attempt_ = attempt;
    rendezvous_.reset();
    master_port_ = free_port(options_.address);
  }
  send(node, MessageType::start, attempt, start_body(node, attempt));
}

json Head::start_body(int node, uint32_t attempt) {
  return agent::to_json(options_.node_start(node, attempt, master_port_));
}

void Head::send(int node, MessageType type, uint32_t attempt, const json& body) {
  if (Status s = tree_->send(node, type, attempt, body); !s) note(s.error().message);
}

// --- agents ---------------------------------------------------------------------------------------------------------

void Head::on_message(int node, Message message) {
  status_.on_heard(node, now());
  switch (message.type) {
    case MessageType::exchange_put: return on_exchange(node, message);
    case MessageType::notice: return on_notice(message);
    case MessageType::stage_ask: return on_stage_ask(node, message.body);
    case MessageType::heartbeat: return on_heartbeat(node, message.body);
    case MessageType::stacks: return control_ ? control_->on_stacks(node, message.body) : void();
    case MessageType::output: {
      Result<Output> output = output_from_message(message);
      if (!output) return distrust(node, output.error().message);
      return observer_.on_output(*output);
    }
    default: break;
  }
  Result<std::optional<Event>> event = event_from_message(message, node, options_.supervisor.node_of_rank);
  if (!event) return distrust(node, event.error().message);
  if (message.type == MessageType::progress && message.attempt == supervisor_.state().attempt) {
    status_.on_progress(message.body);
    if (const auto metrics = step_metrics_from_json(message.body, message.attempt)) web_->on_metrics(*metrics);
    observer_.on_progress(message.attempt, message.body, now());
  }
  if (*event && message.type == MessageType::rank_started) {
    const json pid = message.body.value("pid", json(0));
    status_.on_pid((*event)->rank, pid.is_number_integer() ? pid.get<int64_t>() : 0);
  }
  if (*event) handle(std::move(**event));
}

/// An inner agent's heartbeat speaks for all agents below it but those that it names.
void Head::on_heartbeat(int node, const json& body) {
  status_.on_heartbeat(body, now());
  const auto silent = body.find("silent");
  for (const int n : tree_->joined()) {
    const bool named = silent != body.end() && silent->is_array() &&
                       std::find(silent->begin(), silent->end(), json(n)) != silent->end();
    if (n != node && !named && tree_->is_below(n, node)) status_.on_heard(n, now());
  }
}

/// A frozen agent (or its whole machine) keeps its connection: only the heartbeat that does not come tells of it.
void Head::watch_silence() {
  silence_timer_.expires_after(kSilenceLook);
  silence_timer_.async_wait([this, due = now() + kSilenceLook](boost::system::error_code ec) {
    if (ec) return;
    // Who was stopped himself has not listened.
    const bool was_stopped = now() - due > kSilenceLook;
    for (const int node : tree_->joined()) {
      if (was_stopped) status_.on_heard(node, now());
      const auto silence = status_.silence(node, now());
      if (silence < options_.silence_limit || supervisor_.state().nodes[node].state != NodeState::joined) continue;
      handle(Event{.kind = EventKind::agent_silent, .node = node,
                   .text = "no heartbeat for " + std::to_string(silence / std::chrono::seconds(1)) + " s"});
    }
    watch_silence();
  });
}

void Head::on_stage_ask(int node, const json& ask) {
  if (!ask.is_object()) return distrust(node, "a malformed stage_ask");
  send(node, MessageType::stage_part, 0, options_.stage_part(ask));
}

/// Comes from every agent at about the same time, and after this process' own signal: a later preemption changes
/// nothing.
void Head::on_notice(const Message& message) {
  const auto signal = message.body.find("signal");
  const bool known = signal != message.body.end() && (*signal == SIGTERM || *signal == SIGUSR1);
  if (known && !gathering_) handle(Event{.kind = EventKind::preempt, .signal = signal->get<int>()});
}

void Head::on_joined(int node, const Message& message) {
  const Result<Hello> hello = hello_from_message(message, options_.supervisor.nodes);
  agents_[node].host = hello->host;
  status_.on_heard(node, now());
  backend_->joined(node);
  if (gathering_) return gathered(node, message);
  handle(Event{.kind = EventKind::agent_joined, .node = node, .host = hello->host});
}

void Head::on_lost(int node, const std::string& why) {
  if (control_) control_->on_node_lost(node);
  if (gathering_) return fail_gathering("lost the agent of node " + std::to_string(node) + ": " + why, node);
  backend_->disconnected(node);
  const bool ended = agents_[node].process_ended;
  handle(Event{.kind = EventKind::agent_lost, .node = node, .text = ended ? agents_[node].how_it_ended : why});
  if (ended) handle(Event{.kind = EventKind::agent_gone, .node = node});
}

/// What a broken agent says must not take the head down, nor be acted upon.
void Head::distrust(int node, const std::string& why) {
  note("node " + std::to_string(node) + " is given up: " + why);
  (void)tree_->send(node, MessageType::goodbye, supervisor_.state().attempt, json::object());
  boost::asio::post(io_, [this, node, why] { tree_->give_up(node, why); });
}

/// The process that the back end started watches over the agent's; only when the connection has ended as well is the
/// node known to be clear of the run's processes.
void Head::on_process_ended(int node, const std::string& how) {
  AgentLife& agent = agents_[node];
  agent.process_ended = true;
  agent.how_it_ended = "its process " + how;
  if (tree_->is_joined(node)) {
    const bool has_logged_why = how.ends_with("exited with code " + std::to_string(agent::kExitHeadLost));
    if (has_logged_why) agent.how_it_ended += last_words(node);
    return tree_->give_up(node, agent.how_it_ended);
  }
  if (gathering_) {
    return fail_gathering("the agent of node " + std::to_string(node) + " did not come: " + agent.how_it_ended +
                              last_words(node),
                          node);
  }
  const bool known = supervisor_.state().nodes[node].state == NodeState::lost;
  if (!known) handle(Event{.kind = EventKind::agent_lost, .node = node, .text = agent.how_it_ended + last_words(node)});
  handle(Event{.kind = EventKind::agent_gone, .node = node});
}

void Head::on_exchange(int node, const Message& message) {
  if (message.attempt != supervisor_.state().attempt) return;
  Result<Contribution> contribution = contribution_from_message(message);
  const std::vector<int>& node_of_rank = options_.supervisor.node_of_rank;
  const bool known = contribution && contribution->rank >= 0 && contribution->rank < supervisor_.world_size() &&
                     node_of_rank[contribution->rank] == node;
  if (!known) return note("an exchange from node " + std::to_string(node) + " was dropped");
  const int rank = contribution->rank;
  Result<std::optional<Exchange>> done = rendezvous_.put(std::move(*contribution));
  if (!done) {
    // The rank would wait for ever, and its peers with it.
    return handle(Event{.kind = EventKind::start_failed, .attempt = message.attempt, .rank = rank,
                        .text = done.error().message});
  }
  if (!*done) return;
  const Exchange& exchange = **done;
  json values = json::array();
  for (const std::string& value : exchange.values) {
    values.push_back(json::binary(std::vector<uint8_t>(value.begin(), value.end())));
  }
  const json body{{"name", exchange.name}, {"ranks", exchange.ranks}, {"values", std::move(values)}};
  std::vector<bool> told(agents_.size());
  for (const int r : exchange.ranks) {
    const int n = node_of_rank[r];
    if (!told[n]) send(n, MessageType::exchange_result, message.attempt, body);
    told[n] = true;
  }
}

// --- small parts ----------------------------------------------------------------------------------------------------

void Head::note(const std::string& text) {
  if (observer_.on_note) observer_.on_note(text);  // while agents gather nobody watches yet
}

/// What an agent that has left has to say: the last error in its log, or else the last line.
std::string Head::last_words(int node) const {
  constexpr std::string_view kError = "] [error] ";
  std::ifstream log(node_log_path(options_.backend_options.run_folder, node));
  std::string line, last, error;
  while (std::getline(log, line)) {
    if (!line.empty()) last = line;
    if (const size_t at = line.find(kError); at != std::string::npos) error = line.substr(at + kError.size());
  }
  if (error.empty()) error = last;
  return error.empty() ? "" : ": " + error;
}

int free_port(const std::string& address) {
  const agent::UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in name{};
  name.sin_family = AF_INET;
  socklen_t length = sizeof name;
  if (inet_pton(AF_INET, address.c_str(), &name.sin_addr) != 1) return 0;
  if (bind(fd.get(), reinterpret_cast<sockaddr*>(&name), length) != 0) return 0;
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&name), &length) != 0) return 0;
  return ntohs(name.sin_port);
}

}  // namespace mds::launcher
