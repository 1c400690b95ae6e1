#include "launcher/node_networks.hpp"

#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <cerrno>
#include <thread>

#include "launcher/backend_child.hpp"

namespace mds::launcher {

namespace {

using agent::UniqueFd;

constexpr const char* kSwitch = "switch";
constexpr int kFirstNode = 2;  // 10.88.0.1 is the head's

/// A namespace is a thread's: the launcher's own thread stays where it is, so that nsenter finds it there at any time.
template <typename Work>
Status in_thread(const Work& work) {
  Status done;
  std::thread([&] { done = work(); }).join();
  return done;
}

Status leave_namespace() {
  if (unshare(CLONE_NEWNET) == 0) return {};
  if (errno != EPERM) return system_error("job.netns: cannot make a network namespace", errno);
  return unavailable(
      "job.netns: only root may make network namespaces; where users may make user namespaces, this does: "
      "unshare --user --map-root-user mdslaunch ...");
}

/// Debian's users do not have its folder in PATH.
Result<std::string> find_ip() {
  if (access("/usr/sbin/ip", X_OK) == 0) return std::string("/usr/sbin/ip");
  auto found = program_in_path("ip");
  return found ? found : unavailable("job.netns needs the program ip: install iproute2");
}

/// `words` of ip(8), in the thread's namespace.
Status run_ip(const std::string& ip, std::vector<std::string> words) {
  words.insert(words.begin(), ip);
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : " ") + word;
  const auto done = output_of(words);
  return done ? Status{} : Status(done.error().within("job.netns: " + text));
}

Status run_all(const std::string& ip, const std::vector<std::vector<std::string>>& commands) {
  for (const auto& words : commands) {
    if (Status s = run_ip(ip, words); !s) return s;
  }
  return {};
}

}  // namespace

std::string NodeNetworks::address(int node) {
  const int number = kFirstNode + node;
  return "10.88." + std::to_string(number / 256) + "." + std::to_string(number % 256);
}

Result<std::unique_ptr<NodeNetworks>> NodeNetworks::make(int nodes) {
  const auto ip = find_ip();
  if (!ip) return ip.error();
  auto networks = std::make_unique<NodeNetworks>();
  if (Status left = leave_namespace(); !left) return left.error();
  const Status ready = run_all(*ip, {{"link", "set", "lo", "up"},
                                     {"link", "add", kSwitch, "up", "type", "bridge", "forward_delay", "0"},
                                     {"address", "add", std::string(kHead) + "/16", "dev", kSwitch}});
  if (!ready) return ready.error();
  for (int node = 0; node < nodes; ++node) {
    if (Status added = networks->add_node(*ip, node); !added) return added.error();
  }
  return networks;
}

Status NodeNetworks::add_node(const std::string& ip, int node) {
  const Status made = in_thread([&] {
    if (Status left = leave_namespace(); !left) return left;
    nodes_.emplace_back(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    return nodes_.back() ? Status{} : Status(system_error("/proc/thread-self/ns/net", errno));
  });
  if (!made) return made;
  const std::string path = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(nodes_.back().get());
  const std::string port = "node" + std::to_string(node);
  const Status linked = run_ip(ip, {"link", "add", port, "up", "master", kSwitch, "type", "veth", "peer", "name",
                                    kInterface, "netns", path});
  if (!linked) return linked;
  return inside(node, [&] {
    return run_all(ip, {{"link", "set", "lo", "up"},
                        {"address", "add", address(node) + "/16", "dev", kInterface},
                        {"link", "set", kInterface, "up"}});
  });
}

Status NodeNetworks::inside(int node, const std::function<Status()>& start) const {
  return in_thread([&] {
    const int there = nodes_.at(static_cast<size_t>(node)).get();
    return setns(there, CLONE_NEWNET) == 0 ? start() : Status(system_error("setns", errno));
  });
}

}  // namespace mds::launcher
