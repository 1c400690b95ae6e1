#include "launcher/head.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <utility>

#include <boost/asio/post.hpp>

#include "agent/unique_fd.hpp"

namespace mds::launcher {

using agent::Message;
using agent::MessageType;
using nlohmann::json;

// --- opening and running --------------------------------------------------------------------------------------------

Head::Head(HeadOptions options, HeadObserver observer)
    : options_(std::move(options)),
      observer_(std::move(observer)),
      started_(std::chrono::steady_clock::now()),
      supervisor_(options_.supervisor),
      rendezvous_(supervisor_.world_size()),
      agents_(options_.supervisor.nodes) {}

Head::~Head() {
  for (const auto& connection : connections_) {
    if (connection->channel) connection->channel->abort();
  }
}

Result<std::unique_ptr<Head>> Head::open(HeadOptions options, HeadObserver observer) {
  std::unique_ptr<Head> head(new Head(std::move(options), std::move(observer)));
  if (Status s = head->open_parts(); !s) return s.error();
  return head;
}

Status Head::open_parts() {
  boost::system::error_code ec;
  for (const int signal : {SIGINT, SIGTERM}) signals_.add(signal, ec);
  struct sigaction hangup {};  // under nohup the run is to outlive its terminal
  sigaction(SIGHUP, nullptr, &hangup);
  if (hangup.sa_handler != SIG_IGN) signals_.add(SIGHUP, ec);
  if (ec) return internal("cannot catch signals: " + ec.message());
  auto backend = make_backend(options_.backend, io_, options_.backend_options,
                              [this](int node, const std::string& how) { on_process_ended(node, how); });
  if (!backend) return backend.error();
  backend_ = std::move(*backend);
  Result<agent::Credentials> credentials = agent::make_credentials();
  if (!credentials) return credentials.error();
  credentials_ = *credentials;
  agent::ListenerOptions listener_options;
  listener_options.address = options_.address;
  auto listener = agent::Listener::open(io_, listener_options, credentials_,
                                        [this](std::shared_ptr<agent::Channel> c) { on_channel(std::move(c)); });
  if (!listener) return listener.error();
  listener_ = std::move(*listener);
  const auto begin = std::chrono::duration_cast<TimePoint>(started_.time_since_epoch());
  auto log = EventLog::create(options_.backend_options.run_folder + "/events.jsonl", options_.supervisor, begin);
  if (!log) return log.error();
  log_ = std::move(*log);
  return {};
}

int Head::run() {
  await_signal();
  handle(Event{.kind = EventKind::begin});
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
    handle(Event{.kind = EventKind::user_stop, .signal = signal});
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
      listener_->close();
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
  agents_[node] = AgentLife{.process_ended = false};
  agent::Bootstrap bootstrap;
  bootstrap.head_address = options_.address;
  bootstrap.head_port = listener_->port();
  bootstrap.credentials = credentials_;
  bootstrap.node = node;
  bootstrap.run_folder = options_.backend_options.run_folder;
  if (Status s = backend_->start_agent(bootstrap); !s) on_process_ended(node, s.error().message);
}

void Head::send_start(int node, uint32_t attempt) {
  if (started_attempt_ != attempt) {
    started_attempt_ = attempt;
    rendezvous_.reset();
    master_port_ = free_port(options_.address);
  }
  send(node, MessageType::start, attempt, agent::to_json(options_.node_start(node, attempt, master_port_)));
}

/// A failed send needs no handling here: the channel's end is reported by its closed handler.
void Head::send(int node, MessageType type, uint32_t attempt, const json& body) {
  Connection* connection = agents_[node].connection;
  if (!connection) return note(std::string("no agent to send ") + to_string(type) + " to node " + std::to_string(node));
  if (Status s = connection->channel->send(type, attempt, body); !s) note(s.error().message);
}

// --- agents ---------------------------------------------------------------------------------------------------------

void Head::on_channel(std::shared_ptr<agent::Channel> channel) {
  connections_.push_back(std::make_unique<Connection>());
  Connection* connection = connections_.back().get();
  connection->channel = std::move(channel);
  connection->channel->start([this, connection](Message message) { on_message(*connection, std::move(message)); },
                             [this, connection](Status status) {
                               on_closed(*connection, status ? "connection closed" : status.error().message);
                             });
}

void Head::on_message(Connection& connection, Message message) {
  if (connection.node < 0) return on_hello(connection, message);
  switch (message.type) {
    case MessageType::exchange_put: return on_exchange(connection.node, message);
    case MessageType::heartbeat: return;
    case MessageType::output: {
      Result<Output> output = output_from_message(message);
      if (!output) return drop(connection, output.error().message);
      return observer_.on_output(*output);
    }
    default: break;
  }
  Result<std::optional<Event>> event =
      event_from_message(message, connection.node, options_.supervisor.node_of_rank);
  if (!event) return drop(connection, event.error().message);
  if (message.type == MessageType::progress && message.attempt == supervisor_.state().attempt) {
    observer_.on_progress(message.attempt, message.body, now());
  }
  if (*event) handle(std::move(**event));
}

void Head::on_hello(Connection& connection, const Message& message) {
  Result<Hello> hello = hello_from_message(message, options_.supervisor.nodes);
  if (!hello) return drop(connection, hello.error().message);
  AgentLife& agent = agents_[hello->node];
  if (agent.connection) return drop(connection, "node " + std::to_string(hello->node) + " has an agent already");
  connection.node = hello->node;
  agent.connection = &connection;
  handle(Event{.kind = EventKind::agent_joined, .node = hello->node, .host = hello->host});
}

void Head::on_closed(Connection& connection, const std::string& why) {
  const int node = connection.node;
  std::erase_if(connections_, [&](const auto& c) { return c.get() == &connection; });
  if (node < 0) return note("a connection ended before it said which node it is: " + why);
  agents_[node].connection = nullptr;
  const bool ended = agents_[node].process_ended;
  handle(Event{.kind = EventKind::agent_lost, .node = node, .text = ended ? agents_[node].how_it_ended : why});
  if (ended) handle(Event{.kind = EventKind::agent_gone, .node = node});
}

/// The process that the back end started watches over the agent's; only when the connection has ended as well is the
/// node known to be clear of the run's processes.
void Head::on_process_ended(int node, const std::string& how) {
  AgentLife& agent = agents_[node];
  agent.process_ended = true;
  agent.how_it_ended = "its process " + how;
  if (agent.connection) return;
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

void Head::drop(Connection& connection, const std::string& why) {
  note("connection from " + connection.channel->peer() + " dropped: " + why);
  connection.channel->abort();
  boost::asio::post(io_, [this, &connection, why] { on_closed(connection, why); });  // no callback follows an abort
}

// --- small parts ----------------------------------------------------------------------------------------------------

void Head::note(const std::string& text) { observer_.on_note(text); }

/// What an agent that never connected has to say: the last line of its log.
std::string Head::last_words(int node) const {
  std::ifstream log(node_log_path(options_.backend_options.run_folder, node));
  std::string line, last;
  while (std::getline(log, line)) {
    if (!line.empty()) last = line;
  }
  return last.empty() ? "" : ": " + last;
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
