// How the tree of agents scales on one machine, over real sockets and TLS.
//
//   mds_bench_agents processes N   the real head and N real mdsagent processes (two each: guard and agent), each of
//                                  which starts one rank, /bin/true
//   mds_bench_agents links N       the real head's end, and N agents' ends (parent link and child relay, no ranks, no
//                                  guard) in as few processes as --per-process says
//   options: --fan-out K, --limit-seconds S (exit code 1 when not all are ready by then), --per-process P,
//            --agent FILE (another mdsagent than that of this build)
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
  int per_process = 256;
  double limit_seconds = 0;  // 0: none
  std::string agent_program = MDS_TEST_AGENT;
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

std::vector<agent::ProcessEntry> sample_of_agents() {
  std::vector<agent::ProcessEntry> agents;
  for (const agent::ProcessEntry& entry : agent::descendants(getpid())) {
    if (agents.size() < 64 && entry.parent != getpid()) agents.push_back(entry);  // the guard is our child
  }
  return agents;
}

/// Time that a process with one thread has had a core, in ms.
double processor_ms(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/schedstat");
  double nanoseconds = 0;
  file >> nanoseconds;
  return nanoseconds / 1e6;
}

struct AgentCost {
  Memory memory;
  double processor_ms = 0;  // of guard and agent
};

AgentCost mean_cost(const std::vector<agent::ProcessEntry>& agents) {
  AgentCost cost;
  std::vector<pid_t> pids;
  for (const agent::ProcessEntry& entry : agents) {
    pids.push_back(entry.pid);
    cost.processor_ms += (processor_ms(entry.pid) + processor_ms(entry.parent)) / static_cast<double>(agents.size());
  }
  cost.memory = mean_memory(pids);
  return cost;
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
  head_options.backend_options.agent_program = options.agent_program;
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
  double joined = 0, started = 0, head_ms = 0;
  AgentCost agents;
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
      head_ms = processor_ms(getpid());
      agents = mean_cost(sample_of_agents());
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
      "| agents | all joined | all ranks ended | agents gone | head, peak MiB | agent, MiB resident (own share) "
      "| processor time to join: head, an agent |\n"
      "|---|---|---|---|---|---|---|\n| %d | %.2f s | %.2f s | %.2f s | %.0f | %.1f (%.1f) | %.2f s, %.2f ms |\n",
      options.nodes, joined, started, all, mebibytes("/proc/self/status", "VmHWM"), agents.memory.resident,
      agents.memory.proportional, head_ms / 1e3, agents.processor_ms);
  return exit_code != 0 ? 1 : verdict(options, joined);
}

// --- links only -----------------------------------------------------------------------------------------------------

constexpr int kConnectingMax = 4;  // links of one process that connect at a time

/// An agent without ranks: its place in the tree, and its heartbeats.
class LinkAgent {
 public:
  LinkAgent(boost::asio::io_context& io, const agent::Bootstrap& bootstrap, std::function<void()> on_connected)
      : on_connected_(std::move(on_connected)),
        link_(io, bootstrap, link_events()),
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
    events.on_first_connection = [this] {
      on_connected_();
      beat();
    };
    events.unwrap = [this](const agent::Message& message) { return relay_.pass_down(message); };
    events.on_message = [this](const agent::Message& message) {
      if (message.type == agent::MessageType::serve) relay_.serve(link_.local_address());
    };
    events.on_again = [this] { relay_.rejoin(); };
    events.on_lost = [](const Error& error) {
      std::fprintf(stderr, "an agent is lost: %s\n", error.message.c_str());
      _exit(1);
    };
    events.on_note = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
    return events;
  }
  agent::ChildRelay::Events relay_events() {
    agent::ChildRelay::Events events;
    events.send_up = [this](agent::MessageType type, const json& body) { link_.send(type, 0, body); };
    events.queued_up = [this] { return link_.queued_bytes(); };
    events.on_childless = [] {};
    events.on_note = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
    events.silence = [this] { return link_.silence(); };
    return events;
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

  std::function<void()> on_connected_;
  agent::ParentLink link_;
  agent::ChildRelay relay_;
  int node_;
  boost::asio::steady_timer timer_;
};

/// Begins when nobody holds the other end of the pipe `gate` any more: who joins first has children to serve, and these
/// agents should not all be of the process that was forked first.
[[noreturn]] void run_link_agents(agent::Bootstrap bootstrap, int first, int count, int gate) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  char nothing;
  while (read(gate, &nothing, 1) > 0) {
  }
  boost::asio::io_context io{1};
  std::vector<std::unique_ptr<LinkAgent>> agents;
  int connected = 0;
  for (int i = 0; i < count; ++i) {
    // Machines of their own would connect side by side; of one process those that are connected would fall silent.
    while (i - connected >= kConnectingMax) io.run_one();
    bootstrap.node = first + i;
    agents.push_back(std::make_unique<LinkAgent>(io, bootstrap, [&] { ++connected; }));
  }
  io.run();
  _exit(0);
}

int run_links(const Options& options) {
  boost::asio::io_context io{1};
  const auto credentials = *agent::make_credentials();
  int joined = 0;
  double ready = 0, head_ms = 0;
  const auto begin = Clock::now();
  launcher::HeadTree::Events events;
  events.may_join = [](int, const agent::Message&) { return Status{}; };
  events.on_joined = [&](int, const agent::Message&) {
    if (++joined < options.nodes || ready > 0) return;
    ready = seconds_since(begin);
    head_ms = processor_ms(getpid());
  };
  events.on_message = [](int, const agent::Message&) {};
  events.on_lost = [&](int node, const std::string& why) {
    --joined;
    std::fprintf(stderr, "lost %d: %s\n", node, why.c_str());
  };
  events.on_control = [](const agent::Message&, const auto&) {};
  events.start_body = [](int, uint32_t) { return json::object(); };
  events.on_note = [](const std::string& text) { std::fprintf(stderr, "%s\n", text.c_str()); };
  auto tree = launcher::HeadTree::open(io, {"127.0.0.1", options.nodes, options.fan_out}, credentials, events);
  if (!tree) return 1;
  int gate[2];
  if (pipe(gate) != 0) return 1;
  std::vector<pid_t> children;
  for (int first = 0; first < options.nodes; first += options.per_process) {
    const pid_t child = fork();
    if (child == 0) {
      close(gate[1]);
      const agent::Bootstrap bootstrap{
          .head_address = "127.0.0.1", .head_port = (*tree)->port(), .credentials = credentials, .run_folder = "/"};
      run_link_agents(bootstrap, first, std::min(options.per_process, options.nodes - first), gate[0]);
    }
    children.push_back(child);
  }
  for (const int end : gate) close(end);
  const double limit = options.limit_seconds > 0 ? options.limit_seconds : 300;
  while (ready == 0 && seconds_since(begin) < limit) io.run_one_for(std::chrono::milliseconds(100));
  const agent::Traffic at_join = (*tree)->traffic();
  io.run_for(std::chrono::seconds(5));
  agent::Traffic steady = (*tree)->traffic();
  const Memory memory = mean_memory(children);
  std::printf(
      "| agents | all joined | head: processor time | connections | messages (MB) to join | messages/s (kB/s) after "
      "| peak MiB | agent, MiB |\n|---|---|---|---|---|---|---|---|\n"
      "| %d | %.2f s | %.2f s | %d | %llu (%.1f) | %.0f (%.1f) | %.0f | %.2f |\n",
      options.nodes, ready, head_ms / 1e3, (*tree)->connections(),
      static_cast<unsigned long long>(at_join.received_messages + at_join.sent_messages),
      static_cast<double>(at_join.received_bytes + at_join.sent_bytes) / 1e6,
      static_cast<double>(steady.received_messages - at_join.received_messages) / 5,
      static_cast<double>(steady.received_bytes - at_join.received_bytes) / 5e3,
      mebibytes("/proc/self/status", "VmHWM"), memory.proportional / std::min(options.per_process, options.nodes));
  for (const pid_t child : children) kill(child, SIGKILL);
  while (wait(nullptr) > 0) {
  }
  // A heartbeat a second and connection, however many nodes are below it; one more for the second that was cut.
  const bool constant = (*tree)->connections() <= options.fan_out &&
                        steady.received_messages - at_join.received_messages <= 6U * options.fan_out;
  if (!constant) std::fprintf(stderr, "the head has more to do than its %d connections should cost\n", options.fan_out);
  return constant && joined == options.nodes ? verdict(options, ready) : 1;
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
    else if (word == "--agent")
      options.agent_program = std::filesystem::absolute(argv[++i]).string();
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
               "usage: mds_bench_agents processes|links N [--fan-out K] [--per-process P] [--limit-seconds S] "
               "[--agent FILE]\n");
  return 2;
}
