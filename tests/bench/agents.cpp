// How the tree of agents scales on one machine, over real sockets and TLS.
//
//   mds_bench_agents processes N   the real head and N real mdsagent processes (two each: guard and agent), each of
//   which
//                                  starts one rank, /bin/true
//   mds_bench_agents links N       the real head's end, and N agents' ends (parent link and child relay, no ranks, no
//                                  guard) in as few processes as --per-process says
//   options: --fan-out K, --limit-seconds S (exit code 1 when not all are ready by then), --per-process P
//
// Prints one row of a Markdown table. Memory: resident set of the head, and the mean of a sample of agents (resident
// and proportional: what is not shared).
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "agent/child_relay.hpp"
#include "agent/parent_link.hpp"
#include "agent/process_tree.hpp"
#include "agent/rank_process.hpp"
#include "launcher/head.hpp"
#include "launcher/head_tree.hpp"

using namespace mds;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

struct Options {
  std::string mode;
  int nodes = 0;
  int fan_out = launcher::HeadTree::kFanOut;
  int per_process = 1024;
  double limit_seconds = 0;  // 0: none
};

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

/// A field of a /proc file in MiB, such as VmRSS of status or Pss of smaps_rollup.
double mebibytes(const std::string& path, const std::string& field) {
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.rfind(field + ":", 0) == 0) return std::atof(line.c_str() + field.size() + 1) / 1024;
  }
  return 0;
}

struct Memory {
  double resident = 0, proportional = 0;
};

Memory mean_memory(const std::vector<pid_t>& pids) {
  Memory mean;
  for (const pid_t pid : pids) {
    const std::string proc = "/proc/" + std::to_string(pid);
    mean.resident += mebibytes(proc + "/status", "VmRSS") / static_cast<double>(pids.size());
    mean.proportional += mebibytes(proc + "/smaps_rollup", "Pss") / static_cast<double>(pids.size());
  }
  return mean;
}

int verdict(const Options& options, double ready) {
  if (options.limit_seconds == 0 || (ready > 0 && ready <= options.limit_seconds)) return 0;
  std::fprintf(stderr, "not all agents were ready within %g s\n", options.limit_seconds);
  return 1;
}

// --- real processes -------------------------------------------------------------------------------------------------

std::vector<pid_t> sample_of_agents() {
  std::vector<pid_t> agents;
  for (const agent::ProcessEntry& entry : agent::descendants(getpid())) {
    if (agents.size() < 64 && entry.parent != getpid()) agents.push_back(entry.pid);  // the guard is our child
  }
  return agents;
}

int run_processes(const Options& options) {
  char folder[] = "/tmp/mds-agents-XXXXXX";
  if (!mkdtemp(folder)) return 1;
  std::filesystem::create_directory(std::string(folder) + "/logs");
  launcher::HeadOptions head_options;
  head_options.supervisor.nodes = options.nodes;
  for (int n = 0; n < options.nodes; ++n) head_options.supervisor.node_of_rank.push_back(n);
  head_options.supervisor.runs_trainer = false;
  head_options.supervisor.agents_deadline = std::chrono::minutes(5);
  head_options.supervisor.start_deadline = std::chrono::minutes(5);
  head_options.backend_options.agent_program = MDS_TEST_AGENT;
  head_options.backend_options.run_folder = folder;
  head_options.fan_out = options.fan_out;
  head_options.node_start = [](int node, uint32_t attempt, int) {
    agent::NodeStart start;
    start.attempt = attempt;
    start.ranks.resize(1);
    start.ranks[0].rank = node;
    start.ranks[0].argv = {"/bin/true"};
    // Without the run's mark in its environment: the search for marked strangers at the end goes over all processes of
    // the machine, which here are those of all nodes.
    return start;
  };
  double joined = 0, started = 0;
  Memory agents;
  const auto begin = Clock::now();
  launcher::HeadObserver observer;
  observer.on_event = [&](const launcher::Event& event, const launcher::Effects& effects, const auto& state, auto) {
    for (const launcher::Effect& effect : effects) {
      if (effect.kind == launcher::EffectKind::report_cause) {
        std::fprintf(stderr, "an attempt has failed after %.1f s: %s\n", seconds_since(begin),
                     state.cause ? describe(*state.cause).c_str() : "?");
      }
      if (effect.kind != launcher::EffectKind::send_start || joined > 0) continue;
      joined = seconds_since(begin);
      agents = mean_memory(sample_of_agents());
    }
    if (event.kind == launcher::EventKind::rank_exited) started = seconds_since(begin);
  };
  observer.on_progress = [](auto, const auto&, auto) {};
  observer.on_output = [](const auto&) {};
  observer.on_note = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  auto head = launcher::Head::open(std::move(head_options), observer);
  if (!head) {
    std::fprintf(stderr, "%s\n", head.error().message.c_str());
    return 1;
  }
  const int exit_code = (*head)->run();
  const double all = seconds_since(begin);
  std::error_code ignored;
  std::filesystem::remove_all(folder, ignored);
  std::printf(
      "| agents | all joined | all ranks ended | agents gone | head, peak MiB | agent, MiB resident (own share) |\n"
      "|---|---|---|---|---|---|\n| %d | %.2f s | %.2f s | %.2f s | %.0f | %.1f (%.1f) |\n",
      options.nodes, joined, started, all, mebibytes("/proc/self/status", "VmHWM"), agents.resident,
      agents.proportional);
  return exit_code != 0 ? 1 : verdict(options, joined);
}

// --- links only -----------------------------------------------------------------------------------------------------

/// An agent without ranks: its place in the tree, and its heartbeats.
class LinkAgent {
 public:
  LinkAgent(boost::asio::io_context& io, const agent::Bootstrap& bootstrap)
      : link_(io, bootstrap, link_events()),
        relay_(io, bootstrap.node, bootstrap.credentials, relay_events()),
        node_(bootstrap.node),
        timer_(io) {
    link_.start([this] {
      return json{{"node", node_}, {"host", "h"}, {"pid", getpid()}, {"protocol", agent::kProtocolVersion}};
    });
  }

 private:
  agent::ParentLink::Events link_events() {
    agent::ParentLink::Events events;
    events.on_first_connection = [this] { beat(); };
    events.unwrap = [this](const agent::Message& message) { return relay_.pass_down(message); };
    events.on_message = [this](const agent::Message& message) {
      if (message.type == agent::MessageType::serve) relay_.serve(link_.local_address());
    };
    events.on_again = [this] { relay_.rejoin(); };
    events.on_lost = [](const Error&) { _exit(0); };
    events.on_note = [](const std::string&) {};
    return events;
  }
  agent::ChildRelay::Events relay_events() {
    return {[this](agent::MessageType type, const json& body) { link_.send(type, 0, body); },
            [this] { return link_.queued_bytes(); }, [] {}, [](const std::string&) {}};
  }
  void beat() {
    timer_.expires_after(std::chrono::seconds(1));
    timer_.async_wait([this](boost::system::error_code error) {
      if (error) return;
      json body{{"ranks", {{{"rank", node_}, {"beats", 1}, {"beat_age_ms", 0}, {"step", 1}}}}};
      relay_.add_heartbeats(body);
      link_.send(agent::MessageType::heartbeat, 0, body, agent::Priority::urgent);
      beat();
    });
  }

  agent::ParentLink link_;
  agent::ChildRelay relay_;
  int node_;
  boost::asio::steady_timer timer_;
};

[[noreturn]] void run_link_agents(agent::Bootstrap bootstrap, int first, int count) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  boost::asio::io_context io{1};
  std::vector<std::unique_ptr<LinkAgent>> agents;
  for (int i = 0; i < count; ++i) {
    bootstrap.node = first + i;
    agents.push_back(std::make_unique<LinkAgent>(io, bootstrap));
    io.poll();
  }
  io.run();
  _exit(0);
}

int run_links(const Options& options) {
  boost::asio::io_context io{1};
  const auto credentials = *agent::make_credentials();
  int joined = 0;
  double ready = 0;
  const auto begin = Clock::now();
  launcher::HeadTree::Events events;
  events.may_join = [](int, const agent::Message&) { return Status{}; };
  events.on_joined = [&](int, const agent::Message&) {
    if (++joined == options.nodes) ready = seconds_since(begin);
  };
  events.on_message = [](int, const agent::Message&) {};
  events.on_lost = [&](int node, const std::string& why) { std::fprintf(stderr, "lost %d: %s\n", node, why.c_str()); };
  events.on_control = [](const agent::Message&, const auto&) {};
  events.start_body = [](int, uint32_t) { return json::object(); };
  events.on_note = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  auto tree = launcher::HeadTree::open(io, {"127.0.0.1", options.nodes, options.fan_out}, credentials, events);
  if (!tree) return 1;
  std::vector<pid_t> children;
  for (int first = 0; first < options.nodes; first += options.per_process) {
    const pid_t child = fork();
    if (child == 0) {
      const agent::Bootstrap bootstrap{
          .head_address = "127.0.0.1", .head_port = (*tree)->port(), .credentials = credentials, .run_folder = "/"};
      run_link_agents(bootstrap, first, std::min(options.per_process, options.nodes - first));
    }
    children.push_back(child);
  }
  const double limit = options.limit_seconds > 0 ? options.limit_seconds : 300;
  while (ready == 0 && seconds_since(begin) < limit) io.run_one_for(std::chrono::milliseconds(100));
  const agent::Traffic at_join = (*tree)->traffic();
  io.run_for(std::chrono::seconds(5));
  agent::Traffic steady = (*tree)->traffic();
  const Memory memory = mean_memory(children);
  std::printf(
      "| agents | all joined | head: connections | messages (MB) to join | messages/s (kB/s) after | head, peak MiB "
      "| agent, MiB |\n|---|---|---|---|---|---|---|\n| %d | %.2f s | %d | %llu (%.1f) | %.0f (%.1f) | %.0f | %.2f |\n",
      options.nodes, ready, (*tree)->connections(),
      static_cast<unsigned long long>(at_join.received_messages + at_join.sent_messages),
      static_cast<double>(at_join.received_bytes + at_join.sent_bytes) / 1e6,
      static_cast<double>(steady.received_messages - at_join.received_messages) / 5,
      static_cast<double>(steady.received_bytes - at_join.received_bytes) / 5e3,
      mebibytes("/proc/self/status", "VmHWM"), memory.proportional / std::min(options.per_process, options.nodes));
  for (const pid_t child : children) kill(child, SIGKILL);
  while (wait(nullptr) > 0) {
  }
  return verdict(options, ready);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
    if (word == "--fan-out")
      options.fan_out = std::atoi(argv[++i]);
    else if (word == "--per-process")
      options.per_process = std::atoi(argv[++i]);
    else if (word == "--limit-seconds")
      options.limit_seconds = std::atof(argv[++i]);
    else if (options.mode.empty())
      options.mode = word;
    else
      options.nodes = std::atoi(word.c_str());
  }
  agent::raise_descriptor_limit();
  signal(SIGPIPE, SIG_IGN);
  if (options.nodes > 0 && options.mode == "processes") return run_processes(options);
  if (options.nodes > 0 && options.mode == "links") return run_links(options);
  std::fprintf(stderr,
               "usage: mds_bench_agents processes|links N [--fan-out K] [--per-process P] [--limit-seconds S]\n");
  return 2;
}
