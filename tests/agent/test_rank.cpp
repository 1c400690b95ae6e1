// A rank on the project's own library, for the agent's tests: test_rank ROLE, with INDEX and COUNT in its environment.
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include <nlohmann/json.hpp>

#include "agent/rank_control.hpp"

using namespace mds::agent;

namespace {

int fail(const mds::Error& error) {
  std::fprintf(stderr, "%s\n", error.message.c_str());
  return 1;
}

int exchange(RankControl& control, int index, int count) {
  for (int round = 0; round < 20; ++round) {
    const auto value = [&](int i) { return std::string(static_cast<size_t>(100 * i + round), static_cast<char>(i)); };
    const auto got = control.exchange("round " + std::to_string(round), index, count, value(index));
    if (!got) return fail(got.error());
    for (int i = 0; i < count; ++i) {
      if ((*got)[i] != value(i)) return 3;
    }
  }
  return 0;
}

// Says that it is there, then waits for a request; leaves with 40 + what it was asked for.
int obey(RankControl& control) {
  if (const auto said = control.progress({{"step", 1}, {"loss", 0.1}}); !said) return fail(said.error());
  control.beat(17);
  while (true) {
    const RankRequests requests = control.poll();
    if (requests.stop) return 42;
    if (requests.checkpoint_now) (void)control.progress({{"checkpoint", "asked"}});
    pollfd polled{std::atoi(std::getenv("MDS_CONTROL_FD")), POLLIN, 0};
    poll(&polled, 1, -1);
  }
}

// Writes what is no frame until it is cut off.
int babble() {
  const std::string zeros(100'000, '\0');
  while (send(std::atoi(std::getenv("MDS_CONTROL_FD")), zeros.data(), zeros.size(), MSG_NOSIGNAL) > 0) {
  }
  std::puts("still here");
  return 4;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string role = argc > 1 ? argv[1] : "";
  const auto number = [](const char* name) { return std::getenv(name) ? std::atoi(std::getenv(name)) : 0; };
  auto control = RankControl::from_environment();
  if (!control) return fail(control.error());
  if (role == "exchange") return exchange(**control, number("INDEX"), number("COUNT"));
  if (role == "obey") return obey(**control);
  if (role == "babble") return babble();
  if (role == "last-words") {
    for (int step = 0; step < 100; ++step) (void)(*control)->progress({{"step", step}});
    return 7;
  }
  return 2;
}
