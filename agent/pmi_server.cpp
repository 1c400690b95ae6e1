#include "agent/pmi_server.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

#include "agent/frame.hpp"

namespace mds::agent {

using nlohmann::json;

namespace {

constexpr size_t kLineBytesMax = 8 << 10;
constexpr size_t kKeyBytesMax = 64, kValueBytesMax = 1024, kKeysMax = 1 << 20;

/// "cmd=put key=a value=b" as its words.
std::map<std::string, std::string> words_of(const std::string& line) {
  std::map<std::string, std::string> out;
  std::istringstream words(line);
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    if (equals != std::string::npos) out.emplace(word.substr(0, equals), word.substr(equals + 1));
  }
  return out;
}

std::string word_of(const std::map<std::string, std::string>& words, const char* name) {
  const auto at = words.find(name);
  return at == words.end() ? "" : at->second;
}

}  // namespace

struct PmiServer::Client {
  Client(const boost::asio::any_io_executor& executor, int fd, int r) : socket(executor, fd), rank(r) {}

  boost::asio::posix::stream_descriptor socket;
  int rank;
  std::string text{};  // read, without a whole line
  bool at_barrier = false;
};

PmiServer::PmiServer(boost::asio::any_io_executor executor, MpiWorld world, Events events)
    : executor_(std::move(executor)), world_(std::move(world)), events_(std::move(events)) {
  const auto count = [](int n) { return std::to_string(n); };
  // Which ranks share a node: `nodes` nodes from the 0th on, so many ranks on each.
  seen_["PMI_process_mapping"] = "(vector,(0," + count(world_.nodes) + "," + count(world_.ranks_per_node) + "))";
}

PmiServer::~PmiServer() {
  boost::system::error_code ignored;
  for (const auto& client : clients_) client->socket.close(ignored);
}

Result<UniqueFd> PmiServer::connect(int rank) {
  int pair[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) return system_error("PMI socket", errno);
  clients_.push_back(std::make_shared<Client>(executor_, pair[0], rank));
  wait(clients_.back());
  return UniqueFd(pair[1]);
}

std::map<std::string, std::string> PmiServer::environment(int rank) const {
  // MPICH 5 ends with an error where it finds two protocols, ours for Open MPI the other, and is told neither.
  return {{"PMI_RANK", std::to_string(rank)},
          {"PMI_SIZE", std::to_string(world_.size)},
          {"MPIR_CVAR_PMI_VERSION", "1"}};
}

void PmiServer::wait(const std::shared_ptr<Client>& client) {
  client->socket.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                            [this, client, alive = std::weak_ptr<int>(alive_)](boost::system::error_code error) {
                              if (error || alive.expired()) return;
                              if (read(*client)) return wait(client);
                              boost::system::error_code ignored;
                              client->socket.close(ignored);
                            });
}

/// False when the rank has left, or speaks something else.
bool PmiServer::read(Client& client) {
  char chunk[4096];
  const ssize_t n = recv(client.socket.native_handle(), chunk, sizeof chunk, MSG_DONTWAIT);
  if (n < 0) return errno == EINTR || errno == EAGAIN;
  if (n == 0) return false;
  client.text.append(chunk, static_cast<size_t>(n));
  for (size_t end; (end = client.text.find('\n')) != std::string::npos; client.text.erase(0, end + 1)) {
    if (const Status done = obey(client, client.text.substr(0, end)); !done) {
      events_.on_note("rank " + std::to_string(client.rank) + ", PMI: " + done.error().message);
      return false;
    }
  }
  return client.text.size() <= kLineBytesMax;
}

Status PmiServer::obey(Client& client, const std::string& line) {
  const auto words = words_of(line);
  const std::string command = word_of(words, "cmd"), key = word_of(words, "key");
  if (command == "init") {
    const bool known = word_of(words, "pmi_version") == "1";
    answer(client, std::string("cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=") + (known ? "0" : "-1"));
  } else if (command == "get_maxes") {
    answer(client, "cmd=maxes rc=0 kvsname_max=256 keylen_max=" + std::to_string(kKeyBytesMax) +
                       " vallen_max=" + std::to_string(kValueBytesMax));
  } else if (command == "get_universe_size") {
    answer(client, "cmd=universe_size rc=0 size=" + std::to_string(world_.size));
  } else if (command == "get_appnum") {
    answer(client, "cmd=appnum rc=0 appnum=0");
  } else if (command == "get_my_kvsname") {
    answer(client, "cmd=my_kvsname rc=0 kvsname=mds");
  } else if (command == "put") {
    const std::string value = word_of(words, "value");
    if (key.empty() || key.size() > kKeyBytesMax || value.size() > kValueBytesMax || news_.size() >= kKeysMax) {
      return bad_input("a key or value is too long");
    }
    news_[key] = value;
    answer(client, "cmd=put_result rc=0 msg=success");
  } else if (command == "get") {
    const auto own = news_.find(key), at = own != news_.end() ? own : seen_.find(key);
    const bool found = own != news_.end() || at != seen_.end();
    answer(client, found ? "cmd=get_result rc=0 msg=success value=" + at->second
                         : std::string("cmd=get_result rc=-1 msg=key_not_found value=unknown"));
  } else if (command == "barrier_in") {
    return enter_barrier(client);
  } else if (command == "finalize") {
    answer(client, "cmd=finalize_ack rc=0");
  } else if (command == "abort") {
    const std::string text = word_of(words, "exitcode");
    int code = 0;
    std::from_chars(text.data(), text.data() + text.size(), code);
    events_.on_abort(client.rank, exit_code_of_abort(code));
  } else if (command == "publish_name" || command == "unpublish_name" || command == "lookup_name") {
    answer(client, "cmd=" + command.substr(0, command.find('_')) + "_result rc=-1 msg=not_supported");
  } else if (line.starts_with("mcmd=")) {
    return bad_input("no ranks can be added to a run (MPI_Comm_spawn)");
  } else {
    return bad_input("unknown request '" + line.substr(0, 80) + "'");
  }
  return {};
}

Status PmiServer::enter_barrier(Client& client) {
  client.at_barrier = true;
  const auto here = std::count_if(clients_.begin(), clients_.end(), [](const auto& c) { return c->at_barrier; });
  if (here < world_.ranks_per_node) return {};
  const std::vector<uint8_t> bytes = json::to_cbor(json(news_));
  events_.at_barrier(barriers_++, std::string(bytes.begin(), bytes.end()));
  return {};
}

Status PmiServer::on_barrier(const std::vector<std::string>& values) {
  for (const std::string& value : values) {
    const auto news = decode_body({reinterpret_cast<const uint8_t*>(value.data()), value.size()});
    if (!news) return corrupt("PMI: a node's news cannot be read");
    for (const auto& [key, text] : news->items()) {
      if (text.is_string()) seen_[key] = text.get<std::string>();
    }
  }
  news_.clear();
  for (const auto& client : clients_) {
    if (std::exchange(client->at_barrier, false)) answer(*client, "cmd=barrier_out rc=0");
  }
  return {};
}

/// A rank waits for each answer before it asks again, so that there is always room for one.
void PmiServer::answer(Client& client, const std::string& text) {
  const std::string line = text + "\n";
  const int fd = client.socket.is_open() ? client.socket.native_handle() : -1;
  if (fd >= 0 && send(fd, line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    events_.on_note("rank " + std::to_string(client.rank) + " does not read its PMI socket");
  }
}

}  // namespace mds::agent
