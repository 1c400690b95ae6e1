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
  for (const char* option : {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=20",
                             "ServerAliveInterval=15", "ServerAliveCountMax=8", "ControlPath=none", "LogLevel=ERROR"}) {
    words.insert(words.end(), {"-o", option});
  }
  words.insert(words.end(), {"-T", "-a", "-x", host, "--", program});
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

RemoteBackend::RemoteBackend(boost::asio::io_context& io, BackendOptions options, std::string name, Words words,
                             EndedHandler on_ended)
    : io_(io),
      options_(std::move(options)),
      name_(std::move(name)),
      words_(std::move(words)),
      on_ended_(std::move(on_ended)) {}

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
  if (connecting_.size() < kConnectingMax) return start(bootstrap);
  waiting_.push_back(bootstrap);
  return {};
}

Status RemoteBackend::start(const agent::Bootstrap& bootstrap) {
  const int node = bootstrap.node;
  auto words = words_(options_.hosts.at(static_cast<size_t>(node)));
  if (!words) return words.error();
  agent::Bootstrap line = bootstrap;
  line.lifeline = true;
  std::vector<std::string> environment = own_environment();
  // An mpirun that sees it was itself started by one refuses to work.
  std::erase_if(environment, [](const std::string& entry) { return is_of_mpirun(entry.substr(0, entry.find('='))); });
  const ChildSpec spec{.argv = *std::move(words),
                       .environment = std::move(environment),
                       .input = agent::to_line(line),
                       .keep_input_open = true,
                       .log_path = node_log_path(options_.run_folder, node)};
  auto child = Child::start(io_, spec, [this, node](const std::string& how) { on_child_ended(node, how); });
  if (!child) return child.error();
  agents_[node] = std::move(*child);
  connecting_.insert(node);
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
    if (const Status started = start(next); !started) end_later(next.node, started.error().message);
  }
}

void RemoteBackend::on_child_ended(int node, const std::string& how) {
  agents_.erase(node);
  connecting_.erase(node);
  start_waiting();
  on_ended_(node, "(" + name_ + ") " + how);
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
  const auto words = [ssh = *ssh, config = options.ssh_config, program = options.agent_program](
                         const std::string& host) { return ssh_words(ssh, config, host, program); };
  return std::unique_ptr<AgentBackend>(std::make_unique<RemoteBackend>(io, options, "ssh", words, std::move(on_ended)));
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
  const auto words = [mpirun = *mpirun, kind = *kind, program = options.agent_program](const std::string& host) {
    return mpirun_words(mpirun, kind, host, program);
  };
  return std::unique_ptr<AgentBackend>(
      std::make_unique<RemoteBackend>(io, options, "mpirun", words, std::move(on_ended)));
}

}  // namespace mds::launcher
