#include "agent/parent_link.hpp"

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "agent/replay.hpp"

namespace mds::agent {

using boost::system::error_code;
using nlohmann::json;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

namespace {

constexpr milliseconds kRetryFirst{20}, kRetryMax{500};

struct Address {
  std::string host;
  uint16_t port = 0;
};

std::optional<Address> address_from(const json& body) {
  const auto host = body.find("address"), port = body.find("port");
  if (host == body.end() || port == body.end() || !host->is_string() || !port->is_number_unsigned()) return {};
  if (port->get<uint64_t>() == 0 || port->get<uint64_t>() > 65535) return std::nullopt;
  return Address{host->get<std::string>(), port->get<uint16_t>()};
}

}  // namespace

struct ParentLink::Impl : std::enable_shared_from_this<ParentLink::Impl> {
  /// reaching: a connection is being made. asking: connected again, the head has not said yet what it has received.
  enum class State { idle, reaching, asking, open, closing, lost };

  Impl(boost::asio::io_context& i, const Bootstrap& b, Events e)
      : io(i),
        head{b.head_address, b.head_port},
        credentials(b.credentials),
        has_lease(b.head_address.rfind("127.", 0) != 0 && b.head_address != "::1"),
        events(std::move(e)),
        retry(i),
        silence(i),
        limit(i) {}

  void reach(const Address& to);
  void on_connected(const Address& to, Result<std::shared_ptr<Channel>> result);
  void say_hello();
  void on_message(Message message);
  void on_pulse(const Message& message);
  void on_attached(const Message& message);
  void on_closed(const Status& status);
  void again(const std::string& why);
  void try_later();
  void lose(const Error& error);
  void watch_silence();
  void drop_channel();

  boost::asio::io_context& io;
  const Address head;
  const Credentials credentials;
  const bool has_lease;
  Events events;
  std::function<json()> make_hello;
  json hello;
  State state = State::idle;
  std::shared_ptr<Channel> channel;
  bool at_head = true;         // the channel leads to the head itself
  bool was_connected = false;  // said hello once
  uint64_t hellos = 0;         // that said `again`: an answer to an earlier one is not the last word
  uint64_t tries = 0;          // tells answers to an earlier try from those to this one
  Clock::time_point deadline;  // for being connected
  milliseconds pause{kRetryFirst};
  boost::asio::steady_timer retry, silence;
  boost::asio::steady_timer limit;  // of being without a connection, whatever a try may wait for
  Clock::time_point heard;  // of the head, if by others
  uint64_t received = 0;  // counted messages
  Replay sent;
  std::function<void()> on_done;
};

// --------------------------------------------------------------------------------------------------------- connecting

void ParentLink::Impl::reach(const Address& to) {
  state = State::reaching;
  const uint64_t number = ++tries;
  ChannelOptions options;
  // In a crowd one waits for long; to give up and come again would only make it larger.
  options.handshake_timeout = was_connected ? kAgainLimit : kFirstLimit;
  Channel::connect(io, to.host, to.port, credentials, options,
                   [self = shared_from_this(), number, to](Result<std::shared_ptr<Channel>> result) {
                     if (self->state != State::reaching || self->tries != number) {
                       if (result) (*result)->abort();
                       return;
                     }
                     self->on_connected(to, std::move(result));
                   });
}

void ParentLink::Impl::on_connected(const Address& to, Result<std::shared_ptr<Channel>> result) {
  at_head = to.host == head.host && to.port == head.port;
  if (!result) {
    const bool hopeless = at_head && result.error().code != ErrorCode::unavailable;
    if (hopeless || Clock::now() >= deadline) return lose(result.error());
    return try_later();
  }
  channel = *std::move(result);
  channel->start(
      [self = weak_from_this()](Message m) {
        if (const auto s = self.lock()) s->on_message(std::move(m));
      },
      [self = weak_from_this(), raw = channel.get()](const Status& status) {
        const auto alive = self.lock();
        if (alive && alive->channel.get() == raw) alive->on_closed(status);
      });
  heard = Clock::now();
  say_hello();
  watch_silence();
}

void ParentLink::Impl::say_hello() {
  if (make_hello) hello = std::exchange(make_hello, nullptr)();
  // Only a head that has taken us in once knows what it has sent and received.
  json body = hello;
  if (was_connected) {
    body["again"] = ++hellos;
    body["received"] = received;
  }
  state = was_connected ? State::asking : State::open;
  // Not before what waits in the channel, which the head is to count. A failure is told by on_closed.
  (void)channel->send(MessageType::hello, 0, body);
  if (!was_connected && events.on_first_connection) std::exchange(events.on_first_connection, nullptr)();
}

void ParentLink::Impl::try_later() {
  retry.expires_after(pause);
  pause = std::min(2 * pause, kRetryMax);
  retry.async_wait([self = weak_from_this()](error_code error) {
    const auto alive = self.lock();
    if (!error && alive && alive->state == State::reaching) alive->reach(alive->head);
  });
}

void ParentLink::Impl::again(const std::string& why) {
  events.on_note("the way to the head is lost: " + why);
  drop_channel();
  deadline = Clock::now() + kAgainLimit;
  pause = kRetryFirst;
  limit.expires_at(deadline);
  limit.async_wait([self = weak_from_this(), why](error_code error) {
    const auto alive = self.lock();
    if (!error && alive && alive->state == State::reaching) alive->lose(unavailable(why));
  });
  reach(head);
}

void ParentLink::Impl::drop_channel() {
  silence.cancel();
  if (channel) channel->abort();
  channel.reset();
}

void ParentLink::Impl::lose(const Error& error) {
  state = State::lost;
  drop_channel();
  retry.cancel();
  limit.cancel();
  if (const auto handler = std::exchange(events.on_lost, nullptr)) handler(error);
}

// ----------------------------------------------------------------------------------------------------------- receiving

void ParentLink::Impl::on_message(Message message) {
  if (message.type != MessageType::pulse) heard = Clock::now();
  switch (message.type) {
    case MessageType::pulse:
      return on_pulse(message);
    case MessageType::join: {
      const auto to = address_from(message.body);
      if (!to || state == State::closing) return;
      drop_channel();
      return reach(*to);
    }
    case MessageType::attached:
      return on_attached(message);
    case MessageType::rejoin:
      return state == State::open || state == State::asking ? say_hello() : void();
    case MessageType::down:
      if (auto own = events.unwrap(message)) on_message(*std::move(own));
      return;
    default:
      break;
  }
  was_connected = true;  // the head speaks with us: from now on both sides count
  // What it sent before it knew what we have comes once more; but who is told to go need not ask.
  if (state == State::asking && is_counted(message.type) && message.type != MessageType::goodbye) return;
  if (is_counted(message.type)) ++received;
  if (state == State::closing) return;
  events.on_message(std::move(message));
}

/// A parent that has lost the head itself says since when.
void ParentLink::Impl::on_pulse(const Message& message) {
  const auto age = message.body.find("age_ms");
  const bool aged = age != message.body.end() && age->is_number_unsigned();
  const auto ms = aged ? std::min<uint64_t>(age->get<uint64_t>(), 3'600'000) : 0;
  const auto before = std::exchange(heard, Clock::now() - milliseconds(ms));
  if (heard < before) watch_silence();
  events.on_pulse();
}

void ParentLink::Impl::on_attached(const Message& message) {
  const auto number = message.body.find("again");
  if (state != State::asking || number == message.body.end() || *number != hellos) return;
  const auto count = message.body.find("received");
  const bool known = count != message.body.end() && count->is_number_unsigned();
  const auto missed = known ? sent.after(count->get<uint64_t>()) : std::nullopt;
  if (!missed) return lose(unavailable("too much was lost with the connection"));
  state = State::open;
  events.on_note("connected again to " + channel->peer() + ", " + std::to_string(missed->size()) +
                 " messages repeated");
  for (const Replay::Sent& one : *missed) {
    const json body = json::from_cbor(*one.body, /*strict=*/true, /*allow_exceptions=*/false);
    (void)channel->send(one.type, one.attempt, body);
  }
  events.on_again();
}

void ParentLink::Impl::on_closed(const Status& status) {
  const std::string why = status.ok() ? "closed" : status.error().message;
  channel.reset();
  silence.cancel();
  if (state == State::closing) {
    state = State::lost;
    if (const auto done = std::exchange(on_done, nullptr)) done();
    return;
  }
  // A peer that breaks the protocol will do so again.
  if (!status.ok() && status.error().code == ErrorCode::corrupt) return lose(status.error());
  again(why);
}

/// A parent that is stopped or cut off keeps its connections open: only its silence tells.
void ParentLink::Impl::watch_silence() {
  if (at_head && !has_lease) return;
  const std::chrono::seconds most = has_lease ? kSilenceLimit : kStarvedLimit;
  silence.expires_at(heard + most);
  silence.async_wait([self = weak_from_this(), most](error_code error) {
    const auto alive = self.lock();
    if (error || !alive || !alive->channel) return;
    if (Clock::now() < alive->heard + most) return alive->watch_silence();
    alive->again("the parent " + alive->channel->peer() + " says nothing any more");
  });
}

// -------------------------------------------------------------------------------------------------------------- public

ParentLink::ParentLink(boost::asio::io_context& io, const Bootstrap& bootstrap, Events events)
    : impl_(std::make_shared<Impl>(io, bootstrap, std::move(events))) {}

ParentLink::~ParentLink() {
  impl_->state = Impl::State::lost;
  impl_->drop_channel();
  impl_->retry.cancel();
  impl_->limit.cancel();
}

void ParentLink::start(std::function<json()> hello) {
  impl_->make_hello = std::move(hello);
  impl_->deadline = Clock::now() + kFirstLimit;
  impl_->reach(impl_->head);
}

void ParentLink::send(MessageType type, uint32_t attempt, const json& body, Priority priority) {
  const bool counted = is_counted(type);
  if (counted) impl_->was_connected = true;
  if (counted) impl_->sent.keep({type, attempt, std::make_shared<const std::vector<uint8_t>>(json::to_cbor(body))});
  if (impl_->state != Impl::State::open) return;
  if (Status sent = impl_->channel->send(type, attempt, body, priority); !sent)
    impl_->events.on_note(sent.error().message);
}

bool ParentLink::is_open() const { return impl_->state == Impl::State::open && impl_->channel; }
milliseconds ParentLink::silence() const {
  if (impl_->at_head && !impl_->has_lease) return milliseconds(0);
  return std::chrono::duration_cast<milliseconds>(Clock::now() - impl_->heard);
}
size_t ParentLink::queued_bytes() const { return impl_->channel ? impl_->channel->queued_bytes() : 0; }
std::string ParentLink::local_address() const { return impl_->channel ? impl_->channel->local_address() : ""; }

void ParentLink::close(std::function<void()> done) {
  impl_->on_done = std::move(done);
  if (!impl_->channel || impl_->state == Impl::State::closing) return;
  impl_->state = Impl::State::closing;
  impl_->channel->close();
}

}  // namespace mds::agent
