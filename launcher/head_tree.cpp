#include "launcher/head_tree.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "agent/frame.hpp"

namespace mds::launcher {

using agent::Message;
using agent::MessageType;
using agent::Priority;
using nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kAwayLook{50};
constexpr milliseconds kPulse{1'000};
constexpr size_t kUnauthenticatedMax = 256;  // handshakes at a time: thousands of agents come at once
constexpr milliseconds kCrowdedTimeout{5'000};

int integer(const json& body, const char* name, int otherwise) {
  const auto at = body.is_object() ? body.find(name) : body.end();
  return at != body.end() && at->is_number_integer() ? at->get<int>() : otherwise;
}

}  // namespace

HeadTree::HeadTree(boost::asio::io_context& io, const Options& options, Events events)
    : io_(io), options_(options), events_(std::move(events)), places_(options.nodes), pulse_timer_(io),
      away_timer_(io) {}

HeadTree::~HeadTree() {
  for (const auto& connection : connections_) connection->channel->abort();
}

Result<std::unique_ptr<HeadTree>> HeadTree::open(boost::asio::io_context& io, const Options& options,
                                                 const agent::Credentials& credentials, Events events) {
  std::unique_ptr<HeadTree> tree(new HeadTree(io, options, std::move(events)));
  agent::ListenerOptions listener;
  listener.address = options.address;
  if (options.nodes > options.fan_out) {
    listener.unauthenticated_max = kUnauthenticatedMax;
    listener.crowded_timeout = kCrowdedTimeout;
  }
  auto opened = agent::Listener::open(io, listener, credentials, [raw = tree.get()](std::shared_ptr<agent::Channel> c) {
    raw->on_channel(std::move(c));
  });
  if (!opened) return opened.error();
  tree->listener_ = std::move(*opened);
  tree->send_pulses();
  return tree;
}

// --- connections ----------------------------------------------------------------------------------------------------

void HeadTree::on_channel(std::shared_ptr<agent::Channel> channel) {
  connections_.push_back(std::make_unique<Connection>());
  Connection* connection = connections_.back().get();
  connection->channel = std::move(channel);
  connection->channel->start([this, connection](Message message) { on_message(*connection, std::move(message)); },
                             [this, connection](const Status& status) {
                               on_closed(*connection, status ? "connection closed" : status.error().message);
                             });
}

void HeadTree::on_message(Connection& connection, Message message) {
  if (message.type == MessageType::control) {
    return events_.on_control(message, [channel = std::weak_ptr(connection.channel)](const json& reply) {
      if (const auto open = channel.lock()) (void)open->send(MessageType::control_reply, 0, reply);
    });
  }
  if (connection.node < 0) {
    if (message.type == MessageType::heartbeat) return;  // it waits for its place
    const int node = message.type == MessageType::hello ? integer(message.body, "node", -1) : -1;
    if (node < 0 || node >= options_.nodes) return drop(connection, "hello of a node was expected first");
    connection.is_agent = true;
    return on_hello(connection, node, /*parent=*/-1, std::move(message));
  }
  if (message.type == MessageType::up) return on_items(connection, message);
  if (places_[connection.node].via == &connection) on_node_message(connection.node, std::move(message));
}

void HeadTree::on_items(Connection& connection, const Message& message) {
  const auto items = message.body.find("items");
  if (items == message.body.end() || !items->is_array()) return drop(connection, "up without items");
  for (const json& item : *items) {
    const bool valid = item.is_array() && item.size() == 4 && item[0].is_number_integer() &&
                       item[1].is_number_unsigned() && item[2].is_number_unsigned() && item[3].is_binary();
    const int64_t node = valid ? item[0].get<int64_t>() : -1;
    if (node < 0 || node >= options_.nodes) return drop(connection, "a malformed item");
    const int n = static_cast<int>(node);
    auto body = agent::decode_body(item[3].get_binary());
    if (!body) return drop(connection, "a malformed item");
    Message inner{static_cast<MessageType>(item[1].get<uint16_t>()), message.job, item[2].get<uint32_t>(), 0,
                  *std::move(body)};
    if (inner.type == MessageType::hello) {
      const int parent = integer(inner.body, "parent", -1);
      const bool known = parent >= 0 && parent < options_.nodes && places_[parent].via == &connection;
      if (known && parent != n) on_hello(connection, n, parent, std::move(inner));
      continue;
    }
    if (places_[n].via != &connection) continue;  // it has come back another way since it said this
    if (inner.type == MessageType::detached) {
      go_away(n, "its connection to node " + std::to_string(places_[n].parent) + " has ended", kOwnBackLimit);
      house_homeless();
    } else {
      on_node_message(n, std::move(inner));
    }
    if (std::none_of(connections_.begin(), connections_.end(), [&](const auto& c) { return c.get() == &connection; })) {
      return;  // what it said was such that its connection was dropped
    }
  }
}

void HeadTree::on_node_message(int node, Message message) {
  if (agent::is_counted(message.type)) ++places_[node].received;
  if (message.type == MessageType::serving) return on_serving(node, message.body);
  events_.on_message(node, std::move(message));
}

void HeadTree::on_closed(Connection& connection, const std::string& why) {
  (void)forget_guest(&connection, -1);
  const int node = connection.node;
  // Thousands come only to be sent on: nobody is reached by those.
  for (size_t n = 0; connection.carries && n < places_.size(); ++n) {
    if (places_[n].via == &connection && static_cast<int>(n) != node) {
      const std::string below = "the way to it, by node " + std::to_string(node) + ", has ended";
      go_away(static_cast<int>(n), below, options_.back_limit);
    }
  }
  if (node >= 0 && places_[node].via == &connection) go_away(node, why, kOwnBackLimit);
  past_traffic_.add(connection.channel->traffic());
  std::erase_if(connections_, [&](const auto& c) { return c.get() == &connection; });
  house_homeless();
}

agent::Traffic HeadTree::traffic() const {
  agent::Traffic sum = past_traffic_;
  for (const auto& connection : connections_) sum.add(connection->channel->traffic());
  return sum;
}

void HeadTree::drop(Connection& connection, const std::string& why) {
  events_.on_note("connection from " + connection.channel->peer() + " dropped: " + why);
  connection.channel->abort();
  boost::asio::post(io_, [this, raw = &connection, why] {  // no callback follows an abort
    const auto is_it = [&](const auto& c) { return c.get() == raw; };
    if (std::any_of(connections_.begin(), connections_.end(), is_it)) on_closed(*raw, why);
  });
}

/// What agents hold their lease by (agent/parent_link.hpp, P3); also those that wait for their place.
void HeadTree::send_pulses() {
  pulse_timer_.expires_after(kPulse);
  pulse_timer_.async_wait([this](boost::system::error_code error) {
    if (error) return;
    for (const auto& connection : connections_) {
      if (!connection->is_agent) continue;
      (void)connection->channel->send(MessageType::pulse, 0, json::object(), Priority::urgent);
    }
    send_pulses();
  });
}

// --- hello ----------------------------------------------------------------------------------------------------------

void HeadTree::on_hello(Connection& connection, int node, int parent, Message hello) {
  Place& place = places_[node];
  const bool again = integer(hello.body, "again", 0) > 0;
  if (is_joined(node) && !again && place.received > 0) {  // one that has said nothing yet may not know that it is known
    return parent < 0 ? drop(connection, "node " + std::to_string(node) + " has an agent already") : void();
  }
  if (again && !is_joined(node)) {  // it was given up: its ranks are to go
    events_.on_note("node " + std::to_string(node) + " came back too late");
    return send_over(connection, parent < 0, node, MessageType::goodbye, 0, json::object());
  }
  if (Status welcome = events_.may_join(node, hello); !welcome) {
    if (parent < 0) drop(connection, welcome.error().message);
    return;
  }
  if (again) place.wanted_until = Clock::now() + options_.back_limit;
  if (parent >= 0) return join(connection, node, parent, hello);
  (void)forget_guest(&connection, node);  // it asks once more
  house({&connection, node, std::move(hello)});
}

/// Here, or below somebody else, now or later.
void HeadTree::house(Guest guest) {
  Place& place = places_[guest.node];
  const bool is_here = place.state == State::joined && place.parent < 0;  // by a connection whose place this one takes
  if (direct_ - (is_here ? 1 : 0) < options_.fan_out) return join(*guest.connection, guest.node, -1, guest.hello);
  const int parent = find_parent(guest.node);
  promise(guest.node, parent);
  // All that there is room for are on their way still; they will have room themselves.
  if (parent < 0) return homeless_.push_back(std::move(guest));
  Place& host = places_[parent];
  if (host.serving == Place::Serving::yes) return send_join(*guest.connection, parent);
  waiting_.push_back(std::move(guest));
  if (std::exchange(host.serving, Place::Serving::asked) == Place::Serving::no) {
    send_to(parent, MessageType::serve, 0, json::object());
  }
}

void HeadTree::house_homeless() {
  for (size_t left = homeless_.size(); left > 0 && !homeless_.empty(); --left) {
    if (direct_ >= options_.fan_out && find_parent(-1) < 0) return;
    Guest guest = std::move(homeless_.front());
    homeless_.pop_front();
    house(std::move(guest));
  }
}

/// The guest of that connection, or that node, asks no more. Returns its connection, if there is one.
HeadTree::Connection* HeadTree::forget_guest(const Connection* connection, int node) {
  Connection* found = nullptr;
  const auto is_it = [&](const Guest& guest) {
    if (guest.connection != connection && guest.node != node) return false;
    promise(guest.node, -1);
    found = guest.connection;
    return true;
  };
  std::erase_if(waiting_, is_it);
  std::erase_if(homeless_, is_it);
  return found;
}

/// Its guests have to find another parent.
void HeadTree::evict_guests(int parent) {
  const auto is_other = [&](const Guest& guest) { return places_[guest.node].promised_to != parent; };
  const auto theirs = std::stable_partition(waiting_.begin(), waiting_.end(), is_other);
  for (auto guest = theirs; guest != waiting_.end(); ++guest) {
    promise(guest->node, -1);
    homeless_.push_back(std::move(*guest));
  }
  waiting_.erase(theirs, waiting_.end());
}

/// The first joined agent, in the order of joining, that has room and is not below `node`: this fills the tree level by
/// level.
int HeadTree::find_parent(int node) {
  for (auto at = candidates_.begin(); at != candidates_.end();) {
    const Place& place = places_[*at];
    const bool usable = place.state == State::joined && place.serving != Place::Serving::cannot && !place.leaving;
    if (!usable || place.children + place.promised >= options_.fan_out) {
      at = candidates_.erase(at);
      continue;
    }
    if (!leads_to(*at, node)) return *at;
    ++at;
  }
  return -1;
}

/// Does the way up from there, where all have gone where they were sent, pass `node`?
bool HeadTree::leads_to(int from, int node) const {
  size_t steps = 0;
  for (int n = from; n >= 0; n = places_[n].promised_to >= 0 ? places_[n].promised_to : places_[n].parent) {
    if (n == node || ++steps > places_.size()) return true;
  }
  return false;
}

/// `parent` -1: it is redeemed, or void.
void HeadTree::promise(int node, int parent) {
  const int before = std::exchange(places_[node].promised_to, parent);
  if (before >= 0) {
    const Place& place = places_[before];
    const bool was_full = place.children + place.promised >= options_.fan_out;
    --places_[before].promised;
    if (was_full && place.state == State::joined) candidates_.push_front(before);
  }
  if (parent >= 0) ++places_[parent].promised;
}

void HeadTree::send_join(Connection& connection, int parent) {
  (void)connection.channel->send(MessageType::join, 0, places_[parent].address);
}

void HeadTree::on_serving(int node, const json& body) {
  Place& place = places_[node];
  const bool serves = body.is_object() && body.contains("address") && body.contains("port");
  place.serving = serves ? Place::Serving::yes : Place::Serving::cannot;
  if (serves)
    place.address = body;
  else
    events_.on_note("node " + std::to_string(node) + " cannot listen: " + body.dump());
  if (!serves) {
    evict_guests(node);
    return house_homeless();
  }
  std::erase_if(waiting_, [&](const Guest& guest) {
    const bool ready = places_[guest.node].promised_to == node;
    if (ready) send_join(*guest.connection, node);
    return ready;
  });
}

void HeadTree::set_route(Connection& connection, int node, int parent) {
  Place& place = places_[node];
  leave_parent(place);
  if (parent < 0) {
    connection.node = node;
    ++direct_;
  } else {
    ++places_[parent].children;
  }
  place.state = State::joined;
  place.via = &connection;
  place.parent = parent;
  place.wanted_until = {};
  connection.carries = true;
}

void HeadTree::join(Connection& connection, int node, int parent, const Message& hello) {
  Place& place = places_[node];
  const bool back = is_joined(node);
  promise(node, -1);
  Connection* const old = back && place.state == State::joined && place.parent < 0 ? place.via : nullptr;
  if (!back) place = Place{.promised = place.promised};
  if (!place.leaving) go_away(node, "it has come back another way", options_.back_limit);  // and so will those below it
  if (place.state != State::joined) candidates_.push_back(node);
  set_route(connection, node, parent);
  if (old && old != &connection) {  // its end is not news any more
    old->node = -1;
    drop(*old, "node " + std::to_string(node) + " has come back");
  }
  if (back)
    welcome_back(node, hello.body);
  else
    events_.on_joined(node, hello);
  house_homeless();
}

void HeadTree::welcome_back(int node, const json& hello) {
  Place& place = places_[node];
  const json received = hello.value("received", json(0));
  const auto missed = place.sent.after(received.is_number_unsigned() ? received.get<uint64_t>() : 0);
  if (!missed) {
    send_to(node, MessageType::goodbye, 0, json::object());
    return lose(node, "too much was lost with its connection");
  }
  events_.on_note("node " + std::to_string(node) + " is back, below " +
                  (place.parent < 0 ? "the head" : "node " + std::to_string(place.parent)));
  send_to(node, MessageType::attached, 0, {{"again", integer(hello, "again", 0)}, {"received", place.received}});
  for (const agent::Replay::Sent& one : *missed) {
    const json body =
        one.body ? json::from_cbor(*one.body, true, /*allow_exceptions=*/false) : events_.start_body(node, one.attempt);
    send_to(node, one.type, one.attempt, body);
  }
}

// --- away and lost --------------------------------------------------------------------------------------------------

bool HeadTree::is_below(int node, int ancestor) const {
  for (int n = node; n >= 0; n = places_[n].parent) {
    if (n == ancestor) return true;
  }
  return false;
}

void HeadTree::leave_parent(const Place& place) {
  if (place.state != State::joined) return;
  if (place.parent < 0) {
    --direct_;
  } else if (Place& parent = places_[place.parent]; parent.state == State::joined) {
    --parent.children;
    candidates_.push_front(place.parent);  // it has room again: for those who say hello next
  }
}

void HeadTree::go_away(int node, const std::string& why, milliseconds limit) {
  Place& place = places_[node];
  if (place.state != State::joined) return;
  Connection* const via = place.via;
  leave_parent(place);
  place.state = State::away;
  place.via = nullptr;
  place.serving = Place::Serving::no;
  place.children = 0;
  place.parent = -1;
  place.why_away = why;
  place.away_until = Clock::now() + limit;
  // Whoever was below it comes back on its own. A relay says nothing of them when it loses a child.
  for (size_t n = 0; n < places_.size(); ++n) {
    if (places_[n].state == State::joined && places_[n].via == via && places_[n].parent == node) {
      const std::string below = "the way to it, by node " + std::to_string(node) + ", has ended";
      go_away(static_cast<int>(n), below, options_.back_limit);
    }
  }
  evict_guests(node);
  if (place.leaving) return lose(node, why);
  watch_away();
}

void HeadTree::give_up(int node, const std::string& why) {
  if (places_[node].state == State::joined) go_away(node, why, milliseconds(0));
  if (places_[node].state == State::away) lose(node, why);
}

void HeadTree::lose(int node, std::string why) {
  if (places_[node].state == State::joined) go_away(node, why, milliseconds(0));
  if (places_[node].state == State::absent) return;
  if (Connection* asking = forget_guest(nullptr, node)) drop(*asking, "node " + std::to_string(node) + " is given up");
  promise(node, -1);
  places_[node] = Place{.promised = places_[node].promised};
  events_.on_lost(node, why);
  house_homeless();
}

void HeadTree::watch_away() {
  if (std::exchange(away_timer_runs_, true)) return;
  away_timer_.expires_after(kAwayLook);
  away_timer_.async_wait([this](boost::system::error_code error) {
    away_timer_runs_ = false;
    if (error) return;
    bool any = false;
    for (size_t n = 0; n < places_.size(); ++n) {
      if (places_[n].state != State::away) continue;
      if (Clock::now() >= std::max(places_[n].away_until, places_[n].wanted_until))
        lose(static_cast<int>(n), places_[n].why_away);
      else
        any = true;
    }
    if (any) watch_away();
  });
}

// --- sending --------------------------------------------------------------------------------------------------------

std::vector<int> HeadTree::joined() const {
  std::vector<int> nodes;
  for (size_t n = 0; n < places_.size(); ++n) {
    if (is_joined(static_cast<int>(n))) nodes.push_back(static_cast<int>(n));
  }
  return nodes;
}

Status HeadTree::send(int node, MessageType type, uint32_t attempt, const json& body) {
  if (!is_joined(node)) {
    return unavailable(std::string("no agent to send ") + to_string(type) + " to node " + std::to_string(node));
  }
  places_[node].leaving = places_[node].leaving || type == MessageType::goodbye;
  Letter* last = outbox_.empty() ? nullptr : &outbox_.back();
  if (last && last->type == type && last->attempt == attempt && last->body == body) {
    last->nodes.push_back(node);
    return {};
  }
  outbox_.push_back({type, attempt, body, {node}});
  if (!std::exchange(flush_posted_, true)) boost::asio::post(io_, [this] { flush(); });
  return {};
}

void HeadTree::flush() {
  flush_posted_ = false;
  for (Letter& letter : std::exchange(outbox_, {})) deliver(letter);
}

void HeadTree::deliver(Letter& letter) {
  // Kept for those who lose their connection; a start is made anew instead.
  std::shared_ptr<const std::vector<uint8_t>> bytes;
  const auto encoded = [&] {
    if (!bytes) bytes = std::make_shared<const std::vector<uint8_t>>(json::to_cbor(letter.body));
    return bytes;
  };
  std::vector<std::pair<Connection*, std::vector<int>>> by_connection;
  for (const int node : letter.nodes) {
    Place& place = places_[node];
    if (place.state == State::absent) continue;
    const bool is_start = letter.type == MessageType::start;
    if (agent::is_counted(letter.type)) place.sent.keep({letter.type, letter.attempt, is_start ? nullptr : encoded()});
    if (place.state != State::joined) continue;
    const auto is_it = [&](const auto& one) { return one.first == place.via; };
    const auto at = std::find_if(by_connection.begin(), by_connection.end(), is_it);
    if (at != by_connection.end())
      at->second.push_back(node);
    else
      by_connection.push_back({place.via, {node}});
  }
  for (const auto& [connection, nodes] : by_connection) {
    Status sent;
    if (nodes.size() == 1 && nodes[0] == connection->node) {
      sent = connection->channel->send(letter.type, letter.attempt, letter.body);
    } else {
      sent = connection->channel->send(
          MessageType::down, letter.attempt,
          {{"to", nodes}, {"type", static_cast<unsigned>(letter.type)}, {"body", json::binary(*encoded())}});
    }
    if (!sent) events_.on_note(sent.error().message);  // the channel's end is reported by its closed handler
  }
}

/// At once, and not kept.
void HeadTree::send_to(int node, MessageType type, uint32_t attempt, const json& body) {
  const Place& place = places_[node];
  if (place.state == State::joined) send_over(*place.via, place.parent < 0, node, type, attempt, body);
}

void HeadTree::send_over(Connection& connection, bool is_direct, int node, MessageType type, uint32_t attempt,
                         const json& body) {
  const auto wrapped = [&] {
    return json{{"to", json::array({node})},
                {"type", static_cast<unsigned>(type)},
                {"body", json::binary(json::to_cbor(body))}};
  };
  const Status sent = is_direct ? connection.channel->send(type, attempt, body)
                                : connection.channel->send(MessageType::down, attempt, wrapped());
  if (!sent) events_.on_note(sent.error().message);
}

}  // namespace mds::launcher
