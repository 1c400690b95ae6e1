#include <signal.h>
#include <sys/wait.h>

#include <fstream>
#include <sstream>

#include "tests/agent/test_head.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

namespace {

double ms_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
}

TestHead::Condition of_rank(int rank) {
  return [rank](const Message& message) { return message.body.value("rank", -1) == rank; };
}

RankSpec test_rank(int rank, const std::string& role, std::map<std::string, std::string> env = {}) {
  RankSpec spec = shell_rank(rank, "", std::move(env));
  spec.argv = {MDS_TEST_RANK, role};
  return spec;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A process of its own session with a parent that is gone: `echo`es "daemon PID" once it is.
constexpr char kDaemon[] = "(setsid sh -c 'echo daemon $$; exec sleep 1000' &)\n";

}  // namespace

TEST_CASE("an agent says hello within milliseconds, and leaves at goodbye", "[agent]") {
  TestHead head;
  const auto begin = Clock::now();
  auto& agent = head.start_agent(0);
  WARN("mdsagent from start to hello: " << ms_since(begin) << " ms");
  const Message hello = head.await(MessageType::hello);
  CHECK(hello.body["protocol"] == kProtocolVersion);
  CHECK_FALSE(hello.body["host"].get<std::string>().empty());
  CHECK(hello.body["pid"] != agent.guard);
  CHECK_FALSE(hello.body.contains("topology"));
  head.send(0, MessageType::goodbye);
  CHECK(head.await_exit(agent) == 0);
  CHECK(content_of(head.folder.path() + "/logs/node-00000.log").find("goodbye") != std::string::npos);
}

TEST_CASE("an agent that is asked to brings its topology", "[agent]") {
  TestHead head;
  head.start_agent(0, /*discover=*/true);
  const Message hello = head.await(MessageType::hello);
  REQUIRE(hello.body.contains("topology"));
  CHECK_FALSE(hello.body["topology"]["cores"].empty());
}

TEST_CASE("ranks run, speak and end; their ends are told with their last lines", "[agent]") {
  TestHead head;
  head.start_agent(3);
  RankSpec good = shell_rank(0, "echo one; echo two >&2");
  good.log_path = head.folder.path() + "/rank-0.log";
  RankSpec bad = shell_rank(1, "for i in $(seq 100); do echo line $i; done; printf 'no end'; exit 5");
  RankSpec absent = shell_rank(2, "");
  absent.argv = {"no-such-program"};
  RankSpec unable = shell_rank(5, "");
  unable.argv = {"/etc/passwd"};
  head.start_ranks(3, {good, bad, absent, shell_rank(4, "kill -9 $$"), unable});

  CHECK(head.await(MessageType::start_failed, of_rank(2)).body["message"].get<std::string>().find("no-such-program") !=
        std::string::npos);
  CHECK(head.await(MessageType::start_failed, of_rank(5)).body["message"].get<std::string>().find("executing") == 0);
  const Message one = head.await(MessageType::rank_exited, of_rank(0));
  CHECK(one.body["exit_code"] == 0);
  CHECK_FALSE(one.body.contains("signal"));
  CHECK(one.attempt == 1);
  CHECK(one.body["pid"] == head.await(MessageType::rank_started, of_rank(0)).body["pid"]);
  CHECK(content_of(good.log_path).size() == 8);
  const Message two = head.await(MessageType::rank_exited, of_rank(1));
  CHECK(two.body["exit_code"] == 5);
  REQUIRE(two.body["tail"].size() == 20);
  CHECK(two.body["tail"][18] == "line 100");
  CHECK(two.body["tail"][19] == "no end");
  CHECK(head.await(MessageType::rank_exited, of_rank(4)).body["signal"] == SIGKILL);
  CHECK_FALSE(head.has(MessageType::rank_exited, of_rank(2)));
  CHECK_FALSE(head.has(MessageType::rank_exited, of_rank(5)));
  std::string all;
  for (const auto& received : head.received) {
    if (received.message.type != MessageType::output || received.message.body["rank"] != 1) continue;
    for (const std::string line : received.message.body["lines"]) all += line + "\n";
  }
  CHECK(all.substr(0, 14) == "line 1\nline 2\n");
  CHECK(all.substr(all.size() - 16) == "line 100\nno end\n");
}

TEST_CASE("a death is known at once, even when a grandchild holds the pipes", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {shell_rank(0, "sleep 1000 & echo ready; wait"), shell_rank(1, "echo ready; exec sleep 1000")});
  double worst = 0;
  for (const int rank : {0, 1}) {
    head.await_line(rank, "ready");
    const pid_t pid = head.await(MessageType::rank_started, of_rank(rank)).body["pid"];
    const auto begin = Clock::now();
    REQUIRE(kill(pid, SIGKILL) == 0);
    const Message exited = head.await(MessageType::rank_exited, of_rank(rank));
    worst = std::max(worst, ms_since(begin));
    CHECK(exited.body["signal"] == SIGKILL);
    CHECK(exited.body["tail"].back() == "ready");
  }
  WARN("from SIGKILL to the head's knowledge: " << worst << " ms");
  CHECK(worst < 500);
}

TEST_CASE("a stop ends every process of the ranks, with grace for those that want it", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {shell_rank(0, "trap 'echo polite; exit 3' TERM; echo ready; while :; do sleep 0.01; done"),
                       shell_rank(1, "trap '' TERM; echo ready; while :; do sleep 0.01; done"),
                       shell_rank(2, std::string(kDaemon) + "echo ready; exec sleep 1000"),
                       shell_rank(3, std::string(kDaemon))});  // its rank is long gone
  for (const int rank : {0, 1, 2}) head.await_line(rank, "ready");
  const pid_t daemons[] = {std::stoi(head.await_line(2, "daemon ")), std::stoi(head.await_line(3, "daemon "))};
  CHECK(head.await(MessageType::rank_exited, of_rank(3)).body["exit_code"] == 0);
  const auto begin = Clock::now();
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 300}});
  CHECK(head.await(MessageType::rank_exited, of_rank(0)).body["exit_code"] == 3);
  CHECK(head.await(MessageType::rank_exited, of_rank(2)).body["signal"] == SIGTERM);
  CHECK(is_alive(daemons[0]));  // the grace is theirs, too
  CHECK(head.await(MessageType::rank_exited, of_rank(1)).body["signal"] == SIGKILL);
  CHECK(ms_since(begin) >= 295);
  head.await(MessageType::ranks_stopped);
  for (const pid_t pid : daemons) CHECK_FALSE(is_alive(pid));
  head.start_ranks(0, {shell_rank(0, "exit 0")}, 2);  // and the next attempt may come
  CHECK(head.await(MessageType::rank_exited, of_rank(0)).attempt == 2);
}

TEST_CASE("a second stop hurries; a stop with nothing to stop is answered as well", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 0}}, 1);
  CHECK(head.await(MessageType::ranks_stopped).attempt == 1);
  head.start_ranks(0, {shell_rank(0, "trap '' TERM; echo ready; while :; do sleep 0.01; done")}, 2);
  head.await_line(0, "ready");
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 600'000}}, 2);
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 10}}, 2);
  head.await(MessageType::ranks_stopped);
  CHECK_FALSE(head.has(MessageType::ranks_stopped));
}

TEST_CASE("what left the family is found by its mark", "[agent]") {
  TestHead head;
  head.start_agent(0);
  const std::map<std::string, std::string> mark = {{"MDS_RUN_ID", head.folder.path()}, {"GROUP_RANK", "0"}};
  // As if some service had started it: no descendant of the agent, but with a rank's environment.
  const pid_t stranger = fork();
  if (stranger == 0) {
    const std::string run_id = "MDS_RUN_ID=" + head.folder.path();
    execle("/bin/sleep", "sleep", "1000", nullptr,
           std::initializer_list<const char*>{run_id.c_str(), "GROUP_RANK=0", nullptr}.begin());
    _exit(1);
  }
  const pid_t other_node = fork();
  if (other_node == 0) {
    const std::string run_id = "MDS_RUN_ID=" + head.folder.path();
    execle("/bin/sleep", "sleep", "1000", nullptr,
           std::initializer_list<const char*>{run_id.c_str(), "GROUP_RANK=1", nullptr}.begin());
    _exit(1);
  }
  head.start_ranks(0, {shell_rank(0, "exit 0", mark)});
  head.await(MessageType::rank_exited);
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 0}});
  head.await(MessageType::ranks_stopped);
  int status = 0;
  CHECK(waitpid(stranger, &status, 0) == stranger);
  CHECK(WIFSIGNALED(status));
  CHECK(is_alive(other_node));
  kill(other_node, SIGKILL);
  waitpid(other_node, &status, 0);
}

TEST_CASE("two ranks exchange values through agent and head", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_agent(1);
  for (const int node : {0, 1}) {
    const std::map<std::string, std::string> env = {{"INDEX", std::to_string(node)}, {"COUNT", "2"}};
    head.start_ranks(node, {test_rank(10 + node, "exchange", env)});
  }
  for (int round = 0; round < 20; ++round) {
    json values = json::array({nullptr, nullptr}), ranks = json::array();
    std::string name;
    for (int i = 0; i < 2; ++i) {
      const Message put = head.await(MessageType::exchange_put);
      name = put.body["name"];
      CHECK(name == "round " + std::to_string(round));
      CHECK(put.body["count"] == 2);
      values[put.body["index"].get<int>()] = put.body["value"];
      ranks.push_back(put.body["rank"]);
    }
    for (const int node : {0, 1}) {
      head.send(node, MessageType::exchange_result, {{"name", name}, {"ranks", ranks}, {"values", values}});
    }
  }
  CHECK(head.await(MessageType::rank_exited, of_rank(10)).body["exit_code"] == 0);
  CHECK(head.await(MessageType::rank_exited, of_rank(11)).body["exit_code"] == 0);
}

TEST_CASE("progress, heartbeat, checkpoint request and a stop by request", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {test_rank(0, "obey"), shell_rank(1, "echo ready; exec sleep 1000")});
  const Message progress = head.await(MessageType::progress);
  CHECK(progress.body == json{{"rank", 0}, {"step", 1}, {"loss", 0.1}});
  const Message beat = head.await(MessageType::heartbeat, [](const Message& message) {
    const json& ranks = message.body["ranks"];
    return ranks.size() == 2 && ranks[0]["beats"] == 1;
  });
  CHECK(beat.body["ranks"][0]["step"] == 17);
  CHECK(beat.body["ranks"][1]["beats"] == 0);
  CHECK_FALSE(beat.body["ranks"][1].contains("step"));
  head.await(MessageType::heartbeat, [](const Message& message) {
    return message.body["ranks"].size() == 2 && message.body["ranks"][0]["beat_age_ms"] >= 100;
  });
  head.send(0, MessageType::checkpoint_now);
  CHECK(head.await(MessageType::progress).body["checkpoint"] == "asked");
  head.await_line(1, "ready");
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 600'000}, {"drain_ms", 600'000}});
  CHECK(head.await(MessageType::rank_exited, of_rank(0)).body["exit_code"] == 42);
  CHECK(head.await(MessageType::rank_exited, of_rank(1)).body["signal"] == SIGTERM);
  head.await(MessageType::ranks_stopped);
}

TEST_CASE("a rank's last words come before its end", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {test_rank(0, "last-words")});
  CHECK(head.await(MessageType::rank_exited).body["exit_code"] == 7);
  for (int step = 0; step < 100; ++step) {
    REQUIRE(head.has(MessageType::progress));
    CHECK(head.await(MessageType::progress).body["step"] == step);
  }
}

TEST_CASE("a rank that breaks the control protocol is cut off from it, and runs on", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {test_rank(0, "babble")});
  head.await_line(0, "still here");
  CHECK(head.await(MessageType::rank_exited).body["exit_code"] == 4);
}

TEST_CASE("kill_rank sends the signal; stale messages change nothing", "[agent]") {
  TestHead head;
  head.start_agent(0);
  head.start_ranks(0, {shell_rank(0, "echo ready; exec sleep 1000")}, 5);
  head.await_line(0, "ready");
  head.send(0, MessageType::stop_ranks, {{"grace_ms", 0}}, 4);
  head.send(0, MessageType::kill_rank, {{"rank", 0}, {"signal", SIGKILL}}, 4);
  head.send(0, MessageType::kill_rank, {{"rank", 9}, {"signal", SIGKILL}}, 5);
  head.send(0, MessageType::kill_rank, {{"rank", 0}, {"signal", SIGUSR1}}, 5);
  CHECK(head.await(MessageType::rank_exited).body["signal"] == SIGUSR1);
  CHECK_FALSE(head.has(MessageType::ranks_stopped));
  CHECK(content_of(head.folder.path() + "/logs/node-00000.log").find("stop_ranks of attempt 4 dropped") !=
        std::string::npos);
}

TEST_CASE("a head that breaks the protocol loses its agent", "[agent]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  head.start_ranks(0, {shell_rank(0, "echo pid $$; exec sleep 1000")});
  const pid_t pid = std::stoi(head.await_line(0, "pid "));
  SECTION("by a start while ranks run") { head.start_ranks(0, {shell_rank(1, "exit 0")}, 2); }
  SECTION("by an agent's message") { head.send(0, MessageType::hello); }
  SECTION("by a malformed start") { head.send(0, MessageType::start, {{"attempt", 2}}, 2); }
  SECTION("by a malformed stop") { head.send(0, MessageType::stop_ranks, {{"grace_ms", "soon"}}); }
  CHECK(head.await_exit(agent) == 1);
  CHECK_FALSE(is_alive(pid));
}

TEST_CASE("a flood of output is cut before it costs memory, and delays no death", "[agent]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  RankSpec spec = shell_rank(0, "yes 0123456789012345678901234567890123456789 | head -c 60000000; echo; echo last");
  spec.log_path = head.folder.path() + "/rank-0.log";
  head.start_ranks(0, {spec});
  // The head does not read while the rank writes.
  const pid_t pid = head.await(MessageType::rank_started).body["pid"];
  REQUIRE(await_end_of(pid));
  const Message exited = head.await(MessageType::rank_exited);
  CHECK(exited.body["tail"].back() == "last");
  uint64_t lines = 0, dropped = 0;
  const auto count = [&] {
    for (const auto& one : head.received) {
      if (one.message.type != MessageType::output) continue;
      lines += one.message.body["lines"].size();
      dropped += one.message.body.value("dropped", 0);
    }
    head.received.clear();
  };
  count();
  head.send(0, MessageType::goodbye);
  CHECK(head.await_exit(agent) == 0);
  count();
  const std::string log = content_of(spec.log_path);
  CHECK(lines + dropped == static_cast<uint64_t>(std::count(log.begin(), log.end(), '\n')));
  CHECK(log.size() > 60'000'000);
  CHECK(dropped > 0);
}
