#include "launcher/backend_remote.hpp"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cctype>
#include <chrono>
#include <csignal>

#include "launcher/surroundings.hpp"

namespace mds::launcher {

namespace {

bool is_plain(const std::string& word, const char* more) {
  const auto plain = [&](unsigned char c) { return std::isalnum(c) || std::string(more).find(c) != std::string::npos; };
  return !word.empty() && word[0] != '-' && std::all_of(word.begin(), word.end(), plain);
}

Status check_words(const std::string& host, const std::string& program) {
  if (!is_plain(host, ".-_@:")) return bad_input("'" + host + "' is no host name that another machine has");
  if (!is_plain(program, "./-_+=@%,")) {
    return bad_input("mdsagent's path " + program +
                     " has a letter that a remote shell might not take as it is; install it in a folder with a plain "
                     "name");
  }
  return {};
}

void add_ssh_options(std::vector<std::string>& words) {
  for (const char* option : {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=20",
                             "ServerAliveInterval=15", "ServerAliveCountMax=8", "ControlPath=none", "LogLevel=ERROR"}) {
    words.insert(words.end(), {"-o", option});
  }
}

}  // namespace

Result<MpiKind> mpi_kind(const std::string& version_text) {
  const auto says = [&](const char* words) { return version_text.find(words) != std::string::npos; };
  if (says("Open MPI") || says("OpenRTE") || says("PRRTE")) return MpiKind::open_mpi;
  if (says("Intel(R) MPI")) return MpiKind::intel;
  if (says("HYDRA") || says("MPICH")) return MpiKind::hydra;
  return bad_input("mpirun is neither Open MPI's nor MPICH's (Hydra) nor Intel MPI's; its --version says \"" +
                   version_text.substr(0, version_text.find('\n')).substr(0, 80) + "\"");
}

Result<std::vector<std::string>> ssh_words(const std::string& ssh, const std::string& config, const std::string& host,
                                           const std::string& program) {
  if (Status s = check_words(host, program); !s) return s.error();
  std::vector<std::string> words{ssh};
  if (!config.empty()) words.insert(words.end(), {"-F", config});
  add_ssh_options(words);
  words.insert(words.end(), {"-T", "-a", "-x", host, "--", program});
  return words;
}

Result<std::vector<std::string>> scp_words(const std::string& scp, const std::string& config,
                                           const std::string& program, const std::string& host,
                                           const std::string& copy) {
  if (Status s = check_words(host, copy); !s) return s.error();
  std::vector<std::string> words{scp};
  if (!config.empty()) words.insert(words.end(), {"-F", config});
  add_ssh_options(words);
  const size_t at = host.find('@') == std::string::npos ? 0 : host.find('@') + 1;
  const bool is_ipv6 = host.find(':') != std::string::npos;
  const std::string place = is_ipv6 ? host.substr(0, at) + "[" + host.substr(at) + "]" : host;
  words.insert(words.end(), {"-q", "-p", "--", program, place + ":" + copy});
  return words;
}

Result<std::vector<std::string>> mpirun_words(const std::string& mpirun, MpiKind kind, const std::string& host,
                                              const std::string& program) {
  if (Status s = check_words(host, program); !s) return s.error();
  std::vector<std::string> words{mpirun};
  if (kind == MpiKind::open_mpi) {
    if (geteuid() == 0) words.push_back("--allow-run-as-root");
    words.insert(words.end(), {"-np", "1", "--host", host, "--bind-to", "none"});
  } else {
    words.insert(words.end(), {"-n", "1", "-hosts", host});
    if (kind == MpiKind::hydra) words.insert(words.end(), {"-bind-to", "none"});
    if (kind == MpiKind::intel) words.insert(words.end(), {"-genv", "I_MPI_PIN", "0"});
  }
  words.push_back(program);
  return words;
}

RemoteBackend::RemoteBackend(boost::asio::io_context& io, BackendOptions options, Ways ways, EndedHandler on_ended)
    : io_(io), options_(std::move(options)), ways_(std::move(ways)), on_ended_(std::move(on_ended)) {}

RemoteBackend::~RemoteBackend() {
  using std::chrono::milliseconds;
  for (auto& [node, child] : agents_) child->end_input();
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  for (auto& [node, child] : agents_) {
    const auto left = std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    child->wait(std::max(milliseconds(0), left));
  }
}

Status RemoteBackend::start_agent(const agent::Bootstrap& bootstrap) {
  if (agents_.count(bootstrap.node))
    return internal("node " + std::to_string(bootstrap.node) + " has an agent already");
  if (connecting_.size() < kConnectingMax) return begin(bootstrap);
  waiting_.push_back(bootstrap);
  return {};
}

Status RemoteBackend::begin(const agent::Bootstrap& bootstrap) {
  const bool sends = !options_.agent_copy.path.empty() && ways_.copy;
  const Status begun = sends ? copy(bootstrap) : start(bootstrap);
  if (begun) connecting_.insert(bootstrap.node);
  return begun;
}

/// Virtual nodes may be one machine: each has a copy of its own, which it removes.
std::string RemoteBackend::program_on(int node) const {
  const std::string& copy = options_.agent_copy.path;
  return copy.empty() ? options_.agent_program : copy + "-" + std::to_string(node);
}

Status RemoteBackend::copy(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  auto words = ways_.copy(options_.hosts.at(static_cast<size_t>(node)), program_on(node));
  if (!words) return words.error();
  return start_child(bootstrap, {.argv = *std::move(words)}, [this, bootstrap, node](const std::string& how) {
    agents_.erase(node);
    if (how != Child::kExitedWell) return on_child_ended(node, "could not send mdsagent: scp " + how);
    if (const Status started = start(bootstrap); !started) on_child_ended(node, started.error().message);
  });
}

Status RemoteBackend::start(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  auto words = ways_.start(options_.hosts.at(static_cast<size_t>(node)), program_on(node));
  if (!words) return words.error();
  agent::Bootstrap line = bootstrap;
  line.lifeline = true;
  return start_child(bootstrap, {.argv = *std::move(words), .input = agent::to_line(line), .keep_input_open = true},
                     [this, node](const std::string& how) { on_child_ended(node, how); });
}

Status RemoteBackend::start_child(const agent::Bootstrap& bootstrap, ChildSpec spec,
                                  std::function<void(const std::string&)> ended) {
  spec.environment = own_environment();
  // An mpirun that sees it was itself started by one refuses to work.
  std::erase_if(spec.environment,
                [](const std::string& entry) { return is_of_mpirun(entry.substr(0, entry.find('='))); });
  spec.log_path = node_log_path(options_.run_folder, bootstrap.node);
  auto child = Child::start(io_, spec, std::move(ended));
  if (!child) return child.error();
  agents_[bootstrap.node] = std::move(*child);
  return {};
}

void RemoteBackend::joined(int node) {
  connecting_.erase(node);
  start_waiting();
}

void RemoteBackend::start_waiting() {
  while (!waiting_.empty() && connecting_.size() < kConnectingMax) {
    const agent::Bootstrap next = waiting_.front();
    waiting_.pop_front();
    if (const Status started = begin(next); !started) end_later(next.node, started.error().message);
  }
}

void RemoteBackend::on_child_ended(int node, const std::string& how) {
  agents_.erase(node);
  connecting_.erase(node);
  start_waiting();
  on_ended_(node, "(" + ways_.name + ") " + how);
}

void RemoteBackend::end_later(int node, const std::string& how) {
  boost::asio::post(io_, [this, node, how, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) on_ended_(node, how);
  });
}

void RemoteBackend::kill_agent(int node) {
  const auto is_it = [&](const agent::Bootstrap& bootstrap) { return bootstrap.node == node; };
  if (const auto it = std::find_if(waiting_.begin(), waiting_.end(), is_it); it != waiting_.end()) {
    waiting_.erase(it);
    end_later(node, "was not started");
  }
  if (const auto it = agents_.find(node); it != agents_.end()) {
    it->second->end_input();
    it->second->signal(SIGTERM);
  }
}

Result<std::unique_ptr<AgentBackend>> make_ssh_backend(boost::asio::io_context& io, const BackendOptions& options,
                                                       AgentBackend::EndedHandler on_ended) {
  const auto ssh = program_in_path("ssh");
  if (!ssh) return ssh.error().within("job.backend = \"ssh\"");
  RemoteBackend::Ways ways;
  ways.name = "ssh";
  ways.start = [ssh = *ssh, config = options.ssh_config](const std::string& host, const std::string& program) {
    return ssh_words(ssh, config, host, program);
  };
  if (!options.agent_copy.path.empty()) {
    const auto scp = program_in_path("scp");
    if (!scp) return scp.error().within("stage.enabled");
    ways.copy = [scp = *scp, config = options.ssh_config, agent = options.agent_program](
                    const std::string& host, const std::string& copy) {
      return scp_words(scp, config, agent, host, copy);
    };
  }
  return std::unique_ptr<AgentBackend>(
      std::make_unique<RemoteBackend>(io, options, std::move(ways), std::move(on_ended)));
}

Result<std::unique_ptr<AgentBackend>> make_mpi_backend(boost::asio::io_context& io, const BackendOptions& options,
                                                       AgentBackend::EndedHandler on_ended) {
  const std::string name = options.mpirun.empty() ? "mpirun" : options.mpirun;
  const auto mpirun = name.starts_with('/') ? Result<std::string>(name) : program_in_path(name);
  if (!mpirun) return mpirun.error().within("job.backend = \"mpi\"");
  const auto version = output_of({*mpirun, "--version"});
  if (!version) return version.error();
  const auto kind = mpi_kind(*version);
  if (!kind) return kind.error();
  RemoteBackend::Ways ways;
  ways.name = "mpirun";
  ways.start = [mpirun = *mpirun, kind = *kind](const std::string& host, const std::string& program) {
    return mpirun_words(mpirun, kind, host, program);
  };
  return std::unique_ptr<AgentBackend>(
      std::make_unique<RemoteBackend>(io, options, std::move(ways), std::move(on_ended)));
}

}  // namespace mds::launcher
