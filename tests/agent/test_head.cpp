// A head for the agent's tests.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <fstream>
#include <sstream>

#include "agent/rank_process.hpp"
#include "tests/agent/test_head.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;
using namespace std::chrono_literals;

namespace {

constexpr auto kTimeout = 20s;

}  // namespace

TestHead::TestHead() {
  credentials = *make_credentials();
  auto opened = Listener::open(io, {}, credentials, [this](std::shared_ptr<Channel> channel) { greet(channel); });
  REQUIRE(opened.ok());
  listener = *std::move(opened);
}

TestHead::~TestHead() {
  listener->close();  // else agents would come back
  for (const auto& agent : agents) {
    if (!agent) continue;
    if (agent->channel) agent->channel->abort();
    int status = 0;
    if (agent->guard > 0 && !await_end_of(agent->guard)) {
      kill(agent->guard, SIGKILL);
      FAIL_CHECK("an agent did not leave when its head was lost");
    }
    if (agent->guard > 0) waitpid(agent->guard, &status, 0);
  }
  for (const auto& stranger : strangers_) stranger->abort();
}

Bootstrap TestHead::bootstrap(int node) const {
  return {"127.0.0.1", listener->port(), credentials, node, folder.path(), false};
}

TestHead::Agent TestHead::spawn(const std::string& bootstrap_line) {
  int fds[2];
  REQUIRE(pipe2(fds, O_CLOEXEC) == 0);
  UniqueFd input(fds[0]), line(fds[1]);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, input.get(), STDIN_FILENO);
  std::string program = MDS_TEST_AGENT;
  char* argv[] = {program.data(), nullptr};
  Agent agent;
  REQUIRE(posix_spawn(&agent.guard, program.c_str(), &actions, nullptr, argv, environ) == 0);
  posix_spawn_file_actions_destroy(&actions);
  agent.guard_pidfd = open_pidfd(agent.guard);
  REQUIRE(write(line.get(), bootstrap_line.data(), bootstrap_line.size()) ==
          static_cast<ssize_t>(bootstrap_line.size()));
  return agent;
}

TestHead::Agent& TestHead::start_agent(int node, bool discover) {
  Bootstrap strap = bootstrap(node);
  strap.discover = discover;
  if (agents.size() <= static_cast<size_t>(node)) agents.resize(node + 1);
  agents[node] = std::make_unique<Agent>(spawn(to_line(strap)));
  run_until([&] { return agents[node]->channel != nullptr; }, "hello");
  return *agents[node];
}

void TestHead::greet(const std::shared_ptr<Channel>& channel) {
  strangers_.push_back(channel);
  Channel* raw = channel.get();
  channel->start([this, raw](Message message) { on_message(raw->shared_from_this(), std::move(message)); },
                 [this, raw](mds::Status) {
                   for (const auto& agent : agents) {
                     if (agent && agent->channel.get() == raw) agent->closed = true;
                   }
                 });
}

void TestHead::on_message(const std::shared_ptr<Channel>& channel, Message message) {
  if (message.type == MessageType::hello) {
    Agent& agent = *agents.at(message.body["node"]);
    agent.channel = channel;
    agent.agent = message.body["pid"];
    std::erase(strangers_, channel);
  }
  for (size_t node = 0; node < agents.size(); ++node) {
    if (agents[node] && agents[node]->channel == channel) {
      received.push_back({static_cast<int>(node), std::move(message)});
      return;
    }
  }
}

void TestHead::start_ranks(int node, const std::vector<RankSpec>& ranks, uint32_t attempt) {
  NodeStart start;
  start.attempt = attempt;
  start.ranks = ranks;
  start.heartbeat_ms = 50;
  send(node, MessageType::start, to_json(start), attempt);
}

void TestHead::send(int node, MessageType type, const nlohmann::json& body, uint32_t attempt) {
  REQUIRE(agents.at(node)->channel->send(type, attempt, body).ok());
}

bool TestHead::has(MessageType type, const Condition& condition) const {
  return std::any_of(received.begin(), received.end(), [&](const Received& one) {
    return one.message.type == type && (!condition || condition(one.message));
  });
}

Message TestHead::await(MessageType type, const Condition& condition) {
  run_until([&] { return has(type, condition); }, to_string(type));
  const auto at = std::find_if(received.begin(), received.end(), [&](const Received& one) {
    return one.message.type == type && (!condition || condition(one.message));
  });
  Message message = std::move(at->message);
  received.erase(at);
  return message;
}

std::string TestHead::await_line(int rank, const std::string& prefix) {
  std::string found;
  const auto has_line = [&](const Message& message) {
    if (message.body["rank"] != rank) return false;
    for (const std::string line : message.body["lines"]) {
      if (line.rfind(prefix, 0) != 0) continue;
      found = line.substr(prefix.size());
      return true;
    }
    return false;
  };
  run_until([&] { return has(MessageType::output, has_line); }, "line '" + prefix + "'");
  return found;
}

int TestHead::await_exit(Agent& agent) {
  int status = 0;
  run_until([&] { return waitpid(agent.guard, &status, WNOHANG) == agent.guard; }, "the agent's end");
  agent.guard = -1;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

void TestHead::run_until(const std::function<bool()>& done, const std::string& what) {
  const auto deadline = std::chrono::steady_clock::now() + kTimeout;
  while (!done()) {
    if (std::chrono::steady_clock::now() > deadline) {
      std::ostringstream seen;
      for (const Received& one : received) {
        const std::string type = to_string(one.message.type);
        if (type != "heartbeat") seen << "\n  " << one.node << " " << type << " " << one.message.body.dump();
      }
      std::ifstream log(folder.path() + "/logs/node-00000.log");
      seen << "\nnode 0's log:\n" << log.rdbuf();
      FAIL("no " << what << " within 20 s; not taken:" << seen.str());
    }
    io.restart();
    io.run_one_for(10ms);
  }
}

RankSpec shell_rank(int rank, const std::string& script, std::map<std::string, std::string> env) {
  env.emplace("PATH", "/usr/local/bin:/usr/bin:/bin");
  RankSpec spec;
  spec.rank = rank;
  spec.local_rank = rank;
  spec.argv = {"sh", "-c", script};
  spec.env = std::move(env);
  return spec;
}

bool is_alive(pid_t pid) {
  // A zombie that waits for its parent is dead.
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(stat, line)) return false;
  const char state = line[line.rfind(')') + 2];
  return state != 'Z' && state != 'X';
}

bool await_end_of(pid_t pid) {
  const UniqueFd pidfd = open_pidfd(pid);
  pollfd polled{pidfd.get(), POLLIN, 0};
  return !pidfd || poll(&polled, 1, 20'000) == 1;
}
