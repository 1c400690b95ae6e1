#include "agent/child_relay.hpp"

#include <algorithm>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <map>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "agent/frame.hpp"

namespace mds::agent {

namespace asio = boost::asio;
using boost::system::error_code;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

constexpr std::chrono::seconds kSilence{3};  // without a heartbeat, then a child counts as silent
constexpr size_t kChildrenMax = 1024;        // the head sends far fewer

json cbor_of(const json& body) { return json::binary(json::to_cbor(body)); }

bool is_item(const json& item) {
  return item.is_array() && item.size() == 4 && item[0].is_number_integer() && item[1].is_number_unsigned() &&
         item[2].is_number_unsigned() && item[3].is_binary();
}

}  // namespace

struct ChildRelay::Impl : std::enable_shared_from_this<ChildRelay::Impl> {
  struct Child {
    std::shared_ptr<Channel> channel;
    int node = -1;                // -1 before its hello
    Clock::time_point heard;      // of its last heartbeat, or since it is there
    json beats = json::array();   // of its subtree, since they were last passed on
    json silent = json::array();  // nodes below it
  };

  Impl(asio::io_context& i, int n, const Credentials& c, Events e)
      : io(i), own_node(n), credentials(c), events(std::move(e)), gather(i), pulse(i) {}

  void take_in(std::shared_ptr<Channel> channel);
  void on_message(const std::shared_ptr<Child>& child, Message message);
  void on_hello(const std::shared_ptr<Child>& child, Message& message);
  void on_heartbeat(Child& child, json& body);
  void on_closed(const std::shared_ptr<Child>& child);
  void add_item(json item);
  void flush();
  void send_pulses();
  void drop(const std::shared_ptr<Child>& child, const std::string& why);

  asio::io_context& io;
  const int own_node;
  const Credentials credentials;
  Events events;
  std::unique_ptr<Listener> listener;
  std::vector<std::shared_ptr<Child>> children;
  std::unordered_map<int, std::shared_ptr<Child>> routes;  // node below -> the child that leads there
  asio::steady_timer gather, pulse;
  bool gathering = false;
  json items = json::array();
  size_t item_bytes = 0;
  uint64_t dropped_outputs = 0;
};

// ------------------------------------------------------------------------------------------------------------ upwards

void ChildRelay::Impl::take_in(std::shared_ptr<Channel> channel) {
  if (children.size() >= kChildrenMax) return channel->abort();
  auto child = std::make_shared<Child>();
  child->channel = std::move(channel);
  child->heard = Clock::now();
  children.push_back(child);
  child->channel->start(
      [self = weak_from_this(), weak = std::weak_ptr(child)](Message message) {
        const auto s = self.lock();
        const auto alive = weak.lock();
        if (s && alive) s->on_message(alive, std::move(message));
      },
      [self = weak_from_this(), weak = std::weak_ptr(child)](const Status&) {
        const auto s = self.lock();
        const auto alive = weak.lock();
        if (s && alive) s->on_closed(alive);
      });
}

void ChildRelay::Impl::on_message(const std::shared_ptr<Child>& child, Message message) {
  if (child->node < 0 || message.type == MessageType::hello) return on_hello(child, message);
  switch (message.type) {
    case MessageType::heartbeat:
      return on_heartbeat(*child, message.body);
    case MessageType::stage_ask:
      return events.on_stage_ask(message.body, [to = std::weak_ptr(child->channel)](const json& part) {
        if (const auto channel = to.lock()) (void)channel->send(MessageType::stage_part, 0, part);
      });
    case MessageType::up: {
      const auto list = message.body.find("items");
      if (list == message.body.end() || !list->is_array()) return drop(child, "up without items");
      for (json& item : *list) {
        if (!is_item(item)) return drop(child, "a malformed item");
        const int node = item[0];
        // A node below says hello here before anything else, also when it was below another child before.
        if (item[1] == static_cast<unsigned>(MessageType::hello)) routes[node] = child;
        if (const auto at = routes.find(node); at == routes.end() || at->second != child) continue;
        if (item[1] == static_cast<unsigned>(MessageType::detached)) routes.erase(node);
        add_item(std::move(item));
      }
      return;
    }
    case MessageType::output:
      if (events.queued_up() > kOutputQueueBytesMax) {
        if (dropped_outputs++ % 1000 == 0)
          events.on_note("output of agents below is dropped: the head does not keep up");
        return;
      }
      break;
    default:
      break;
  }
  add_item(json::array({child->node, static_cast<unsigned>(message.type), message.attempt, cbor_of(message.body)}));
}

void ChildRelay::Impl::on_hello(const std::shared_ptr<Child>& child, Message& message) {
  const auto node = message.body.find("node");
  const bool valid = message.type == MessageType::hello && node != message.body.end() && node->is_number_integer() &&
                     (child->node < 0 || child->node == *node);
  if (!valid) return drop(child, "its hello was expected first, and only its own");
  child->node = *node;
  const auto old = routes.find(child->node);
  if (old != routes.end() && old->second != child && old->second->node == child->node) {
    drop(old->second, "its agent has come back");
  }
  routes[child->node] = child;
  message.body["parent"] = own_node;
  add_item(json::array({child->node, static_cast<unsigned>(message.type), message.attempt, cbor_of(message.body)}));
}

void ChildRelay::Impl::on_heartbeat(Child& child, json& body) {
  child.heard = Clock::now();
  // The newest of each rank is enough, and a child's message has all of its subtree.
  if (const auto ranks = body.find("ranks"); ranks != body.end() && ranks->is_array()) child.beats = std::move(*ranks);
  const auto silent = body.find("silent");
  child.silent = silent != body.end() && silent->is_array() ? std::move(*silent) : json::array();
}

void ChildRelay::Impl::on_closed(const std::shared_ptr<Child>& child) {
  if (std::erase(children, child) == 0) return;
  if (child->node < 0) return;
  const auto own = routes.find(child->node);
  const bool is_way = own != routes.end() && own->second == child;  // else it has come back below another child since
  std::erase_if(routes, [&](const auto& route) { return route.second == child; });
  events.on_note("the connection of node " + std::to_string(child->node) + " has ended");
  constexpr auto kDetached = static_cast<unsigned>(MessageType::detached);
  if (is_way) add_item(json::array({child->node, kDetached, 0U, cbor_of(json::object())}));
  if (!children.empty()) return;
  flush();
  events.on_childless();
}

void ChildRelay::Impl::drop(const std::shared_ptr<Child>& child, const std::string& why) {
  events.on_note("connection from " + child->channel->peer() + " dropped: " + why);
  child->channel->abort();
  on_closed(child);
}

void ChildRelay::Impl::add_item(json item) {
  item_bytes += item[3].get_binary().size() + 16;
  items.push_back(std::move(item));
  if (item_bytes > kUpBytesMax) return flush();
  if (std::exchange(gathering, true)) return;
  gather.expires_after(kGather);
  gather.async_wait([self = weak_from_this()](error_code error) {
    const auto s = self.lock();
    if (!error && s) s->flush();
  });
}

void ChildRelay::Impl::flush() {
  gathering = false;
  gather.cancel();
  item_bytes = 0;
  const json body{{"items", std::exchange(items, json::array())}};
  if (!body["items"].empty()) events.send_up(MessageType::up, body);
}

/// Now, and when the parent has sent none for a while.
void ChildRelay::Impl::send_pulses() {
  const json body{{"age_ms", events.silence().count()}};
  for (const auto& child : children) {
    if (child->node >= 0) (void)child->channel->send(MessageType::pulse, 0, body, Priority::urgent);
  }
  pulse.expires_after(kPulse);
  pulse.async_wait([self = weak_from_this()](error_code error) {
    const auto s = self.lock();
    if (!error && s) s->send_pulses();
  });
}

// ------------------------------------------------------------------------------------------------------------- public

ChildRelay::ChildRelay(asio::io_context& io, int node, const Credentials& credentials, Events events)
    : impl_(std::make_shared<Impl>(io, node, credentials, std::move(events))) {}

ChildRelay::~ChildRelay() {
  impl_->gather.cancel();
  impl_->pulse.cancel();
  for (const auto& child : impl_->children) child->channel->abort();
}

void ChildRelay::serve(const std::string& address) {
  json answer;
  if (!impl_->listener) {
    ListenerOptions options;
    options.address = address;
    auto opened =
        Listener::open(impl_->io, options, impl_->credentials, [self = impl_->weak_from_this()](auto channel) {
          if (const auto s = self.lock()) s->take_in(std::move(channel));
        });
    if (opened) {
      impl_->listener = *std::move(opened);
      impl_->send_pulses();
    } else {
      answer["error"] = opened.error().message;
    }
  }
  if (impl_->listener) answer = {{"address", address}, {"port", impl_->listener->port()}};
  impl_->events.send_up(MessageType::serving, answer);
}

std::optional<Message> ChildRelay::pass_down(const Message& message) {
  const auto to = message.body.find("to"), type = message.body.find("type"), body = message.body.find("body");
  const bool valid = to != message.body.end() && to->is_array() && type != message.body.end() &&
                     type->is_number_unsigned() && body != message.body.end() && body->is_binary();
  if (!valid) return std::nullopt;
  const auto inner = static_cast<MessageType>(type->get<uint16_t>());
  std::map<std::shared_ptr<Impl::Child>, std::vector<int>> by_child;
  std::optional<Message> own;
  const auto decoded = decode_body(body->get_binary());
  if (!decoded) return std::nullopt;
  for (const json& one : *to) {
    if (!one.is_number_integer()) continue;
    const int node = one;
    if (node == impl_->own_node)
      own = Message{inner, message.job, message.attempt, message.sequence, *decoded};
    else if (const auto at = impl_->routes.find(node); at != impl_->routes.end())
      by_child[at->second].push_back(node);
  }
  for (const auto& [child, nodes] : by_child) {
    if (nodes.size() == 1 && nodes[0] == child->node)
      (void)child->channel->send(inner, message.attempt, *decoded);
    else
      (void)child->channel->send(MessageType::down, message.attempt, {{"to", nodes}, {"type", *type}, {"body", *body}});
  }
  return own;
}

void ChildRelay::add_heartbeats(json& body) {
  json silent = json::array();
  for (const auto& child : impl_->children) {
    if (child->node < 0) continue;
    for (json& beat : child->beats) body["ranks"].push_back(std::move(beat));
    child->beats = json::array();
    for (const json& node : child->silent) silent.push_back(node);
    if (Clock::now() - child->heard > kSilence) silent.push_back(child->node);
  }
  if (!silent.empty()) body["silent"] = std::move(silent);
}

void ChildRelay::rejoin() {
  for (const auto& child : impl_->children) {
    if (child->node >= 0) (void)child->channel->send(MessageType::rejoin, 0, json::object(), Priority::urgent);
  }
}

void ChildRelay::pulse() {
  if (!impl_->children.empty()) impl_->send_pulses();
}

bool ChildRelay::has_children() const { return !impl_->children.empty(); }

}  // namespace mds::agent
