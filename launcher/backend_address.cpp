#include "launcher/backend_address.hpp"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <vector>

#include "agent/unique_fd.hpp"
#include "launcher/backend_child.hpp"
#include "slurm/host_list.hpp"

namespace mds::launcher {

namespace {

constexpr const char* kLoopback = "127.0.0.1";
constexpr size_t kAskedMax = 3;  // names that are looked up, beside the last: a name service may take its time
constexpr int kMasterPortMin = 20000, kMasterPorts = 10000;

/// An address of whatever family, with its length.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

std::string numeric(const SocketAddress& address) {
  char text[NI_MAXHOST] = "";
  getnameinfo(address.get(), address.length, text, sizeof text, nullptr, 0, NI_NUMERICHOST);
  return text;
}

/// IPv4 first, as that is what every cluster has.
std::optional<SocketAddress> look_up(const std::string& host) {
  for (const int family : {AF_INET, AF_INET6}) {
    addrinfo hints{}, *found = nullptr;
    hints.ai_family = family;
    hints.ai_socktype = SOCK_DGRAM;
    if (getaddrinfo(host.c_str(), nullptr, &hints, &found) != 0) continue;
    SocketAddress address;
    std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
    address.length = found->ai_addrlen;
    freeaddrinfo(found);
    return address;
  }
  return std::nullopt;
}

/// Slurm's own idea of its nodes' addresses, for names that only Slurm knows; one question for all of them. Those that
/// it does not know are missing.
std::map<std::string, SocketAddress> ask_slurm(const std::vector<std::string>& nodes) {
  std::map<std::string, SocketAddress> found;
  const auto scontrol = program_in_path("scontrol");
  if (!scontrol) return found;
  const auto text = output_of({*scontrol, "--oneliner", "show", "node", slurm::fold_hosts(nodes)});
  std::istringstream lines(text ? *text : "");
  const auto value = [](const std::string& line, const std::string& key) {
    const size_t at = (" " + line).find(" " + key + "=");
    if (at == std::string::npos) return std::string();
    const size_t begin = at + key.size() + 1;
    return line.substr(begin, line.find(' ', begin) - begin);
  };
  for (std::string line; std::getline(lines, line);) {
    if (const auto address = look_up(value(line, "NodeAddr"))) found[value(line, "NodeName")] = *address;
  }
  return found;
}

/// What ssh would connect to: its configuration may have a name of its own for it (Host, HostName).
std::optional<SocketAddress> ask_ssh(const std::string& config, const std::string& host) {
  const auto ssh = program_in_path("ssh");
  if (!ssh) return std::nullopt;
  std::vector<std::string> words{*ssh, "-G"};
  if (!config.empty()) words.insert(words.end(), {"-F", config});
  words.insert(words.end(), {"--", host});
  const auto text = output_of(words);
  const std::string key = "\nhostname ";
  const size_t at = text ? text->find(key) : std::string::npos;
  if (at == std::string::npos) return std::nullopt;
  const size_t begin = at + key.size();
  return look_up(text->substr(begin, text->find('\n', begin) - begin));
}

/// The source address of packets to `to`; nothing is sent.
std::optional<SocketAddress> way_to(const SocketAddress& to) {
  SocketAddress target = to, own;
  // Both families have the port in the same place; without one Linux does not connect.
  reinterpret_cast<sockaddr_in*>(&target.storage)->sin_port = htons(9);
  const agent::UniqueFd fd(socket(target.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  own.length = sizeof own.storage;
  if (connect(fd.get(), target.get(), target.length) != 0) return std::nullopt;
  if (getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own.storage), &own.length) != 0) return std::nullopt;
  return own;
}

bool is_loopback(const std::string& address) { return address.starts_with("127.") || address == "::1"; }

Result<std::string> address_of_interface(const std::string& name) {
  in6_addr any{};
  if (inet_pton(AF_INET, name.c_str(), &any) == 1 || inet_pton(AF_INET6, name.c_str(), &any) == 1) return name;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return system_error("getifaddrs", errno);
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(list, freeifaddrs);
  std::string known;
  for (const int family : {AF_INET, AF_INET6}) {
    for (const ifaddrs* one = list; one; one = one->ifa_next) {
      if (!one->ifa_addr || one->ifa_addr->sa_family != family) continue;
      SocketAddress address;
      address.length = family == AF_INET ? sizeof(sockaddr_in) : sizeof(sockaddr_in6);
      std::memcpy(&address.storage, one->ifa_addr, address.length);
      if (one->ifa_name == name) return numeric(address);
      known += (known.empty() ? "" : ", ") + std::string(one->ifa_name);
    }
  }
  return bad_input("job.interface = \"" + name + "\": this machine has no such interface with an address; it has " +
                   known);
}

std::string host_name() {
  char name[256] = "";
  gethostname(name, sizeof name - 1);
  return name;
}

/// Of the job's nodes the first few and the last.
std::vector<std::string> asked_names(const Job& job) {
  const size_t nodes = std::min(job.node_names.size(), static_cast<size_t>(job.nodes));
  std::vector<std::string> names(job.node_names.begin(), job.node_names.begin() + std::min(nodes, kAskedMax));
  if (nodes > kAskedMax) names.push_back(job.node_names[nodes - 1]);
  return names;
}

}  // namespace

Result<std::string> head_address(const Job& job) {
  if (!job.interface.empty()) return address_of_interface(job.interface);
  if (job.backend == Backend::local) return std::string(kLoopback);
  const std::vector<std::string> names = asked_names(job);
  std::optional<std::map<std::string, SocketAddress>> by_slurm;  // once a name was unknown to everybody else
  for (const std::string& node : names) {
    const std::string name = node.substr(node.rfind('@') + 1);  // "user@host"
    if (name == host_name()) continue;
    std::optional<SocketAddress> there = by_slurm ? std::nullopt : look_up(name);
    if (!there && job.backend == Backend::slurm) {
      if (!by_slurm) by_slurm = ask_slurm(names);
      if (const auto known = by_slurm->find(name); known != by_slurm->end()) there = known->second;
    }
    if (!there && job.backend == Backend::ssh) there = ask_ssh(job.ssh_config, node);
    if (!there)
      return bad_input("no address is known for the host " + name + "; set job.interface to what the nodes reach");
    const std::optional<SocketAddress> own = way_to(*there);
    if (!own) return bad_input("there is no way to the host " + name + " (" + numeric(*there) + ")");
    const std::string address = numeric(*own);
    if (!is_loopback(address) && address != numeric(*there)) return address;
  }
  return std::string(kLoopback);
}

MasterPlace master_place(const topology::Cluster& cluster, int node_of_rank_0,
                         const std::vector<std::string>& node_names, int free_port, unsigned seed) {
  const std::string& first = cluster.nodes.front().host;
  const bool one_machine = std::all_of(cluster.nodes.begin(), cluster.nodes.end(),
                                       [&](const topology::Machine& machine) { return machine.host == first; });
  const auto node = static_cast<size_t>(node_of_rank_0);
  const std::string& host = cluster.nodes[node].host;
  if (one_machine && host == host_name()) return {kLoopback, free_port};
  std::minstd_rand random(seed);
  const int port = kMasterPortMin + static_cast<int>(random() % kMasterPorts);
  const std::string name = node < node_names.size() ? node_names[node].substr(node_names[node].rfind('@') + 1) : host;
  return {one_machine ? kLoopback : name, host == host_name() ? free_port : port};
}

}  // namespace mds::launcher
