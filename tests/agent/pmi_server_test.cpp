// PMI-1 as an MPI library speaks it, from the rank's end of the socket.
#include "agent/pmi_server.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>

#include "tests/catch.hpp"

namespace mds::agent {
namespace {

/// One node of two, with two ranks, and what it says.
struct Node {
  explicit Node(int node)
      : server(io.get_executor(), {"job", 4, 2, node, 2},
               {[this](uint64_t, std::string value) { barriers.push_back(value); },
                [this](const std::string& text) { notes.push_back(text); },
                [this](int rank, int code) { aborts.emplace_back(rank, code); }}) {
    for (int i = 0; i < 2; ++i) ranks.push_back(std::move(*server.connect(node * 2 + i)));
  }

  /// The answer to `line`; "" where none comes.
  std::string ask(int local, const std::string& line) {
    const int fd = ranks[local].get();
    REQUIRE(send(fd, line.data(), line.size(), 0) == static_cast<ssize_t>(line.size()));
    return answer(local);
  }
  std::string answer(int local) {
    io.restart();
    io.poll();
    char text[4096];
    const ssize_t n = recv(ranks[local].get(), text, sizeof text, MSG_DONTWAIT);
    return n > 0 ? std::string(text, static_cast<size_t>(n)) : "";
  }

  boost::asio::io_context io;
  std::vector<std::string> barriers, notes;
  std::vector<std::pair<int, int>> aborts;
  std::vector<UniqueFd> ranks;
  PmiServer server;
};

}  // namespace

TEST_CASE("PMI: what a rank puts is seen by all after a barrier of all nodes") {
  Node a(0), b(1);
  CHECK(a.ask(0, "cmd=init pmi_version=1 pmi_subversion=1\n") ==
        "cmd=response_to_init pmi_version=1 pmi_subversion=1 rc=0\n");
  CHECK(a.ask(0, "cmd=get_universe_size\n") == "cmd=universe_size rc=0 size=4\n");
  CHECK(a.ask(1, "cmd=get kvsname=mds key=PMI_process_mapping\n") ==
        "cmd=get_result rc=0 msg=success value=(vector,(0,2,2))\n");
  CHECK(a.ask(0, "cmd=put kvsname=mds key=card-0 value=tcp=1.2.3.4$x\n") == "cmd=put_result rc=0 msg=success\n");
  CHECK(b.ask(1, "cmd=get kvsname=mds key=card-0\n") == "cmd=get_result rc=-1 msg=key_not_found value=unknown\n");

  CHECK(a.ask(0, "cmd=barrier_in\n") == "");
  CHECK(a.barriers.empty());  // its neighbour is not there yet
  CHECK(a.ask(1, "cmd=barrier_in\n") == "");
  CHECK(b.ask(0, "cmd=barrier_in\n") == "");
  CHECK(b.ask(1, "cmd=barrier_in\n") == "");
  REQUIRE(a.barriers.size() == 1);
  REQUIRE(b.barriers.size() == 1);
  const std::vector<std::string> values{a.barriers[0], b.barriers[0]};
  CHECK(a.server.on_barrier(values));
  CHECK(b.server.on_barrier(values));
  CHECK(a.answer(0) == "cmd=barrier_out rc=0\n");
  CHECK(b.answer(1) == "cmd=barrier_out rc=0\n");
  CHECK(b.ask(1, "cmd=get kvsname=mds key=card-0\n") == "cmd=get_result rc=0 msg=success value=tcp=1.2.3.4$x\n");
  CHECK(b.ask(1, "cmd=finalize\n") == "cmd=finalize_ack rc=0\n");
  CHECK(a.notes.empty());
}

TEST_CASE("PMI: a request in two pieces is one, and two in one piece are two") {
  Node a(0);
  CHECK(a.ask(0, "cmd=get_app") == "");
  CHECK(a.ask(0, "num\ncmd=get_appnum\n") == "cmd=appnum rc=0 appnum=0\ncmd=appnum rc=0 appnum=0\n");
}

TEST_CASE("PMI: who speaks something else is cut off, and only that one") {
  const std::string words = GENERATE(std::string("hello\n"), std::string("cmd=put kvsname=mds key= value=1\n"),
                                     "cmd=put key=a value=" + std::string(2000, 'x') + "\n",
                                     std::string("mcmd=spawn\nnprocs=2\n"), std::string(3, '\0') + "\n");
  Node a(0);
  CHECK(a.ask(0, words) == "");
  CHECK(a.notes.size() == 1);
  char byte;
  CHECK(recv(a.ranks[0].get(), &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(a.ask(1, "cmd=get_appnum\n") == "cmd=appnum rc=0 appnum=0\n");
}

TEST_CASE("PMI: who aborts waits to be killed; a code is 1 to 255, as a shell sees it") {
  Node a(1);
  CHECK(a.ask(0, "cmd=abort exitcode=7\n") == "");
  CHECK(a.ask(1, "cmd=abort exitcode=339332623\n") == "");
  CHECK(a.ask(1, "cmd=abort exitcode=256\ncmd=abort exitcode=-1\ncmd=abort\n") == "");
  CHECK(a.aborts == std::vector<std::pair<int, int>>{{2, 7}, {3, 15}, {3, 1}, {3, 255}, {3, 1}});
  CHECK(a.notes.empty());
}

TEST_CASE("PMI: a node's news that are none") {
  Node a(0);
  CHECK_FALSE(a.server.on_barrier({"\xff\x00 no CBOR"}));
  CHECK_FALSE(a.server.on_barrier({""}));
}

}  // namespace mds::agent
