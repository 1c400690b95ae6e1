// The output of `ibnetdiscover`: every node with its ports and what is at the other end of their cables.
// The format is in its manual page (ibnetdiscover(8), "Topology file format").
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <unordered_map>

#include "topology/fabric/fabric_formats.hpp"

namespace mds::topology {
namespace {

constexpr size_t kLinksMax = 4'000'000;

/// Reads one line from left to right. Every getter skips blanks first and takes nothing where it does not fit.
class Scanner {
 public:
  explicit Scanner(std::string_view text) : rest_(text) {}

  bool take(std::string_view literal) {
    blanks();
    if (!rest_.starts_with(literal)) return false;
    rest_.remove_prefix(literal.size());
    return true;
  }
  std::optional<int> number() {
    blanks();
    int value = 0;
    const auto [end, failed] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (failed != std::errc() || value < 0) return std::nullopt;
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }
  std::optional<std::string_view> quoted() {
    blanks();
    const size_t end = rest_.starts_with('"') ? rest_.find('"', 1) : std::string_view::npos;
    if (end == std::string_view::npos) return std::nullopt;
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }
  /// "[3]", and "[ext 7]" after it where the switch is one of a chassis.
  std::optional<int> port() {
    if (!take("[")) return std::nullopt;
    const auto number = this->number();
    if (!number || !take("]")) return std::nullopt;
    if (take("[ext")) skip_past(']');
    return number;
  }
  /// "(b8599f0300fc6dec)", the GUID of a port, says nothing that the node's own does not.
  void parentheses() {
    if (take("(")) skip_past(')');
  }
  std::string_view rest() const { return rest_; }

 private:
  void blanks() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t"), rest_.size())); }
  void skip_past(char c) {
    const size_t found = rest_.find(c);
    rest_.remove_prefix(found == std::string_view::npos ? rest_.size() : found + 1);
  }

  std::string_view rest_;
};

/// "4xNDR" anywhere behind the last quote, in Gbit/s; 0 where there is none.
double gbps_of(std::string_view text) {
  // Data rate of a lane, rounded as vendors do: InfiniBand Architecture Specification, volume 2.
  constexpr std::array<std::pair<std::string_view, double>, 10> kLanes{{{"SDR", 2.5},
                                                                        {"DDR", 5},
                                                                        {"QDR", 10},
                                                                        {"FDR10", 10},
                                                                        {"FDR", 14},
                                                                        {"EDR", 25},
                                                                        {"HDR", 50},
                                                                        {"NDR", 100},
                                                                        {"XDR", 200},
                                                                        {"GDR", 400}}};
  const size_t quote = text.rfind('"');
  if (quote != std::string_view::npos) text.remove_prefix(quote + 1);
  while (!text.empty()) {
    const size_t end = std::min(text.find_first_of(" \t"), text.size());
    const std::string_view word = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    int lanes = 0;
    const auto [x, failed] = std::from_chars(word.data(), word.data() + word.size(), lanes);
    const auto behind = static_cast<size_t>(x - word.data());
    if (failed != std::errc() || lanes < 1 || lanes > 64 || behind == word.size() || *x != 'x') continue;
    for (const auto& [name, rate] : kLanes) {
      if (word.substr(behind + 1) == name) return lanes * rate;
    }
  }
  return 0;
}

/// A switch, an adapter or a router.
struct Device {
  char kind = 0;  ///< 'S', 'H' or 'R'
  std::string guid;
  std::string description;
};

struct Link {
  int from = 0, to = 0;  ///< indices of devices; every cable may stand twice
  int from_port = 0, to_port = 0;
  double gbps = 0;
};

struct Network {
  std::vector<Device> devices;
  std::vector<Link> links;
};

class Reader {
 public:
  Result<Network> read(std::string_view text, std::vector<std::string>& notes) {
    Lines lines(text);
    std::string_view line;
    size_t strange = 0;
    while (lines.next(line)) {
      Scanner scan(line);
      if (line.starts_with('[')) {
        if (const Status done = link(scan); !done) return at_line(lines.number(), done.error().message);
      } else if (scan.take("Switch") || scan.take("Ca") || scan.take("Rt")) {
        if (const Status done = device(scan); !done) return at_line(lines.number(), done.error().message);
      } else if (!line.empty() && line[0] != '#' && line.find('=') == std::string_view::npos &&
                 line.find("Chassis") == std::string_view::npos) {
        ++strange;
      }
    }
    if (strange > 0) notes.push_back(std::to_string(strange) + " lines that ibnetdiscover does not print were skipped");
    if (network_.devices.empty()) return bad_input("no switch and no adapter in this output of ibnetdiscover");
    return std::move(network_);
  }

 private:
  /// `41 "S-b8599f0300fc6de4"  # "MF0;sw95:MQM8700/U1" enhanced port 0 lid 13 lmc 0`
  Status device(Scanner scan) {
    const auto ports = scan.number();
    const auto id = scan.quoted();
    if (!ports || !id) return bad_input("expected the number of ports and the GUID in quotes");
    const auto index = device_called(*id);
    if (!index) return bad_input("expected \"S-GUID\", \"H-GUID\" or \"R-GUID\", not \"" + std::string(*id) + "\"");
    current_ = *index;
    scan.take("#");
    if (const auto description = scan.quoted()) network_.devices[current_].description = printable(*description);
    return {};
  }

  /// `[3] "H-ec0d9a03007d7d0a"[1](ec0d9a03007d7d0a)  # "node7 mlx5_0" lid 9 4xNDR`
  Status link(Scanner scan) {
    if (current_ < 0) return bad_input("a port before any Switch or Ca");
    const auto from_port = scan.port();
    scan.parentheses();
    const auto id = scan.quoted();
    const auto to_port = id ? scan.port() : std::nullopt;
    if (!from_port || !to_port) return bad_input("expected a port: [1] \"S-GUID\"[2] # \"description\" lid 1 4xNDR");
    const auto peer = device_called(*id);
    if (!peer) return bad_input("expected \"S-GUID\", \"H-GUID\" or \"R-GUID\", not \"" + std::string(*id) + "\"");
    scan.parentheses();
    if (network_.links.size() == kLinksMax) return bad_input("more than 4,000,000 ports");
    network_.links.push_back({current_, *peer, *from_port, *to_port, gbps_of(scan.rest())});
    Device& device = network_.devices[*peer];
    // Under a switch the first text is the peer's description; an adapter's own section may be missing.
    if (network_.devices[current_].kind == 'S' && scan.take("#")) {
      const auto description = scan.quoted();
      if (description && device.description.empty()) device.description = printable(*description);
    }
    return {};
  }

  std::optional<int> device_called(std::string_view id) {
    if (id.size() < 3 || id[1] != '-' || (id[0] != 'S' && id[0] != 'H' && id[0] != 'R')) return std::nullopt;
    const auto [found, added] = by_id_.try_emplace(std::string(id), static_cast<int>(network_.devices.size()));
    if (added) network_.devices.push_back({id[0], printable(id.substr(2)), ""});
    return found->second;
  }

  Network network_;
  std::unordered_map<std::string, int> by_id_;
  int current_ = -1;
};

/// "MF0;sw95:MQM8700/U1" as "sw95", a director's "MF0;dir:CS7500/L12/U1" as "dir/L12/U1"; others as they are.
std::string short_name(const std::string& description) {
  const size_t semicolon = description.find(';');
  const size_t colon = description.find(':', std::min(semicolon, description.size()));
  if (semicolon == std::string::npos || colon == std::string::npos || colon == semicolon + 1) return description;
  const size_t slash = std::min(description.find('/', colon), description.size());
  std::string place = description.substr(slash);
  if (place == "/U1") place.clear();
  return description.substr(semicolon + 1, colon - semicolon - 1) + place;
}

/// Switches by unique names for people: the short one, or where several share it the description with the GUID.
std::vector<std::string> names_of(const std::vector<Device>& devices) {
  std::map<std::string, int> switches;
  for (const Device& d : devices) {
    if (d.kind == 'S') ++switches[short_name(d.description)];
  }
  std::vector<std::string> names;
  for (const Device& d : devices) {
    const std::string name = short_name(d.description);
    const bool good = !name.empty() && switches[name] == 1;
    names.push_back(good ? name : (d.description.empty() ? "switch" : d.description) + " " + d.guid);
  }
  return names;
}

/// "node7 mlx5_0" or "node7 HCA-1": the host and its adapter.
struct Adapter {
  std::string host, nic;
};

std::optional<Adapter> adapter_of(const std::string& description) {
  if (description.find("Aggregation Node") != std::string::npos) return std::nullopt;
  const size_t space = std::min(description.find(' '), description.size());
  const std::string host = description.substr(0, space);
  const std::string rest = space == description.size() ? "" : description.substr(space + 1);
  const std::string nic = rest.substr(0, rest.find(' '));
  const bool device = nic.starts_with("HCA-") || nic.find_first_of("0123456789") != std::string::npos;
  // "MT4129 ConnectX7 Mellanox Technologies" is what an adapter calls itself while its host has not named it.
  const bool unnamed = host.empty() || description.find("Mellanox Technologies") != std::string::npos ||
                       description.find("InfiniHost") != std::string::npos;
  if (unnamed || (!rest.empty() && !device)) return std::nullopt;
  return Adapter{host, nic};
}

/// Neighbours of every switch, each once; and how many cables to adapters it has.
struct Graph {
  std::vector<std::vector<int>> neighbours;
  std::vector<int> hosts;
};

Graph graph_of(const Network& network) {
  Graph graph{std::vector<std::vector<int>>(network.devices.size()), std::vector<int>(network.devices.size())};
  std::set<std::pair<int, int>> cables;
  for (const Link& link : network.links) {
    const bool up = network.devices[link.from].kind == 'H';
    const int a = up ? link.to : link.from, b = up ? link.from : link.to;
    if (network.devices[a].kind != 'S') continue;
    if (network.devices[b].kind == 'S') {
      if (a == b) continue;
      graph.neighbours[a].push_back(b);
      graph.neighbours[b].push_back(a);
    } else if (network.devices[b].kind == 'H' && adapter_of(network.devices[b].description)) {
      if (cables.insert({b, up ? link.from_port : link.to_port}).second) ++graph.hosts[a];
    }
  }
  for (auto& list : graph.neighbours) {
    std::sort(list.begin(), list.end());
    list.erase(std::unique(list.begin(), list.end()), list.end());
  }
  return graph;
}

/// A spine on which a management host hangs is no leaf: its neighbours have twice as many hosts and no more switches.
bool is_leaf(const Graph& graph, int index) {
  if (graph.hosts[index] == 0) return false;
  const auto outranked = [&](int other) {
    return graph.hosts[other] >= 2 * graph.hosts[index] &&
           graph.neighbours[other].size() <= graph.neighbours[index].size();
  };
  const auto has_hosts = [&](int other) { return graph.hosts[other] > 0; };
  const auto& around = graph.neighbours[index];
  const auto leaves = std::count_if(around.begin(), around.end(), has_hosts);
  return leaves < 2 || !std::all_of(around.begin(), around.end(), [&](int o) { return !has_hosts(o) || outranked(o); });
}

/// How many cables each switch is away from the nearest leaf, -1 without a way.
std::vector<int> levels_of(const Graph& graph) {
  std::vector<int> levels(graph.hosts.size(), -1), queue;
  for (size_t i = 0; i < levels.size(); ++i) {
    if (!is_leaf(graph, static_cast<int>(i))) continue;
    levels[i] = 0;
    queue.push_back(static_cast<int>(i));
  }
  for (size_t next = 0; next < queue.size(); ++next) {
    for (const int other : graph.neighbours[queue[next]]) {
      if (levels[other] >= 0) continue;
      levels[other] = levels[queue[next]] + 1;
      queue.push_back(other);
    }
  }
  return levels;
}

/// Every adapter's port with the switch at its other end, each once.
Status add_ports(const Network& network, const std::vector<std::string>& names, FabricBuilder& builder,
                 std::vector<std::string>& notes) {
  std::set<std::pair<int, int>> seen;
  std::map<std::pair<std::string, std::string>, int> owner;
  std::set<int> unnamed, repeated;
  for (const Link& link : network.links) {
    const bool up = network.devices[link.from].kind == 'H';
    const int adapter = up ? link.from : link.to, leaf = up ? link.to : link.from;
    const int port = up ? link.from_port : link.to_port;
    if (network.devices[adapter].kind != 'H' || network.devices[leaf].kind != 'S') continue;
    if (!seen.insert({adapter, port}).second) continue;
    const auto who = adapter_of(network.devices[adapter].description);
    if (!who) {
      if (network.devices[adapter].description.find("Aggregation Node") == std::string::npos) unnamed.insert(adapter);
      continue;
    }
    if (owner.try_emplace({who->host, who->nic}, adapter).first->second != adapter) repeated.insert(adapter);
    // As NCCL_IB_HCA and NCCL's logs write the second port.
    const std::string nic = port > 1 && !who->nic.empty() ? who->nic + ":" + std::to_string(port) : who->nic;
    const Status added = builder.add_port({who->host, nic, builder.switch_named(names[leaf]), link.gbps});
    if (!added) return added;
  }
  if (!unnamed.empty()) {
    notes.push_back(std::to_string(unnamed.size()) + " adapters do not say whose they are (for example \"" +
                    network.devices[*unnamed.begin()].description +
                    "\") and were skipped: set their node descriptions");
  }
  if (!repeated.empty()) {
    notes.push_back(std::to_string(repeated.size()) + " adapters have the same description as another one (\"" +
                    network.devices[*repeated.begin()].description + "\"): set their node descriptions");
  }
  return {};
}

}  // namespace

Result<Fabric> read_ibnetdiscover(std::string_view text, std::vector<std::string>& notes) {
  const auto network = Reader().read(text, notes);
  if (!network) return network.error();
  const Graph graph = graph_of(*network);
  const std::vector<int> levels = levels_of(graph);
  const std::vector<std::string> names = names_of(network->devices);
  FabricBuilder builder;
  size_t sideways = 0, lonely = 0;
  for (size_t i = 0; i < network->devices.size(); ++i) {
    if (network->devices[i].kind != 'S') continue;
    if (levels[i] < 0) {
      ++lonely;
      continue;
    }
    const int self = builder.switch_named(names[i]);
    for (const int other : graph.neighbours[i]) {
      if (levels[other] == levels[i] + 1) builder.connect(self, builder.switch_named(names[other]));
      sideways += levels[other] == levels[i];
    }
  }
  if (sideways > 0) {
    notes.push_back(std::to_string(sideways / 2) + " cables between switches of one level were left out of the tree");
  }
  if (lonely > 0) notes.push_back(std::to_string(lonely) + " switches that no host can reach were skipped");
  if (const Status added = add_ports(*network, names, builder, notes); !added) return added.error();
  return std::move(builder).finish();
}

}  // namespace mds::topology
