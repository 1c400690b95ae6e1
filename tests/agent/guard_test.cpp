// No orphan after any end: of the agent, of its guard, of the head, of the connection.
#include <signal.h>

#include "tests/agent/test_head.hpp"
#include "tests/catch.hpp"

using namespace mds::agent;

namespace {

/// A rank, a child of it, one that called setsid, and one whose parent is gone; all ignore what can be ignored.
struct Family {
  explicit Family(TestHead& head) {
    head.start_ranks(0, {shell_rank(0,
                                    "trap '' TERM HUP INT\n"
                                    "sleep 1000 & echo child $!\n"
                                    "setsid sh -c 'echo leader $$; exec sleep 1000' &\n"
                                    "(setsid sh -c 'echo daemon $$; exec sleep 1000' &)\n"
                                    "echo rank $$; while :; do sleep 0.01; done")});
    for (const char* name : {"child ", "leader ", "daemon ", "rank "}) {
      pids.push_back(std::stoi(head.await_line(0, name)));
    }
  }
  void must_end() const {
    for (const pid_t pid : pids) {
      CHECK(await_end_of(pid));
      CHECK_FALSE(is_alive(pid));
    }
  }
  std::vector<pid_t> pids;
};

}  // namespace

TEST_CASE("SIGKILL to the agent: its guard ends the family", "[guard]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  const Family family(head);
  REQUIRE(kill(agent.agent, SIGKILL) == 0);
  CHECK(head.await_exit(agent) == 128 + SIGKILL);
  for (const pid_t pid : family.pids) CHECK_FALSE(is_alive(pid));  // before the guard leaves
}

TEST_CASE("SIGKILL to the guard: the agent ends the family", "[guard]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  const Family family(head);
  REQUIRE(kill(agent.guard, SIGKILL) == 0);
  family.must_end();
  CHECK(await_end_of(agent.agent));
  CHECK(head.await_exit(agent) == 128 + SIGKILL);
}

TEST_CASE("a lost head ends the family and the agent", "[guard]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  const Family family(head);
  head.listener->close();
  agent.channel->abort();
  CHECK(head.await_exit(agent) == 1);
  for (const pid_t pid : family.pids) CHECK_FALSE(is_alive(pid));
}

TEST_CASE("goodbye ends what is left", "[guard]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  const Family family(head);
  head.send(0, MessageType::goodbye);
  CHECK(head.await_exit(agent) == 0);
  for (const pid_t pid : family.pids) CHECK_FALSE(is_alive(pid));
}

TEST_CASE("SIGTERM to the guard or the agent stops the ranks; SIGINT and SIGHUP do not", "[guard]") {
  TestHead head;
  auto& agent = head.start_agent(0);
  head.start_ranks(0, {shell_rank(0, "trap 'echo polite; exit 9' TERM; echo ready; while :; do sleep 0.01; done")});
  head.await_line(0, "ready");
  for (const pid_t pid : {agent.guard, agent.agent}) {
    for (const int ignored : {SIGINT, SIGHUP}) REQUIRE(kill(pid, ignored) == 0);
  }
  SECTION("guard") { REQUIRE(kill(agent.guard, SIGTERM) == 0); }
  SECTION("agent") { REQUIRE(kill(agent.agent, SIGTERM) == 0); }
  CHECK(head.await(MessageType::rank_exited).body["exit_code"] == 9);
  CHECK(head.await_exit(agent) == 128 + SIGTERM);
}

TEST_CASE("an agent that cannot begin says why by its exit code", "[guard]") {
  TestHead head;
  const auto exit_of = [&](const std::string& line) {
    TestHead::Agent agent = TestHead::spawn(line);
    return head.await_exit(agent);
  };
  CHECK(exit_of("") == 2);
  CHECK(exit_of("{}\n") == 2);
  CHECK(exit_of("no JSON\n") == 2);
  CHECK(exit_of(std::string(100'000, 'x')) == 2);
  Bootstrap wrong_key = head.bootstrap(0);
  wrong_key.credentials.key = *JobKey::random();
  CHECK(exit_of(to_line(wrong_key)) == 4);
  Bootstrap nobody = head.bootstrap(0);
  head.listener->close();
  CHECK(exit_of(to_line(nobody)) == 4);
}
